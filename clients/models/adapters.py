"""Adapters for every group in one file: each device chooses its own, so that no download tells its group.

    unheard-adapters-1\\n
    length of the description, u32
    the description: canonical JSON {fact, frames, groups, model_version, size, wake_word}
    temporal shape u, one a frame           float32
    for each group: threshold, bias         float64 each
                    direction v             float32, `size` of them

All numbers are little-endian. A group's adapter adds u·vᵀ and its bias to those of the base (`Head.adapted`),
and its threshold takes the place of the base's. `fact` is the device's fact that the groups are values of; a
device whose value is none of them takes the last, which is called `other`.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.models.head import EMBEDDING_SIZE, MAX_FRAMES, Head
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.tables import DEVICE_FACTS

MAGIC = b"unheard-adapters-1\n"
MAX_GROUPS = 201
OTHER = "other"


@dataclass(frozen=True)
class Adapters:
    """The adapters of all groups of one base head.

    Attributes:
        fact: the device's fact that says which is its own. groups: its values, `other` last.
        shape: float32 (frames,). directions: float32 (groups, 96). biases, thresholds: float64 (groups,),
            thresholds as scores in (0, 1).
    """

    wake_word: str
    model_version: str
    fact: str
    groups: tuple[str, ...]
    shape: NDArray[np.float32]
    directions: NDArray[np.float32]
    biases: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def chosen(self, value: str | None) -> Head:
        """Return the adapter for a device whose fact has this value, to be added to the base."""
        at = self.at(value)
        weights = np.outer(self.shape, self.directions[at]).astype(np.float32)
        threshold, bias = float(self.thresholds[at]), float(self.biases[at])
        return Head(self.wake_word, self.model_version, threshold, weights, bias, self.shape)

    def at(self, value: str | None) -> int:
        """Return which of the groups a device with this value is in."""
        return self.groups.index(value) if value in self.groups else len(self.groups) - 1


def encode(adapters: Adapters) -> bytes:
    """Return the one file of adapters. Raises BadInput for some that cannot be."""
    if (what := _wrong(adapters)) is not None:
        raise BadInput(f"these are no adapters: {what}")
    text = canonical(
        {
            "fact": adapters.fact,
            "frames": len(adapters.shape),
            "groups": list(adapters.groups),
            "model_version": adapters.model_version,
            "size": EMBEDDING_SIZE,
            "wake_word": adapters.wake_word,
        }
    )
    parts = [MAGIC, struct.pack("<I", len(text)), text, adapters.shape.astype("<f4").tobytes()]
    for threshold, bias, direction in zip(
        adapters.thresholds.tolist(), adapters.biases.tolist(), adapters.directions, strict=True
    ):
        parts += [struct.pack("<dd", threshold, bias), direction.astype("<f4").tobytes()]
    return b"".join(parts)


def decode(data: bytes) -> Adapters:
    """Return the adapters in the bytes that `encode` wrote. Raises BadInput for anything else."""
    try:
        start = len(MAGIC) + 4
        (length,) = struct.unpack_from("<I", data, len(MAGIC))
        text = data[start : start + length]
        said = json.loads(text)
        frames, groups = said["frames"], said["groups"]
        whole = data.startswith(MAGIC) and canonical(said) == text and len(said) == 6
        if (
            not whole
            or type(frames) is not int
            or not 0 < frames <= MAX_FRAMES
            or said["size"] != EMBEDDING_SIZE
        ):
            raise ValueError
        row = np.dtype([("threshold", "<f8"), ("bias", "<f8"), ("direction", "<f4", EMBEDDING_SIZE)])
        body = data[start + length :]
        if not isinstance(groups, list) or len(body) != 4 * frames + len(groups) * row.itemsize:
            raise ValueError
        rows = np.frombuffer(body, row, offset=4 * frames)
        found = Adapters(
            said["wake_word"],
            said["model_version"],
            said["fact"],
            tuple(groups),
            np.frombuffer(body, "<f4", frames).astype(np.float32),
            rows["direction"].astype(np.float32),
            rows["bias"].astype(np.float64),
            rows["threshold"].astype(np.float64),
        )
    except (ValueError, KeyError, TypeError, struct.error, OverflowError, RecursionError):
        raise BadInput("these bytes are no adapters: they do not have their form") from None
    if (what := _wrong(found)) is not None:
        raise BadInput(f"these bytes are no adapters: {what}")
    return found


def _wrong(adapters: Adapters) -> str | None:
    groups = adapters.groups
    texts = (adapters.wake_word, adapters.model_version, *groups)
    if not all(isinstance(each, str) and each for each in texts):
        return "it names no wake word, no version, or a group without a name"
    if adapters.fact not in DEVICE_FACTS:
        return f"a device has no fact of this name; there are {', '.join(DEVICE_FACTS)}"
    if not 0 < len(groups) <= MAX_GROUPS or len(set(groups)) < len(groups) or groups[-1] != OTHER:
        return f"its groups are not 1 to {MAX_GROUPS} different ones, the last called {OTHER}"
    numbers = (adapters.shape, adapters.directions, adapters.biases, adapters.thresholds)
    if (
        adapters.directions.shape != (len(groups), EMBEDDING_SIZE)
        or not 0 < len(adapters.shape) <= MAX_FRAMES
    ):
        return "its numbers do not have the shape that it says"
    if not all(np.isfinite(each).all() for each in numbers):
        return "a number is not finite"
    if not ((adapters.thresholds > 0) & (adapters.thresholds < 1)).all():
        return "a threshold is not between 0 and 1"
    return None
