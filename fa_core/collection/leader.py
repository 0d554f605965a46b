"""The leader: it takes reports, has them verified with the helper, and forms the sum with noise of its own.

A report is in the database before a device is answered. A batch keeps its number and its reports until it is
counted, so that a leader that restarts asks for the same again, and a helper that is away loses nothing. In
the transaction that counts a report, or refuses it, its shares are deleted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, RowMapping, func, insert, select, text, update

from fa_core.collection.checks import verify_task
from fa_core.collection.measured import Measured, measured
from fa_core.collection.messages import (
    Aggregator,
    Batch,
    Closing,
    Decision,
    Entry,
    Opened,
    Opening,
    decode_decisions,
)
from fa_core.collection.refusal import Refusal, RefusedReport
from fa_core.collection.report import Report, check_sender, leader_hash, read_withdrawal
from fa_core.collection.schema import CLOSED, OPEN, STOPPED, leader_reports, leader_tasks
from fa_core.collection.sums import Running
from fa_core.collection.task import SignedTask, Task, to_sign
from fa_core.database.connection import Database
from fa_core.errors import RoundFailed
from fa_core.prio.field import FIELD64
from fa_core.prio.prio3 import LEADER, Begun, Input
from fa_core.trust.charges import ChargeProof
from fa_core.values import Int64Array

BATCH: Final = 256
"""Reports that are verified together."""

COUNTED: Final = 0
"""The outcome of a report that is in the sum; others are numbers of refusals."""

_TAKE = text(
    "INSERT INTO leader_reports (task, device, id, digest, body, outcome) "
    "VALUES (:task, :device, :id, :digest, :body, :outcome) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a collection is: public counts.

    Attributes:
        arrived: reports that were taken. waiting: of those, not verified yet. counted: of those, in the sum.
        refused: how many by the code of the refusal.
    """

    arrived: int
    waiting: int
    counted: int
    refused: Mapping[Refusal, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Collecting:
    """A task as the leader has it. `verify_key` is empty once it is closed."""

    task: Task
    measured: Measured
    stage: str
    verify_key: bytes = field(repr=False)


class Leader:
    """The leader over its database, whose tables are up to date.

    `authority` is the enrolment authority's public key, 32 bytes; `clock` gives the time, UTC.
    """

    def __init__(
        self,
        database: Database,
        key: Ed25519PrivateKey,
        authority: bytes,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._key = key
        self._authority = authority
        self._clock = clock

    @property
    def public_key(self) -> bytes:
        """32 bytes, which the helper pins."""
        return self._key.public_key().public_bytes_raw()

    # Opening.

    def open(
        self,
        plan: bytes,
        release: bytes,
        charge: ChargeProof,
        window: tuple[datetime, datetime],
        helper: Aggregator,
    ) -> SignedTask:
        """Have the helper make the task of a charged release, and return it signed; the same at each call.

        Args:
            plan: canonical bytes. charge: why it is charged. window: reports are taken in it, [from, to).

        Raises:
            Refused: the helper or its witness refuses. BadInput: its task is not what was asked for.
        """
        found = measured(plan)
        with self._database.reading() as connection:
            row = _find(connection, leader_tasks.c.release == release)
        if row is not None:
            return SignedTask.parse(row["signed"])
        opening = Opening(plan, release, charge.encode(), self.public_key, *window)
        opened = Opened.decode(helper.open(opening.encode()))
        task = opened.task
        verify_task(task, found.plan, found.layout, release, charge.row)
        signed = SignedTask(task, self._key.sign(to_sign(task)), opened.helper, opened.witness)
        signed = SignedTask.parse(signed.encode())
        values = {
            "id": task.id,
            "release": release,
            "signed": signed.encode(),
            "plan": plan,
            "stage": OPEN,
            "verify_key": opened.verify_key,
            "batches": 0,
        }
        with self._database.writing() as connection:
            if _find(connection, leader_tasks.c.id == task.id) is None:
                running = Running.nothing(found.prio.length)
                connection.execute(insert(leader_tasks).values(**values, **running.stored()))
        return signed

    # For devices.

    def take(self, task: bytes, data: bytes) -> None:
        """Take a device's report, to be verified later. The same bytes again change nothing.

        Raises RefusedReport, and nothing changes.
        """
        collecting = self._find(task)
        report = Report.parse(data, collecting.measured.prio)
        sender = (report.device, report.certificate, report.signature)
        check_sender(collecting.task, self._authority, *sender, report.body_hash)
        now = self._clock()
        if now < collecting.task.opens:
            raise RefusedReport(Refusal.EARLY)
        digest = sha256(data).digest()
        values = {"task": task, "device": report.device, "id": report.id, "digest": digest}
        with self._database.writing() as connection:
            kept = _report(connection, task, report.device)
            if kept is not None:
                _require_same(kept, digest)
                return
            stage = _stage(connection, task)
            if stage != OPEN or now >= collecting.task.closes:
                raise RefusedReport(Refusal.LATE)
            if connection.execute(_TAKE, {**values, "body": data, "outcome": None}).rowcount != 1:
                raise RefusedReport(Refusal.REPLAYED)

    def withdraw(self, task: bytes, data: bytes) -> None:
        """Delete a report that its device takes back, before it is verified, and never count it.

        Raises RefusedReport: `late` where it is verified, or about to be.
        """
        collecting = self._find(task)
        number, device = read_withdrawal(data, collecting.task, self._authority)
        with self._database.writing() as connection:
            kept = _report(connection, task, device)
            if kept is None:
                values = {"task": task, "device": device, "id": number, "digest": b"", "body": None}
                connection.execute(_TAKE, {**values, "outcome": Refusal.WITHDRAWN.number})
            elif kept["outcome"] is None and kept["batch"] is None:
                _settle(connection, task, device, Refusal.WITHDRAWN.number)
            elif kept["outcome"] != Refusal.WITHDRAWN.number:
                raise RefusedReport(Refusal.LATE)

    # Verifying.

    def verify(self, task: bytes, helper: Aggregator) -> int:
        """Verify one batch with the helper and return how many reports were decided; 0 where none waits.

        Raises:
            HelperAway: it does not answer; the batch is asked for again.
            RoundFailed: leader and helper do not find the same.
        """
        collecting = self._find(task)
        if collecting.stage == CLOSED:
            return 0
        number, reports = self._batch(task, collecting)
        if not reports:
            return 0
        prio = collecting.measured.prio
        inputs = [Input(each.id, each.public, each.leader) for each in reports]
        begun = prio.begin(LEADER, collecting.verify_key, task, inputs)
        decisions = _asked(collecting, number, reports, begun, helper)
        finished = prio.finish(begun, [each.message if each.refusal is None else None for each in decisions])
        counted = [each.refusal is None for each in decisions]
        if finished.accepted.tolist() != counted:
            raise RoundFailed("leader and helper do not find the same reports sound; nothing was released")
        with self._database.writing() as connection:
            first = _report(connection, task, reports[0].device)
            if first is None or first["outcome"] is not None:
                return len(reports)  # another worker of this leader has counted this batch
            row = _find(connection, leader_tasks.c.id == task)
            assert row is not None
            for report, decision in zip(reports, decisions, strict=True):
                outcome = decision.refusal.number if decision.refusal else COUNTED
                _settle(connection, task, report.device, outcome)
            pairs = [(each.device, each.id) for each, one in zip(reports, counted, strict=True) if one]
            running = Running.load(row["total"], row["count"], row["checksum"])
            _update(connection, task, running.plus(finished.total, task, pairs).stored())
        return len(reports)

    def _batch(self, task: bytes, collecting: _Collecting) -> tuple[int, tuple[Report, ...]]:
        """Return the batch that is not counted yet, or else a new one of what waits."""
        columns = leader_reports.c
        waiting = columns.task == task, columns.outcome.is_(None), columns.body.is_not(None)
        with self._database.writing() as connection:
            number = connection.execute(
                select(func.min(columns.batch)).where(*waiting, columns.batch.is_not(None))
            ).scalar()
            if number is None:
                row = _find(connection, leader_tasks.c.id == task)
                assert row is not None
                number = row["batches"]
                chosen = select(columns.device).where(*waiting, columns.batch.is_(None)).limit(BATCH)
                devices = connection.execute(chosen).scalars().all()
                if not devices:
                    return 0, ()
                change = update(leader_reports).where(columns.task == task, columns.device.in_(devices))
                connection.execute(change.values(batch=number))
                _update(connection, task, {"batches": number + 1})
            bodies = select(columns.body).where(*waiting, columns.batch == number).order_by(columns.id)
            found = connection.execute(bodies).scalars().all()
        prio = collecting.measured.prio
        return int(number), tuple(Report.parse(bytes(each), prio) for each in found)

    # Closing.

    def stop(self, task: bytes) -> None:
        """Take no more reports; those that arrived are still verified."""
        which = leader_tasks.c.id == task, leader_tasks.c.stage == OPEN
        with self._database.writing() as connection:
            connection.execute(update(leader_tasks).where(*which).values(stage=STOPPED))

    def close(self, task: bytes, helper: Aggregator) -> Int64Array:
        """Verify what is left, and return the sum with the noise of both, int64 (layout.length,).

        Noise is drawn in the transaction that writes the sum; at another call the same sum is returned.

        Raises:
            HelperAway: it does not answer; call again.
            Refused: the helper counted otherwise. RoundFailed: too few devices, or a share that is none.
        """
        self.stop(task)
        while self.verify(task, helper):
            pass
        collecting = self._find(task)
        with self._database.reading() as connection:
            row = _find(connection, leader_tasks.c.id == task)
        assert row is not None
        if row["stage"] == CLOSED:
            return np.frombuffer(row["sums"], "<i8").astype(np.int64)
        if row["count"] < collecting.task.least:
            raise RoundFailed(
                f"{row['count']} devices were counted; fewer than {collecting.task.least} are not summed"
            )
        answer = helper.close(Closing(task, row["count"], row["checksum"]).encode())
        cells = collecting.measured.layout.length
        if len(answer) != cells * FIELD64.size:
            raise RoundFailed("the helper's share is of another length; nothing was released")
        share, valid = FIELD64.decode(answer, (cells,))
        if not valid.all():
            raise RoundFailed("the helper's share is none; nothing was released")
        with self._database.writing() as connection:
            row = _find(connection, leader_tasks.c.id == task)
            assert row is not None
            if row["stage"] == CLOSED:
                return np.frombuffer(row["sums"], "<i8").astype(np.int64)
            running = Running.load(row["total"], row["count"], row["checksum"])
            own = collecting.measured.noised(running.total, "leader")
            sums = collecting.measured.prio.unshard([own, share])
            closed = {"stage": CLOSED, "sums": sums.astype("<i8").tobytes(), "total": b"", "verify_key": b""}
            _update(connection, task, closed)
        return sums

    def tally(self, task: bytes) -> Tally:
        """Return how far a collection is."""
        columns = leader_reports.c
        query = select(columns.outcome, func.count()).where(columns.task == task).group_by(columns.outcome)
        with self._database.reading() as connection:
            found: Counter[int | None] = Counter(dict(connection.execute(query).tuples().all()))
        refused = {
            Refusal.of_number(outcome): count
            for outcome, count in found.items()
            if outcome is not None and outcome != COUNTED
        }
        return Tally(found.total(), found[None], found[COUNTED], refused)

    def _find(self, task: bytes) -> _Collecting:
        """Return a task. Raises RefusedReport where there is none."""
        with self._database.reading() as connection:
            row = _find(connection, leader_tasks.c.id == task)
        if row is None:
            raise RefusedReport(Refusal.UNKNOWN_TASK)
        return _Collecting(_task(row["signed"]), measured(row["plan"]), row["stage"], row["verify_key"])


@lru_cache(maxsize=16)
def _task(signed: bytes) -> Task:
    return SignedTask.parse(signed).task


def _asked(
    collecting: _Collecting, number: int, reports: Sequence[Report], begun: Begun, helper: Aggregator
) -> tuple[Decision, ...]:
    """Return the decision on each report: the leader's own on what is malformed, the helper's on the rest."""
    prio = collecting.measured.prio
    sent = [row for row, refusal in enumerate(begun.refused) if refusal is None]
    decisions = [Decision(Refusal.INVALID)] * len(reports)
    if sent:
        entries = tuple(_entry(reports[row], begun.verifiers[row]) for row in sent)
        answer = helper.verify(Batch(collecting.task.id, number, entries).encode())
        for row, decision in zip(sent, decode_decisions(answer, len(sent), prio), strict=True):
            decisions[row] = decision
    return tuple(decisions)


def _entry(report: Report, verifier: bytes) -> Entry:
    return Entry(
        report.id,
        report.device,
        report.public,
        report.box,
        leader_hash(report.leader),
        report.certificate,
        report.signature,
        verifier,
    )


def _require_same(kept: RowMapping, digest: bytes) -> None:
    """Raise RefusedReport unless a device sends what it sent before, and has not taken it back."""
    if kept["outcome"] == Refusal.WITHDRAWN.number:
        raise RefusedReport(Refusal.WITHDRAWN)
    if kept["digest"] != digest:
        raise RefusedReport(Refusal.SECOND_REPORT)


def _report(connection: Connection, task: bytes, device: bytes) -> RowMapping | None:
    columns = leader_reports.c
    query = select(columns.digest, columns.batch, columns.outcome)
    found = connection.execute(query.where(columns.task == task, columns.device == device))
    return found.mappings().first()


def _settle(connection: Connection, task: bytes, device: bytes, outcome: int) -> None:
    """Write what became of a report, and delete its shares."""
    which = leader_reports.c.task == task, leader_reports.c.device == device
    connection.execute(update(leader_reports).where(*which).values(outcome=outcome, body=None))


def _stage(connection: Connection, task: bytes) -> str:
    return str(connection.execute(select(leader_tasks.c.stage).where(leader_tasks.c.id == task)).scalar_one())


def _find(connection: Connection, which: Any) -> RowMapping | None:
    return connection.execute(select(leader_tasks).where(which)).mappings().first()


def _update(connection: Connection, task: bytes, values: Mapping[str, Any]) -> None:
    connection.execute(update(leader_tasks).where(leader_tasks.c.id == task).values(**values))
