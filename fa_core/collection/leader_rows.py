"""The statements of a leader's database: which reports are taken, in which batches, what became of them.

All of them run within a transaction that no other writer overlaps (`Database.writing`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from fa_core.collection.refusal import Refusal
from fa_core.collection.report import Report
from fa_core.collection.schema import CLOSED, OPEN, leader_batches, leader_reports, leader_tasks

COUNTED: Final = 0
"""The outcome of a report that is in the sum; others are numbers of refusals."""

NO_REPORT: Final = b""
"""The digest where a device took back a report that had not arrived."""


@dataclass(slots=True)
class Taking:
    """What a database has of some reports while they are taken.

    Attributes:
        stage: of the task.
        kept: digest and outcome by device. ids: those of any report of this task.
        rows: what is to be written.
    """

    task: bytes
    stage: str
    kept: dict[bytes, tuple[bytes, int | None]]
    ids: set[bytes]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, connection: Connection, task: bytes, reports: Sequence[Report]) -> "Taking":
        """Read what there is of the devices and ids of these reports."""
        columns = leader_reports.c
        query = select(columns.device, columns.digest, columns.outcome).where(columns.task == task)
        found = connection.execute(query.where(columns.device.in_([each.device for each in reports])))
        kept = {bytes(device): (bytes(digest), outcome) for device, digest, outcome in found}
        ids = ids_taken(connection, task, [each.id for each in reports])
        return cls(task, _stage(connection, task), kept, ids)

    def take(self, report: Report, data: bytes) -> Refusal | None:
        """Take one, unless it was; return why it is refused."""
        digest = sha256(data).digest()
        if report.device in self.kept:
            before, outcome = self.kept[report.device]
            if outcome == Refusal.WITHDRAWN.number:
                return Refusal.WITHDRAWN
            return None if before == digest else Refusal.SECOND_REPORT
        if self.stage != OPEN:
            return Refusal.LATE
        if report.id in self.ids:
            return Refusal.REPLAYED
        self.kept[report.device] = digest, None
        self.ids.add(report.id)
        values = {"task": self.task, "device": report.device, "id": report.id}
        self.rows.append({**values, "digest": digest, "body": data})
        return None


def ids_taken(connection: Connection, task: bytes, ids: Sequence[bytes]) -> set[bytes]:
    """Return which of these ids reports of a task have."""
    columns = leader_reports.c
    query = select(columns.id).where(columns.task == task, columns.id.in_(ids))
    return {bytes(each) for each in connection.execute(query).scalars()}


def report_of(connection: Connection, task: bytes, device: bytes) -> RowMapping | None:
    """Return digest, batch and outcome of a device's report."""
    columns = leader_reports.c
    query = select(columns.digest, columns.batch, columns.outcome)
    found = connection.execute(query.where(columns.task == task, columns.device == device))
    return found.mappings().first()


def withdraw_ahead(connection: Connection, task: bytes, device: bytes, number: bytes) -> Refusal | None:
    """Take no report of a device whose withdrawal came first; return why that is refused."""
    if _stage(connection, task) != OPEN:
        return Refusal.LATE
    if ids_taken(connection, task, [number]):
        return Refusal.REPLAYED
    values = {"task": task, "device": device, "id": number, "digest": NO_REPORT}
    connection.execute(insert(leader_reports).values(**values, outcome=Refusal.WITHDRAWN.number))
    return None


def withdrawn_ahead(connection: Connection, task: bytes) -> int:
    """Return how many devices withdrew a report that never arrived."""
    columns = leader_reports.c
    withdrawn = columns.outcome == Refusal.WITHDRAWN.number, columns.digest == NO_REPORT
    found = select(func.count()).select_from(leader_reports).where(columns.task == task, *withdrawn)
    return int(connection.execute(found).scalar_one())


def _waiting(task: bytes) -> tuple[Any, Any]:
    """What holds of a report that is not decided."""
    return leader_reports.c.task == task, leader_reports.c.outcome.is_(None)


def _batch(task: bytes, number: int) -> tuple[Any, Any]:
    return leader_batches.c.task == task, leader_batches.c.number == number


def claim(connection: Connection, task: bytes, free_at: int | None, until: int, most: int) -> int | None:
    """Claim a batch that is not counted yet, or else a new one of what waits; None where there is neither.

    Args:
        free_at: one whose claim is over by then; None for any. until: the end of this claim. Both in seconds
            since 1970. most: reports in a new batch.
    """
    batches = leader_batches.c
    free = select(func.min(batches.number)).where(batches.task == task)
    if free_at is not None:
        free = free.where(batches.until <= free_at)
    number = connection.execute(free).scalar()
    if number is None:
        return _new_batch(connection, task, until, most)
    claim_until(connection, task, number, until)
    return int(number)


def claim_until(connection: Connection, task: bytes, number: int, until: int) -> None:
    """Change the end of a claim, seconds since 1970; nothing where the batch is counted."""
    connection.execute(update(leader_batches).where(*_batch(task, number)).values(until=until))


def uploads_of(connection: Connection, task: bytes, number: int) -> list[bytes]:
    """Return the reports of a batch that is not counted, in an order of their own."""
    columns = leader_reports.c
    bodies = select(columns.body).where(*_waiting(task), columns.batch == number).order_by(columns.id)
    return [bytes(each) for each in connection.execute(bodies).scalars()]


def _new_batch(connection: Connection, task: bytes, until: int, most: int) -> int | None:
    """Make a batch of what waits and return its number; None where nothing does."""
    columns, row = leader_reports.c, task_row(connection, leader_tasks.c.id == task)
    assert row is not None
    number = int(row["batches"])
    # In the order of the index, which has those that wait side by side, however many are decided.
    order = columns.task, columns.outcome, columns.batch
    chosen = select(columns.device).where(*_waiting(task), columns.batch.is_(None)).order_by(*order)
    change = update(leader_reports).where(columns.task == task, columns.device.in_(chosen.limit(most)))
    if not connection.execute(change.values(batch=number)).rowcount:
        return None
    connection.execute(insert(leader_batches).values(task=task, number=number, until=until))
    update_task(connection, task, {"batches": number + 1})
    return number


def settle_batch(connection: Connection, task: bytes, number: int, refused: Mapping[bytes, int]) -> bool:
    """Write what became of a batch: some are refused, by device, and the rest is counted; delete all shares.

    False, and nothing is written, where another worker has.
    """
    if connection.execute(delete(leader_batches).where(*_batch(task, number))).rowcount != 1:
        return False
    settle(connection, task, refused)
    rest = *_waiting(task), leader_reports.c.batch == number
    connection.execute(update(leader_reports).where(*rest).values(outcome=COUNTED, body=None))
    return True


def settle(connection: Connection, task: bytes, outcomes: Mapping[bytes, int]) -> None:
    """Write what became of reports, by device, and delete their shares."""
    which = leader_reports.c.task == bindparam("of"), leader_reports.c.device == bindparam("by")
    rows = [{"of": task, "by": device, "outcome": outcome} for device, outcome in outcomes.items()]
    if rows:
        connection.execute(update(leader_reports).where(*which).values(body=None), rows)


def not_closed(connection: Connection) -> Sequence[RowMapping]:
    """Return the tasks that have no sum yet."""
    found = connection.execute(select(leader_tasks).where(leader_tasks.c.stage != CLOSED))
    return found.mappings().all()


def give_up(connection: Connection, task: bytes) -> None:
    """Close a task without a sum: no share, no key and no part of the sum is left; what waited is late."""
    waiting = update(leader_reports).where(*_waiting(task))
    connection.execute(waiting.values(outcome=Refusal.LATE.number, body=None))
    connection.execute(delete(leader_batches).where(leader_batches.c.task == task))
    update_task(connection, task, {"stage": CLOSED, "verify_key": b"", "total": b""})


def _stage(connection: Connection, task: bytes) -> str:
    return str(connection.execute(select(leader_tasks.c.stage).where(leader_tasks.c.id == task)).scalar_one())


def task_row(connection: Connection, which: Any) -> RowMapping | None:
    """Return the task of which something holds."""
    return connection.execute(select(leader_tasks).where(which)).mappings().first()


def update_task(connection: Connection, task: bytes, values: Mapping[str, Any]) -> None:
    """Change columns of a task."""
    connection.execute(update(leader_tasks).where(leader_tasks.c.id == task).values(**values))
