"""When the budgets of a ledger end at the pace of its last charges. Pure: no database, no clock."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, Literal

from fa_core.privacy.ledger import WEEK, YEAR, Charge, Policy

PACE: Final = timedelta(days=28)
"""The charges of so long a time are the pace."""

PERIODS: Final[dict[Literal["week", "year"], timedelta]] = {"week": WEEK, "year": YEAR}


@dataclass(frozen=True, slots=True)
class BudgetEnd:
    """When a rolling budget has nothing left, UTC, if charges go on at a pace; None where it never ends."""

    budget: Literal["week", "year"]
    limit: Fraction
    ends: datetime | None


def pace(charges: Iterable[Charge], at: datetime) -> Fraction:
    """Return what is charged a day, from the charges of the last `PACE`; a ledger that is younger than that
    is taken to be at least a week old."""
    past = [charge for charge in charges if charge.at <= at]
    recent = sum((charge.cost for charge in past if charge.at > at - PACE), Fraction(0))
    age = at - min((charge.at for charge in past), default=at)
    return recent / _days(min(max(age, WEEK), PACE))


def budget_ends(policy: Policy, charges: Iterable[Charge], at: datetime) -> tuple[BudgetEnd, ...]:
    """Return when the budgets of any week and of any year end at the present pace, taken as continuous.

    Charges lapse from a rolling budget as they become older than its period, those to come as well.
    """
    past = [charge for charge in charges if charge.at <= at]
    daily = pace(past, at)
    return tuple(
        BudgetEnd(name, policy.limit(name), _end(policy.limit(name), past, daily, period, at))
        for name, period in PERIODS.items()
    )


def _end(
    limit: Fraction, past: Iterable[Charge], daily: Fraction, period: timedelta, at: datetime
) -> datetime | None:
    held = sorted((charge.at + period, charge.cost) for charge in past if charge.at > at - period)
    spent, now = sum((cost for _, cost in held), Fraction(0)), at
    if spent >= limit:
        return at
    # Between two lapses what is spent grows evenly; after a whole period as much lapses as is charged.
    for lapse, cost in [*held, (at + period, Fraction(0))]:
        if spent + daily * _days(lapse - now) >= limit:
            return now + timedelta(days=float((limit - spent) / daily))
        spent, now = spent + daily * _days(lapse - now) - cost, lapse
    return None


def _days(length: timedelta) -> Fraction:
    return Fraction(length // timedelta(microseconds=1), 86_400_000_000)
