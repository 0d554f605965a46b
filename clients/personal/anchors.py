"""Anchor sets: speech that must not wake the device, as windows, by which an adapter's threshold is set.

They are public, come as a signed artefact, and hold no audio. Two kinds: human speech without the wake word,
with its length, and near misses. A half of each is learned from; the threshold is set on the other half,
which the fit has not seen: on the windows that it learned from, it would come out far too low.
"""

from dataclasses import dataclass

import numpy as np

from clients.personal.adapter import Step, Windows

MARGIN = 0.5
"""Added to the threshold, a logit: what the unseen half alone leaves open."""


@dataclass(frozen=True)
class Anchors:
    """Clips of human speech (`seconds` of it in all) and of near misses."""

    human: tuple[Windows, ...]
    near: tuple[Windows, ...]
    seconds: float

    def halves(self) -> tuple["Anchors", "Anchors"]:
        """Return the half to learn from and the one to set the threshold on: every other clip."""
        first, second = (Anchors(self.human[at::2], self.near[at::2], self.seconds / 2) for at in (0, 1))
        return first, second


def threshold(step: Step, unseen: Anchors, base_threshold: float) -> float:
    """Return the logit from which an adapted head wakes no more often on the unseen half than the base does.

    It is the larger of two, for human speech and for near misses, and `MARGIN` more.
    """
    return max(_level(step, clips, base_threshold) for clips in (unseen.human, unseen.near)) + MARGIN


def _level(step: Step, clips: tuple[Windows, ...], base_threshold: float) -> float:
    """Return the lowest threshold at which no more of the clips wake than with the base at its own."""
    allowed = sum(bool((clip.base > base_threshold).any()) for clip in clips)
    peaks = np.sort([step.logits(clip).max() for clip in clips if clip.base.size])[::-1]
    return float(peaks[allowed]) if allowed < peaks.size else base_threshold
