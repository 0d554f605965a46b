"""A whole device over a whole round: what it sends and charges, when it declines, what it leaves behind."""

import random
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device import receipt
from clients.device.counting import noised
from clients.device.interface import STAGES, Device, Stage
from clients.device.journal import sentence
from clients.device.odometer import Budget
from clients.device.policy import Policy
from clients.device.proof import problems
from clients.device.records import Records
from clients.device.store import Scope
from clients.evaluate import cohort_of_one, device_vectors
from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.merkle import Tree
from fa_core.secagg import IN_ORDER, messages
from fa_core.wire.invitation import encode
from tests.device.setup import (
    BUDGET,
    NOW,
    POLICY,
    READY,
    Setup,
    World,
    drive,
    make_setup,
    plan_of,
    reason_of,
    wake,
)
from tests.secagg.liars import Garbage

COST = receipt.cost(compile_plan(plan_of()))
WEEK = timedelta(days=7)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def setup(tmp_path: Path, world: World) -> Setup:
    return make_setup(tmp_path, world)


def direct(setup: Setup) -> np.ndarray:
    """Return the counts straight from the table, without the device."""
    store, plan = setup.store(), plan_of()
    table = store.table("wake_events", "quality_metrics", NOW - WEEK, NOW)
    cohort = cohort_of_one({"accent": "en-GB"}, {"wake_events": table})
    return device_vectors(plan, compile_plan(plan), cohort, NOW)[0]


def test_a_round_sums_what_the_table_holds(world: World, setup: Setup) -> None:
    result, _ = drive(world, plan_of(), setup.device(), world.invite(plan_of(), world.release(), NOW, NOW))
    assert result.total.tolist() == direct(setup).tolist()
    assert result.total.any()


def test_a_plan_without_secure_aggregation_sums_the_same(world: World, setup: Setup) -> None:
    plan = plan_of(secure="false")
    result, _ = drive(world, plan, setup.device(), world.invite(plan, world.release(), NOW, NOW))
    assert result.total.tolist() == direct(setup).tolist()


def test_distributed_noise_is_added_by_the_device(world: World, setup: Setup) -> None:
    plan = plan_of(noise="distributed")
    result, _ = drive(world, plan, setup.device(), world.invite(plan, world.release(), NOW, NOW), others=20)
    assert (result.total != direct(setup)).mean() > 0.5


def test_the_whole_cost_is_charged_whatever_there_was_to_count(tmp_path: Path, world: World) -> None:
    for name, consent_events in (("full", True), ("empty", False)):
        (tmp_path / name).mkdir()
        setup = make_setup(tmp_path / name, world, consent=consent_events)
        if not consent_events:
            store = setup.store()
            store.grant("quality_metrics", NOW + WEEK, NOW)
            store.close()
        device = setup.device()
        drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
        assert [each.rho for each in Records(setup.store()).contributions()] == [COST]


def test_a_spent_budget_sends_zeros_and_costs_nothing(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, budget=replace(BUDGET, rho=COST * Fraction(3, 2)))
    device = setup.device()
    totals = []
    for number in range(3):
        plan = plan_of(f"plan{number}")
        result, _ = drive(world, plan, device, world.invite(plan, world.release(), NOW, NOW))
        totals.append(result.total.any())
    assert totals == [True, False, False]
    assert [each.rho for each in Records(setup.store()).contributions()] == [COST, 0, 0]
    entries = setup.store().entries()
    assert "sent one masked vector of 24 counts of nothing: no budget left. It cost rho 0." in sentence(
        entries[-1]
    )
    assert problems(setup.store(), None) == []


def test_a_spent_budget_looks_the_same_from_outside(tmp_path: Path, world: World) -> None:
    """Reply lengths at every stage are those of a device that counted, with distributed noise too."""
    plan = plan_of(noise="distributed")
    lengths = []
    for name, rho in (("rich", BUDGET.rho), ("poor", Fraction(0))):
        (tmp_path / name).mkdir()
        device = make_setup(tmp_path / name, world, budget=replace(BUDGET, rho=rho)).device()
        result, said = drive(world, plan, device, world.invite(plan, world.release(), NOW, NOW), others=20)
        assert result.total.any()
        lengths.append({stage: len(reply) for stage, (_, reply) in said.items()})
    assert lengths[0] == lengths[1]


def test_the_budget_comes_back_when_the_window_has_passed(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, budget=replace(BUDGET, rho=COST))
    store = setup.store()
    store.grant("quality_metrics", NOW + timedelta(days=300), NOW)
    store.close()
    costs = []
    for days in (0, 7, 28, 29, 30):
        setup.time.now = NOW + timedelta(days=days)
        plan = plan_of(f"after{days}")
        drive(
            world, plan, setup.device(), world.invite(plan, world.release(), setup.time.now, setup.time.now)
        )
        costs.append(Records(setup.store()).contributions()[-1].rho)
    assert costs == [COST, 0, 0, COST, 0]


def test_one_contribution_for_each_plan_family_and_window(world: World, setup: Setup) -> None:
    device = setup.device()
    drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
    again = world.invite(plan_of(revision=2), world.release(), NOW, NOW)
    shifted = world.invite(plan_of(revision=2), world.release(), NOW - timedelta(hours=1), NOW)
    for invitation in (again, shifted):
        assert reason_of(lambda invitation=invitation: device.handle("join", encode(invitation))) == "WINDOW"
    setup.time.now = NOW + WEEK
    store = setup.store()
    store.grant("quality_metrics", NOW + 9 * WEEK, setup.time.now)
    drive(
        world,
        plan_of(revision=2),
        device,
        world.invite(plan_of(revision=2), world.release(), NOW + WEEK, NOW + WEEK),
    )
    assert len(Records(store).contributions()) == 2


def test_a_lower_revision_is_declined_even_after_a_restart(world: World, setup: Setup) -> None:
    reasons = []
    for revision in (1, 3, 2, 3, 4):
        plan = plan_of(revision=revision)
        invitation = encode(world.invite(plan, world.release(), NOW, NOW))
        reasons.append(reason_of(lambda it=invitation: setup.device().handle("join", it)))
    assert reasons == ["", "", "REVISION", "", ""]


def test_two_rounds_of_one_window_at_a_time_end_in_one_contribution(world: World, setup: Setup) -> None:
    device = setup.device()
    first, second = (world.invite(plan_of(), world.release(), NOW, NOW) for _ in range(2))
    device.handle("join", encode(first))
    drive(world, plan_of(), device, second)
    assert reason_of(lambda: drive(world, plan_of(), device, first)) == "WINDOW"
    assert len(Records(setup.store()).contributions()) == 1


def test_a_repeated_request_gets_the_same_bytes_even_after_a_restart(world: World, setup: Setup) -> None:
    device = setup.device()
    _, said = drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
    for again in (device, setup.device()):
        for stage, (request, reply) in said.items():
            assert again.handle(stage, request) == reply
    assert len(Records(setup.store()).contributions()) == 1


def test_another_request_at_a_stage_is_declined(world: World, setup: Setup) -> None:
    device = setup.device()
    _, said = drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
    for stage, (request, _) in said.items():
        other = request[:-1] + bytes([request[-1] ^ 1])
        assert reason_of(lambda stage=stage, other=other: device.handle(stage, other)) != ""


@pytest.mark.parametrize("early", ["shares", "confirm"])
def test_a_request_that_comes_too_early_ends_no_round(world: World, setup: Setup, early: Stage) -> None:
    device, invitation = setup.device(), world.invite(plan_of(), world.release(), NOW, NOW)
    session = messages.read_join_request(invitation.request).session

    class Hasty:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage == early:
                masked = messages.masked_request(session)
                assert reason_of(lambda: device.handle("masked", masked)) == "PROTOCOL"
            return device.handle(stage, request)

    result, _ = drive(world, plan_of(), Hasty(), invitation)
    assert result.total.any()
    assert len(Records(setup.store()).contributions()) == 1


def test_a_restarted_device_has_dropped_out_of_its_round(world: World, setup: Setup) -> None:
    invitation = world.invite(plan_of(), world.release(), NOW, NOW)

    class Restarting:
        def __init__(self) -> None:
            self.device = setup.device()

        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage == "shares":
                self.device = setup.device()
            return self.device.handle(stage, request)

    assert reason_of(lambda: drive(world, plan_of(), Restarting(), invitation)) == "ORDER"
    retry = world.invite(plan_of(), invitation.release, NOW, NOW, attempt=1)
    result, _ = drive(world, plan_of(), setup.device(), retry)
    assert result.total.any()


class Listening:
    """Keeps the last request of each stage."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.asked: dict[Stage, bytes] = {}

    def handle(self, stage: Stage, request: bytes) -> bytes:
        self.asked[stage] = request
        return self.device.handle(stage, request)


def test_a_device_that_complained_takes_part_in_the_next_attempt(world: World, setup: Setup) -> None:
    """Row 5 of the review: nothing was counted or charged before, and one attempt is charged."""
    device = Listening(setup.device())
    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    with pytest.raises(RuntimeError, match="not ended in a sum"):
        drive(world, plan_of(), device, invitation, liars={2: Garbage})
    assert set(device.asked) == {"join", "shares", "confirm", "dispute"}
    assert Records(setup.store()).contributions() == []
    session = messages.read_join_request(invitation.request).session
    assert reason_of(lambda: device.handle("masked", messages.masked_request(session))) == "PROTOCOL"
    retry = world.invite(plan_of(), invitation.release, NOW, NOW, attempt=1)
    result, _ = drive(world, plan_of(), device, retry)
    assert result.total.any()
    (given,) = Records(setup.store()).contributions()
    assert (given.release, given.attempt) == (invitation.release, 1)


def test_a_later_attempt_closes_the_earlier_ones(world: World, setup: Setup) -> None:
    device, earlier = setup.device(), world.invite(plan_of(), world.release(), NOW, NOW)

    class Stopping(Listening):
        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage == "masked":
                self.asked[stage] = request
                raise InterruptedError
            return super().handle(stage, request)

    stopping = Stopping(device)
    with pytest.raises(InterruptedError):
        drive(world, plan_of(), stopping, earlier)
    later = [world.invite(plan_of(), earlier.release, NOW, NOW, attempt=attempt) for attempt in (1, 2)]
    device.handle("join", encode(later[1]))
    assert reason_of(lambda: device.handle("masked", stopping.asked["masked"])) == "ORDER"
    assert reason_of(lambda: device.handle("join", encode(later[0]))) == "ORDER"
    assert Records(setup.store()).contributions() == []


@pytest.mark.parametrize("stage", STAGES[1:-1])
def test_a_stage_out_of_turn_is_declined(setup: Setup, stage: Stage) -> None:
    for request in (b"", b"UH\x01\x05" + bytes(100)):
        assert reason_of(lambda request=request: setup.device().handle(stage, request)) == "ORDER"


def test_bytes_that_are_no_invitation_are_declined(world: World, setup: Setup) -> None:
    device = setup.device()
    sound = encode(world.invite(plan_of(), world.release(), NOW, NOW))
    for request in (b"", b"hello", sound[:-1], sound + b"\0"):
        assert reason_of(lambda request=request: device.handle("join", request)) == "MALFORMED"


def test_without_consent_nothing_goes_out(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, consent=False)
    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    assert reason_of(lambda: drive(world, plan_of(), setup.device(), invitation)) == "CONSENT"
    last = setup.store().entries()[-1]
    assert sentence(last) == "Said no to a request: the owner has not consented to this purpose."


def test_consent_revoked_in_the_middle_of_a_round_stops_it(world: World, setup: Setup) -> None:
    device = setup.device()

    class Revoking:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage == "masked":
                owner = setup.store()
                owner.revoke("quality_metrics", NOW)
                owner.close()
            return device.handle(stage, request)

    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    assert reason_of(lambda: drive(world, plan_of(), Revoking(), invitation)) == "CONSENT"
    assert Records(setup.store()).contributions() == []
    assert reason_of(lambda: drive(world, plan_of(), device, invitation)) != ""


@pytest.mark.parametrize("stage", IN_ORDER)
def test_whether_somebody_speaks_is_asked_before_a_device_joins_and_never_after(
    world: World, setup: Setup, stage: Stage
) -> None:
    """A device that left a round because somebody speaks would show the server that somebody does."""
    device = setup.device()

    class Speaking:
        def handle(self, at: Stage, request: bytes) -> bytes:
            setup.conditions = replace(READY, speaking=at == stage)
            return device.handle(at, request)

    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    reason = reason_of(lambda: drive(world, plan_of(), Speaking(), invitation))
    assert reason == ("SPEAKING" if stage == "join" else "")
    assert len(Records(setup.store()).contributions()) == (stage != "join")


def test_rows_that_the_owner_forgets_in_the_middle_of_a_round_are_not_in_the_sum(
    world: World, setup: Setup
) -> None:
    device = setup.device()

    class Forgetting:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            if stage == "masked":
                owner = setup.store()
                owner.forget(Scope(), NOW)
                owner.close()
            return device.handle(stage, request)

    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    result, _ = drive(world, plan_of(), Forgetting(), invitation)
    assert not result.total.any()
    assert [each.rho for each in Records(setup.store()).contributions()] == [COST]
    assert "of nothing: rows were deleted after they were counted" in sentence(setup.store().entries()[-1])


def test_consent_that_ran_out_is_none_before_the_store_is_tidied(world: World, setup: Setup) -> None:
    device, invitation = setup.device(), world.invite(plan_of(), world.release(), NOW, NOW)
    store = setup.store()
    store.grant("quality_metrics", NOW + timedelta(hours=1), NOW)
    setup.time.now = NOW + timedelta(hours=1)
    assert len(store.grants()) == 1
    assert reason_of(lambda: device.handle("join", encode(invitation))) == "CONSENT"
    setup.time.now = NOW + timedelta(minutes=59)
    device.handle("join", encode(world.invite(plan_of(), world.release(), NOW, NOW)))


def test_a_reply_whose_charge_was_undone_is_never_sent(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the last moment: the party has an answer ready, and nobody has paid for it."""
    device, asked = setup.device(), []
    keep = Records.keep_reply

    def full(self: Records, release: bytes, attempt: int, stage: Stage, request: bytes, reply: bytes) -> None:
        if stage == "masked":
            raise sqlcipher.OperationalError("database or disk is full")
        keep(self, release, attempt, stage, request, reply)

    class Listening:
        def handle(self, stage: Stage, request: bytes) -> bytes:
            asked.append(request)
            return device.handle(stage, request)

    monkeypatch.setattr(Records, "keep_reply", full)
    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    assert reason_of(lambda: drive(world, plan_of(), Listening(), invitation)) == "STORE"
    monkeypatch.undo()
    assert reason_of(lambda: device.handle("masked", asked[-1])) == "ORDER"
    assert Records(setup.store()).contributions() == []


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (replace(POLICY, max_epsilon=Fraction(1, 2)), "LIMITS"),
        (replace(POLICY, max_cells=23), "LIMITS"),
        (replace(POLICY, min_cohort=4), "LIMITS"),
        (replace(POLICY, central_noise=False), "LIMITS"),
        (replace(POLICY, plans_a_day=0), "DAILY_LIMIT"),
    ],
)
def test_a_plan_outside_the_owners_policy_is_declined(
    tmp_path: Path, world: World, policy: Policy, reason: str
) -> None:
    setup = make_setup(tmp_path, world, policy=policy)
    invitation = world.invite(plan_of(), world.release(), NOW, NOW)
    assert reason_of(lambda: drive(world, plan_of(), setup.device(), invitation)) == reason


def test_a_cohort_whose_sum_may_leave_the_ring_is_not_answered() -> None:
    layout = compile_plan(plan_of())
    block = replace(layout.blocks[0], linf=2**28)
    cramped, counts = replace(layout, blocks=(block,), modulus_bits=32), np.zeros(block.stop, np.int64)
    assert noised(plan_of(), cramped, counts, 7) is counts
    with pytest.raises(Refused, match="does not fit 32 bits"):
        noised(plan_of(), cramped, counts, 8)


def test_a_fresh_store_settles_first_by_the_witnesss_clock(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, budget=replace(BUDGET, settle=timedelta(days=9)))
    reasons = []
    for days in (0, 5, 9, 10, 11):
        setup.time.now = NOW + timedelta(days=days)
        plan = plan_of(f"after{days}")
        invitation = world.invite(plan, world.release(), setup.time.now, setup.time.now)
        reasons.append(reason_of(lambda plan=plan, it=invitation: drive(world, plan, setup.device(), it)))
    assert reasons == ["SETTLING", "SETTLING", "SETTLING", "", ""], "nine days, and one for the clocks"


def test_a_decision_against_a_plan_is_in_the_journal_once(tmp_path: Path, world: World) -> None:
    setup = make_setup(tmp_path, world, consent=False)
    device = setup.device()
    invitation = encode(world.invite(plan_of(), world.release(), NOW, NOW))
    for _ in range(5):
        assert reason_of(lambda: device.handle("join", invitation)) == "CONSENT"
    assert [entry.kind for entry in setup.store().entries()].count("declined") == 1


def test_the_receipt_says_what_happened(world: World, setup: Setup) -> None:
    drive(world, plan_of(), setup.device(), world.invite(plan_of(), world.release(), NOW, NOW))
    said = sentence(setup.store().entries()[-1])
    for part in (
        "weekly revision 1",
        "Does any accent miss the wake word more than the rest?",
        "signed by quality",
        "2026-03-02 12:00 UTC",
        "outcome, time, wake_word of wake_events",
        "this device's accent",
        "24 counts",
        "epsilon 1)",
    ):
        assert part in said


def test_forgetting_keeps_the_charge_and_the_receipt(world: World, setup: Setup) -> None:
    device = setup.device()
    _, said = drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
    store = setup.store()
    store.forget(Scope(), NOW)
    assert len(Records(store).contributions()) == 1
    assert problems(store, None) == []
    assert reason_of(lambda: setup.device().handle("masked", said["masked"][0])) == "ORDER"


def test_a_checkpoint_seen_in_one_round_binds_the_next(world: World, setup: Setup) -> None:
    device = setup.device()
    drive(world, plan_of(), device, world.invite(plan_of(), world.release(), NOW, NOW))
    fork = replace(world, leaves=world.leaves[:1])
    for name in ("a", "b", "c"):
        forked = fork.invite(plan_of(name), world.release(), NOW, NOW)
    assert Tree(fork.leaves).size > Tree(world.leaves).size
    assert reason_of(lambda: setup.device().handle("join", encode(forked))) == "LOG_FORKED"


@pytest.mark.parametrize("schedules", [6, pytest.param(100, marks=pytest.mark.long)])
def test_random_schedules_through_the_real_store_stay_in_budget(
    tmp_path: Path, world: World, schedules: int
) -> None:
    """Plans, windows, clock jumps and restarts: in true time no window holds more than the budget."""
    budget = Budget(COST * Fraction(5, 2), timedelta(days=14), timedelta(0))
    played = 0
    for seed in range(schedules):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        spent = play(random.Random(seed), world, make_setup(folder, world, budget=budget))
        played += len(spent)
        for start, _ in spent:
            within = [cost for then, cost in spent if start <= then < start + budget.window]
            assert sum(within, Fraction(0)) <= budget.rho
    assert played > 2 * schedules


def play(chance: random.Random, world: World, setup: Setup) -> list[tuple[object, Fraction]]:
    true, sent, device = NOW, [], setup.device()
    store = setup.store()
    store.grant("quality_metrics", NOW + timedelta(days=700), NOW)
    for step in range(14):
        true += timedelta(hours=chance.choice([0, 1, 30, 100]))
        setup.time.now = true + timedelta(hours=chance.choice([0, 0, 0, -20, 20, 900, -900]))
        if chance.random() < 0.3:
            device = setup.device()
        plan = plan_of(chance.choice(["one", "two", "three"]), revision=step + 1)
        until = true.replace(minute=0) - timedelta(days=7 * chance.choice([0, 0, 1]))
        invitation = world.invite(
            plan, world.release(), until, true - timedelta(hours=chance.choice([0, 12]))
        )
        before = len(Records(store).contributions())
        if not reason_of(lambda plan=plan, it=invitation, who=device: drive(world, plan, who, it)):
            sent += [(true, each.rho) for each in Records(store).contributions()[before:]]
    assert problems(store, None) == []
    return sent


def test_an_event_more_or_less_changes_nothing_but_the_counts(world: World, setup: Setup) -> None:
    store = setup.store()
    store.record("wake_events", [wake(0.5)], "quality_metrics", NOW)
    result, _ = drive(world, plan_of(), setup.device(), world.invite(plan_of(), world.release(), NOW, NOW))
    assert result.total.tolist() == direct(setup).tolist()
