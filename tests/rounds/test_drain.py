"""Drains of a sum by two aggregators: the release is there once, whatever is killed, away or hostile."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.collection import measured as measuring
from fa_core.collection.exchange import HelperAway
from fa_core.collection.leader import Leader
from fa_core.collection.report import WITHDRAWAL_SIZE, Report, withdraw
from fa_core.collection.task import KEPT
from fa_core.errors import Refused, RoundFailed
from fa_core.prio.blocks import prio
from fa_core.privacy.ledger import BUDGETS, Policy
from fa_core.rounds import drain as draining
from fa_core.rounds import outcome
from fa_core.rounds.inquiry import Inquiry
from fa_core.rounds.run import require_four_stages
from fa_core.rounds.standing import Standing
from fa_core.store import Store
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessAway
from fa_core.values import Estimates, Release
from fa_core.wire.invitation import decode
from tests.collection.world import plan_of
from tests.rounds.draining import AMPLE, Federation, Node, Parts

DEVICES = 8


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    found = Federation.make(tmp_path_factory.mktemp("federation"), DEVICES)
    yield found
    assert found.made.world.store.verify_ledger() == found.made.world.store.verify_log() == []
    found.close()


@pytest.fixture
def made(lasting: Federation) -> Federation:
    lasting.begin()
    return lasting


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take the noise away; return who drew some."""
    found: list[str] = []

    def none(layout: Any, role: str) -> Any:
        found.append(role)
        return np.zeros(layout.length, np.int64)

    monkeypatch.setattr(measuring, "noise_of", none)
    return found


def standing(found: "tuple[Release, Estimates] | Standing") -> Standing:
    assert isinstance(found, Standing)
    return found


def released(found: "tuple[Release, Estimates] | Standing") -> Release:
    assert isinstance(found, tuple)
    return found[0]


def of(made: Federation, *numbers: int) -> Any:
    """The sum of some devices' vectors."""
    return made.made.vectors()[list(numbers)].sum(axis=0)


def once(made: Federation, release: Release) -> None:
    """Check that store, ledger and log have a release once."""
    store = made.made.world.store
    assert [each.id for each in store.releases(limit=100)].count(release.id) == 1
    assert charges(made) == 1
    assert failures(made) == 0
    assert len(store.published("task", release.id)) == 1


def charges(made: Federation) -> int:
    """How often the release was charged."""
    return [each.release for each in made.made.world.store.charges("small")].count(made.made.release.hex())


def failures(made: Federation) -> int:
    """How often the release has failed."""
    return [each.release for each in made.made.world.store.failures()].count(made.made.release.hex())


def test_drains_in_several_runs_give_one_release_of_all_that_came(made: Federation, draws: list[str]) -> None:
    """Nodes come and go: each device is there at one drain or another, some at several."""
    made.nodes = {}
    assert standing(made.drain()) == replace(made.seen[-1], arrived=0, counted=0, open=True)
    made.nodes = {1: made.hub([0, 1, 2])}
    assert standing(made.drain()).counted == 3
    made.later(5)
    made.nodes = {1: made.hub([2, 1, 3]), 4: made.hub([4])}
    assert standing(made.drain()).counted == 5
    made.later(6)
    made.nodes = {2: made.hub([5, 6])}
    last = standing(made.drain())
    assert (last.open, last.arrived, last.counted, last.refused, last.problem) == (True, 7, 7, {}, "")
    made.later(14)
    made.nodes = {1: made.hub([7])}
    release = released(made.drain())
    assert np.array_equal(release.sums, of(made, *range(7)))
    taken = release.participation
    assert (taken.invited, taken.joined, taken.dropped, taken.counted) == (8, 7, 0, 7)
    assert (release.engine, release.secure_aggregation) == ("lab", True)
    assert sorted(draws) == ["helper", "leader"]
    assert np.array_equal(released(made.drain()).sums, release.sums)
    assert len(draws) == 2
    once(made, release)


def test_enough_counted_closes_before_the_window_is_over(made: Federation, draws: list[str]) -> None:
    made.enough, made.nodes = 7, {1: made.hub(range(6))}
    assert standing(made.drain()).until.endswith("or until 7 are counted")
    made.nodes[2] = made.hub([6, 7])
    assert np.array_equal(released(made.drain()).sums, of(made, *range(8)))


def test_fewer_than_the_least_fail_once_at_the_windows_end(made: Federation, draws: list[str]) -> None:
    made.nodes = {1: made.hub(range(5))}
    made.drain()
    made.later(24)
    for _ in range(2):
        with pytest.raises(RoundFailed, match="5 devices were counted; fewer than 6"):
            made.drain()
    assert (failures(made), charges(made), draws) == (1, 1, [])


def test_too_few_devices_or_no_budget_are_refused_before_the_charge(made: Federation) -> None:
    store, before = made.made.world.store, len(made.made.world.store.refusals())
    made.devices = 5
    with pytest.raises(Refused, match="fewer than 6"):
        made.drain()
    assert charges(made) == 0
    made.devices = DEVICES
    made.begin()
    made.made.world.give(Policy(*[Fraction(1, 10**6)] * len(BUDGETS)))
    with pytest.raises(Refused, match="budget"):
        made.drain()
    made.made.world.give(AMPLE)
    assert charges(made) == 0
    assert len(store.refusals()) == before + 2


def test_a_release_is_of_one_plan_and_one_collection(made: Federation) -> None:
    made.drain()
    plan, made.made.plan = made.made.plan, plan_of("sum: two_aggregators, min_cohort: 7")
    with pytest.raises(Refused, match="charged for another plan"):
        made.drain()
    made.made.plan = plan
    made.later(25)
    release = released(made.drain())
    once(made, release)
    made.begin()
    assert standing(made.drain()).closes > made.made.at
    assert made.made.release.hex() != release.id


# Gateways and hostile nodes.


def raising(error: Exception) -> Any:
    raise error


def gateway(made: Federation, numbers: list[int], most: int = 2, asked: list[int] | None = None) -> Node:
    """Return a gateway that keeps what arrived until it is acknowledged, and sends `most` at a time."""
    kept: dict[int, int] = dict(enumerate(numbers, 1))

    def answer(parts: Parts, invitation: bytes) -> Parts:
        ack = int.from_bytes(parts[0], "big")
        if asked is not None:
            asked.append(ack)
        for serial in [each for each in kept if each <= ack]:
            del kept[serial]
        return {serial: made.report(kept[serial], invitation) for serial in sorted(kept)[:most]}

    return answer


def test_a_gateway_is_asked_until_it_has_nothing_new(made: Federation, draws: list[str]) -> None:
    asked: list[int] = []
    made.nodes = {1: gateway(made, [0, 1, 2, 3, 4], 2, asked), 2: made.hub([5, 6, 7])}
    assert standing(made.drain()).counted == 8
    assert asked == [0, 2, 4, 5]
    assert standing(made.drain()).counted == 8
    assert asked == [0, 2, 4, 5, 0]
    made.later(25)
    assert np.array_equal(released(made.drain()).sums, of(made, *range(8)))


def test_a_hub_is_asked_once_a_drain(made: Federation) -> None:
    asked: list[Parts] = []
    hub = made.nodes[1]

    def answer(parts: Parts, invitation: bytes) -> Parts:
        asked.append(parts)
        return hub(parts, invitation)

    made.nodes[1] = answer
    made.drain()
    assert asked == [{0: bytes(8)}]


def test_what_is_acknowledged_is_in_the_database(
    made: Federation, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ServerApp that is killed between the reply and the database gets the same again."""
    made.nodes = {1: gateway(made, list(range(8)), 3)}
    take, left = Leader.take_all, [2]

    def killed(self: Leader, task: bytes, uploads: Sequence[bytes]) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return take(self, task, uploads)

    monkeypatch.setattr(Leader, "take_all", killed)
    with pytest.raises(Killed):
        made.drain()
    assert standing(made.drain()).counted == 8


def same_again(made: Federation) -> Node:
    """A gateway that sends the same whatever is acknowledged; not for ever, lest a drain that goes on asking
    hangs here."""
    left = iter(range(30))
    return lambda parts, invitation: {} if next(left, None) is None else {7: b"again"}


def many(made: Federation) -> Node:
    """A gateway that always has more, each time with a higher number; it does not delay the others."""
    serial = iter(range(1, 40))
    return lambda parts, invitation: {found: b"more" for found in [next(serial, 0)] if found}


def flipped(report: bytes) -> bytes:
    """A report whose signature does not hold."""
    return report[:-1] + bytes([report[-1] ^ 1])


HOSTILE: dict[str, tuple[Callable[[Federation], Node], dict[str, int]]] = {
    "garbage": (lambda made: lambda *_: {0: b"\0", 1: b"x" * 99, 5: b""}, {"malformed": 2}),
    "oversized": (lambda made: lambda *_: {0: bytes(1 << 20)}, {"oversized": 1}),
    "no-withdrawal": (lambda made: lambda *_: {0: bytes(WITHDRAWAL_SIZE)}, {"unknown_task": 1}),
    "others": (lambda made: lambda _, asked: {0: made.report(0, asked), 1: made.report(1, asked)}, {}),
    "changed": (
        lambda made: lambda _, asked: {0: flipped(made.report(0, asked))},
        {"forged": 1},
    ),
    "same-again": (same_again, {"malformed": 2}),
    "many": (many, {"malformed": 39}),
    "serials": (lambda made: lambda *_: {1 << 40: b"x"}, {"malformed": 1}),
    "breaks": (lambda made: lambda *_: raising(ValueError("a text of the node's")), {}),
}


def test_hostile_nodes_change_nothing_but_the_counts_of_refusals(made: Federation, draws: list[str]) -> None:
    """All at once, so that none of them keeps another from being heard either."""
    expected: Counter[str] = Counter()
    for number, (node, refused) in enumerate(HOSTILE.values(), 2):
        made.nodes[number] = node(made)
        expected += Counter(refused)
    found = standing(made.drain())
    assert (found.counted, found.refused, found.problem) == (DEVICES, expected, "")
    made.later(25)
    assert np.array_equal(released(made.drain()).sums, of(made, *range(DEVICES)))


def test_a_second_report_of_a_device_is_refused(made: Federation, draws: list[str]) -> None:
    made.drain()
    task = made.made.leader.opened(made.made.release)
    assert task is not None
    report = Report.parse(made.kept[3], prio(made.made.plan))
    again = replace(report, id=bytes(16)).encode()
    made.nodes[2] = lambda *_: {0: again, 1: made.kept[3]}
    assert standing(made.drain()).refused == {"forged": 1}


def test_a_withdrawal_is_taken_for_what_it_is(
    made: Federation, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the report is verified it takes it back; afterwards it is late, and counted as refused."""
    monkeypatch.setattr(Leader, "verify", lambda *_: 0)
    made.drain()
    task = made.made.leader.opened(made.made.release)
    assert task is not None
    statements: dict[int, bytes] = {}
    monkeypatch.undo()
    for slot, number in enumerate((0, 1)):
        report = Report.parse(made.kept[number], prio(made.made.plan))
        identity = next(each for each in made.identities if each.device == report.device)
        statements[slot] = withdraw(task.task, report, identity)
    made.nodes = {2: lambda *_: {0: statements[0]}}
    monkeypatch.setattr(measuring, "noise_of", lambda layout, role: np.zeros(layout.length, np.int64))
    assert standing(made.drain()).refused == {"withdrawn": 1}
    made.nodes = {2: lambda *_: {0: statements[0], 1: statements[1]}}
    assert standing(made.drain()).refused == {"withdrawn": 1, "late": 1}
    made.later(25)
    assert np.array_equal(released(made.drain()).sums, of(made, *range(1, DEVICES)))


# Killed, or without a helper, a witness or a network.


class Killed(BaseException):
    """The process is gone."""


STEPS: tuple[tuple[str, type, str], ...] = (
    ("before", Store, "announce"),
    ("before", Store, "charge"),
    ("after", Store, "charge"),
    ("before", Witness, "sign_collection"),
    ("after", Witness, "sign_collection"),
    ("after", Leader, "open"),
    ("after", Store, "publish"),
    ("after", Store, "checkpoint"),
    ("before", Inquiry, "begin"),
    ("after", Inquiry, "next"),
    ("before", Leader, "take_all"),
    ("after", Leader, "take_all"),
    ("before", Leader, "verify"),
    ("after", Leader, "verify"),
    ("after", Leader, "stop"),
    ("after", Leader, "close"),
    ("before", Store, "save"),
    ("after", Store, "save"),
)
"""What a drain does, in its order. Each statement of a leader and a helper: `tests/collection`."""


def killing(monkeypatch: pytest.MonkeyPatch, moment: str, owner: type, name: str) -> list[int]:
    """Have the process killed at the first call of a step; return whether that is still to come."""
    real, left = getattr(owner, name), [1]

    def step(*arguments: Any, **named: Any) -> Any:
        if moment == "before" and left[0]:
            left[0] = 0
            raise Killed
        found = real(*arguments, **named)
        if left[0]:
            left[0] = 0
            raise Killed
        return found

    monkeypatch.setattr(owner, name, step)
    return left


def to_the_end(made: Federation, drains: int) -> Release:
    """Drain so often within the window, and after it until the release is there."""
    for _ in range(drains):
        with suppress(Killed):
            made.drain()
    made.later(25)
    for _ in range(drains):
        with suppress(Killed):
            return released(made.drain())
    raise AssertionError("no drain came to the end")


def test_killed_at_every_step_in_turn_it_is_charged_counted_and_noised_once(
    made: Federation, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [killing(monkeypatch, *step) for step in STEPS]
    release = to_the_end(made, len(STEPS))
    assert sum(map(sum, left)) == 0
    assert np.array_equal(release.sums, of(made, *range(DEVICES)))
    assert sorted(draws) == ["helper", "leader"]
    once(made, release)


@pytest.mark.long
@pytest.mark.parametrize(("moment", "owner", "name"), STEPS)
def test_killed_at_one_step_it_is_charged_counted_and_noised_once(
    made: Federation,
    draws: list[str],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    owner: type,
    name: str,
) -> None:
    left = killing(monkeypatch, moment, owner, name)
    release = to_the_end(made, 2)
    assert left == [0]
    assert np.array_equal(release.sums, of(made, *range(DEVICES)))
    assert sorted(draws) == ["helper", "leader"]
    once(made, release)


class Absent:
    """A helper that does not answer what `away` names."""

    def __init__(self, made: Federation, away: set[str]) -> None:
        self._made, self.away = made, away

    def __getattr__(self, name: str) -> Callable[[bytes], bytes]:
        def ask(request: bytes) -> bytes:
            if name in self.away:
                raise HelperAway("the helper localhost:1 cannot be asked: no answer")
            answer: bytes = getattr(self._made.made.helper, name)(request)
            return answer

        return ask


@pytest.mark.parametrize("name", ["open", "verify", "close"])
def test_a_helper_that_is_away_ends_a_drain_and_nothing_else(
    made: Federation, draws: list[str], name: str
) -> None:
    made.helper = absent = Absent(made, {name})
    found = standing(made.drain())
    if name != "close":
        assert found.problem == "the helper localhost:1 cannot be asked: no answer"
        assert (found.arrived, found.counted) == (0 if name == "open" else DEVICES, 0)
        absent.away = set()
        assert standing(made.drain()).counted == DEVICES
    made.later(25)
    if name == "close":
        found = standing(made.drain())
        assert (found.open, found.counted, found.until) == (False, DEVICES, "no more are taken")
        assert "no answer" in found.problem
        absent.away = set()
    release = released(made.drain())
    assert np.array_equal(release.sums, of(made, *range(DEVICES)))
    once(made, release)


@pytest.mark.parametrize("name", ["open", "close"])
def test_a_helper_that_stays_away_fails_the_release_in_the_end(made: Federation, name: str) -> None:
    """At the end of a window in which no task was opened; or once the helper has forgotten the keys."""
    made.helper = Absent(made, {name})
    made.drain()
    made.later(25)
    if name == "close":
        assert not standing(made.drain()).open
        made.made.at += KEPT
    says = "before the helper had opened" if name == "open" else "the window is over for 14 days"
    for _ in range(2):
        with pytest.raises(RoundFailed, match=says):
            made.drain()
    assert failures(made) == 1


def test_what_came_to_a_gateway_in_time_counts_after_the_windows_end(
    made: Federation, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last drain comes later than the window's end, and first while the witness is away."""
    waiting: dict[int, bytes] = {}

    def gateway(parts: Parts, invitation: bytes) -> Parts:
        ack = int.from_bytes(parts[0], "big")
        if not made.kept:
            waiting.update({number + 1: made.report(number, invitation) for number in range(DEVICES)})
            return {}
        return {serial: part for serial, part in waiting.items() if serial > ack}

    made.nodes = {1: gateway}
    assert standing(made.drain()).arrived == 0
    made.later(25)
    with monkeypatch.context() as patched:
        patched.setattr(Store, "checkpoint", lambda *_: raising(WitnessAway("it does not answer")))
        assert standing(made.drain()).open
    release = released(made.drain())
    assert np.array_equal(release.sums, of(made, *range(DEVICES)))
    once(made, release)


def test_a_leader_forgets_what_was_never_closed_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(Leader, "forget", lambda _: calls.append("forget"))
    with draining.leading(str(tmp_path / "leader.db"), Ed25519PrivateKey.generate(), bytes(32)):
        assert calls == ["forget"]


def test_a_network_or_a_witness_that_fails_ends_a_drain_and_nothing_else(
    made: Federation, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> Any:
        raise ConnectionError("a text of the network's")

    with monkeypatch.context() as patched:
        patched.setattr("tests.rounds.draining.Some.pull_messages", gone)
        assert standing(made.drain()).problem == "the nodes could not be asked (ConnectionError)"
    with monkeypatch.context() as patched:
        patched.setattr(Store, "checkpoint", lambda *_: raising(WitnessAway("it does not answer")))
        assert standing(made.drain()).problem == "it does not answer"
    with monkeypatch.context() as patched:
        patched.setattr(Leader, "tally", lambda *_: raising(ZeroDivisionError("a defect")))
        with pytest.raises(ZeroDivisionError):
            made.drain()
    made.drain()
    made.later(25)
    assert np.array_equal(released(made.drain()).sums, of(made, *range(DEVICES)))


def test_a_release_that_two_drains_write_is_one(
    made: Federation, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds, as it writes, that the first has written it."""
    made.drain()
    made.later(25)
    save, first = Store.save, list[None]()

    def overtaken(self: Store, *arguments: Any, **named: Any) -> Any:
        if not first:
            first.append(None)
            made.drain()
        return save(self, *arguments, **named)

    monkeypatch.setattr(Store, "save", overtaken)
    monkeypatch.setattr(outcome, "PAUSE", 0.0)
    release = released(made.drain())
    once(made, release)
    assert sorted(draws) == ["helper", "leader"]


def test_the_sample_of_nodes_is_the_same_at_each_drain(made: Federation) -> None:
    release, half = bytes(range(16)), 0.5
    drawn = [draining._sampled(release, node, half) for node in range(400)]
    assert drawn == [draining._sampled(release, node, half) for node in range(400)]
    assert drawn != [draining._sampled(bytes(16), node, half) for node in range(400)]
    assert 120 < sum(drawn) < 280  # 8 standard deviations: by luck once in 10^15 ids
    assert all(draining._sampled(release, node, 1.0) for node in range(400))


def test_each_drain_shows_a_newer_checkpoint_of_the_same_task(made: Federation) -> None:
    asked: list[bytes] = []
    made.nodes = {1: lambda _, invitation: asked.append(invitation) or {}}  # type: ignore[func-returns-value]
    for _ in range(2):
        made.drain()
        made.later(1)
    first, second = (decode(each) for each in asked)
    assert (first.charge, first.plan) == (second.charge, second.plan)
    assert first.checkpoint != second.checkpoint


def test_a_round_in_stages_refuses_such_a_plan() -> None:
    with pytest.raises(Refused, match="by two aggregators"):
        require_four_stages(plan_of())
