"""The odometer, in true time: whatever the device's clock says, no window ever holds more than the budget."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from clients.device.odometer import Budget, Charge, Moment, affords, frees_up, settled, settles, spent
from fa_core.errors import BadInput

START = datetime(2026, 1, 1, tzinfo=UTC)
AGE = timedelta(hours=24)
BUDGET = Budget(Fraction(1, 7), timedelta(days=28), timedelta(days=28))

Affords = Callable[[Sequence[Charge], Fraction, Moment, Budget], bool]


def at(days: float, local: float | None = None) -> Moment:
    now = START + timedelta(days=days)
    return Moment(START + timedelta(days=days if local is None else local), now, now, AGE)


def test_costs_are_exact() -> None:
    third = Budget(Fraction(1), timedelta(days=28), timedelta(0))
    charges = [Charge(Fraction(1, 3), START)] * 2
    assert affords(charges, Fraction(1, 3), at(1), third)
    assert not affords(charges, Fraction(1, 3) + Fraction(1, 10**30), at(1), third)
    assert not affords([], Fraction(-1, 10**30), at(1), third)


def test_a_charge_leaves_the_window_after_it_and_the_margin() -> None:
    charges = [Charge(BUDGET.rho, START)]
    assert spent(charges, at(28.99), BUDGET) == BUDGET.rho
    assert spent(charges, at(29), BUDGET) == 0
    assert frees_up(charges, START, AGE, BUDGET) == START + timedelta(days=29)
    assert frees_up(charges, START + timedelta(days=29), AGE, BUDGET) is None


def test_a_device_whose_clock_disagrees_with_the_witness_does_not_act() -> None:
    assert at(5, local=5.9).agrees
    assert not at(5, local=6.1).agrees
    assert not at(5, local=3.9).agrees
    replayed = Moment(START, START, START + timedelta(days=9), AGE)
    assert not replayed.agrees


def test_the_clock_set_forward_frees_nothing() -> None:
    charges = [Charge(BUDGET.rho, START)]
    assert spent(charges, at(1, local=400), BUDGET) == BUDGET.rho


def test_the_clock_set_back_frees_nothing_and_gives_no_early_timestamp() -> None:
    moment = at(10, local=9.5)
    assert moment.timestamp == START + timedelta(days=10)
    assert moment.earliest == START + timedelta(days=9.5)
    older = Moment(START, START, START + timedelta(hours=20), AGE)
    assert older.agrees
    assert older.timestamp == START + timedelta(hours=20), "the latest that the witness ever said"


def test_a_fresh_store_takes_no_part_for_its_time_and_the_margin() -> None:
    assert not settled(START, at(28.9), BUDGET)
    assert not settled(START, at(29.5, local=28.9), BUDGET)
    assert settled(START, at(29), BUDGET)
    assert settles(START, AGE, BUDGET) == START + timedelta(days=29)
    none = replace(BUDGET, settle=timedelta(0))
    assert settled(START, at(-0.001), none)
    assert settles(START, AGE, none) == START


Settled = Callable[[datetime, Moment, Budget], bool]


def second_budget(settled: Settled) -> float:
    """Return after how many true days a reinstalled device spends again what it spent just before.

    The review's schedule: when its fresh store first sees a checkpoint, that is a day old, and the device's
    clock is two hours less than a day behind. Later both are right.
    """
    first = Moment(START - timedelta(hours=22), START - AGE, START - AGE, AGE)
    assert first.agrees
    return next(hour / 24 for hour in range(40 * 24) if settled(first.timestamp, at(hour / 24), BUDGET))


def test_a_reinstalled_device_with_a_slow_clock_and_an_old_checkpoint_keeps_its_window() -> None:
    assert second_budget(settled) >= BUDGET.window / timedelta(days=1)


def without_the_margin(first: datetime, moment: Moment, budget: Budget) -> bool:
    return moment.earliest - first >= budget.settle


def test_without_the_margin_it_would_spend_twice_in_one_window() -> None:
    """The broken control: the review's 27.08 days in place of 28."""
    assert round(second_budget(without_the_margin), 2) == 27.08


def test_a_budget_that_makes_no_sense_is_refused() -> None:
    for rho, window, settle in ((-1, 1, 1), (1, 0, 1), (1, 1, -1)):
        with pytest.raises(BadInput, match="budget"):
            Budget(Fraction(rho), timedelta(days=window), timedelta(days=settle))


# Random schedules.


@dataclass
class Device:
    """What survives a restart and a reinstall, played in true time."""

    charges: list[Charge]
    latest: datetime | None = None
    first: datetime | None = None


def play(seed: int, steps: int, afford: Affords, settled: Settled = settled) -> list[tuple[float, Fraction]]:
    """Play one schedule; return what was sent, as (true day, cost), over all the device's lives.

    In each step some true time passes; the clock jumps, is put right or drifts; the store is sometimes
    thrown away (a reinstall, from the backup of an empty one); the server shows a checkpoint that is up to
    a day old, and asks a plan.
    """
    random_of = random.Random(seed)
    true, offset, device, sent = 0.0, 0.0, Device([]), []
    for _ in range(steps):
        true += random_of.choice([0.0, 0.01, 0.3, 1.0, 5.0, 14.0, 27.5])
        offset = random_of.choice(
            [offset, 0.0, offset, -0.9, -0.9, random_of.uniform(-1.5, 1.5), random_of.uniform(-400, 400)]
        )
        if random_of.random() < 0.1:
            device = Device([])
        witnessed = START + timedelta(days=true - random_of.choice([0.0, 0.4, 1.0, 1.0]))
        latest = max(witnessed, device.latest or witnessed)
        moment = Moment(START + timedelta(days=true + offset), witnessed, latest, AGE)
        if not moment.agrees:
            continue
        device.latest, device.first = latest, device.first or moment.timestamp
        cost = BUDGET.rho * Fraction(random_of.randint(1, 40), 40)
        if settled(device.first, moment, BUDGET) and afford(device.charges, cost, moment, BUDGET):
            device.charges.append(Charge(cost, moment.timestamp))
            sent.append((true, cost))
    return sent


def worst(sent: Sequence[tuple[float, Fraction]]) -> Fraction:
    """Return the most that any true interval of the budget's length holds."""
    days = BUDGET.window / timedelta(days=1)
    return max(
        (
            sum((cost for then, cost in sent if start <= then < start + days), Fraction(0))
            for start, _ in sent
        ),
        default=Fraction(0),
    )


@pytest.mark.parametrize("schedules", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_no_schedule_puts_a_device_over_its_budget(schedules: int) -> None:
    spent_most = [worst(play(seed, 40, affords)) for seed in range(schedules)]
    assert max(spent_most) <= BUDGET.rho
    assert sum(most > BUDGET.rho / 2 for most in spent_most) > schedules / 2


def test_a_fresh_store_without_the_margin_is_caught() -> None:
    careless = (worst(play(seed, 40, affords, without_the_margin)) for seed in range(2_000))
    assert any(most > BUDGET.rho for most in careless)


def test_a_device_that_trusts_its_own_clock_is_caught() -> None:
    def careless(charges: Sequence[Charge], rho: Fraction, moment: Moment, budget: Budget) -> bool:
        recent = [charge.rho for charge in charges if charge.at > moment.local - budget.window]
        return sum(recent, rho) <= budget.rho

    assert any(worst(play(seed, 60, careless)) > BUDGET.rho for seed in range(200))


def test_a_device_that_leaves_out_the_margin_is_caught() -> None:
    def close(charges: Sequence[Charge], rho: Fraction, moment: Moment, budget: Budget) -> bool:
        recent = [charge.rho for charge in charges if charge.at > moment.timestamp - budget.window]
        return sum(recent, rho) <= budget.rho

    assert any(worst(play(seed, 60, close)) > BUDGET.rho for seed in range(1_000))
