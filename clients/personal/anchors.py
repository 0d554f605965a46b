"""Anchor sets: speech that must not wake the device, as windows, by which an adapter's threshold is set.

They are public, come as a signed artefact, and hold no audio. Two kinds: human speech without the wake word,
with its length, and near misses. A half of each is learned from; the threshold is set on the other half,
which the fit has not seen: on the windows that it learned from, it would come out far too low.

A published set is one file:

    unheard-anchors-1\\n
    length of the description, u32
    the description: canonical JSON {base, human, milliseconds, near, wake_word}; `human` and `near` are the
        numbers of windows of each clip, `base` is the SHA-256 of the head that they are of
    windows, clip by clip, human speech first: the base's logit and 96 features, float16 each

All numbers are little-endian.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clients.models.head import EMBEDDING_SIZE
from clients.personal.adapter import Floats, Step, Windows
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.publication.artefact import MAX_SIZE, is_hash

MARGIN = 0.5
"""Added to the threshold, a logit: what the unseen half alone leaves open."""

_MAGIC: Final = b"unheard-anchors-1\n"
_ROW: Final = EMBEDDING_SIZE + 1


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


def encode(anchors: Anchors) -> bytes:
    """Return the one file of a set. Raises BadInput for one that cannot be published."""
    description = {
        "base": anchors.base,
        "human": [len(each.base) for each in anchors.human],
        "milliseconds": round(1000 * anchors.seconds),
        "near": [len(each.base) for each in anchors.near],
        "wake_word": anchors.wake_word,
    }
    text = canonical(description)
    rows = [np.column_stack([each.base, each.features]) for each in (*anchors.human, *anchors.near)]
    numbers = np.vstack([np.empty((0, _ROW)), *rows]).astype("<f2")
    data = _MAGIC + struct.pack("<I", len(text)) + text + numbers.tobytes()
    decode(data)
    return data


def decode(data: bytes) -> Anchors:
    """Return the set in the bytes that `encode` wrote: at least two clips of each kind. Raises BadInput."""
    try:
        start = len(_MAGIC) + 4
        (length,) = struct.unpack_from("<I", data, len(_MAGIC))
        text = data[start : start + length]
        said = json.loads(text)
        human, near, milliseconds = said["human"], said["near"], said["milliseconds"]
        whole = (
            data.startswith(_MAGIC) and canonical(said) == text and len(said) == 5 and len(data) <= MAX_SIZE
        )
        named = is_hash(said["base"]) and isinstance(said["wake_word"], str) and said["wake_word"] != ""
        if (
            not whole
            or not named
            or len(data) > MAX_SIZE
            or not all(map(_positive, (milliseconds, *human, *near)))
        ):
            raise ValueError
        rows = np.frombuffer(data, "<f2", offset=start + length).reshape(-1, _ROW).astype(np.float64)
        enough = min(len(human), len(near)) >= 2 and len(rows) == sum(human) + sum(near)
        if not enough or not np.isfinite(rows).all():
            raise ValueError
        clips = tuple(_clips(rows, [*human, *near]))
    except (ValueError, KeyError, TypeError, struct.error, OverflowError, RecursionError):
        raise BadInput("these bytes are no anchor set: they do not have its form") from None
    count = len(human)
    return Anchors(clips[:count], clips[count:], milliseconds / 1000, said["wake_word"], said["base"])


def _clips(rows: Floats, sizes: Sequence[int]) -> Iterator[Windows]:
    at = 0
    for size in sizes:
        yield Windows(rows[at : at + size, 0], rows[at : at + size, 1:])
        at += size


def _positive(value: object) -> bool:
    return type(value) is int and value > 0
