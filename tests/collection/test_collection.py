"""Leader and helper: what is counted, what is refused, and that nothing is counted, or noised, twice."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sqlalchemy import Pool, event

from clients.device.interface import Declined, Reason
from clients.evaluate import seeded_randomness
from clients.uploads import UploadingFleet
from fa_core.collection import helper as helping
from fa_core.collection import leader as leading
from fa_core.collection import measured as measuring
from fa_core.collection.leader import Tally
from fa_core.collection.messages import Batch, Closing, Opening, decode_decisions
from fa_core.collection.refusal import Refusal, RefusedReport
from fa_core.collection.report import Report, seal, withdraw
from fa_core.collection.sums import CHECKSUM_SIZE
from fa_core.collection.task import KEPT, Offer, Task, asked
from fa_core.engines.collection import _served, aggregators_of
from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical
from fa_core.prio.blocks import prio
from fa_core.prio.prio3 import Prio3
from fa_core.privacy import two_aggregators
from fa_core.rounds.keys import local_keys, local_witness
from fa_core.rounds.run import RunContext
from fa_core.trust.collection_request import ShareRequest
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessClient
from fa_core.values import Layout
from fa_core.wire.invitation import encode
from tests.collection.setup import PRIVACY
from tests.collection.world import WINDOW, Collection, plan_of
from tests.rounds.small import POPULATION, SEED

DEVICES = 8
HOUR = timedelta(hours=1)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    found = Collection.make(tmp_path, DEVICES)
    yield found
    found.close()
    found.world.store.close()


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take the noise away, so that what is below it can be compared bit for bit; return who drew some."""
    found: list[str] = []

    def none(layout: Any, role: str) -> Any:
        found.append(role)
        return np.zeros(layout.length, np.int64)

    monkeypatch.setattr(measuring, "noise_of", none)
    return found


class Away(UnheardError):
    """The helper does not answer."""


class Spy:
    """A helper behind a network: it counts requests, and `fail` says where it does not answer."""

    def __init__(self, made: Collection, fail: Callable[[str, int], str] = lambda name, number: "") -> None:
        self._made = made
        self._fail = fail
        self.asked: list[tuple[str, bytes, bytes]] = []

    def __getattr__(self, name: str) -> Callable[[bytes], bytes]:
        def ask(request: bytes) -> bytes:
            number = sum(each[0] == name for each in self.asked)
            fails = self._fail(name, number)
            if fails == "request":
                self.asked.append((name, request, b""))
                raise Away("no answer")
            answer: bytes = getattr(self._made.helper, name)(request)
            self.asked.append((name, request, answer))
            if fails == "answer":
                raise Away("no answer")
            return answer

        return ask


def refused(code: Refusal) -> "pytest.RaisesExc[RefusedReport]":
    return pytest.raises(RefusedReport, match=f"^{code.value}$")


def test_the_sum_is_that_of_the_devices_vectors_bit_for_bit(made: Collection, draws: list[str]) -> None:
    task = made.open().task
    sums = made.collect(made.reports(task), task)
    assert np.array_equal(sums, made.vectors().sum(axis=0))
    assert made.vectors().any()
    assert sorted(draws) == ["helper", "leader"]
    assert made.leader.tally(task.id) == Tally(DEVICES, 0, DEVICES, {})


def test_both_add_their_noise(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draw is found in the sum, and is of the size of its role."""
    drawn: dict[str, Any] = {}

    def kept(layout: Any, role: Any) -> Any:
        drawn[role] = two_aggregators.noise_of(layout, role)
        return drawn[role]

    monkeypatch.setattr(measuring, "noise_of", kept)
    task = made.open().task
    sums = made.collect(made.reports(task), task)
    assert np.array_equal(sums, made.vectors().sum(axis=0) + drawn["leader"] + drawn["helper"])
    assert drawn["leader"].any()
    assert drawn["helper"].any()


# Reports.


def test_what_is_no_report_of_this_task_is_refused_and_changes_nothing(made: Collection) -> None:
    task = made.open().task
    good = made.reports(task)[0]
    leader, data = made.leader, good.encode()
    stranger = made.world.authority.enrol("another")
    system, row = prio(made.plan), made.measurements()[0]
    for code, sent in (
        (Refusal.MALFORMED, b""),
        (Refusal.MALFORMED, data[:-1]),
        (Refusal.OVERSIZED, data + b"\0"),
        (Refusal.FORGED, data[:-1] + bytes([data[-1] ^ 1])),
        (Refusal.FOREIGN, seal(task, system, row, stranger).encode()),
        (Refusal.FORGED, seal(replace(task, least=7), system, row, made.identities[0]).encode()),
    ):
        with refused(code):
            leader.take(task.id, sent)
    with refused(Refusal.UNKNOWN_TASK):
        leader.take(bytes(32), data)
    made.at = WINDOW[0] - HOUR
    with refused(Refusal.EARLY):
        leader.take(task.id, data)
    made.at = WINDOW[0]
    assert leader.tally(task.id) == Tally(0, 0, 0, {})
    leader.take(task.id, data)
    assert leader.tally(task.id).waiting == 1
    _, waited, late = made.reports(task)[:3]
    made.at = WINDOW[1]  # the leader still takes what waited at a gateway, until it stops
    leader.take(task.id, waited.encode())
    leader.stop(task.id)
    with refused(Refusal.LATE):
        leader.take(task.id, late.encode())
    assert leader.tally(task.id).waiting == 2


def test_the_same_report_again_is_one_and_a_second_is_refused(made: Collection, draws: list[str]) -> None:
    task = made.open().task
    reports = made.reports(task)
    for report in reports:
        made.leader.take(task.id, report.encode())
        made.leader.take(task.id, report.encode())
    second = made.reports(task)[0]
    with refused(Refusal.SECOND_REPORT):
        made.leader.take(task.id, second.encode())
    fresh = made.world.authority.enrol(POPULATION)
    made.identities.append(fresh)
    with refused(Refusal.REPLAYED):
        made.leader.take(task.id, _signed_anew(made, task, reports[0], DEVICES).encode())
    assert np.array_equal(made.leader.close(task.id, made.helper), made.vectors().sum(axis=0))
    made.leader.take(task.id, reports[0].encode())  # after the end, too
    with refused(Refusal.SECOND_REPORT):
        made.leader.take(task.id, second.encode())


def _signed_anew(made: Collection, task: Task, report: Report, number: int) -> Report:
    """Sign a report's bytes with another device's key."""
    identity = made.identities[number]
    report = replace(report, device=identity.device, certificate=identity.certificate)
    signature = identity.key.sign(b"unheard/collection/1 report\x00" + task.id + report.body_hash)
    return replace(report, signature=signature)


def test_a_report_that_proves_nothing_costs_nobody_else(made: Collection, draws: list[str]) -> None:
    """In one batch: a false proof, a share for nobody, and six good ones."""
    task = made.open().task
    reports = made.reports(task)
    leader_share = bytes([reports[3].leader[0] ^ 1]) + reports[3].leader[1:]
    reports[3] = _signed_anew(made, task, replace(reports[3], leader=leader_share), 3)
    reports[5] = _signed_anew(made, task, replace(reports[5], box=reports[4].box), 5)
    sums = made.collect(reports, task)
    assert np.array_equal(sums, np.delete(made.vectors(), [3, 5], axis=0).sum(axis=0))
    found = made.leader.tally(task.id)
    assert found == Tally(DEVICES, 0, DEVICES - 2, {Refusal.INVALID: 1, Refusal.SEALED_OTHERWISE: 1})


def test_an_element_that_is_none_is_refused_by_the_leader(made: Collection, draws: list[str]) -> None:
    task = made.open().task
    reports = made.reports(task)
    share = b"\xff" * 8 + reports[2].leader[8:]
    reports[2] = _signed_anew(made, task, replace(reports[2], leader=share), 2)
    sums = made.collect(reports, task)
    assert np.array_equal(sums, np.delete(made.vectors(), 2, axis=0).sum(axis=0))
    assert made.leader.tally(task.id).refused == {Refusal.INVALID: 1}


@pytest.fixture
def false_part(made: Collection, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Two devices whose public share has another joint-randomness part than an aggregator finds; every proof
    holds here, so that the parts alone decide."""
    monkeypatch.setattr(Prio3, "decide", _lenient)
    task, shard = made.open().task, Prio3.shard_all
    places = iter((0, prio(made.plan).public_size // 2))

    def false(*arguments: Any) -> Any:
        (shares,), at = shard(*arguments), next(places, None)
        if at is None:
            return [shares]
        return [replace(shares, public=shares.public[:at] + b"another!" + shares.public[at + 8 :])]

    with monkeypatch.context() as dishonest:
        dishonest.setattr(Prio3, "shard_all", false)
        for report in made.reports(task):
            made.leader.take(task.id, report.encode())
    return task


def _lenient(self: Prio3, ctx: bytes, leader: Any, helper: Any) -> Any:
    size = self.message_size
    pairs = zip(leader, helper, strict=True)
    return tuple(self._joint_seed(ctx, one[-size:], other[-size:]) for one, other in pairs)


def test_a_false_part_of_the_joint_randomness_is_refused_by_both(
    made: Collection, false_part: Task, draws: list[str]
) -> None:
    sums = made.leader.close(false_part.id, made.helper)
    assert np.array_equal(sums, made.vectors()[2:].sum(axis=0))
    assert made.leader.tally(false_part.id).refused == {Refusal.INVALID: 2}


def test_without_that_check_the_two_do_not_agree(
    made: Collection, false_part: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helping, "_check_joint_part", lambda *_, **__: None)
    with pytest.raises(RoundFailed, match="do not find the same"):
        made.leader.verify(false_part.id, made.helper)


def test_many_reports_are_taken_as_if_each_came_alone(made: Collection, draws: list[str]) -> None:
    """In one transaction: five that are taken, twice over, and what is refused for what others sent."""
    task = made.open().task
    reports = made.reports(task)
    back, second = withdraw(task, reports[5], made.identities[5]), made.reports(task)[0]
    made.leader.withdraw(task.id, back)
    fresh = made.world.authority.enrol(POPULATION)
    made.identities.append(fresh)
    replayed = _signed_anew(made, task, reports[1], DEVICES)
    good = [each.encode() for each in reports[:5]]
    sent = [*good, b"", *good, second.encode(), replayed.encode(), reports[5].encode()]
    codes = [Refusal.SECOND_REPORT, Refusal.REPLAYED, Refusal.WITHDRAWN]
    expected = (*[None] * 5, Refusal.MALFORMED, *[None] * 5, *codes)
    assert made.leader.take_all(task.id, sent) == expected
    assert made.leader.take_all(task.id, sent) == expected
    made.leader.take(task.id, reports[6].encode())
    assert np.array_equal(
        made.leader.close(task.id, made.helper), np.delete(made.vectors(), [5, 7], axis=0).sum(axis=0)
    )


# Several workers.


@pytest.fixture
def batches_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "BATCH", 2)


def batches(spy: Spy) -> list[int]:
    return [int.from_bytes(request[32:36], "big") for name, request, _ in spy.asked if name == "verify"]


@pytest.mark.usefixtures("batches_of_two")
def test_workers_verify_different_batches_and_the_sum_is_exact(made: Collection, draws: list[str]) -> None:
    """Each of four workers starts while those before it wait for the helper."""
    task = made.open().task
    made.leader.take_all(task.id, [each.encode() for each in made.reports(task)])

    class Nested(Spy):
        def verify(self, batch: bytes) -> bytes:
            made.leader.verify(task.id, self)
            answer: bytes = super().__getattr__("verify")(batch)
            return answer

    spy = Nested(made)
    assert made.leader.verify(task.id, spy) == 2
    assert sorted(batches(spy)) == [0, 1, 2, 3]
    assert made.leader.tally(task.id) == Tally(DEVICES, 0, DEVICES, {})
    assert np.array_equal(made.leader.close(task.id, made.helper), made.vectors().sum(axis=0))


@pytest.mark.usefixtures("batches_of_two")
def test_the_batch_of_a_worker_that_was_killed_is_claimed_again_and_counted_once(
    made: Collection, draws: list[str]
) -> None:
    """At first by nobody, then by another when the claim is over; and the first was not dead, only slow."""
    task = made.open().task
    made.leader.take_all(task.id, [each.encode() for each in made.reports(task)[:4]])

    class Slow(Spy):
        def verify(self, batch: bytes) -> bytes:
            answer: bytes = super().__getattr__("verify")(batch)
            other = Spy(made)
            made.at = WINDOW[0] + leading.CLAIMED - timedelta(seconds=1)
            assert made.leader.verify(task.id, other) == 2
            assert made.leader.verify(task.id, other) == 0
            assert batches(other) == [1]
            made.at += timedelta(seconds=1)
            assert made.leader.verify(task.id, other) == 2
            assert other.asked[-1][2] == answer
            assert made.leader.tally(task.id).counted == 4
            return answer

    made.at = WINDOW[0]
    made.leader.verify(task.id, Slow(made))
    made.leader.take_all(task.id, [each.encode() for each in made.reports(task)[4:]])
    sums = made.leader.close(task.id, made.helper)
    assert np.array_equal(sums, made.vectors().sum(axis=0))
    assert made.leader.tally(task.id).counted == DEVICES


@pytest.mark.usefixtures("batches_of_two")
def test_who_closes_verifies_what_others_have_claimed(made: Collection, draws: list[str]) -> None:
    task = made.open().task
    made.leader.take_all(task.id, [each.encode() for each in made.reports(task)])

    class Closing(Spy):
        def verify(self, batch: bytes) -> bytes:
            answer: bytes = super().__getattr__("verify")(batch)
            assert np.array_equal(made.leader.close(task.id, made.helper), made.vectors().sum(axis=0))
            return answer

    made.leader.verify(task.id, Closing(made))
    assert made.leader.tally(task.id).counted == DEVICES
    assert sorted(draws) == ["helper", "leader"]


def test_a_report_is_taken_back_until_it_is_verified(made: Collection, draws: list[str]) -> None:
    task = made.open().task
    reports = made.reports(task)
    leader, back = made.leader, [withdraw(task, reports[at], made.identities[at]) for at in (0, 1, 2)]
    made.identities.append(made.world.authority.enrol(POPULATION))
    for report in reports[:7]:
        leader.take(task.id, report.encode())
    for _ in range(2):
        leader.withdraw(task.id, back[0])
    with refused(Refusal.WITHDRAWN):
        leader.take(task.id, reports[0].encode())
    leader.verify(task.id, made.helper)
    with refused(Refusal.LATE):
        leader.withdraw(task.id, back[1])
    with refused(Refusal.FORGED):
        leader.withdraw(task.id, withdraw(task, reports[2], made.identities[3]))
    early = withdraw(task, reports[7], made.identities[7])
    leader.withdraw(task.id, early)
    with refused(Refusal.WITHDRAWN):
        leader.take(task.id, reports[7].encode())
    leader.withdraw(task.id, early)
    other = made.identities[8]
    copied = replace(reports[1], device=other.device, certificate=other.certificate)
    with refused(Refusal.REPLAYED):
        leader.withdraw(task.id, withdraw(task, copied, other))
    # The device that never sent anything is not one of those that arrived.
    assert leader.tally(task.id) == Tally(7, 0, 6, {Refusal.WITHDRAWN: 1})
    assert np.array_equal(leader.close(task.id, made.helper), made.vectors()[1:7].sum(axis=0))
    for number in (0, 7):
        leader.withdraw(task.id, withdraw(task, reports[number], made.identities[number]))


def test_a_task_that_takes_no_reports_takes_no_withdrawal_of_none(made: Collection) -> None:
    task = made.open().task
    back = withdraw(task, made.reports(task)[0], made.identities[0])
    made.leader.stop(task.id)
    with refused(Refusal.LATE):
        made.leader.withdraw(task.id, back)
    assert made.leader.tally(task.id) == Tally(0, 0, 0, {})


def on_disk(made: Collection) -> bytes:
    """What is left in the files of both databases once nobody has them open."""
    made.close()
    folder = made.world.folder
    return b"".join(file.read_bytes() for role in ("leader", "helper") for file in folder.glob(f"{role}.db*"))


def fragments(reports: list[Report]) -> list[bytes]:
    """Parts of the leader's shares, without the first, which a page's header may cut."""
    return [each.leader[at : at + 32] for each in reports for at in (64, 640, 960)]


@pytest.mark.parametrize("overwrites", [True, False])
def test_nothing_of_a_report_is_left_in_the_files(made: Collection, overwrites: bool) -> None:
    """Control: where SQLite does not overwrite what is deleted, shares are found."""

    def leave(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA secure_delete = OFF")

    if not overwrites:
        event.listen(Pool, "checkout", leave)
    try:
        task = made.open().task
        reports = made.reports(task)
        made.leader.take_all(task.id, [each.encode() for each in reports])
        before = on_disk(made)
        made.leader.verify(task.id, made.helper)
        after = on_disk(made)
    finally:
        if not overwrites:
            event.remove(Pool, "checkout", leave)
    assert any(each in before for each in fragments(reports))
    assert any(each in after for each in fragments(reports)) is not overwrites


def test_nothing_of_a_report_is_kept_once_it_is_counted(made: Collection) -> None:
    task = made.open().task
    reports = made.reports(task)
    made.collect(reports, task)
    for table, database in made.databases.items():
        with database.reading() as connection:
            for name in ("tasks", "reports"):
                found = connection.exec_driver_sql(f"SELECT * FROM {table}_{name}").mappings().all()
                text = b"".join(value for row in found for value in row.values() if isinstance(value, bytes))
                assert not any(each.leader in text or each.box in text for each in reports)
                assert all(not row.get(secret) for row in found for secret in ("sealing", "verify_key"))
    assert made.leader.tally(task.id).counted == DEVICES


# Two aggregators that do not always reach each other.


@pytest.mark.parametrize("fails", ["request", "answer"])
@pytest.mark.parametrize("name", ["open", "verify", "close"])
def test_a_helper_that_is_away_loses_nothing(
    made: Collection, draws: list[str], name: str, fails: str
) -> None:
    spy = Spy(made, lambda asked, number: fails if (asked, number) == (name, 0) else "")
    with pytest.raises(Away) if name == "open" else nullcontext():
        made.open(spy)
    task = made.leader.open(canonical(made.plan), made.release, made.proof(), WINDOW, spy).task
    for report in made.reports(task):
        made.leader.take(task.id, report.encode())
    if name != "open":
        with pytest.raises(Away):
            made.leader.close(task.id, spy)
    assert np.array_equal(made.leader.close(task.id, spy), made.vectors().sum(axis=0))
    assert sorted(draws) == ["helper", "leader"]
    for each in ("verify", "close"):
        assert len({request for asked, request, _ in spy.asked if asked == each}) == 1


def test_the_sum_is_given_away_once(made: Collection) -> None:
    """With real noise: whoever asks again gets the same, and who asks for something else is refused."""
    task, spy = made.open().task, Spy(made)
    for report in made.reports(task):
        made.leader.take(task.id, report.encode())
    sums = made.leader.close(task.id, spy)
    assert np.array_equal(made.leader.close(task.id, spy), sums)
    (_, closing, share) = spy.asked[-1]
    assert made.helper.close(closing) == share
    found = Closing.decode(closing)
    for other in (replace(found, count=found.count - 1), replace(found, checksum=bytes(CHECKSUM_SIZE))):
        with pytest.raises(Refused, match="did not count the same"):
            made.helper.close(other.encode())
    with pytest.raises(Refused, match="no such task"):
        made.helper.close(replace(found, task=bytes(32)).encode())
    (batch,) = [request for name, request, _ in spy.asked if name == "verify"]
    with pytest.raises(Refused, match="closed"):
        made.helper.verify(batch)
    with pytest.raises(Refused, match="no second collection"):
        made.helper.open(
            Opening(canonical(made.plan), made.release, made.proof().encode(), task.leader, *WINDOW).encode()
        )


def verified(made: Collection) -> bytes:
    """Have all reports verified, and return what closes the collection."""
    task, spy = made.open().task, Spy(made, lambda name, number: "request" if name == "close" else "")
    made.leader.take_all(task.id, [each.encode() for each in made.reports(task)])
    with pytest.raises(Away):
        made.leader.close(task.id, spy)
    return spy.asked[-1][1]


def copied(made: Collection, role: str, source: str, target: str) -> None:
    """Copy a database's file, while nobody has it open."""
    made.close()
    file = made.world.folder / f"{role}.db"
    shutil.copy(file.with_suffix(source), file.with_suffix(target))
    made.connect()


def test_a_helper_that_was_restored_gives_no_second_share(made: Collection) -> None:
    """A backup of an open task holds its running sum, for which noise would be drawn a second time: either
    draw alone would tell the leader rho. A backup of after the draw gives the same share."""
    closing = verified(made)
    copied(made, "helper", ".db", ".open")
    share = made.helper.close(closing)
    copied(made, "helper", ".db", ".closed")
    copied(made, "helper", ".open", ".db")
    for _ in range(2):
        with pytest.raises(Refused, match="there is no second"):
            made.helper.close(closing)
    copied(made, "helper", ".closed", ".db")
    assert made.helper.close(closing) == share


def test_with_a_witness_that_keeps_any_hash_it_gives_two(
    made: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Witness, "keep_share", lambda self, request: request[-32:])
    closing = verified(made)
    copied(made, "helper", ".db", ".open")
    share = made.helper.close(closing)
    copied(made, "helper", ".open", ".db")
    assert made.helper.close(closing) != share


def test_a_share_waits_for_a_witness_that_is_away(
    made: Collection, draws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drawn once, nothing is added to it, and it is neither given away before nor forgotten."""
    closing = verified(made)

    def silent(self: Witness, request: bytes) -> bytes:
        raise RoundFailed("the witness does not answer")

    with monkeypatch.context() as away:
        away.setattr(Witness, "keep_share", silent)
        for _ in range(2):
            with pytest.raises(RoundFailed, match="does not answer"):
                made.helper.close(closing)
    assert draws == ["helper"]
    with pytest.raises(Refused, match="closed"):
        made.helper.verify(closing)
    made.at = WINDOW[1] + KEPT + HOUR
    made.helper.forget()
    assert made.helper.close(closing) == made.helper.close(closing)
    assert draws == ["helper"]


def test_the_witness_keeps_one_hash_of_a_share(made: Collection, tmp_path: Path) -> None:
    """Over its socket, and after a restart."""
    task = made.open().task
    good = ShareRequest(made.release, task.id, bytes(32))
    other = replace(good, digest=b"\1" * 32)
    folder = made.world.folder / "local"
    for _ in range(2):
        with _served(local_witness(local_keys(folder), made.clock), tmp_path / "socket"):
            witness = WitnessClient(tmp_path / "socket")
            assert witness.keep_share(good.encode()) == good.digest
            for broken, says in (
                (other.encode(), "there is no second"),
                (replace(good, task=bytes(32)).encode(), "no such collection"),
                (replace(good, release=bytes(16)).encode(), "no such collection"),
                (b"", "cannot read"),
                (good.encode() + b"\0", "cannot read"),
            ):
                with pytest.raises(Refused, match=says):
                    witness.keep_share(broken)


@pytest.fixture
def updated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Update the code, to a version that adds a quarter of the noise."""

    def other(plan: Plan) -> Layout:
        layout = compile_plan(plan)
        return replace(layout, blocks=tuple(replace(b, variance=b.variance / 4) for b in layout.blocks))

    def update() -> None:
        measuring.measured.cache_clear()
        monkeypatch.setattr(measuring, "compile_plan", other)

    yield update
    measuring.measured.cache_clear()


def test_another_version_does_not_go_on_with_an_open_task(
    made: Collection, draws: list[str], updated: Callable[[], None]
) -> None:
    """Neither the helper nor the leader, whichever is updated; what the devices proved for is in the task."""
    closing = verified(made)
    task = Closing.decode(closing).task
    updated()
    for work in (
        lambda: made.helper.close(closing),
        lambda: made.helper.verify(task + bytes(6)),
        lambda: made.leader.verify(task, made.helper),
        lambda: made.leader.take(task, b""),
        lambda: made.leader.close(task, made.helper),
    ):
        with pytest.raises(Refused, match="another layout of the plan"):
            work()
    assert draws == []


def test_a_version_that_does_not_look_adds_other_noise(
    made: Collection, updated: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, drawn = verified(made), list[Layout]()

    def noise(layout: Layout, role: str) -> Any:
        drawn.append(layout)
        return np.zeros(layout.length, np.int64)

    monkeypatch.setattr(helping, "measured_for", lambda task, plan: measuring.measured(plan))
    monkeypatch.setattr(measuring, "noise_of", noise)
    updated()
    made.helper.close(closing)
    assert drawn[0].blocks[0].variance * 4 == compile_plan(made.plan).blocks[0].variance


def test_a_sum_stays_what_it_was_after_an_update(made: Collection, updated: Callable[[], None]) -> None:
    task = made.open().task
    sums = made.collect(made.reports(task), task)
    updated()
    assert np.array_equal(made.leader.close(task.id, made.helper), sums)


def test_a_close_that_does_not_match_is_refused_and_nothing_is_drawn(
    made: Collection, draws: list[str]
) -> None:
    task, spy = made.open().task, Spy(made)
    for report in made.reports(task):
        made.leader.take(task.id, report.encode())
    made.leader.verify(task.id, spy)
    for closing in (
        Closing(task.id, DEVICES, bytes(CHECKSUM_SIZE)),
        Closing(task.id, 7, bytes(CHECKSUM_SIZE)),
    ):
        with pytest.raises(Refused, match="did not count the same"):
            made.helper.close(closing.encode())
    assert draws == []


def test_fewer_than_the_least_are_not_summed(made: Collection, draws: list[str]) -> None:
    task, spy = made.open().task, Spy(made)
    for report in made.reports(task)[:5]:
        made.leader.take(task.id, report.encode())
    with pytest.raises(RoundFailed, match="5 devices were counted; fewer than 6"):
        made.leader.close(task.id, spy)
    with made.databases["helper"].reading() as connection:
        checksum = connection.exec_driver_sql("SELECT checksum FROM helper_tasks").scalar_one()
    with pytest.raises(Refused, match="5 devices were counted; fewer than 6"):
        made.helper.close(Closing(task.id, 5, checksum).encode())
    assert draws == []


def test_a_batch_in_the_place_of_another_is_refused(made: Collection) -> None:
    task, spy = made.open().task, Spy(made)
    for report in made.reports(task):
        made.leader.take(task.id, report.encode())
    made.leader.verify(task.id, spy)
    ((_, request, answer),) = [each for each in spy.asked if each[0] == "verify"]
    batch = Batch.decode(request, prio(made.plan))
    assert made.helper.verify(request) == answer
    with pytest.raises(Refused, match="batch 0 was another one"):
        made.helper.verify(replace(batch, entries=batch.entries[:4]).encode())
    for data in (b"", request[:37], request[:-1], request + b"\0", request[:36] + b"\0\0"):
        with pytest.raises(UnheardError):
            made.helper.verify(data)
    # The same devices in another batch, as a leader whose database was restored sends them: none is counted.
    again = made.helper.verify(replace(batch, number=1).encode())
    assert set(again[:: 1 + prio(made.plan).message_size]) == {Refusal.SECOND_REPORT.number}


def test_a_device_or_an_id_twice_in_a_batch_is_counted_once(made: Collection) -> None:
    """As a leader sends them whose database forgot."""
    task, spy = made.open().task, Spy(made, lambda name, number: "request" if name == "verify" else "")
    reports = made.reports(task)
    for report in reports[:6]:
        made.leader.take(task.id, report.encode())
    with pytest.raises(Away):
        made.leader.verify(task.id, spy)
    batch = Batch.decode(spy.asked[-1][1], prio(made.plan))
    first = next(each for each in reports if each.id == batch.entries[0].id)
    other = _signed_anew(made, task, first, 7)
    changed = {name: getattr(other, name) for name in ("device", "certificate", "signature")}
    twice = (*batch.entries, batch.entries[1], replace(batch.entries[0], **changed))
    again = (replace(batch.entries[0], **changed),)
    size = 1 + prio(made.plan).message_size
    codes = list(made.helper.verify(replace(batch, entries=twice).encode())[::size])
    assert codes == [0] * 6 + [Refusal.SECOND_REPORT.number, Refusal.REPLAYED.number]
    codes = list(made.helper.verify(replace(batch, number=1, entries=again).encode())[::size])
    assert codes == [Refusal.REPLAYED.number]


def codes_of_tries(made: Collection) -> set[Refusal | None]:
    """Ask the helper again about a report that it took: as it was, and with a verifier that does not hold."""
    task, spy = made.open().task, Spy(made)
    made.leader.take_all(task.id, [each.encode() for each in made.reports(task)])
    made.leader.verify(task.id, spy)
    system, request = prio(made.plan), spy.asked[-1][1]
    entry, codes = Batch.decode(request, system).entries[0], set()
    for number, changed in ((1, 0), (2, 1)):
        verifier = bytes([entry.verifier[0] ^ changed]) + entry.verifier[1:]
        batch = Batch(task.id, number, (replace(entry, verifier=verifier),))
        (decision,) = decode_decisions(made.helper.verify(batch.encode()), 1, system)
        codes.add(decision.refusal)
    return codes


def test_the_helper_says_nothing_about_a_second_proof_of_a_device(made: Collection) -> None:
    """A leader could try verifiers of its choice for one report as often as it likes."""
    assert codes_of_tries(made) == {Refusal.SECOND_REPORT}


def test_a_helper_that_looks_at_the_proof_first_says_whether_it_holds(
    made: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = helping._take_places

    def proof_first(connection: Any, task: bytes, checked: Any) -> None:
        before = [each.refusal for each in checked]
        place(connection, task, checked)
        for each, refusal in zip(checked, before, strict=True):
            each.refusal = refusal or each.refusal

    monkeypatch.setattr(helping, "_take_places", proof_first)
    assert codes_of_tries(made) == {Refusal.SECOND_REPORT, Refusal.INVALID}


# Devices.


@pytest.mark.parametrize("kappa", ["0.25", "0.249"])
def test_devices_decline_a_plan_whose_leader_adds_next_to_no_noise(tmp_path: Path, kappa: str) -> None:
    """Only the leader's noise protects from the helper."""
    made = Collection.make(tmp_path, 2, f"{PRIVACY}, kappa: {kappa}")
    signed, world = made.open(), made.world
    entry = world.store.publish("task", signed.task.release.hex(), signed.entry())
    invitation = made.invite()
    logged = world.store.prove(entry.index, invitation.checkpoint)
    offer = Offer(signed, entry.index, tuple(logged.proof))
    request = encode(replace(invitation, request=offer.encode()))
    pins = replace(world.pins, helper=made.helper.public_key)
    draw = seeded_randomness(SEED)
    fleet = UploadingFleet(world.cohort, pins, world.authority, POPULATION, draw, made.clock)
    with nullcontext() if kappa == "0.25" else pytest.raises(Declined, match=Reason.LIMITS.value):
        made.leader.take(signed.task.id, fleet.report(0, request))
    assert made.leader.tally(signed.task.id).arrived == (kappa == "0.25")
    made.close()
    world.store.close()


# One charge, one sum.


def test_a_release_has_one_task_and_no_roster(made: Collection) -> None:
    task, proof, plan = made.open().task, made.proof(), canonical(made.plan)
    opening = Opening(plan, made.release, proof.encode(), task.leader, *WINDOW)
    assert made.helper.open(opening.encode())[160:] == task.encode()
    with pytest.raises(Refused, match="another task already"):
        made.helper.open(replace(opening, closes=WINDOW[1] + HOUR).encode())
    witness = made.world.signers.witness
    other = replace(task, least=7)
    with pytest.raises(Refused, match="signed another collection"):
        witness.sign_collection(asked(other, proof.encode()).encode())
    with pytest.raises(Refused, match="summed by two aggregators"):
        witness.sign_roster(made.roster_request())


def test_a_release_with_a_roster_has_no_collection(made: Collection) -> None:
    made.charge()
    made.world.signers.witness.sign_roster(made.roster_request())
    with pytest.raises(Refused, match="signed a roster for release"):
        made.leader.open(canonical(made.plan), made.release, made.proof(), WINDOW, made.helper)
    with pytest.raises(Refused, match="no such task"):
        made.helper.verify(bytes(64))


def test_no_task_is_opened_that_is_not_charged_or_for_somebody_else(made: Collection) -> None:
    proof, plan = made.charge(), canonical(made.plan)
    leader = made.leader.public_key
    good = Opening(plan, made.release, proof.encode(), leader, *WINDOW)
    for broken, says in (
        (replace(good, release=bytes(16)), "not charged: the charge is of another release"),
        (
            replace(good, charge=replace(proof, index=proof.index + 1).encode()),
            "not charged: the charge is not in",
        ),
        (replace(good, plan=canonical(plan_of("sum: two_aggregators, min_cohort: 7"))), "not charged"),
        (replace(good, leader=bytes(32)), "another leader"),
        (replace(good, closes=good.opens), "for at most 31 days"),
        (replace(good, closes=good.opens + 800 * HOUR), "for at most 31 days"),
        (replace(good, opens=good.opens - 800 * HOUR), "for at most 31 days"),
    ):
        with pytest.raises(Refused, match=says):
            made.helper.open(broken.encode())
    with pytest.raises(BadInput, match="in four stages"):
        made.helper.open(replace(good, plan=canonical(plan_of("min_cohort: 6"))).encode())
    for data in (b"", b"[]", b"[" * 9000, good.encode() + b" ", good.encode()[:-1], b"\xff"):
        with pytest.raises(BadInput, match="not a request for a task"):
            made.helper.open(data)
    assert made.leader.open(plan, made.release, proof, WINDOW, made.helper).task.least == 6


def test_a_task_that_nobody_closes_loses_its_keys(made: Collection) -> None:
    task = made.open().task
    made.helper.forget()
    made.at = WINDOW[1] + KEPT + HOUR
    made.helper.forget()
    with made.databases["helper"].reading() as connection:
        row = connection.exec_driver_sql("SELECT * FROM helper_tasks").mappings().one()
    assert (row["sealing"], row["verify_key"], row["total"], row["stage"]) == (b"", b"", b"", "closed")
    with pytest.raises(Refused, match="given up"):
        made.helper.close(Closing(task.id, 0, bytes(CHECKSUM_SIZE)).encode())


def test_reports_of_a_task_that_nobody_closes_are_deleted(made: Collection) -> None:
    """Those that wait, and those in a batch that was never decided; not what was counted of a closed task."""
    task, spy = made.open().task, Spy(made, lambda name, number: "request" if name == "verify" else "")
    reports = made.reports(task)
    made.leader.take_all(task.id, [each.encode() for each in reports[:4]])
    with pytest.raises(Away):
        made.leader.verify(task.id, spy)
    made.leader.take_all(task.id, [each.encode() for each in reports[4:]])
    made.at = WINDOW[1] + KEPT
    made.leader.forget()
    assert made.leader.tally(task.id).waiting == DEVICES
    made.at += HOUR
    made.leader.forget()
    with made.databases["leader"].reading() as connection:
        assert not connection.exec_driver_sql("SELECT body FROM leader_reports WHERE body NOTNULL").all()
        row = connection.exec_driver_sql("SELECT * FROM leader_tasks").mappings().one()
    assert (row["verify_key"], row["total"], row["stage"]) == (b"", b"", "closed")
    assert made.leader.tally(task.id) == Tally(DEVICES, 0, 0, {Refusal.LATE: DEVICES})
    assert made.leader.verify(task.id, made.helper) == 0
    with pytest.raises(RoundFailed, match="given up"):
        made.leader.close(task.id, made.helper)


def test_a_run_forgets_what_was_never_closed_before_it_uses_either(made: Collection) -> None:
    """A run that was interrupted leaves its task open; the next one is when both can forget it."""
    task = made.open().task
    made.leader.take(task.id, made.reports(task)[0].encode())
    made.close()
    folder, files = made.world.folder, {"leader": "leader.db", "helper": "helper/helper.db"}
    (folder / "helper").mkdir()
    shutil.copy(folder / "helper.db", folder / files["helper"])
    signers = made.world.signers
    context = SimpleNamespace(signers=signers, today=lambda: WINDOW[1] + KEPT + HOUR)
    with aggregators_of(None, folder, local_keys(folder / "local"), cast(RunContext, context)):
        for role, file in files.items():
            database = sqlite3.connect(folder / file)
            assert database.execute(f"SELECT verify_key FROM {role}_tasks").fetchall() == [(b"",)]
            database.close()
