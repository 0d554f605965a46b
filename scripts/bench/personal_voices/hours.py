"""False wakes over hours of speech: of the base and of many adapters, counted as a device counts them.

A wake lasts for the refractory time of `clients.runtime.events`, and is one however many windows are over the
threshold in it. Limits of a rate take wakes for a Poisson process; those of a difference to the base draw the
streams again (Efron 1979, percentiles), since both heard the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from clients.personal.adapter import Step, windows_of
from clients.runtime.detectors import EMBEDDING_HOP, SAMPLE_RATE, Head
from clients.runtime.events import REFRACTORY
from scripts.bench.personal_voices.embedding import Embeddings
from scripts.bench.personal_voices.speakers import SEED
from scripts.bench.personal_voices.speech import Kind, Stream

Whose = Kind | Literal["all"]

_HOP_S: Final = EMBEDDING_HOP / SAMPLE_RATE
_HOLD: Final = round(REFRACTORY.total_seconds() / _HOP_S)
"""Hops for which a wake lasts."""
_BLOCK: Final = 8192
_DRAWS: Final = 2000


@dataclass(frozen=True)
class Speech:
    """The windows of many streams, end to end.

    Attributes:
        base: the base's logit of each window, float32 (n,). features: what an adapter sees, float32 (n, 96).
        stream: the number of its stream, (n,). people: whether people speak, by stream.
    """

    base: NDArray[np.float32]
    features: NDArray[np.float32]
    stream: NDArray[np.int64]
    people: NDArray[np.bool_]

    def of(self, whose: Whose) -> NDArray[np.bool_]:
        """Return which streams are of a kind."""
        return np.ones_like(self.people) if whose == "all" else self.people == (whose == "people")

    @property
    def hours(self) -> NDArray[np.float64]:
        """The hours of each stream that have a score."""
        return np.bincount(self.stream, minlength=len(self.people)) * _HOP_S / 3600


@dataclass(frozen=True, slots=True)
class FalseWakes:
    """Wakes in `hours` of a kind of speech: the base's, the adapters' mean, and the most of one adapter.

    `difference` has the 95% limits of the adapters' mean less the base's, an hour.
    """

    whose: Whose
    hours: float
    base: int
    mean: float
    most: int
    difference: tuple[float, float]


def speech_of(streams: Sequence[Stream], found: Sequence[Embeddings], head: Head) -> Speech:
    """Return the windows of streams, as a head sees them."""
    windows = [windows_of(head, each) for each in found]
    return Speech(
        np.concatenate([each.base.astype(np.float32) for each in windows]),
        np.concatenate([each.features.astype(np.float32) for each in windows]),
        np.repeat(np.arange(len(windows)), [each.base.size for each in windows]),
        np.array([each.kind == "people" for each in streams]),
    )


def wakes(speech: Speech, steps: Sequence[Step], levels: Sequence[float]) -> NDArray[np.int64]:
    """Return how often each step at its threshold (a logit) wakes in each stream, (steps, streams)."""
    directions = np.array([each.direction for each in steps], np.float32).T
    over = np.array([level - each.bias for each, level in zip(steps, levels, strict=True)], np.float32)
    found = []
    for at in range(0, len(speech.base), _BLOCK):
        logits = speech.base[at : at + _BLOCK, None] + speech.features[at : at + _BLOCK] @ directions
        found.append(np.argwhere(logits > over) + np.array([at, 0]))
    window, step = np.concatenate(found).T
    counts = np.zeros((len(steps), len(speech.people)), np.int64)
    until = np.full(counts.shape, -1)
    for at, number, stream in zip(
        window.tolist(), step.tolist(), speech.stream[window].tolist(), strict=True
    ):
        if at >= until[number, stream]:
            counts[number, stream] += 1
            until[number, stream] = at + _HOLD
    return counts


def compared(speech: Speech, base: NDArray[np.int64], adapters: NDArray[np.int64]) -> list[FalseWakes]:
    """Return the false wakes of adapters, (adapters, streams), beside the base's, (streams,), by kind."""
    kinds: tuple[Whose, ...] = ("people", "synthetic", "all")
    there = [each for each in kinds if speech.of(each).any()]
    return [_compared(speech, each, base, adapters) for each in there]


def _compared(
    speech: Speech, whose: Whose, base: NDArray[np.int64], adapters: NDArray[np.int64]
) -> FalseWakes:
    chosen = speech.of(whose)
    hours, before, after = speech.hours[chosen], base[chosen], adapters[:, chosen]
    more = after.mean(axis=0) - before
    random = np.random.default_rng(SEED)
    drawn = random.integers(len(hours), size=(_DRAWS, len(hours)))
    rates = more[drawn].sum(axis=1) / hours[drawn].sum(axis=1)
    low, high = np.quantile(rates, (0.025, 0.975))
    return FalseWakes(
        whose, float(hours.sum()), int(before.sum()), float(after.mean(axis=0).sum()),
        int(after.sum(axis=1).max()), (float(low), float(high)),
    )  # fmt: skip
