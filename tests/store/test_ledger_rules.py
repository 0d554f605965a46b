"""The ledger's rules admit exactly what a plain count over every stretch of time would."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_core.errors import BadInput, Refused
from fa_core.privacy.ledger import (
    DEFAULT_POLICIES,
    Charge,
    Policy,
    admit,
    balances,
    claim_holds,
    shortages,
    show,
)
from fa_core.store import chain

START = datetime(2026, 1, 1, tzinfo=UTC)
HUGE = Fraction(10**6)
POLICY = Policy(Fraction(1, 2), Fraction(1), Fraction(1), Fraction(5, 2), Fraction(2))
DAY = timedelta(days=1)


def charge(
    number: int,
    day: int,
    cost: Fraction = Fraction(1, 3),
    family: str = "a",
    length: int = 7,
    end: int | None = None,
) -> Charge:
    until = START + (day if end is None else end) * DAY
    return Charge(
        "homes", family, f"{number:032x}", "0" * 64, "zcdp", cost, Fraction(1), Fraction(1, 10**8),
        until - length * DAY, until, START + day * DAY,
    )  # fmt: skip


CHARGES = st.builds(
    charge,
    number=st.integers(0, 2**60),
    day=st.integers(0, 900),
    cost=st.fractions(Fraction(1, 60), Fraction(3, 5), max_denominator=60),
    family=st.sampled_from("ab"),
    length=st.integers(1, 20),
)


def admitted(policy: Policy, asked: Sequence[Charge]) -> list[Charge]:
    past: list[Charge] = []
    for each in asked:
        if not shortages(policy, past, each):
            past.append(each)
    return past


def reference(policy: Policy, charges: Sequence[Charge]) -> bool:
    """Whether every budget holds, counted the slow way: over the stretch that starts at each charge."""

    def most(members: Sequence[Charge], days: int) -> Fraction:
        totals = [
            sum((b.cost for b in members if a.at <= b.at < a.at + days * DAY), Fraction(0)) for a in members
        ]
        return max(totals, default=Fraction(0))

    def spent_at(moment: datetime) -> Fraction:
        return sum((c.cost for c in charges if c.window_start <= moment < c.window_end), Fraction(0))

    return (
        all(c.cost <= policy.release for c in charges)
        and all(spent_at(c.window_start) <= policy.window for c in charges)
        and most(charges, 7) <= policy.week
        and most(charges, 365) <= policy.year
        and all(most([c for c in charges if c.family == f], 365) <= policy.family for f in "ab")
    )


@given(st.lists(CHARGES, max_size=25))
@settings(deadline=None, max_examples=60)
def test_no_stretch_of_time_is_ever_over_budget_whatever_the_order_of_charges(asked: list[Charge]) -> None:
    assert reference(POLICY, admitted(POLICY, asked))


@given(st.lists(CHARGES, max_size=12), CHARGES)
@settings(deadline=None, max_examples=60)
def test_what_the_reference_admits_in_order_of_time_is_admitted(asked: list[Charge], last: Charge) -> None:
    """Where windows end when they are charged, budgets of time refuse nothing that would have held."""
    policy = replace(POLICY, window=HUGE)
    past = admitted(policy, sorted(asked, key=lambda each: each.at))
    late = replace(last, at=START + 950 * DAY)
    assert reference(policy, [*past, late]) == (not shortages(policy, past, late))


def test_a_ledger_that_forgets_the_week_is_caught() -> None:
    """The broken control: rules without one budget let the reference find it overspent."""
    asked = [charge(number, number % 7) for number in range(6)]
    assert not reference(POLICY, admitted(replace(POLICY, week=HUGE, window=HUGE), asked))


@given(st.lists(CHARGES, max_size=25), CHARGES)
@settings(deadline=None, max_examples=60)
def test_a_refused_charge_fits_at_the_time_that_is_named_and_not_before(
    asked: list[Charge], last: Charge
) -> None:
    past = admitted(POLICY, asked)
    for short in shortages(POLICY, past, last):
        if short.fits is None:
            assert last.cost > short.balance.limit
            continue
        wait = short.fits - (last.window_end if short.balance.budget == "window" else last.at)
        names = {
            delay: {each.balance.budget for each in shortages(POLICY, past, moved(last, delay))}
            for delay in (wait, wait - timedelta(microseconds=1))
        }
        assert short.balance.budget not in names[wait]
        assert short.balance.budget in names[wait - timedelta(microseconds=1)]


def moved(asked: Charge, by: timedelta) -> Charge:
    return replace(
        asked, at=asked.at + by, window_start=asked.window_start + by, window_end=asked.window_end + by
    )


def test_a_refusal_names_the_budget_what_is_left_and_when_it_frees_up() -> None:
    past = [charge(number, number, Fraction(1, 3), end=number * 40) for number in range(3)]
    with pytest.raises(Refused) as refused:
        admit(POLICY, "zcdp", past, charge(9, 4, Fraction(1, 4), end=400))
    assert str(refused.value) == (
        "population homes has not enough budget for a release of a:\n"
        "  week budget: asks rho 0.25, 0 of 1 is left; enough frees up at 2026-01-08 00:00:00 UTC, "
        "if nothing else is charged"
    )


def test_a_charge_above_the_limit_itself_never_fits() -> None:
    with pytest.raises(Refused, match=r"release budget: asks rho 0.6, 0.5 of 0.5 is left; it never fits"):
        admit(POLICY, "zcdp", [], charge(1, 0, Fraction(3, 5)))


def test_a_budget_is_spent_to_the_last_fraction() -> None:
    past = [charge(number, 0, Fraction(1, 3)) for number in range(2)]
    admit(POLICY, "zcdp", past, charge(3, 0, Fraction(1, 3)))
    with pytest.raises(Refused):
        admit(POLICY, "zcdp", past, charge(3, 0, Fraction(1, 3) + Fraction(1, 10**40)))


def test_two_currencies_do_not_add_up() -> None:
    with pytest.raises(Refused, match="a ledger of pure"):
        admit(POLICY, "pure", [], charge(1, 0))


def test_a_release_is_charged_once() -> None:
    with pytest.raises(Refused, match="charged before"):
        admit(POLICY, "zcdp", [charge(1, 0)], charge(1, 200))


def test_balances_say_what_is_spent_and_when_the_next_part_returns() -> None:
    past = [charge(1, 0, Fraction(1, 4)), charge(2, 3, Fraction(1, 5), family="b")]
    now = START + 4 * DAY
    found = balances(POLICY, past, family="a", window=(now - DAY, now), at=now)
    assert [(b.budget, b.spent, b.frees) for b in found] == [
        ("release", 0, None),
        ("window", 0, None),
        ("week", Fraction(9, 20), START + 7 * DAY),
        ("year", Fraction(9, 20), START + 365 * DAY),
        ("family", Fraction(1, 4), START + 365 * DAY),
    ]
    assert found[2].left == Fraction(11, 20)


@pytest.mark.parametrize("shift", [-6, -1, 0, 1, 6])
def test_a_window_is_shared_by_every_charge_that_overlaps_it(shift: int) -> None:
    """Whichever of the two starts first: an earlier charge may be for events that are later."""
    past, asked = [charge(1, 0, Fraction(1, 4), end=20)], charge(2, 0, Fraction(1, 4), end=20 + shift)
    window = (asked.window_start, asked.window_end)
    spent = {each.budget: each.spent for each in balances(POLICY, past, family="a", window=window, at=START)}
    assert spent["window"] == Fraction(1, 4)
    apart = (past[0].window_end, past[0].window_end + DAY)
    spent = {each.budget: each.spent for each in balances(POLICY, past, family="a", window=apart, at=START)}
    assert spent["window"] == 0


@pytest.mark.parametrize("ahead", [timedelta(seconds=1), 8 * DAY, 400 * DAY])
def test_charges_stamped_in_the_future_count(ahead: timedelta) -> None:
    """A clock that ran ahead and was put right has freed nothing."""
    past = [moved(charge(1, 0, Fraction(1, 4)), ahead)]
    window = (START - 900 * DAY, START - 890 * DAY)
    spent = {each.budget: each.spent for each in balances(POLICY, past, family="a", window=window, at=START)}
    quarter = Fraction(1, 4)
    assert spent == {"release": 0, "window": 0, "week": quarter, "year": quarter, "family": quarter}


@pytest.mark.parametrize("cost", [Fraction(0), Fraction(-1)])
def test_a_charge_is_positive(cost: Fraction) -> None:
    with pytest.raises(BadInput, match="exact positive number"):
        charge(1, 0, cost)


def test_a_budget_is_positive_and_exact() -> None:
    with pytest.raises(BadInput, match="week budget"):
        replace(POLICY, week=Fraction(0))


def test_a_charge_keeps_to_utc() -> None:
    with pytest.raises(BadInput, match="not in UTC"):
        replace(charge(1, 0), at=datetime(2026, 1, 1, tzinfo=None))


def test_numbers_that_are_shortened_are_marked() -> None:
    assert (show(Fraction(1, 4)), show(Fraction(1, 3))) == ("0.25", "about 0.333333")


RHO, ALPHA = Fraction("0.0172053180393"), Fraction("30.52864")
"""What a plan with the epsilon 1 and the delta 1e-8 of `charge` carries."""


def test_a_charge_shows_by_itself_that_it_keeps_its_claim() -> None:
    sound = replace(charge(1, 0, cost=RHO), alpha=ALPHA)
    assert claim_holds(sound)
    assert not claim_holds(replace(sound, alpha=None)), "without alpha a charge shows nothing"
    pure = replace(sound, currency="pure", cost=Fraction(1), delta=Fraction(0), alpha=None)
    assert claim_holds(pure)
    assert not claim_holds(replace(pure, cost=Fraction(2)))


@pytest.mark.parametrize(
    "change",
    [
        {"cost": RHO + Fraction(1, 10**13)},
        {"epsilon": Fraction("0.999999999")},
        {"delta": Fraction("9.99e-9")},
        {"alpha": Fraction(30)},
        {"alpha": Fraction(1)},
        {"alpha": Fraction(10**100)},
        {"currency": "pure"},
    ],
    ids=str,
)
def test_a_charge_that_does_not_keep_its_claim_is_none(change: dict[str, Any]) -> None:
    sound = replace(charge(1, 0, cost=RHO), alpha=ALPHA)
    with pytest.raises(BadInput, match="not shown to imply"):
        replace(sound, **change)


def test_a_ledger_that_does_not_verify_would_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fa_core.privacy.ledger.implies", lambda *_: True)
    assert replace(charge(1, 0, cost=2 * RHO), alpha=ALPHA).cost == 2 * RHO


def test_a_row_says_alpha_and_a_row_of_before_keeps_its_bytes() -> None:
    sound = replace(charge(1, 0, cost=RHO), alpha=ALPHA)
    row, before = chain.encode(sound), chain.encode(replace(sound, alpha=None))
    assert chain.decode(row) == sound
    assert row.replace(f'"alpha":"{ALPHA}",'.encode(), b"") == before
    assert b"alpha" not in before
    assert chain.decode(before) == replace(sound, alpha=None)
    with pytest.raises(BadInput, match="not shown to imply"):
        chain.decode(row.replace(b'"epsilon":"1"', b'"epsilon":"1/2"'))


def test_what_a_population_gets_that_declares_nothing() -> None:
    """The budgets of docs/ledger.md, for a release, a window, a week, a year and a family."""
    quarter, half = Fraction(1, 4), Fraction(1, 2)
    assert DEFAULT_POLICIES["zcdp"] == Policy(quarter, half, quarter, Fraction(2), Fraction(1))
    assert DEFAULT_POLICIES["pure"] == Policy(*map(Fraction, (4, 8, 8, 52, 26)))
