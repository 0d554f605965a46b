"""How soon the watch reverts an adapter that is worse than the base, and how often one that is no worse.

A device's moments are drawn from what was measured of its user: two of three are calls, the third is a near
miss. Only those are moments that somebody's reaction labels: a call, and a wake of whichever acts that was
not meant. Each has its right label. Beside `clients.personal.watch` stands an exact sign test over the last
`WINDOW` moments, looked at after each: it has its level at one look alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from clients.personal import watch
from clients.personal.learn import Candidate
from clients.personal.watch import Heard, Verdict
from scripts.bench.personal_voices.measure import BASE, LEARNED, Voice, World, peaks

Bools = NDArray[np.bool_]

ACTING: Final = 300
"""Labelled moments that an adapter acts for."""
WINDOW: Final = 60
DRAWS: Final = 5
"""How often an adapter's moments are drawn."""
NEVER: Final = ACTING + 1


@dataclass(frozen=True)
class Decided:
    """Which of a user's calls and near misses wake the base and the adapter."""

    base_calls: Bools
    calls: Bools
    base_near: Bools
    near: Bools

    @property
    def worse(self) -> bool:
        """Whether the adapter is worse, by what `watch` calls so, over all that was measured."""
        lost, won = self.base_calls & ~self.calls, self.calls & ~self.base_calls
        new = self.near & ~self.base_near
        return bool(lost.sum() > won.sum() or new.sum() > watch.WAKES * self.near.sum())


@dataclass(frozen=True, slots=True)
class Watched:
    """An adapter, watched `DRAWS` times: the moments after which it was reverted, 0 in shadow, or `NEVER`."""

    worse: bool
    reverted: tuple[int, ...]
    by_sign_test: tuple[int, ...]


def watched(among: World, voice: Voice, found: Candidate, number: int) -> Watched:
    """Return what the watch does with the adapter of user `number`."""
    calls = voice.wakes[LEARNED:]
    decided = Decided(
        peaks(BASE, calls) > among.limit, peaks(found.step, calls) > found.threshold,
        peaks(BASE, voice.near) > among.limit, peaks(found.step, voice.near) > found.threshold,
    )  # fmt: skip
    each = [_once(decided, np.random.default_rng([number, draw])) for draw in range(DRAWS)]
    return Watched(decided.worse, tuple(one for one, _ in each), tuple(other for _, other in each))


def _once(decided: Decided, random: np.random.Generator) -> tuple[int, int]:
    if watch.shadow(_moments(decided, random, watch.SHADOW_MOMENTS, acts=False)) is Verdict.REVERT:
        return 0, 0
    moments = _moments(decided, random, ACTING, acts=True)
    return _first(watch.evidence(moments)[1:] >= 1 / watch.ALPHA), _first(sign_test(moments))


def _moments(decided: Decided, random: np.random.Generator, count: int, acts: bool) -> list[Heard]:
    """Return so many labelled moments; `acts`: the adapter does, and the base is heard beside it."""
    wanted = np.arange(3 * count) % 3 != 2
    calls = random.integers(len(decided.calls), size=3 * count)
    near = random.integers(len(decided.near), size=3 * count)
    base = np.where(wanted, decided.base_calls[calls], decided.base_near[near])
    adapted = np.where(wanted, decided.calls[calls], decided.near[near])
    labelled = np.flatnonzero(wanted | (adapted if acts else base))[:count]
    return [Heard(bool(wanted[at]), bool(base[at]), bool(adapted[at])) for at in labelled]


def _first(over: Bools) -> int:
    return int(over.argmax()) + 1 if over.any() else NEVER


def sign_test(moments: Sequence[Heard]) -> Bools:
    """Return after which moments the last `WINDOW` show the adapter worse, each at level `watch.ALPHA`."""
    wanted, base, adapted = np.array([(each.wanted, each.base, each.adapted) for each in moments]).T
    lost, won = _last(wanted & base & ~adapted), _last(wanted & adapted & ~base)
    new, gone = _last(~wanted & adapted & ~base), _last(~wanted & base & ~adapted)
    return _more(lost, won) | _more(new, gone)


def _last(seen: Bools) -> NDArray[np.int64]:
    total = np.concatenate([np.zeros(WINDOW, np.int64), np.cumsum(seen)])
    last: NDArray[np.int64] = total[WINDOW:] - total[:-WINDOW]
    return last


def _more(one: NDArray[np.int64], other: NDArray[np.int64]) -> Bools:
    found: Bools = (one > other) & (binom.sf(one - 1, one + other, 0.5) <= watch.ALPHA)
    return found
