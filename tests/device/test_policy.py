"""Policy: what is not known is not so, and nothing runs when it may not."""

import json
from datetime import UTC, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from clients.device.interface import Reason
from clients.device.policy import (
    Asks,
    Conditions,
    FileReader,
    Past,
    Policy,
    QuietHours,
    nothing_known,
    over_limits,
    refusal,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
READY = Conditions(unmetered_network=True, charging=True, idle=True, speaking=False)
BORNE = {"corrupt": Fraction(1, 10), "dropout": Fraction(1, 10)}
ASKS = Asks(frozenset({"charging", "idle"}), Fraction(1), Fraction(1, 10**8), 100, 100, False, False, **BORNE)


def why(
    policy: Policy | None = None,
    asks: Asks = ASKS,
    conditions: Conditions = READY,
    past: tuple[Past, ...] = (),
    now: datetime = NOW,
) -> Reason | None:
    return refusal(policy or Policy(), asks, conditions, past, now)


def test_a_plan_within_all_limits_may_run() -> None:
    assert why() is None


@pytest.mark.parametrize("value", [None, False])
@pytest.mark.parametrize("name", ["charging", "idle"])
def test_what_the_plan_requires_must_be_known_to_hold(name: str, value: bool | None) -> None:
    conditions = Conditions(**{"charging": True, "idle": True, "speaking": False, name: value})
    assert why(conditions=conditions) is Reason.CONDITIONS


def test_what_the_owner_requires_counts_beside_what_the_plan_does() -> None:
    policy = Policy(require=frozenset({"unmetered_network"}))
    conditions = Conditions(charging=True, idle=True, speaking=False)
    assert why(policy, conditions=conditions) is Reason.CONDITIONS
    assert why(conditions=conditions) is None


@pytest.mark.parametrize("speaking", [None, True])
def test_nothing_runs_while_somebody_may_be_speaking(speaking: bool | None) -> None:
    conditions = Conditions(unmetered_network=True, charging=True, idle=True, speaking=speaking)
    assert why(conditions=conditions) is Reason.SPEAKING


def test_a_requirement_that_this_version_does_not_know_does_not_hold() -> None:
    asks = Asks(frozenset({"on_the_moon"}), Fraction(1), Fraction(0), 1, 100, False, False, **BORNE)
    assert why(asks=asks) is Reason.CONDITIONS


@pytest.mark.parametrize(
    "asks",
    [
        Asks(frozenset(), Fraction(3), Fraction(0), 100, 100, False, False, **BORNE),
        Asks(frozenset(), Fraction(1), Fraction(1, 10**5), 100, 100, False, False, **BORNE),
        Asks(frozenset(), Fraction(1), Fraction(0), 10**6, 100, False, False, **BORNE),
        Asks(frozenset(), Fraction(1), Fraction(0), 100, 10, False, False, **BORNE),
        Asks(frozenset(), Fraction(1), Fraction(0), 100, 100, False, True, **BORNE),
        Asks(frozenset(), Fraction(1), Fraction(0), 100, 100, False, False, Fraction(0), Fraction(0)),
        Asks(frozenset(), Fraction(1), Fraction(0), 100, 100, False, False, Fraction(1, 4), Fraction(3, 5)),
    ],
)
def test_a_plan_that_asks_for_too_much_is_refused(asks: Asks) -> None:
    assert why(asks=asks) is Reason.LIMITS


def test_central_noise_is_declined_unless_the_owner_allows_it() -> None:
    asks = Asks(frozenset(), Fraction(1), Fraction(0), 100, 100, True, False, **BORNE)
    assert not any(over_limits(Policy(central_noise=True), asks))
    assert any(over_limits(Policy(), asks))


def test_plans_and_minutes_a_day_are_limited_and_come_back() -> None:
    run = Past(NOW - timedelta(hours=23), timedelta(minutes=6))
    assert why(Policy(plans_a_day=1), past=(run,)) is Reason.DAILY_LIMIT
    assert why(Policy(plans_a_day=1), past=(run,), now=NOW + timedelta(hours=1)) is None
    assert why(Policy(time_a_day=timedelta(minutes=10)), past=(run, run)) is Reason.DAILY_LIMIT
    assert why(Policy(time_a_day=timedelta(minutes=13)), past=(run, run)) is None
    assert why(Policy(plans_a_day=0)) is Reason.DAILY_LIMIT


@pytest.mark.parametrize(
    ("hour", "quiet"), [(21, False), (22, True), (23, True), (3, True), (6, False), (12, False)]
)
def test_quiet_hours_cross_midnight(hour: int, quiet: bool) -> None:
    policy = Policy(quiet=QuietHours(time(22), time(6)))
    assert (why(policy, now=NOW.replace(hour=hour)) is Reason.QUIET_HOURS) is quiet


def test_quiet_hours_are_the_owners_local_time() -> None:
    quiet = QuietHours(time(13), time(14), "Europe/Berlin")
    assert quiet.covers(NOW)
    assert not QuietHours(time(13), time(14)).covers(NOW)
    assert not QuietHours(time(5), time(5)).covers(NOW.replace(hour=5))


def test_a_file_of_conditions_is_believed_while_it_is_fresh(tmp_path: Path) -> None:
    reader = FileReader(tmp_path / "conditions.json")
    said = {"at": (NOW - timedelta(minutes=1)).isoformat(), "charging": True, "idle": False, "speaking": "no"}
    reader.path.write_text(json.dumps(said))
    assert reader(NOW) == Conditions(charging=True, idle=False)
    assert reader(NOW + timedelta(minutes=2)) == Conditions()
    assert reader(NOW - timedelta(minutes=2)) == Conditions()
    reader.path.write_text("[" * 100_000)
    assert reader(NOW) == Conditions()


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"at": 5}', '{"at": "2026-03-02"}', '{"at": "noon"}', "7"]
)
def test_a_file_of_conditions_that_says_nothing_sound_says_nothing(tmp_path: Path, text: str | None) -> None:
    reader = FileReader(tmp_path / "conditions.json")
    if text is not None:
        reader.path.write_text(text)
    assert reader(NOW) == Conditions() == nothing_known(NOW)
