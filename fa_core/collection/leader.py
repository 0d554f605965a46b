"""The leader: it takes reports, has them verified with the helper, and forms the sum with noise of its own.

A report is in the database before a device is answered. A batch keeps its number and its reports until it is
counted, so that a leader that restarts asks for the same again, and a helper that is away loses nothing. In
the transaction that counts a report, or refuses it, its shares are deleted.

Several workers may verify over one database. Each claims a batch for a while; what is claimed by one that was
killed is claimed again when that time is over, or when the collection is closed. Two workers that verify the
same batch do no harm: the helper answers both alike, and the first to write it down has counted it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import RowMapping, func, insert, select, update

from fa_core.collection import leader_rows as rows
from fa_core.collection.checks import verify_task
from fa_core.collection.leader_rows import COUNTED
from fa_core.collection.measured import Measured, measured, measured_for
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
from fa_core.collection.task import KEPT, SignedTask, Task, to_sign
from fa_core.database.connection import Database
from fa_core.errors import RoundFailed, UnheardError
from fa_core.prio.field import FIELD64
from fa_core.prio.prio3 import LEADER, Begun, Input
from fa_core.trust.charges import ChargeProof
from fa_core.values import Int64Array

BATCH: Final = 256
"""Reports that are verified together."""

CLAIMED: Final = timedelta(minutes=5)
"""For how long a batch is one worker's: longer than a helper that does not answer is asked."""


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
            row = rows.task_row(connection, leader_tasks.c.release == release)
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
            if rows.task_row(connection, leader_tasks.c.id == task.id) is None:
                running = Running.nothing(found.prio.length)
                connection.execute(insert(leader_tasks).values(**values, **running.stored()))
        return signed

    def opened(self, release: bytes) -> SignedTask | None:
        """Return the task of a release, None where there is none yet."""
        query = select(leader_tasks.c.signed).where(leader_tasks.c.release == release)
        with self._database.reading() as connection:
            signed = connection.execute(query).scalar()
        return None if signed is None else SignedTask.parse(bytes(signed))

    def taking(self, task: bytes) -> bool:
        """Whether reports of a task are taken: it has not been stopped or closed."""
        return self._find(task).stage == OPEN

    # For devices.

    def take(self, task: bytes, data: bytes) -> None:
        """Take a device's report, to be verified later. The same bytes again change nothing.

        Raises RefusedReport, and nothing changes.
        """
        (refusal,) = self.take_all(task, [data])
        if refusal is not None:
            raise RefusedReport(refusal)

    def take_all(self, task: bytes, uploads: Sequence[bytes]) -> tuple[Refusal | None, ...]:
        """Take reports, each as if it came alone after those before it, in one transaction.

        A device made its report within the window, by its own clock, and it may have waited at a gateway
        since: so reports are late from `stop` on, and not from the window's end.

        Returns of each why it is refused, None where it is taken, or was before. Raises RefusedReport where
        there is no such task.
        """
        collecting, now = self._find(task), self._clock()
        read = [self._read(collecting, data, now) for data in uploads]
        reports = [each for each in read if isinstance(each, Report)]
        with self._database.writing() as connection:
            taking = rows.Taking.of(connection, task, reports)
            refusals = tuple(
                taking.take(each, data) if isinstance(each, Report) else each
                for each, data in zip(read, uploads, strict=True)
            )
            if taking.rows:
                connection.execute(insert(leader_reports), taking.rows)
        return refusals

    def _read(self, collecting: _Collecting, data: bytes, now: datetime) -> Report | Refusal:
        """Return the report in some bytes, its sender checked, or why it is refused."""
        try:
            report = Report.parse(data, collecting.measured.prio)
            sender = (report.device, report.certificate, report.signature)
            check_sender(collecting.task, self._authority, *sender, report.body_hash)
        except RefusedReport as refused:
            return refused.refusal
        return Refusal.EARLY if now < collecting.task.opens else report

    def withdraw(self, task: bytes, data: bytes) -> None:
        """Delete a report that its device takes back, before it is verified, and never count it.

        Raises RefusedReport: `late` where it is verified, or about to be, and where the task takes no reports
        any more and has none of this device; `replayed` where another device's report has this id.
        """
        collecting = self._find(task)
        number, device = read_withdrawal(data, collecting.task, self._authority)
        with self._database.writing() as connection:
            kept = rows.report_of(connection, task, device)
            if kept is None:
                refusal = rows.withdraw_ahead(connection, task, device, number)
                if refusal is not None:
                    raise RefusedReport(refusal)
            elif kept["outcome"] is None and kept["batch"] is None:
                rows.settle(connection, task, {device: Refusal.WITHDRAWN.number})
            elif kept["outcome"] != Refusal.WITHDRAWN.number:
                raise RefusedReport(Refusal.LATE)

    # Verifying.

    def verify(self, task: bytes, helper: Aggregator) -> int:
        """Verify one batch with the helper and return how many reports were decided.

        0 where none waits but those that other workers have claimed.

        Raises:
            HelperAway: it does not answer; the batch is asked for again.
            RoundFailed: leader and helper do not find the same.
        """
        return self._verify(task, helper, claimed=False)

    def _verify(self, task: bytes, helper: Aggregator, *, claimed: bool) -> int:
        """Verify one batch, as `verify`; where `claimed`, one that another worker has claimed too."""
        collecting = self._find(task)
        if collecting.stage == CLOSED:
            return 0
        number, reports = self._claim(task, collecting, claimed)
        if not reports:
            return 0
        try:
            self._count(collecting, number, reports, helper)
        except UnheardError:
            self._give_back(task, number)
            raise
        return len(reports)

    def _count(
        self, collecting: _Collecting, number: int, reports: Sequence[Report], helper: Aggregator
    ) -> None:
        """Have a batch decided, and write down what became of it, unless another worker has."""
        prio, task = collecting.measured.prio, collecting.task.id
        inputs = [Input(each.id, each.public, each.leader) for each in reports]
        begun = prio.begin(LEADER, collecting.verify_key, task, inputs)
        decisions = _asked(collecting, number, reports, begun, helper)
        finished = prio.finish(begun, [each.message if each.refusal is None else None for each in decisions])
        counted = [each.refusal is None for each in decisions]
        if finished.accepted.tolist() != counted:
            raise RoundFailed("leader and helper do not find the same reports sound; nothing was released")
        pairs = [(each.device, each.id) for each, one in zip(reports, counted, strict=True) if one]
        refused = {
            report.device: decision.refusal.number
            for report, decision in zip(reports, decisions, strict=True)
            if decision.refusal is not None
        }
        with self._database.writing() as connection:
            if not rows.settle_batch(connection, task, number, refused):
                return
            row = rows.task_row(connection, leader_tasks.c.id == task)
            assert row is not None
            running = Running.load(row["total"], row["count"], row["checksum"])
            rows.update_task(connection, task, running.plus(finished.total, task, pairs).stored())

    def _claim(self, task: bytes, collecting: _Collecting, claimed: bool) -> tuple[int, tuple[Report, ...]]:
        """Claim a batch; no reports where there is none."""
        now = self._clock()
        free_at = None if claimed else int(now.timestamp())
        with self._database.writing() as connection:
            number = rows.claim(connection, task, free_at, int((now + CLAIMED).timestamp()), BATCH)
            found = [] if number is None else rows.uploads_of(connection, task, number)
        prio = collecting.measured.prio
        return number or 0, tuple(Report.parse(each, prio) for each in found)

    def _give_back(self, task: bytes, number: int) -> None:
        """Leave a batch to whoever claims it next."""
        with self._database.writing() as connection:
            rows.claim_until(connection, task, number, 0)

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
        while self._verify(task, helper, claimed=True):
            pass
        collecting = self._find(task)
        with self._database.reading() as connection:
            row = rows.task_row(connection, leader_tasks.c.id == task)
        assert row is not None
        if row["stage"] == CLOSED:
            return _sums(row)
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
            row = rows.task_row(connection, leader_tasks.c.id == task)
            assert row is not None
            if row["stage"] == CLOSED:
                return _sums(row)
            running = Running.load(row["total"], row["count"], row["checksum"])
            own = collecting.measured.noised(running.total, "leader")
            sums = collecting.measured.prio.unshard([own, share])
            closed = {"stage": CLOSED, "sums": sums.astype("<i8").tobytes(), "total": b"", "verify_key": b""}
            rows.update_task(connection, task, closed)
        return sums

    def forget(self) -> None:
        """Give up tasks that were not closed within `KEPT` of their windows' ends.

        The reports that were never verified are deleted, and count as late; so are the key and the sum.
        """
        with self._database.writing() as connection:
            for row in rows.not_closed(connection):
                if _task(row["signed"]).closes + KEPT < self._clock():
                    rows.give_up(connection, row["id"])

    def tally(self, task: bytes) -> Tally:
        """Return how far a collection is."""
        columns = leader_reports.c
        query = select(columns.outcome, func.count()).where(columns.task == task).group_by(columns.outcome)
        with self._database.reading() as connection:
            found: Counter[int | None] = Counter(dict(connection.execute(query).tuples().all()))
            found -= Counter({Refusal.WITHDRAWN.number: rows.withdrawn_ahead(connection, task)})
        refused = {
            Refusal.of_number(outcome): count
            for outcome, count in found.items()
            if outcome is not None and outcome != COUNTED
        }
        return Tally(found.total(), found[None], found[COUNTED], refused)

    def _find(self, task: bytes) -> _Collecting:
        """Return a task. Raises RefusedReport where there is none, Refused as `measured_for`."""
        with self._database.reading() as connection:
            row = rows.task_row(connection, leader_tasks.c.id == task)
        if row is None:
            raise RefusedReport(Refusal.UNKNOWN_TASK)
        found, plan, stage = _task(row["signed"]), row["plan"], row["stage"]
        says = measured(plan) if stage == CLOSED else measured_for(found, plan)
        return _Collecting(found, says, stage, row["verify_key"])


def _sums(row: RowMapping) -> Int64Array:
    """Return the sum of a closed task. Raises RoundFailed where there is none."""
    if row["sums"] is None:
        raise RoundFailed("the collection was given up; nothing was released")
    return np.frombuffer(row["sums"], "<i8").astype(np.int64)


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
