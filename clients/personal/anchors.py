"""Anchor sets: speech that must not wake the device, as windows, by which an adapter's threshold is set.

They are public, come as a signed artefact, and hold no audio. Two kinds: human speech without the wake word,
with its length, and near misses. A half of each is learned from; the threshold is set on the other half,
which the fit has not seen: on the windows that it learned from, it would come out far too low.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clients.models import anchors as published
from clients.models.anchors import LEAST_CLIPS, AnchorSet
from clients.personal.adapter import Step, Windows

MARGIN = 0.75
"""Added to the threshold, a logit: what the unseen half alone leaves open. Chosen on development voices
(`scripts/bench/personal.py --choose`), with λ, so that no more near misses of others and no more human speech
wake than with the base. A smaller λ misses less, and wakes more for the phrases that wrong labels consist
of."""

MOST_WOKEN: Final = 0.5
"""Share of the clips of a kind that may wake the base: each that does lets one more wake the adapter, so a
set of such clips alone would set no limit at all."""


@dataclass(frozen=True)
class Anchors:
    """Clips of human speech (`seconds` of it in all) and of near misses.

    Attributes:
        wake_word, base: what they must not wake, and the hex SHA-256 of the head whose logits they have.
    """

    human: tuple[Windows, ...]
    near: tuple[Windows, ...]
    seconds: float
    wake_word: str = ""
    base: str = ""

    def halves(self) -> tuple["Anchors", "Anchors"]:
        """Return the half to learn from and the one to set the threshold on: every other clip."""
        first, second = (
            replace(self, human=self.human[at::2], near=self.near[at::2], seconds=self.seconds / 2)
            for at in (0, 1)
        )
        return first, second

    def adapted(self, step: Step, base: str) -> "Anchors":
        """Return the set for a model that adds a step to the base and has the features of it.

        `base`: hex SHA-256 of that model.
        """
        human, near = (
            tuple(Windows(step.logits(each), each.features) for each in clips)
            for clips in (self.human, self.near)
        )
        return replace(self, human=human, near=near, base=base)

    def sound(self, base_threshold: float) -> bool:
        """Return whether a threshold may be set on this: enough clips, most of which leave the base
        asleep.
        """
        kinds = (self.human, self.near)
        return all(
            len(clips) >= LEAST_CLIPS and _woken(clips, base_threshold) <= MOST_WOKEN * len(clips)
            for clips in kinds
        )


def threshold(step: Step, unseen: Anchors, base_threshold: float) -> float:
    """Return the logit from which an adapted head wakes no more often on the unseen half than the base does.

    It is the larger of two, for human speech and for near misses, and `MARGIN` more; and never under the
    base's, so no anchor set makes a device wake more easily at the same logit.
    """
    levels = [level(step, clips, base_threshold) for clips in (unseen.human, unseen.near)]
    return max(base_threshold, max(levels) + MARGIN)


def _woken(clips: tuple[Windows, ...], base_threshold: float) -> int:
    return sum(bool((clip.base > base_threshold).any()) for clip in clips)


def level(step: Step, clips: tuple[Windows, ...], base_threshold: float) -> float:
    """Return the lowest threshold at which no more of the clips wake than with the base at its own."""
    allowed = _woken(clips, base_threshold)
    peaks = np.sort([step.logits(clip).max() for clip in clips if clip.base.size])[::-1]
    return float(peaks[allowed]) if allowed < peaks.size else base_threshold


def encode(anchors: Anchors) -> bytes:
    """Return the one file of a set (`clients.models.anchors`). Raises BadInput for one that cannot be one."""
    human, near = (
        tuple(np.column_stack([each.base, each.features]) for each in clips)
        for clips in (anchors.human, anchors.near)
    )
    return published.encode(
        AnchorSet(human, near, round(1000 * anchors.seconds), anchors.wake_word, anchors.base)
    )


def decode(data: bytes) -> Anchors:
    """Return the set in the bytes that `encode` wrote. Raises BadInput for anything else."""
    found = published.decode(data)
    human, near = (
        tuple(Windows(each[:, 0], each[:, 1:]) for each in clips) for clips in (found.human, found.near)
    )
    return Anchors(human, near, found.milliseconds / 1000, found.wake_word, found.base)
