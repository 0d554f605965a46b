"""The rules of the privacy ledger: what a charge is, which budgets it draws on, and when they free up.

Pure: no database, no clock. `fa_core.store` keeps the charges and asks `admit` inside the transaction
that writes the next one, so that what is checked is what is charged.

A charge is made for a whole population, assuming that every device of it joined, in the one currency of
that population's ledger: rho under zCDP, which adds up over releases (Bun and Steinke 2016, lemma 1.7),
or epsilon under pure differential privacy, which adds up too. Both are exact `Fraction`s.

Five budgets hold at once:

  release  one release may cost at most this.
  window   all releases whose events overlap in time, ever: what one stretch of a person's life may cost.
  week     all releases charged in any 7 days.
  year     all releases charged in any 365 days.
  family   the releases of one plan family charged in any 365 days.

Periods roll, so no two releases slip through on either side of a midnight. Each holds for every order in
which charges arrive: the last one to arrive in any stretch of 7 days has seen all the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Literal

from fa_core.errors import BadInput, Refused
from fa_core.privacy.zcdp import implies

Currency = Literal["zcdp", "pure"]
Budget = Literal["release", "window", "week", "year", "family"]

BUDGETS: tuple[Budget, ...] = ("release", "window", "week", "year", "family")
WEEK = timedelta(days=7)
YEAR = timedelta(days=365)
UNITS: dict[Currency, str] = {"zcdp": "rho", "pure": "epsilon"}


@dataclass(frozen=True, slots=True)
class Policy:
    """The budgets of one population, all positive, in the currency of its ledger."""

    release: Fraction
    window: Fraction
    week: Fraction
    year: Fraction
    family: Fraction

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if not isinstance(limit, Fraction) or limit <= 0:
                raise BadInput(f"the {field.name} budget is {limit}; it must be an exact positive number")

    def limit(self, budget: Budget) -> Fraction:
        """Return the limit of one budget."""
        limit: Fraction = getattr(self, budget)
        return limit


DEFAULT_POLICIES: dict[Currency, Policy] = {
    "zcdp": Policy(Fraction(1, 4), Fraction(1, 2), Fraction(1, 4), Fraction(2), Fraction(1)),
    "pure": Policy(Fraction(4), Fraction(8), Fraction(8), Fraction(52), Fraction(26)),
}
"""What a population gets that declares nothing. Under zCDP, at delta = 1e-8, a release may cost at most
epsilon 4.1, so may all of a week, the same events 6.0, and a year 13.3. A week is as much as a device
with the default budget gives in 28 days, so that no week asks one of them for more than it has."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one release costs every device of a population.

    Attributes:
        population: whose ledger.
        family: the plan family, its name without the revision.
        release: id of the release, 32 hex digits; charged once.
        plan_hash: hex SHA-256 of the plan's canonical bytes.
        currency: of `cost`.
        cost: rho or epsilon, positive.
        epsilon, delta: what the plan claims for this release alone; shown, never enforced.
        window_start, window_end: the events counted are in [start, end), UTC.
        at: when it was charged, UTC, by the clock of who charged.
        alpha: under zCDP, the order at which the cost implies epsilon and delta, as the plan carries it; None
            for a plan of before it was carried.

    Raises BadInput where a number is out of range, or the cost does not imply the claim at `alpha`.
    """

    population: str
    family: str
    release: str
    plan_hash: str
    currency: Currency
    cost: Fraction
    epsilon: Fraction
    delta: Fraction
    window_start: datetime
    window_end: datetime
    at: datetime
    alpha: Fraction | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cost, Fraction) or self.cost <= 0:
            raise BadInput(f"release {self.release} costs {self.cost}; a charge is an exact positive number")
        if not self.window_start < self.window_end:
            raise BadInput(f"release {self.release} has a window that ends before it starts")
        for moment in (self.window_start, self.window_end, self.at):
            if moment.utcoffset() != timedelta(0):
                raise BadInput(f"release {self.release} has a time that is not in UTC: {moment.isoformat()}")
        if self.alpha is not None and not claim_holds(self):
            raise BadInput(
                f"release {self.release} is charged {UNITS[self.currency]} {show(self.cost)}, which is not "
                f"shown to imply the epsilon {show(self.epsilon)} and delta {show(self.delta)} that it claims"
            )


def claim_holds(charge: Charge) -> bool:
    """Return whether the cost of a charge is shown to imply the epsilon and delta that it claims.

    In exact rationals and from the charge alone, so that whoever reads it in the transparency log can tell
    without the plan, the witness too. A zCDP charge without `alpha` shows nothing.
    """
    if charge.currency == "pure":
        return charge.alpha is None and charge.cost <= charge.epsilon
    return charge.alpha is not None and implies(charge.cost, charge.alpha, charge.epsilon, charge.delta)


@dataclass(frozen=True, slots=True)
class Balance:
    """One budget at one moment: its limit, and what is spent of it. `frees` is when the next part returns,
    None where nothing is spent."""

    budget: Budget
    limit: Fraction
    spent: Fraction
    frees: datetime | None

    @property
    def left(self) -> Fraction:
        """What may still be charged; never negative, though a lowered limit may already be overspent."""
        return max(Fraction(0), self.limit - self.spent)


@dataclass(frozen=True, slots=True)
class Shortage:
    """A budget that a charge does not fit, and the first moment at which it would if nothing else is charged.

    `fits` is None where it never does, because the limit itself is smaller.
    """

    balance: Balance
    fits: datetime | None


def admit(policy: Policy, currency: Currency, past: Sequence[Charge], asked: Charge) -> None:
    """Return if `asked` fits every budget beside `past`, the earlier charges of the same population.

    Raises Refused with each budget that it breaks: what it asks, what is left, and when enough frees up.
    """
    if asked.currency != currency:
        raise Refused(
            f"population {asked.population} has a ledger of {currency}; release {asked.release} is accounted "
            f"in {asked.currency}, and the two do not add up"
        )
    if any(charge.release == asked.release for charge in past):
        raise Refused(
            f"release {asked.release} was charged before; another attempt after that needs a new release id"
        )
    short = shortages(policy, past, asked)
    if short:
        raise Refused(
            f"population {asked.population} has not enough budget for a release of {asked.family}:\n"
            + "\n".join(f"  {sentence(each, asked)}" for each in short)
        )


def shortages(policy: Policy, past: Iterable[Charge], asked: Charge) -> tuple[Shortage, ...]:
    """Return every budget that `asked` does not fit beside `past`; none where it may be charged."""
    past = tuple(past)
    window = (asked.window_start, asked.window_end)
    short = []
    for balance in balances(policy, past, family=asked.family, window=window, at=asked.at):
        if balance.spent + asked.cost > balance.limit:
            drawn = _drawn(balance.budget, past, asked.family, window, asked.at)
            short.append(Shortage(balance, _fits(balance, drawn, asked)))
    return tuple(short)


def balances(
    policy: Policy, past: Iterable[Charge], *, family: str, window: tuple[datetime, datetime], at: datetime
) -> tuple[Balance, ...]:
    """Return every budget as a release of `family` about the events of `window`, charged `at`, finds it."""
    past, length = tuple(past), window[1] - window[0]
    result = []
    for budget in BUDGETS:
        drawn = _drawn(budget, past, family, window, at)
        spent = sum((charge.cost for charge in drawn), Fraction(0))
        frees = min((_lapse(budget, charge, length) for charge in drawn), default=None)
        result.append(Balance(budget, policy.limit(budget), spent, frees))
    return tuple(result)


def _drawn(
    budget: Budget, past: Iterable[Charge], family: str, window: tuple[datetime, datetime], at: datetime
) -> list[Charge]:
    """Return the earlier charges that weigh on this budget."""
    if budget == "release":
        return []
    if budget == "window":
        return [each for each in past if each.window_start < window[1] and window[0] < each.window_end]
    if budget == "week":
        return [each for each in past if each.at > at - WEEK]
    recent = [each for each in past if each.at > at - YEAR]
    return recent if budget == "year" else [each for each in recent if each.family == family]


def _lapse(budget: Budget, charge: Charge, length: timedelta) -> datetime:
    """Return when `charge` stops weighing on a release that is made then, about events of this length."""
    if budget == "window":
        return charge.window_end + length
    return charge.at + (WEEK if budget == "week" else YEAR)


def _fits(balance: Balance, drawn: Sequence[Charge], asked: Charge) -> datetime | None:
    """Return the first moment at which enough of `drawn` has lapsed, or None."""
    length = asked.window_end - asked.window_start
    held = balance.spent + asked.cost
    for lapse, cost in sorted((_lapse(balance.budget, each, length), each.cost) for each in drawn):
        held -= cost
        if held <= balance.limit:
            return lapse
    return None


def sentence(short: Shortage, asked: Charge) -> str:
    """Return what a charge asks of a budget that it does not fit, what is left, and when enough frees up."""
    balance, unit = short.balance, UNITS[asked.currency]
    text = (
        f"{balance.budget} budget: asks {unit} {show(asked.cost)}, "
        f"{show(balance.left)} of {show(balance.limit)} is left"
    )
    if short.fits is None:
        return f"{text}; it never fits, the limit itself is smaller"
    moment = f"{short.fits:%Y-%m-%d %H:%M:%S} UTC"
    if balance.budget == "window":
        return f"{text}; it fits once its window ends at {moment} or later, if nothing else is charged"
    return f"{text}; enough frees up at {moment}, if nothing else is charged"


def show(value: Fraction) -> str:
    """Return an exact number as a person reads it: six significant digits, with "about" where cut.

    >>> show(Fraction(1, 8)), show(Fraction(1, 3))
    ('0.125', 'about 0.333333')
    """
    text = f"{float(value):.6g}"
    return text if Fraction(text) == value else f"about {text}"
