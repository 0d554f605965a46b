"""What joining may hang on and how often it is done: not on the tables, and not without end."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from clients.device.admission import JOINS
from clients.device.records import Records
from clients.device.store import Store
from clients.evaluate import cohort_of_one, device_vectors
from fa_core.layout import compile_plan
from fa_core.secagg import MAX_ATTEMPTS
from fa_core.wire.invitation import encode
from tests.device.setup import NOW, POLICY, RULES, Setup, World, drive, make_setup, plan_of, reason_of, wake

MONTH = timedelta(days=30)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def setup(tmp_path: Path, world: World) -> Setup:
    return make_setup(tmp_path, world)


def test_no_request_waits_for_the_store_to_be_tidied(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tidying hashes every row that is left: its time would reveal how many there are."""
    device = setup.device()
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_tidy", lambda *_: pytest.fail("a request waited for the store to be tidied"))
        drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
    setup.time.now = NOW + MONTH
    device.tidy()
    assert setup.store().counts()["wake_events"] == {}


def test_what_is_past_its_retention_is_not_read_before_it_is_deleted(world: World, setup: Setup) -> None:
    kept = 30 * 24 - 1.0
    store = setup.store()
    store.record("wake_events", [wake(kept), wake(kept - 1)], "quality_metrics", NOW)
    store.close()
    plan, device = plan_of(window="30d"), setup.device()
    setup.time.now = now = NOW + timedelta(hours=1)
    sums, _ = drive(world, plan, device, world.invite(plan, world.release(), now, now))
    rows = setup.store().table("wake_events", "quality_metrics", RULES.kept_since("wake_events", now), now)
    assert rows.num_rows == 21, "one of the two is past its retention"
    alone = cohort_of_one({"accent": "en-GB"}, {"wake_events": rows})
    assert np.array_equal(sums.total, device_vectors(plan, compile_plan(plan), alone, now)[0])


def test_a_device_joins_so_many_rounds_a_day_and_no_more(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, policy=replace(POLICY, plans_a_day=2))
    device, plan = setup.device(), plan_of()
    for _ in range(2 * JOINS):
        device.handle("join", encode(world.invite(plan, world.release(), NOW, NOW)))
    more = encode(world.invite(plan, world.release(), NOW, NOW))
    assert reason_of(lambda: device.handle("join", more)) == "DAILY_LIMIT"
    setup.time.now = almost = NOW + timedelta(hours=23, minutes=59)
    more = encode(world.invite(plan, world.release(), NOW, almost))
    assert reason_of(lambda: device.handle("join", more)) == "DAILY_LIMIT"
    setup.time.now = NOW + timedelta(days=1)
    later = world.invite(plan, world.release(), setup.time.now, setup.time.now)
    device.handle("join", encode(later))


def joined_over_restarts(world: World, setup: Setup, tries: int) -> int:
    """Invite a device that is restarted before each invitation; how many rounds it joins."""
    joined = 0
    for _ in range(tries):
        invitation = encode(world.invite(plan_of(), world.release(), NOW, NOW))
        device = setup.device()
        joined += not reason_of(lambda it=invitation, who=device: who.handle("join", it))
    return joined


def test_a_restart_gives_no_more_joins(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, policy=replace(POLICY, plans_a_day=1))
    assert joined_over_restarts(world, setup, 2 * JOINS) == JOINS


def test_a_device_that_keeps_its_joins_in_memory_is_caught(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control."""
    monkeypatch.setattr(Records, "joins", lambda _: [])
    setup = make_setup(tmp_path, world, policy=replace(POLICY, plans_a_day=1))
    assert joined_over_restarts(world, setup, 2 * JOINS) == 2 * JOINS


def test_joins_of_days_ago_are_not_kept(world: World, setup: Setup) -> None:
    device = setup.device()
    for days in range(3):
        setup.time.now = NOW + timedelta(days=days)
        device.handle("join", encode(world.invite(plan_of(), world.release(), NOW, setup.time.now)))
    assert Records(setup.store()).joins() == [NOW + timedelta(days=2)]


def test_an_attempt_too_many_is_declined(world: World, setup: Setup) -> None:
    plan, release = plan_of(), world.release()
    device = setup.device()
    device.handle("join", encode(world.invite(plan, release, NOW, NOW, attempt=MAX_ATTEMPTS - 1)))
    again = encode(world.invite(plan, release, NOW, NOW, attempt=MAX_ATTEMPTS))
    assert reason_of(lambda: device.handle("join", again)) == "LIMITS"


def test_how_long_counting_took_decides_nothing_later(world: World, setup: Setup) -> None:
    device, plan = setup.device(), plan_of()
    drive(world, plan, device, world.invite(plan, world.release(), NOW, NOW))
    (past,) = device._records.past()
    assert past.took == timedelta(minutes=1)
