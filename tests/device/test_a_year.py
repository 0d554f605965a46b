"""Years of the shipped schedule on a device and a population whose budgets are the defaults.

Every decision is made by the rules that devices and ledgers run: policy, odometer, windows, balances. Only
the clock, the store and the network are left out.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from clients.device import lab_hub
from clients.device.config import read_config
from clients.device.odometer import SKEW, Budget, Moment, affords, settled
from clients.device.odometer import Charge as Spent
from clients.device.policy import Conditions, Past, Policy, asks_of, refusal
from clients.device.receipt import cost
from clients.device.records import Contribution
from clients.device.trust import answered
from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.plan import Plan, load, with_rho
from fa_core.privacy.ledger import DEFAULT_POLICIES, WEEK, YEAR, Charge, admit
from fa_core.privacy.zcdp import conversion
from fa_core.values import Layout

PLANS = Path(__file__).parents[2] / "eval_plans"
SCHEDULE: dict[str, dict[str, Any]] = tomllib.loads((PLANS / "schedule.toml").read_text())
BUDGETS = DEFAULT_POLICIES["zcdp"]
START, DAY = datetime(2026, 1, 5, 3, tzinfo=UTC), timedelta(days=1)
WEEKS = 106  # so that each year that rolls over the middle is full
READY = Conditions(unmetered_network=True, charging=True, idle=True, speaking=False)


@dataclass(frozen=True)
class Run:
    """One release of a plan, asked for at a time about the window that ends there."""

    plan: Plan
    layout: Layout
    at: datetime

    @property
    def name(self) -> str:
        return self.plan.metadata.name


@cache
def shipped(name: str, epsilon: int | None = None) -> tuple[Plan, Layout]:
    """Return a shipped plan and its layout, with another epsilon if asked."""
    plan = load(PLANS / f"{name}.yaml", today=date(2026, 11, 22))
    if epsilon is not None:
        asked = plan.privacy.model_copy(update={"epsilon": Fraction(epsilon), "rho": None, "alpha": None})
        plan = plan.model_copy(update={"privacy": with_rho(asked)})
    return plan, compile_plan(plan)


def runs(changed: dict[str, int] | None = None, in_30_days: int | None = None) -> list[Run]:
    """Return every run of the schedule, in order; `changed` gives plans another epsilon (for controls)."""
    changed = changed or {}

    def run(name: str, at: datetime) -> Run:
        return Run(*shipped(name, changed.get(name)), at)

    found = [run(name, at) for at in weeks(1) for name in SCHEDULE["weekly"]["plans"]]
    in_turn = cycle(SCHEDULE["every_four_weeks"]["plans"])
    found += [run(name, at) for at, name in zip(weeks(4), in_turn, strict=False)]
    together = in_30_days or SCHEDULE["incidents"]["in_30_days"]
    apart = YEAR * SCHEDULE["incidents"]["in_30_days"] / SCHEDULE["incidents"]["a_year"] + DAY / 4
    incident = START
    while incident < START + WEEKS * WEEK:
        hour = incident.replace(minute=0, second=0)
        names = SCHEDULE["incidents"]["plans"]
        found += [run(name, hour + number * DAY) for number in range(together) for name in names]
        incident += apart
    return sorted(found, key=lambda each: each.at)


def weeks(step: int) -> Iterator[datetime]:
    """Yield the time of a run in every `step`th week."""
    return (START + week * WEEK for week in range(0, WEEKS, step))


@dataclass
class DefaultDevice:
    """What a device with the default terms decides: `clients.device.contribution` without store and keys.

    `late` is how old the witness's time is whenever the device is asked.
    """

    late: timedelta
    done: list[Contribution] = field(default_factory=list)

    def answer(self, run: Run) -> str:
        """Return what it does: "counts", "zeros", or why it declines."""
        moment = Moment(run.at, run.at - self.late, run.at - self.late, SKEW)
        start, rho = run.at - run.plan.window, cost(run.layout)
        past = [Past(each.at, each.took) for each in self.done]
        why = refusal(Policy(), asks_of(run.plan, run.layout), READY, past, run.at)
        if why is not None:
            return why.name
        if not settled(START - 2 * Budget().settle, moment, Budget()):
            return "SETTLING"
        if answered(self.done, run.name, start, run.at):
            return "WINDOW"
        spent = [Spent(each.rho, each.timestamp) for each in self.done]
        counts = affords(spent, rho, moment, Budget())
        self.done.append(
            Contribution(
                len(self.done).to_bytes(16, "big"), 0, run.plan.hash, run.name, start, run.at,
                rho if counts else Fraction(0), moment.timestamp, run.at, timedelta(minutes=1),
            )
        )  # fmt: skip
        return "counts" if counts else "zeros"


def device_faults(asked: Sequence[Run], late: timedelta = timedelta(0)) -> list[tuple[str, str]]:
    """Return (plan, what the device did) for each run that it did not answer with its counts."""
    device = DefaultDevice(late)
    said = [(run.name, device.answer(run)) for run in asked]
    spent = [(each.at, each.rho) for each in device.done]
    assert most(spent, Budget().window) <= Budget().rho
    return [each for each in said if each[1] != "counts"]


def ledger_faults(asked: Sequence[Charge]) -> list[str]:
    """Return the family of each charge that the population's ledger refuses."""
    past: list[Charge] = []
    faults = []
    for charge in asked:
        try:
            admit(BUDGETS, "zcdp", past, charge)
        except Refused:
            faults.append(charge.family)
        else:
            past.append(charge)
    spent = [(each.at, each.cost) for each in past]
    assert most(spent, WEEK) <= BUDGETS.week
    assert most(spent, YEAR) <= BUDGETS.year
    return faults


def most(spent: Sequence[tuple[datetime, Fraction]], length: timedelta) -> Fraction:
    """Return the most that any half-open interval of this length holds."""
    return max(sum(rho for at, rho in spent if start <= at < start + length) for start, _ in spent)


def charge(number: int, family: str, rho: Fraction, window: timedelta, at: datetime) -> Charge:
    """Return a charge of the population, as the server writes it."""
    return Charge(
        "homes", family, f"{number:032x}", "0" * 64, "zcdp", rho, Fraction(1), Fraction(1, 10**8),
        at - window, at, at,
    )  # fmt: skip


def charges(asked: Sequence[Run]) -> list[Charge]:
    """Return what the runs are charged."""
    return [
        charge(number, run.name, cost(run.layout), run.plan.window, run.at)
        for number, run in enumerate(asked)
    ]


def test_the_schedule_names_every_shipped_plan_and_each_costs_what_was_promised() -> None:
    named = {
        group: {name: shipped(name)[1].epsilon for name in each["plans"]} for group, each in SCHEDULE.items()
    }
    evaluating = {path.stem for path in PLANS.glob("*.yaml") if "\nkind: EvalPlan\n" in path.read_text()}
    assert {name for each in named.values() for name in each} == evaluating
    assert all(epsilon <= 1 for name in ("weekly", "every_four_weeks") for epsilon in named[name].values())
    assert all(epsilon <= 2 for epsilon in named["incidents"].values())


@pytest.mark.parametrize("late", [timedelta(0), SKEW], ids=["fresh", "a day late"])
def test_a_default_device_answers_every_scheduled_release_with_its_counts(late: timedelta) -> None:
    assert device_faults(runs(), late) == []


def test_the_population_has_room_for_every_scheduled_release() -> None:
    asked = runs()
    assert ledger_faults(charges(asked)) == []
    year = [run for run in asked if START <= run.at < START + YEAR]
    incidents = [run for run in year if run.name in SCHEDULE["incidents"]["plans"]]
    assert len(incidents) == SCHEDULE["incidents"]["a_year"]
    assert len(year) == 53 + 14 + len(incidents)


@pytest.mark.parametrize(
    ("changed", "in_30_days", "fault"),
    [
        ({"wake-word-weekly": 2}, None, ("wake-word-weekly", "zeros")),
        ({"false-wake-incident": 4}, None, ("false-wake-incident", "LIMITS")),
        ({}, 4, ("wake-word-weekly", "zeros")),
    ],
    ids=["the weekly plan at epsilon 2", "an incident plan at epsilon 4", "four incidents in 30 days"],
)
def test_a_schedule_over_the_budget_is_noticed(
    changed: dict[str, int], in_30_days: int | None, fault: tuple[str, str]
) -> None:
    assert fault in device_faults(runs(changed, in_30_days))


def test_a_weekly_plan_at_epsilon_2_gets_zeros_in_two_of_five_weeks_and_empties_the_ledger() -> None:
    asked = [run for run in runs({"wake-word-weekly": 2}) if run.name == "wake-word-weekly"]
    assert len(device_faults(asked)) == 2 * (WEEKS // 5)
    assert ledger_faults(charges(asked))


def test_in_place_of_questions_and_incidents_there_is_room_for_rollouts_and_trainings() -> None:
    """Four rollouts of rho 0.15 and two trainings at epsilon 4 a year, beside the weekly plan."""
    found, rollout = conversion(Fraction(4), Fraction(1, 10**8)), ("rollout", Fraction(15, 100))
    assert found is not None
    training = ("training", found[0])
    weekly = charges([run for run in runs() if run.name == "wake-word-weekly"])
    number, asked = len(weekly), list(weekly)
    for month, (name, rho) in enumerate([rollout, training, rollout] * 4):
        asked.append(charge(number + month, name, rho, WEEK, START + (10 + 61 * month) * DAY))
    asked.sort(key=lambda each: each.at)
    assert ledger_faults(asked) == []
    on_device = [(each.at, each.cost) for each in asked if each.family != "training"]
    assert most(on_device, Budget().window + 2 * SKEW) <= Budget().rho


@pytest.mark.parametrize("ample", [False, True])
def test_the_devices_of_a_lab_have_the_default_terms_unless_they_are_made_without_limits(
    ample: bool, tmp_path: Path
) -> None:
    hub = lab_hub.Hub(tmp_path, tmp_path / "device.sock", 0, 1, ample)
    keys = lab_hub.Trusted(*4 * ["00" * 32], helper="11" * 32 if ample else None)
    file = tmp_path / "device.toml"
    file.write_text(lab_hub._config("node-00-0000", hub, keys, {}))
    config = read_config(file)
    assert config.pins().helper == (b"\x11" * 32 if ample else None)
    policy = Policy(reply_after=timedelta(0))
    default = config.device_budget() == Budget(settle=timedelta(0)), config.device_policy() == policy
    assert default == ((False, False) if ample else (True, True))
