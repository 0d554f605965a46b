"""A published anchor set: speech that must not wake the device, as windows of a head, and no audio.

One file, read without running anything:

    unheard-anchors-1\\n
    length of the description, u32
    the description: canonical JSON {base, human, milliseconds, near, wake_word}; `human` and `near` are the
        numbers of windows of each clip, `base` is the SHA-256 of the head that they are of
    windows, clip by clip, human speech first: the base's logit and 96 features, float16 each

All numbers are little-endian. What a window's features are, and what a set is for:
`clients.personal.anchors`.
"""

import json
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.models.head import EMBEDDING_SIZE
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.publication.artefact import MAX_SIZE, is_hash

Rows = NDArray[np.float64]

LEAST_CLIPS: Final = 20
"""Clips of each kind at least: half of them set a threshold."""

LARGEST_LOGIT: Final = 100.0
LARGEST_FEATURE: Final = 10.0
"""No number of a window is further from 0. Those of speech are within 20 and 2."""

_MAGIC: Final = b"unheard-anchors-1\n"
_ROW: Final = EMBEDDING_SIZE + 1


@dataclass(frozen=True)
class AnchorSet:
    """What a published set holds.

    Attributes:
        human, near: the clips of human speech and of near misses: windows, (k, 97), the base's logit first.
        milliseconds: of the human speech, all together.
        wake_word: what they must not wake. base: hex SHA-256 of the head that they are windows of.
    """

    human: tuple[Rows, ...]
    near: tuple[Rows, ...]
    milliseconds: int
    wake_word: str
    base: str


def encode(anchors: AnchorSet) -> bytes:
    """Return the one file of a set. Raises BadInput for one that cannot be published."""
    description = {
        "base": anchors.base,
        "human": [len(each) for each in anchors.human],
        "milliseconds": anchors.milliseconds,
        "near": [len(each) for each in anchors.near],
        "wake_word": anchors.wake_word,
    }
    text = canonical(description)
    numbers = np.vstack([np.empty((0, _ROW)), *anchors.human, *anchors.near]).astype("<f2")
    data = _MAGIC + struct.pack("<I", len(text)) + text + numbers.tobytes()
    decode(data)
    return data


def decode(data: bytes) -> AnchorSet:
    """Return the set in the bytes that `encode` wrote. Raises BadInput for anything else."""
    try:
        start = len(_MAGIC) + 4
        (length,) = struct.unpack_from("<I", data, len(_MAGIC))
        text = data[start : start + length]
        said = json.loads(text)
        human, near, milliseconds = said["human"], said["near"], said["milliseconds"]
        whole = data.startswith(_MAGIC) and canonical(said) == text and len(said) == 5
        named = is_hash(said["base"]) and isinstance(said["wake_word"], str) and said["wake_word"] != ""
        counted = all(map(_positive, (milliseconds, *human, *near)))
        if not (whole and named and counted and len(data) <= MAX_SIZE):
            raise ValueError
        rows = np.frombuffer(data, "<f2", offset=start + length).reshape(-1, _ROW).astype(np.float64)
        if len(rows) != sum(human) + sum(near):
            raise ValueError
        clips = np.split(rows, np.cumsum([*human, *near])[:-1])
    except (ValueError, KeyError, TypeError, struct.error, OverflowError, RecursionError):
        raise BadInput("these bytes are no anchor set: they do not have its form") from None
    if (what := _wrong(rows, len(human), len(near))) is not None:
        raise BadInput(f"these bytes are no anchor set: {what}")
    count = len(human)
    return AnchorSet(
        tuple(clips[:count]), tuple(clips[count:]), milliseconds, said["wake_word"], said["base"]
    )


def _wrong(rows: Rows, human: int, near: int) -> str | None:
    if min(human, near) < LEAST_CLIPS:
        return f"it has {human} clips of human speech and {near} near misses, of each at least {LEAST_CLIPS}"
    logits, features = np.abs(rows[:, 0]), np.abs(rows[:, 1:])
    if not (logits.max() <= LARGEST_LOGIT and features.max() <= LARGEST_FEATURE):
        return f"a logit beyond ±{LARGEST_LOGIT:.0f}, or a feature beyond ±{LARGEST_FEATURE:.0f}"
    return None


def _positive(value: object) -> bool:
    return type(value) is int and value > 0
