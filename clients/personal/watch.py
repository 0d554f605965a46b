"""Is the adapter better than the model as it came, for this owner, now? Both are heard, one acts.

A candidate is heard in shadow first; once it acts, the base is heard in its place, so a device that drifts
away from its owner notices, and goes back. Labels come from reactions to whichever acts, and nobody reacts to
the other. So only what can be labelled for both is counted:

* a call that only one of the two heard: missed and said again, or heard and followed;
* a wake of the adapter's that was cancelled: the base would have made it as well, or not.

A sequential test by betting judges them (Ville 1939; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic
statistics and safe anytime-valid inference", 2023). It may be looked at after every moment: an adapter that
is no worse is reverted with probability `ALPHA` at most, in all the time that it acts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHADOW_MOMENTS: Final = 20
"""Labelled moments that a candidate is heard in before it may act."""

REMEMBERED: Final = 4096
"""Labelled moments that the watch looks back on: 45 a day for as long as an adapter acts."""

ALPHA: Final = 0.05
"""Probability with which an adapter is reverted that is no worse, while it acts."""

MISSES: Final = 0.5
"""No worse: at most this share of the calls that only one of the two hears, only the base hears."""

WAKES: Final = 0.5
"""No worse: at most this share of the adapter's cancelled wakes the base would not have made."""

_BETS: Final = (0.25, 0.5, 0.75)
"""Alternatives, as shares of the way from the null to 1; each has a third of the stake."""


class Verdict(StrEnum):
    """What follows from what was heard."""

    WAIT = "wait"
    ACTIVATE = "activate"
    KEEP = "keep"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Heard:
    """A labelled moment that both heard: whether it was meant to wake the device, and which of them woke."""

    wanted: bool
    base: bool
    adapted: bool


def shadow(moments: Sequence[Heard]) -> Verdict:
    """Return what follows for a candidate in shadow, from all moments that it was heard in.

    It acts after `SHADOW_MOMENTS` if by then it was not behind the base in either count.
    """
    if _worse(moments):
        return Verdict.REVERT
    if len(moments) < SHADOW_MOMENTS:
        return Verdict.WAIT
    differ = [(each.wanted, each.adapted) for each in moments if each.base != each.adapted]
    heard, missed = differ.count((True, True)), differ.count((True, False))
    woke, asleep = differ.count((False, True)), differ.count((False, False))
    return Verdict.ACTIVATE if heard >= missed and woke <= asleep else Verdict.REVERT


def active(moments: Sequence[Heard]) -> Verdict:
    """Return what follows for an adapter that acts, from all moments since it does."""
    return Verdict.REVERT if _worse(moments) else Verdict.KEEP


def _worse(moments: Sequence[Heard]) -> bool:
    return bool(evidence(moments)[-1] >= 1 / ALPHA)


def evidence(moments: Sequence[Heard]) -> NDArray[np.float64]:
    """Return the e-value that the adapter is worse, before the first moment and after each, (n + 1,).

    It is the mean of that for missed calls and that for wakes, so it is one whatever their dependence.
    """
    calls = [not each.adapted if each.wanted and each.base != each.adapted else None for each in moments]
    wakes = [not each.base if not each.wanted and each.adapted else None for each in moments]
    found: NDArray[np.float64] = (_evidence(calls, MISSES) + _evidence(wakes, WAKES)) / 2
    return found


def _evidence(against: Sequence[bool | None], null: float) -> NDArray[np.float64]:
    """Return the e-values of a share above `null`, before the first observation and after each, (n + 1,).

    Each has a mean of 1 at most where an observation is True with probability `null` at most, given those
    before it. None observes nothing. Half of the stake bets from the first observation on, the rest from
    later ones, the j-th of which begins with a share of 1/(2j(j+1)): so what turns bad later is found too.
    """
    shares = [null + (1 - null) * each for each in _BETS]
    odds = [((1 - share) / (1 - null), share / null) for share in shares]
    wealth, waiting, number = [0.5] * len(odds), 0.5, 0
    found = [1.0]
    for each in against:
        if each is not None:
            number += 1
            begins = 0.5 / (number * (number + 1))
            wealth = [one * ratio[each] + begins for one, ratio in zip(wealth, odds, strict=True)]
            waiting -= begins
        found.append(sum(wealth) / len(wealth) + waiting)
    return np.array(found)
