"""A detector's head: logistic weights over speech embeddings, and the form in which devices get one.

A published head is one file, read without running anything:

    unheard-head-1\\n                      (of an adapter: unheard-adapter-1\\n)
    length of the description, u32
    the description: canonical JSON {encoding, frames, model_version, size, wake_word}
    threshold, bias                        float64 each
    scales, one a frame                    float32, only where the encoding is int8
    weights, frame by frame                float32, or int8: the weight is scale times the number

All numbers are little-endian. An adapter has the same fields, to be added to those of its base's weights and
bias; its threshold and version take the place of the base's.
"""

import json
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput

EMBEDDING_SIZE = 96
MAX_FRAMES = 64
_LEVELS = 127

Form = Literal["head", "adapter"]
Encoding = Literal["float32", "int8"]


@dataclass(frozen=True)
class Head:
    """A logistic head over the last `frames` embeddings: score = 1 / (1 + exp(-(<weights, x> + bias)))."""

    wake_word: str
    model_version: str
    threshold: float
    weights: NDArray[np.float32]
    """Shape (frames, 96), oldest embedding first; any standardisation is folded in."""
    bias: float
    shape: NDArray[np.float32] | None = None
    """Where an adapter of a group is in the weights: its temporal shape, (frames,), to which an adapter that
    a device learns on top keeps. It is in no file."""

    def save(self, path: Path) -> None:
        """Write the head as a compressed .npz (a few kilobytes), as training and the package have it."""
        np.savez_compressed(
            path,
            wake_word=np.array(self.wake_word),
            model_version=np.array(self.model_version),
            threshold=np.array(self.threshold),
            weights=self.weights,
            bias=np.array(self.bias),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a head that `save` wrote. Raises BadInput for anything else; no Python object is ever read."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    wake_word=str(stored["wake_word"]),
                    model_version=str(stored["model_version"]),
                    threshold=float(stored["threshold"]),
                    weights=stored["weights"],
                    bias=float(stored["bias"]),
                )
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            raise BadInput(
                f"{path} is no head: an .npz with the arrays of a head alone is expected"
            ) from None

    def adapted(self, by: "Head") -> "Head":
        """Return the head with an adapter added. Raises BadInput where its shape is another."""
        if by.weights.shape != self.weights.shape or by.wake_word != self.wake_word:
            raise BadInput("the adapter is for another head: its wake word or its frames differ")
        return replace(by, weights=self.weights + by.weights, bias=self.bias + by.bias)


def head_scores(head: Head, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Score every full window of embeddings (k, 96): shape (max(0, k - frames + 1),), in [0, 1]."""
    frames = len(head.weights)
    if len(embeddings) < frames:
        return np.empty(0, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(embeddings, (frames, EMBEDDING_SIZE))[:, 0]
    logits = np.einsum("kfe,fe->k", windows, head.weights, dtype=np.float64) + head.bias
    scores: NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return scores


def encode(head: Head, form: Form = "head", encoding: Encoding = "float32") -> bytes:
    """Return the one file of a head. Raises BadInput for one that cannot be.

    With int8 each frame's weights are rounded to 255 levels; its largest weight in size keeps its value.
    """
    if (what := _wrong(head, form)) is not None:
        raise BadInput(f"this is no {form}: {what}")
    weights = head.weights.astype("<f4")
    description = {
        "encoding": encoding,
        "frames": len(weights),
        "model_version": head.model_version,
        "size": EMBEDDING_SIZE,
        "wake_word": head.wake_word,
    }
    numbers = weights.tobytes()
    if encoding == "int8":
        scales = (np.abs(weights).max(axis=1) / _LEVELS).astype("<f4")
        steps = np.where(scales > 0, scales, 1).astype(np.float64)[:, None]
        numbers = scales.tobytes() + np.rint(weights / steps).astype(np.int8).tobytes()
    text = canonical(description)
    return (
        _magic(form)
        + struct.pack("<I", len(text))
        + text
        + struct.pack("<dd", head.threshold, head.bias)
        + numbers
    )


def decode(data: bytes, form: Form = "head") -> Head:
    """Return the head in the bytes that `encode` wrote. Raises BadInput for anything else."""
    magic = _magic(form)
    try:
        start = len(magic) + 4
        (length,) = struct.unpack_from("<I", data, len(magic))
        text = data[start : start + length]
        said = json.loads(text)
        frames, encoding = said["frames"], said["encoding"]
        whole = data.startswith(magic) and canonical(said) == text and type(frames) is int
        if not whole or not 0 < frames <= MAX_FRAMES or said["size"] != EMBEDDING_SIZE or len(said) != 5:
            raise ValueError
        threshold, bias = struct.unpack_from("<dd", data, start + length)
        weights = _weights(data[start + length + 16 :], frames, encoding)
        head = Head(said["wake_word"], said["model_version"], threshold, weights, bias)
    except (ValueError, KeyError, TypeError, struct.error, OverflowError, RecursionError):
        raise BadInput(f"these bytes are no {form}: they do not have its form") from None
    if (what := _wrong(head, form)) is not None:
        raise BadInput(f"these bytes are no {form}: {what}")
    return head


@dataclass(frozen=True, slots=True)
class Loss:
    """What a change of a head changes on clips: their highest scores, and the decisions.

    Attributes:
        wake, other: how many clips hold the wake word, and how many do not.
        mean, largest: of the differences between a clip's two scores, in size.
        missed, missed_after: clips with the wake word that do not wake, before and after.
        false, false_after: clips without it that do.
    """

    wake: int
    other: int
    mean: float
    largest: float
    missed: int
    missed_after: int
    false: int
    false_after: int


def loss(before: Head, after: Head, clips: Iterable[tuple[NDArray[np.float32], bool]]) -> Loss:
    """Compare two heads on clips: embeddings of shape (k, 96), and whether the clip holds the wake word.

    Raises BadInput where there is no clip.
    """
    scored = [(_peak(before, clip), _peak(after, clip), wake) for clip, wake in clips]
    if not scored:
        raise BadInput("there is no clip to compare two heads on")
    differences = [abs(one - other) for one, other, _ in scored]
    hits = [(one > before.threshold, other > after.threshold, wake) for one, other, wake in scored]
    return Loss(
        wake=sum(wake for *_, wake in hits),
        other=sum(not wake for *_, wake in hits),
        mean=sum(differences) / len(differences),
        largest=max(differences),
        missed=sum(wake and not one for one, _, wake in hits),
        missed_after=sum(wake and not other for _, other, wake in hits),
        false=sum(one and not wake for one, _, wake in hits),
        false_after=sum(other and not wake for _, other, wake in hits),
    )


def _peak(head: Head, embeddings: NDArray[np.float32]) -> float:
    return float(head_scores(head, embeddings).max(initial=0.0))


def _magic(form: Form) -> bytes:
    return b"unheard-%s-1\n" % form.encode()


def _weights(data: bytes, frames: int, encoding: object) -> NDArray[np.float32]:
    """Return the weights, shape (frames, 96). Raises ValueError where there are more or fewer bytes."""
    count = frames * EMBEDDING_SIZE
    if encoding == "float32":
        found = np.frombuffer(data, "<f4")
        return found.reshape(frames, EMBEDDING_SIZE).astype(np.float32)
    if encoding != "int8" or len(data) != 4 * frames + count:
        raise ValueError("no such encoding, or not its length")
    scales = np.frombuffer(data, "<f4", frames)
    levels = np.frombuffer(data, np.int8, count, 4 * frames).reshape(frames, EMBEDDING_SIZE)
    return (scales[:, None] * levels).astype(np.float32)


def _wrong(head: Head, form: Form) -> str | None:
    shape = head.weights.shape
    if len(shape) != 2 or not 0 < shape[0] <= MAX_FRAMES or shape[1] != EMBEDDING_SIZE:
        return f"its weights are not of shape (frames, {EMBEDDING_SIZE}), frames from 1 to {MAX_FRAMES}"
    if not np.isfinite(head.weights).all() or not np.isfinite(head.bias):
        return "a weight or the bias is not finite"
    if not 0 < head.threshold < 1:
        return "its threshold is not between 0 and 1"
    if not all(isinstance(each, str) and each for each in (head.wake_word, head.model_version)):
        return "it names no wake word or no version"
    return None
