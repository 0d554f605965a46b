"""A device's part in a collection: what it uploads and charges, and when it declines."""

from collections.abc import Callable
from dataclasses import replace
from datetime import time, timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device import admission, collecting, receipt, reports
from clients.device.contribution import Clock, StoredDevice
from clients.device.counting import FAILED, Counted
from clients.device.journal import sentence
from clients.device.policy import QuietHours
from clients.device.proof import problems
from clients.device.records import Records
from clients.device.store import Scope, Store
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, from_canonical
from fa_core.secagg import messages
from fa_core.secagg.identity import population_id
from fa_core.wire.invitation import encode
from tests.device import setup as building
from tests.device.offering import HOUR, PLAN, Collection, of_the_table, pinning, summed_plan
from tests.device.setup import (
    BUDGET,
    NOW,
    POLICY,
    READY,
    START,
    Setup,
    World,
    drive,
    make_setup,
    plan_of,
    raw,
    reason_of,
)
from tests.training.test_device import training

COST = receipt.cost(compile_plan(PLAN))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def setup(tmp_path: Path, world: World) -> Setup:
    return pinning(make_setup(tmp_path, world))


def charges(setup: Setup) -> list[Fraction]:
    return [each.rho for each in Records(setup.store()).contributions()]


def kept(setup: Setup) -> list[reports.KeptReport]:
    return reports.still_open(setup.store().connection, START)


def declined(setup: Setup, invitation: bytes) -> str:
    """Return why a device declines; nothing was charged or kept."""
    why = reason_of(lambda: setup.device().handle("report", invitation))
    assert (charges(setup), kept(setup)) == ([], [])
    return why


# What it sends.


def test_a_report_shares_what_the_table_holds_and_is_charged_once(world: World, setup: Setup) -> None:
    collection = Collection(world)
    shared = collection.shared(setup.device().handle("report", collection.invite()))
    assert shared.tolist() == of_the_table(setup).tolist()
    assert shared.any()
    assert charges(setup) == [COST]
    assert problems(setup.store(), None) == []


def once(world: World, setup: Setup, device: Callable[[], StoredDevice]) -> None:
    """Every invitation to a task gets the same bytes: under newer checkpoints, and after restarts."""
    collection = Collection(world)
    data = device().handle("report", collection.invite())
    for step in range(1, 4):
        setup.time.now = NOW + step * HOUR
        invitation = collection.invite(setup.time.now)
        assert [device().handle("report", invitation) for _ in range(2)] == [data, data]
    Collection(world, summed_plan("another")).invite(setup.time.now)
    newer = plan_of("newer", revision=2)
    device().handle("join", encode(world.invite(newer, world.release(), NOW, setup.time.now)))
    assert device().handle("report", invitation) == data, "the log has grown, and the request is the same"
    assert charges(setup) == [COST]


def test_a_report_is_made_once(world: World, setup: Setup) -> None:
    once(world, setup, setup.device)


def test_a_device_that_forgets_its_report_is_caught(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control: it makes another, and the two together are twice what a device may add."""
    monkeypatch.setattr(reports, "still_open", lambda connection, now: [])
    monkeypatch.setattr(admission, "answered", lambda *_: False)
    monkeypatch.setattr(Records, "contribute", lambda self, contribution: None)
    monkeypatch.setattr(reports, "keep", lambda connection, report: None)
    with pytest.raises(AssertionError):
        once(world, setup, setup.device)


def test_a_spent_budget_shares_zeros_and_costs_nothing(world: World, setup: Setup) -> None:
    pinning(setup, budget=replace(BUDGET, rho=COST))
    device, sent = setup.device(), []
    for name in ("one", "two"):
        collection = Collection(world, summed_plan(name))
        sent.append(device.handle("report", collection.invite()))
        assert collection.shared(sent[-1]).any() == (name == "one")
    assert charges(setup) == [COST, 0]
    assert len(sent[0]) == len(sent[1])
    assert "24 counts of nothing: no budget left. It cost rho 0." in sentence(setup.store().entries()[-1])


def test_what_cannot_be_counted_is_shared_as_zeros_and_charged(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OverflowError("a value")

    monkeypatch.setattr(Store, "table", broken)
    collection = Collection(world)
    assert not collection.shared(setup.device().handle("report", collection.invite())).any()
    assert charges(setup) == [COST]
    assert setup.store().entries()[-1].body["zeros"] == FAILED


def test_rows_that_are_forgotten_while_it_counts_are_not_shared(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = collecting.measured

    def forgetting(*arguments: Any) -> Counted:
        found = measured(*arguments)
        owner = setup.store()
        owner.forget(Scope(), NOW)
        owner.close()
        return found

    monkeypatch.setattr(collecting, "measured", forgetting)
    collection = Collection(world)
    assert not collection.shared(setup.device().handle("report", collection.invite())).any()
    assert setup.store().entries()[-1].body["zeros"] == admission.DELETED


def test_consent_that_is_revoked_while_it_counts_stops_it(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = collecting.measured

    def revoking(*arguments: Any) -> Counted:
        owner = setup.store()
        owner.revoke("quality_metrics", NOW)
        owner.close()
        return measured(*arguments)

    monkeypatch.setattr(collecting, "measured", revoking)
    assert declined(setup, Collection(world).invite()) == "CONSENT"


def test_every_reply_waits_alike(world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not counted, made before: a whole delay after its request."""
    pinning(setup, policy=replace(POLICY, reply_after=timedelta(seconds=2)))
    slept: list[float] = []
    clock = Clock(lambda: NOW, lambda: 5.0, slept.append)
    store = setup.store()
    device = StoredDevice(store, setup.terms, Records(store).identity(), lambda _: READY, clock)
    first, second = Collection(world), Collection(world, summed_plan("two"))
    replies = [device.handle("report", first.invite()) for _ in range(2)]
    monkeypatch.setattr(Store, "table", lambda *_: 1 / 0)
    replies.append(device.handle("report", second.invite()))
    assert slept == [2.0, 2.0, 2.0]
    assert len({*map(len, replies)}) == 1


# When it declines.

QUIET = QuietHours(time(11), time(13))
POLICIES = {
    "max_epsilon": ({"max_epsilon": Fraction(1, 2)}, "LIMITS"),
    "max_cells": ({"max_cells": 23}, "LIMITS"),
    "min_cohort": ({"min_cohort": 4}, "LIMITS"),
    "min_kappa": ({"min_kappa": Fraction("0.2501")}, "LIMITS"),
    "plans_a_day": ({"plans_a_day": 0}, "DAILY_LIMIT"),
    "quiet": ({"quiet": QUIET}, "QUIET_HOURS"),
}


@pytest.mark.parametrize("limit", POLICIES)
def test_a_plan_outside_the_owners_policy_is_declined(world: World, setup: Setup, limit: str) -> None:
    change, reason = POLICIES[limit]
    pinning(setup, policy=replace(POLICY, **change))
    assert declined(setup, Collection(world).invite()) == reason


def test_shares_of_bad_devices_and_dropouts_mean_nothing_where_aggregators_add_the_noise(
    world: World, setup: Setup
) -> None:
    """A plan of four stages is declined for them, and one of two aggregators is not."""
    pinning(setup, policy=replace(POLICY, min_corrupt=Fraction(1, 5), max_dropout=Fraction(1, 20)))
    rounds = world.invite(plan_of(noise="distributed"), world.release(), NOW, NOW)
    assert reason_of(lambda: setup.device().handle("join", encode(rounds))) == "LIMITS"
    setup.device().handle("report", Collection(world).invite())
    assert charges(setup) == [COST]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"speaking": True}, "SPEAKING"), ({"speaking": None}, "SPEAKING"), ({"charging": None}, "CONDITIONS")],
)
def test_the_conditions_of_the_moment_are_asked_as_for_a_round(
    world: World, setup: Setup, changes: dict[str, Any], reason: str
) -> None:
    pinning(setup, policy=replace(POLICY, require=frozenset({"charging"})))
    setup.conditions = replace(READY, **changes)
    assert declined(setup, Collection(world).invite()) == reason


def test_without_consent_nothing_is_uploaded(tmp_path: Path, world: World) -> None:
    (tmp_path / "silent").mkdir()
    setup = pinning(make_setup(tmp_path / "silent", world, consent=False))
    invitation = Collection(world).invite()
    assert declined(setup, invitation) == "CONSENT"
    assert sentence(setup.store().entries()[-1]) == (
        "Said no to a request: the owner has not consented to this purpose."
    )


def test_a_fresh_store_settles_first(world: World, setup: Setup) -> None:
    pinning(setup, budget=replace(BUDGET, settle=timedelta(days=9)))
    assert declined(setup, Collection(world).invite()) == "SETTLING"


@pytest.mark.parametrize("other", [None, raw(Ed25519PrivateKey.generate())], ids=["none", "another"])
def test_without_this_helpers_key_it_takes_part_in_none_of_its_collections(
    world: World, setup: Setup, other: bytes | None
) -> None:
    setup.terms = replace(setup.terms, pins=replace(setup.terms.pins, helper=other))
    assert declined(setup, Collection(world).invite()) == "COLLECTION"


@pytest.mark.parametrize(
    "changes",
    [
        {"opens": NOW + timedelta(seconds=1)},
        {"opens": NOW - HOUR, "closes": NOW},
        {"population": population_id("elsewhere")},
        {"start": NOW - timedelta(days=8), "until": NOW - timedelta(days=1)},
        {"kappa": Fraction(1, 2)},
        {"least": 2},
        {"charge": bytes(32)},
    ],
    ids=str,
)
def test_a_task_that_is_not_for_this_device_and_now_is_declined(
    world: World, setup: Setup, changes: dict[str, Any]
) -> None:
    """Times are the device's own clock's: that clocks may differ by a day lets no report be late."""
    assert declined(setup, Collection(world, changes=changes).invite()) == "COLLECTION"


def test_a_task_that_is_not_in_the_log_is_declined(world: World, setup: Setup) -> None:
    collection = Collection(world)
    assert declined(setup, collection.invite(index=0)) == "COLLECTION"
    assert declined(setup, collection.invite(inclusion=())) == "COLLECTION"


def test_a_task_that_the_witness_did_not_bind_is_declined(world: World, setup: Setup) -> None:
    collection = Collection(world)
    collection.signed = replace(collection.signed, witness=bytes(64))
    assert declined(setup, collection.invite()) == "COLLECTION"


def test_the_invitation_itself_is_believed_as_at_join(world: World, setup: Setup) -> None:
    collection = Collection(world)
    sound = collection.invite()
    for request, reason in ((b"", "MALFORMED"), (sound[:-1], "MALFORMED")):
        assert declined(setup, request) == reason
    pins = setup.terms.pins
    for change, reason in (
        ({"revoked": frozenset({raw(world.plan_key)})}, "REVOKED"),
        ({"log": bytes(32)}, "NOT_LOGGED"),
        ({"authority": bytes(32)}, "NOT_CHARGED"),
    ):
        setup.terms = replace(setup.terms, pins=replace(pins, **change))
        assert declined(setup, sound) == reason


def test_a_charge_of_something_else_is_no_charge(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "charge_entry", partial(building.charge_entry, family="another"))
    assert declined(setup, Collection(world).invite()) == "NOT_CHARGED"


def test_each_way_to_form_a_sum_is_asked_for_at_its_own_stage(world: World, setup: Setup) -> None:
    """A plan of two aggregators at join, one of four stages at report, and any training plan."""
    collection = Collection(world)
    assert reason_of(lambda: setup.device().handle("join", collection.invite())) == "SUM"
    for plan in (plan_of(), training()):
        rounds = world.invite(plan, world.release(), NOW, NOW)
        assert declined(setup, encode(rounds)) == "SUM"
        assert sentence(setup.store().entries()[-1]) == (
            "Said no to a request: the plan's sum is not formed in the way in which it was asked for."
        )


def test_a_plan_that_has_no_proof_system_is_declined(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(plan: Plan) -> None:
        raise ValueError("a form's coefficients are too large")

    monkeypatch.setattr(collecting, "prio", refusing)
    assert declined(setup, Collection(world).invite()) == "LIMITS"


def test_no_training_plan_is_summed_by_two_aggregators() -> None:
    plan = training()
    change = {"sum": "two_aggregators", "kappa": Fraction(1, 4)}
    hostile = plan.model_copy(update={"privacy": plan.privacy.model_copy(update=change)})
    with pytest.raises(BadInput, match="names its speaker"):
        from_canonical(canonical(hostile))


def test_a_decision_against_a_collection_is_in_the_journal_once(world: World, setup: Setup) -> None:
    pinning(setup, policy=replace(POLICY, plans_a_day=0))
    device, collection = setup.device(), Collection(world)
    for step in range(4):
        setup.time.now = NOW + step * HOUR
        invitation = collection.invite(setup.time.now)
        assert reason_of(lambda it=invitation: device.handle("report", it)) == "DAILY_LIMIT"
    assert [each.kind for each in setup.store().entries()].count("declined") == 1


# One contribution for a release, and for a window of a family, in whichever way its sum is formed.


def twice(world: World, setup: Setup, first: Callable[[], object], second: Callable[[], object]) -> str:
    first()
    why = reason_of(second)
    assert len(charges(setup)) == 1
    return why


def uploading(setup: Setup, collection: Collection) -> Callable[[], object]:
    return lambda: setup.device().handle("report", collection.invite())


def joining(world: World, setup: Setup, plan: Plan) -> Callable[[], object]:
    return lambda: drive(world, plan, setup.device(), world.invite(plan, world.release(), NOW, NOW))


@pytest.mark.parametrize("report_first", [True, False])
def test_a_window_is_answered_in_one_of_both_ways(world: World, setup: Setup, report_first: bool) -> None:
    ways = uploading(setup, Collection(world)), joining(world, setup, plan_of())
    assert twice(world, setup, *(ways if report_first else ways[::-1])) == "WINDOW"


def test_a_report_that_is_made_during_a_round_ends_it(world: World, setup: Setup) -> None:
    device = setup.device()

    class Uploading:
        def handle(self, stage: Any, request: bytes) -> bytes:
            if stage == "masked":
                device.handle("report", Collection(world).invite())
            return device.handle(stage, request)

    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    assert reason_of(lambda: drive(world, plan_of(), Uploading(), invitation)) == "WINDOW"
    assert charges(setup) == [COST]
    session = messages.read_join_request(invitation.request).session
    assert reason_of(lambda: device.handle("masked", messages.masked_request(session))) == "ORDER"


@pytest.mark.parametrize(
    "again",
    [
        {"changes": {"closes": NOW + 20 * HOUR}},
        {"release": b""},
        {"release": b"", "until": NOW - HOUR},
        {"release": b"", "plan": summed_plan(revision=2)},
    ],
    ids=["another task for the release", "the window", "an overlapping one", "another revision"],
)
def test_a_second_collection_of_what_was_answered_is_declined(
    world: World, setup: Setup, again: dict[str, Any]
) -> None:
    first = Collection(world)
    second = Collection(world, **{"release": first.release, **again})
    assert twice(world, setup, uploading(setup, first), uploading(setup, second)) == "WINDOW"


def test_collections_of_two_plans_are_both_answered(world: World, setup: Setup) -> None:
    for name in ("one", "two"):
        uploading(setup, Collection(world, summed_plan(name)))()
    assert charges(setup) == [COST, COST]


# What its owner reads.


def test_the_receipt_says_what_everybody_faces(world: World, setup: Setup) -> None:
    uploading(setup, Collection(world))()
    said = sentence(setup.store().entries()[-1])
    for part in (
        "Took part in weekly revision 1",
        "outcome, time, wake_word of wake_events and this device's accent and sent one report of 24 counts.",
        "It cost rho 0.0172 (epsilon 1).",
        "A reader of the release faces rho 0.0138 (epsilon 0.889) if both are honest",
        "the leader, who knows its own noise, rho 0.0172 (epsilon 1), ",
        "and the helper rho 0.0688 (epsilon 2.08). Nothing",
        "Nothing protects against both together",
        "Until 2026-03-03 11:00 UTC it is taken back where you revoke the consent",
        "taken back before it is verified is not counted; one that is verified cannot be called back",
    ):
        assert part in said
