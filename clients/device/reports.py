"""The reports that a store keeps: what was uploaded, until its collection is over or it is taken back.

Each is kept with the signed statement that takes it back. So whoever ends a consent needs no key: the
report's bytes go, and what is left to send is the statement.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from clients.device.database import Connection
from clients.device.rows import micros, moment


@dataclass(frozen=True, slots=True)
class KeptReport:
    """A report for one collection.

    Attributes:
        task: id of the collection's task, 32 bytes; `release` 16 bytes; `family` the plan's name.
        request: SHA-256 of the newest invitation to it that was believed.
        closes: the end of the collection.
        purpose, tables: the consent under which it counted, and what it read.
        report: the bytes of the upload, None once the owner took it back.
        withdrawal: the statement that takes it back.
    """

    task: bytes
    release: bytes
    family: str
    request: bytes
    closes: datetime
    purpose: str
    tables: tuple[str, ...]
    report: bytes | None = field(repr=False)
    withdrawal: bytes = field(repr=False)

    @property
    def reply(self) -> bytes:
        """What is sent about the task: the report, or that it is taken back."""
        return self.withdrawal if self.report is None else self.report


def keep(connection: Connection, kept: KeptReport) -> None:
    """Write a report. A second one of the same task or release fails."""
    row = (
        kept.task, kept.release, kept.family, kept.request, micros(kept.closes),
        kept.purpose, ",".join(kept.tables), kept.report, kept.withdrawal,
    )  # fmt: skip
    connection.execute("INSERT INTO report VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def still_open(connection: Connection, now: datetime) -> list[KeptReport]:
    """Return the reports whose collection is not over at `now`, in the order in which they were made."""
    select = (
        "SELECT task, release, family, request, closes, purpose, tables, report, withdrawal FROM report "
        "WHERE closes > ? ORDER BY rowid"
    )
    rows = connection.execute(select, (micros(now),)).fetchall()
    return [
        KeptReport(
            task,
            release,
            family,
            request,
            moment(closes),
            purpose,
            tuple(tables.split(",")),
            report,
            withdrawal,
        )
        for task, release, family, request, closes, purpose, tables, report, withdrawal in rows
    ]


def believed(connection: Connection, task: bytes, request: bytes) -> None:
    """Write the SHA-256 of the newest invitation to a task that was believed."""
    connection.execute("UPDATE report SET request = ? WHERE task = ?", (request, task))


def take_back(connection: Connection, tasks: Iterable[bytes]) -> None:
    """Delete the bytes of reports; the statements that take them back stay."""
    connection.executemany("UPDATE report SET report = NULL WHERE task = ?", [(task,) for task in tasks])


def delete_over(connection: Connection, now: datetime) -> None:
    """Delete what is kept of collections that are over at `now`."""
    connection.execute("DELETE FROM report WHERE closes <= ?", (micros(now),))
