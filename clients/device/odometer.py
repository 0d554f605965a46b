"""The device's own privacy budget: exact zCDP over a rolling window, in time that a witness attests.

A device composes everything that it ever sent, under whatever name it was asked, so it keeps its own
count beside the server's ledger. Costs are exact fractions of rho: rho adds up under composition, and an
epsilon-DP release is charged epsilon^2/2 (Bun and Steinke 2016, Lemma 2.3 and Proposition 1.4).

A device's clock can be set, so it is not trusted alone. A charge gets the *latest* known time as its
timestamp, and leaves the window only by the *earliest*, with a margin for how old a witness's signature may
be. So while devices are shown checkpoints no older than `Moment.age`, no true interval of length `window`
holds more than the budget, whatever the device's own clock says. (An attacker who holds back checkpoints
*and* sets the clock can at worst place two budgets side by side, once.)
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction

from fa_core.errors import BadInput

SKEW = timedelta(days=1)
"""How far a device's clock and the witness's time may differ, where its owner says nothing else."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a device may spend; the defaults are those of a device whose owner says nothing else.

    Attributes:
        rho: the most zCDP in any interval of length `window`.
        window: length of the rolling window.
        settle: how long a fresh store takes no part, beside `Moment.age`. With the default, the window, a
            reinstalled device cannot have forgotten a charge that still counts.
        training_rho: the same as `rho`, of training plans alone: neither draws on the other's. All that a
            device gives in a window is at most their sum, and training asks for consent of its own.
    """

    rho: Fraction = Fraction(1, 4)
    window: timedelta = timedelta(days=28)
    settle: timedelta = timedelta(days=28)
    training_rho: Fraction = Fraction(1, 4)

    def __post_init__(self) -> None:
        if self.rho < 0 or self.training_rho < 0 or self.window <= timedelta(0) or self.settle < timedelta(0):
            raise BadInput("a device's budget needs rho and settle of at least 0 and a window above 0")

    def of(self, *, training: bool) -> "Budget":
        """Return the budget that a plan draws on, as `rho`."""
        return replace(self, rho=self.training_rho) if training else self


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant by three clocks: the device's own, the witness's, and the latest witnessed time before.

    Attributes:
        local: the device's clock.
        witnessed: time of the witness's signature on the checkpoint at hand; at most `age` old.
        latest: the highest `witnessed` that this store ever saw, this one included.
        age: how far `local` and `witnessed` may lie apart, and so how old a witness's time may be.
    """

    local: datetime
    witnessed: datetime
    latest: datetime
    age: timedelta

    @property
    def agrees(self) -> bool:
        """Whether the two clocks agree well enough to act at all."""
        return abs(self.local - self.witnessed) <= self.age and self.witnessed + self.age >= self.latest

    @property
    def timestamp(self) -> datetime:
        """The timestamp of a charge made now: the latest of all."""
        return max(self.local, self.witnessed, self.latest)

    @property
    def earliest(self) -> datetime:
        """The time that old charges are measured against: the earliest of the two at hand."""
        return min(self.local, self.witnessed)


@dataclass(frozen=True, slots=True)
class Charge:
    """A cost in rho and its timestamp."""

    rho: Fraction
    at: datetime


def spent(charges: Iterable[Charge], moment: Moment, budget: Budget) -> Fraction:
    """Return what counts against the budget at `moment`: everything not shown to be out of the window."""
    horizon = moment.earliest - budget.window - moment.age
    return sum((charge.rho for charge in charges if charge.at > horizon), Fraction(0))


def affords(charges: Iterable[Charge], rho: Fraction, moment: Moment, budget: Budget) -> bool:
    """Return whether `rho` more stays within the budget. A negative cost is never affordable."""
    return rho >= 0 and spent(charges, moment, budget) + rho <= budget.rho


def settled(first: datetime, moment: Moment, budget: Budget) -> bool:
    """Return whether a store whose first timestamp was `first` is old enough to take part.

    `first` may be as old as a witness's time may be, hence the margin (as in `spent`). A store that need not
    settle takes part in the round in which it first sees a witnessed time.
    """
    return not budget.settle or moment.earliest >= settles(first, moment.age, budget)


def settles(first: datetime, age: timedelta, budget: Budget) -> datetime:
    """Return from when on a store whose first timestamp was `first` takes part."""
    return first + budget.settle + age if budget.settle else first


def frees_up(charges: Iterable[Charge], now: datetime, age: timedelta, budget: Budget) -> datetime | None:
    """Return when the oldest charge that still counts at `now` leaves the window, or None."""
    leaving = [charge.at + budget.window + age for charge in charges]
    return min((at for at in leaving if at > now), default=None)
