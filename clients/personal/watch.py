"""Is the adapter better than the model as it came, for this owner, now? Both are heard, one acts.

A candidate is heard in shadow first; once it acts, the base is heard in its place, so a device that drifts
away from its owner notices, and goes back. Labels come from reactions to whichever acts. Only moments that
the two decide differently say anything, and they are tested exactly (McNemar 1947; the sign test).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from scipy.stats import binom

SHADOW_MOMENTS: Final = 20
"""Labelled moments that a candidate is heard in before it may act."""

WINDOW: Final = 60
"""Labelled moments that the watch looks back on."""

ALPHA: Final = 0.05


class Verdict(StrEnum):
    """What follows from what was heard."""

    WAIT = "wait"
    ACTIVATE = "activate"
    KEEP = "keep"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Tally:
    """Labelled moments that both were heard in.

    Attributes:
        moments: all of them.
        only_base, only_adapter: wanted moments that only the one woke for.
        false_base, false_adapter: unwanted moments that only the one woke for.
    """

    moments: int
    only_base: int
    only_adapter: int
    false_base: int
    false_adapter: int

    @property
    def worse(self) -> bool:
        """Whether the adapter is significantly worse: at what it misses, or at what it wakes for."""
        return _more(self.only_base, self.only_adapter) or _more(self.false_adapter, self.false_base)

    @property
    def better(self) -> bool:
        """Whether it did at least as well as the base in both, as counted."""
        return self.only_adapter >= self.only_base and self.false_adapter <= self.false_base


def shadow(tally: Tally) -> Verdict:
    """Return what follows for a candidate in shadow."""
    if tally.worse:
        return Verdict.REVERT
    if tally.moments < SHADOW_MOMENTS:
        return Verdict.WAIT
    return Verdict.ACTIVATE if tally.better else Verdict.REVERT


def active(tally: Tally) -> Verdict:
    """Return what follows for an adapter that acts; `tally` is of the last `WINDOW` moments."""
    return Verdict.REVERT if tally.worse else Verdict.KEEP


def _more(one: int, other: int) -> bool:
    """Return whether `one` is significantly more than `other`, by P(X ≥ one) with X ~ B(one + other, ½)."""
    return one > other and float(binom.sf(one - 1, one + other, 0.5)) <= ALPHA
