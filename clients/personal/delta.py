"""A delta: an adapter as it is kept on the device, bound to the base whose logits it changes.

    unheard-delta-1\\n
    length of the description, u32
    the description: canonical JSON {adapted, base, heard, moments, number, wake_word}; `base` is the SHA-256
        of the model that it changes, the others but `wake_word` are the gate's counts and the delta's number
    direction (96), bias, threshold        float64 each

All numbers are little-endian. The device signs these bytes (`clients.device.personal`).
"""

import json
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from clients.models.head import EMBEDDING_SIZE
from clients.personal.adapter import Step
from clients.personal.learn import LARGEST_STEP, Gain
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.publication.artefact import is_hash

_MAGIC: Final = b"unheard-delta-1\n"
_NUMBERS: Final = EMBEDDING_SIZE + 2


@dataclass(frozen=True)
class Delta:
    """An adapter of this device.

    Attributes:
        number: which of the device's deltas it is, from 1.
        base: hex SHA-256 of the model that it changes. threshold: a logit.
        gain: what the gate saw before it was used.
    """

    number: int
    wake_word: str
    base: str
    step: Step
    threshold: float
    gain: Gain


def encode(delta: Delta) -> bytes:
    """Return the bytes of a delta."""
    description = {
        "adapted": delta.gain.adapted,
        "base": delta.base,
        "heard": delta.gain.base,
        "moments": delta.gain.moments,
        "number": delta.number,
        "wake_word": delta.wake_word,
    }
    text = canonical(description)
    numbers = np.array([*delta.step.direction, delta.step.bias, delta.threshold], "<f8")
    return _MAGIC + struct.pack("<I", len(text)) + text + numbers.tobytes()


def decode(data: bytes) -> Delta:
    """Return the delta in the bytes that `encode` wrote. Raises BadInput for anything else."""
    try:
        start = len(_MAGIC) + 4
        (length,) = struct.unpack_from("<I", data, len(_MAGIC))
        text = data[start : start + length]
        said = json.loads(text)
        numbers = np.frombuffer(data, "<f8", offset=start + length)
        counts = [said[name] for name in ("moments", "heard", "adapted", "number")]
        whole = data.startswith(_MAGIC) and canonical(said) == text and len(said) == 6
        named = is_hash(said["base"]) and isinstance(said["wake_word"], str)
        if not whole or not named or not all(type(each) is int and each >= 0 for each in counts):
            raise ValueError
        if len(numbers) != _NUMBERS or not np.isfinite(numbers).all():
            raise ValueError
        step = Step(numbers[:EMBEDDING_SIZE].astype(np.float64), float(numbers[EMBEDDING_SIZE]))
        if step.norm > LARGEST_STEP:
            raise ValueError
    except (ValueError, KeyError, TypeError, struct.error, OverflowError, RecursionError):
        raise BadInput("these bytes are no delta: they do not have its form") from None
    return Delta(counts[3], said["wake_word"], said["base"], step, float(numbers[-1]), Gain(*counts[:3]))
