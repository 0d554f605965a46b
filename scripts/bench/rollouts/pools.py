"""Pools of device types: what each does in every look, so that a device keeps its own ways from look to look.

A fleet is so many devices of each type, drawn. What is true of a pool is counted, not computed from a
formula: its types are given whole numbers of moments, and the candidate's misses less the baseline's are
brought to the wished share of them exactly. Each history stands in the pool once from each look on, going
round, so that all looks are alike over the pool, and not over a device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.fleet.draw import Bank
from clients.fleet.habits import draw_devices, draw_speaker
from clients.fleet.voices import ACCENTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EVENTS: Final = 8
"""Moments that one device counts in a look at most (`max_events`)."""

TYPES: Final = 250
"""Histories of a pool, each of which stands there once for every look."""

MISSES, DISAGREE = 0.08, 0.06
"""Share of moments that the baseline misses, and that one of the two misses alone."""

COLUMNS: Final = ("devices", "n", "t", "nn", "nt", "tt", "u", "uu")


@dataclass(frozen=True, eq=False)
class Pool:
    """What each type adds to a group's sums in a look, float64 (types, looks, COLUMNS), and the true
    difference of the miss rates over all its moments, labelled or not."""

    adds: Floats
    truth: float

    @property
    def flat(self) -> Floats:
        """The same, (types, looks · COLUMNS)."""
        return self.adds.reshape(len(self.adds), -1)


@dataclass(frozen=True, eq=False)
class Heard:
    """Moments of each type in each look, int64 (types, looks): those that the candidate alone missed, that
    the baseline alone missed, that both missed, and that both heard."""

    candidate: Ints
    baseline: Ints
    both: Ints
    neither: Ints


def drawn(random: np.random.Generator, alike: float, looks: int, difference: float) -> Heard:
    """Draw types whose own rates have a Dirichlet distribution of concentration `alike`: two moments of one
    device are as alike as a correlation of 1/(alike + 1), in one look or in two."""
    own = (DISAGREE + difference) / 2
    other = (DISAGREE - difference) / 2
    rates = np.array([own, other, MISSES - other, 1.0 - own - MISSES])
    each = random.dirichlet(alike * rates, TYPES)
    busy = 16.0 * random.lognormal(0.0, 0.7, (TYPES, 1))
    n = np.clip(random.poisson(busy, (TYPES, looks)), 1, EVENTS)
    return exactly(random, Heard(*np.moveaxis(random.multinomial(n, each[:, None, :]), -1, 0)), difference)


def scored(random: np.random.Generator, bank: Bank, accent: int, looks: int, difference: float) -> Heard:
    """Draw types from real scores: a device has its speakers, its class and its noise, and both detectors
    score what is said to it. B's threshold is set such that it misses more than A by `difference`."""
    many = draw_devices(TYPES * len(ACCENTS) * 3, random)
    mine = np.flatnonzero(many.accent == accent)
    mine = np.resize(mine, TYPES)
    n = np.clip(random.poisson(many.wakes_a_week[mine][:, None] / 4.0, (TYPES, looks)), 1, EVENTS)
    device = np.repeat(np.repeat(mine, looks), n.ravel())
    noise = (many.environments[device].cumsum(axis=1)[:, :-1] <= random.random((len(device), 1))).sum(axis=1)
    cell = (many.accent[device], draw_speaker(many, device, random), many.device_class[device], noise)
    row = bank.wakes.pick(cell, random)
    a_hears, b_score = bank.accepts[0, row, 0], bank.scores[1, row, 0]
    limit = np.quantile(b_score, min(max(1.0 - a_hears.mean() + difference, 0.0), 1.0))
    b_hears = b_score > limit
    place = np.repeat(np.arange(n.size), n.ravel())
    counts = [
        np.bincount(place, weights=which, minlength=n.size).astype(np.int64).reshape(n.shape)
        for which in (a_hears & ~b_hears, ~a_hears & b_hears, ~a_hears & ~b_hears, a_hears & b_hears)
    ]
    return exactly(random, Heard(*counts), difference)


def exactly(random: np.random.Generator, heard: Heard, difference: float) -> Heard:
    """Return the same with some moments changed, at random places, such that the difference is exactly so
    much: one that both heard becomes one that the candidate missed, or the other way round."""
    candidate, neither = heard.candidate.copy(), heard.neither.copy()
    n = candidate + neither + heard.baseline + heard.both
    lacks = round(difference * n.sum()) - int(candidate.sum() - heard.baseline.sum())
    while lacks:
        source, sink = (neither, candidate) if lacks > 0 else (candidate, neither)
        eligible = np.flatnonzero(source > 0)
        if not len(eligible):
            raise ValueError(f"no moments are left to make a difference of {difference}")
        chosen = random.permutation(eligible)[: abs(lacks)]
        source.flat[chosen] -= 1
        sink.flat[chosen] += 1
        lacks -= int(np.sign(lacks)) * len(chosen)
    return Heard(candidate, heard.baseline, heard.both, neither)


def pool(random: np.random.Generator, heard: Heard, marked: float = 1.0) -> Pool:
    """Return the pool in which reactions mark a share `marked` of the baseline's misses, and all it hears."""
    found, both = random.binomial(heard.baseline, marked), random.binomial(heard.both, marked)
    n = heard.candidate + heard.neither + found + both
    t, u = heard.candidate - found, heard.baseline - found
    table = np.stack([n > 0, n, t, n * n, n * t, t * t, u, u * u], axis=-1).astype(np.float64)
    every = heard.candidate + heard.neither + heard.baseline + heard.both
    round_ = [np.roll(table, shift, axis=1) for shift in range(table.shape[1])]
    return Pool(np.concatenate(round_), float((heard.candidate - heard.baseline).sum() / every.sum()))


def labels(bank: Bank | None) -> Mapping[str, float]:
    """Return the share of the devices of each accent: the bank's, or ten of 28 to 3%."""
    if bank is None:
        shares = (0.28, 0.18, 0.13, 0.10, 0.08, 0.07, 0.05, 0.04, 0.04, 0.03)
        return {f"accent-{index}": share for index, share in enumerate(shares)}
    total = sum(accent.share for accent in ACCENTS)
    return {accent.label: accent.share / total for accent in ACCENTS}
