"""When the budgets of a ledger end, at the pace of its last charges."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

from fa_core.privacy.forecast import budget_ends, pace
from fa_core.privacy.ledger import Charge, Policy

NOW = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def charge(days_ago: int, cost: Fraction) -> Charge:
    at = NOW - days_ago * DAY
    release = f"{days_ago:032x}"
    return Charge(
        "homes", "weekly", release, "ab" * 32, "zcdp", cost, Fraction(1), Fraction(1, 10**8),
        at - 7 * DAY, at, at,
    )  # fmt: skip


def policy(week: Fraction, year: Fraction) -> Policy:
    return Policy(Fraction(1), Fraction(4), week, year, Fraction(4))


def ends(found: Policy, *charges: Charge) -> dict[str, datetime | None]:
    return {each.budget: each.ends for each in budget_ends(found, charges, NOW)}


def test_the_pace_is_that_of_the_last_four_weeks() -> None:
    weekly = [charge(days, Fraction(1, 10)) for days in (0, 7, 14, 21, 28, 35, 42)]
    assert pace(weekly, NOW) == Fraction(4, 10) / 28
    assert pace([charge(1, Fraction(7))], NOW) == 1, "a ledger of a day is taken to be a week old"
    assert pace([charge(40, Fraction(7))], NOW) == 0
    assert pace([], NOW) == 0


def test_a_budget_ends_when_what_is_left_is_spent_at_this_pace() -> None:
    weekly = [charge(days, Fraction(1, 10)) for days in (0, 7, 14, 21)]
    found = ends(policy(Fraction(1), Fraction(1)), *weekly)
    # 0.4 in 21 days: of 1, 0.6 is left, which lasts 31.5 days.
    assert found == {"week": None, "year": NOW + timedelta(days=31.5)}


def test_charges_that_lapse_return_to_a_rolling_budget() -> None:
    weekly = [charge(days, Fraction(1)) for days in range(0, 364, 7)]
    assert ends(policy(Fraction(2), Fraction(54)), *weekly)["year"] is None
    old = [charge(days, Fraction(1)) for days in range(336, 364, 7)]
    recent = [charge(days, Fraction(1)) for days in (0, 7, 14, 21)]
    # 8 are spent, 4 of them lapse within the month, and 1/7 is charged a day: else it would end in 28 days.
    assert ends(policy(Fraction(2), Fraction(12)), *old, *recent)["year"] == NOW + timedelta(days=56)


def test_a_budget_that_is_spent_has_ended_and_one_of_an_idle_ledger_never_ends() -> None:
    assert ends(policy(Fraction(1), Fraction(1)), charge(1, Fraction(1))) == {"week": NOW, "year": NOW}
    assert ends(policy(Fraction(1), Fraction(1)), charge(40, Fraction(1, 2))) == {"week": None, "year": None}
