"""Alerts that wait to be sent, on disk, so that a restart or a day without a network loses none.

One row for each alert and channel. An alert is queued once, by its id, and stays listed after it was sent, so
that it is not sent again. A delivery that failed waits: a minute, then twice as long each time, up to six
hours. After a week without success it is given up.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from fa_core.alerts.alert import Alert
from fa_core.canonical_json import utc_text
from fa_core.errors import BadInput

FILE: Final = "alerts.db"
FIRST_WAIT: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = timedelta(hours=6)
GIVEN_UP_AFTER: Final = timedelta(days=7)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alert (
    id TEXT NOT NULL, channel TEXT NOT NULL, kind TEXT NOT NULL, at TEXT NOT NULL, plan TEXT NOT NULL,
    release TEXT NOT NULL, population TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
    queued TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next TEXT NOT NULL, sent TEXT,
    problem TEXT NOT NULL DEFAULT '', PRIMARY KEY (id, channel)
)
"""
_COLUMNS = ("id", "kind", "at", "plan", "release", "population", "title", "text")


@dataclass(frozen=True, slots=True)
class Waiting:
    """An alert for one channel: how often it was tried, when it is tried next or was sent, what failed."""

    alert: Alert
    channel: str
    queued: datetime
    attempts: int
    next: datetime
    sent: datetime | None
    problem: str

    def given_up(self, now: datetime) -> bool:
        """Return whether it is tried no more."""
        return self.sent is None and now - self.queued > GIVEN_UP_AFTER


class Queue:
    """The alerts of one store. Every method is one transaction, and durable when it returns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, alerts: Iterable[Alert], channels: Iterable[str], now: datetime) -> None:
        """Queue alerts for channels. What was queued before stays as it is."""
        names, at = tuple(channels), utc_text(now)
        rows = [
            (channel, at, at, *(getattr(alert, name) for name in _COLUMNS))
            for alert in alerts
            for channel in names
        ]
        columns = ", ".join(("channel", "queued", "next", *_COLUMNS))
        marks = ", ".join("?" * (len(_COLUMNS) + 3))
        insert = f"INSERT OR IGNORE INTO alert ({columns}) VALUES ({marks})"  # noqa: S608 - names of ours
        with self._connection:
            self._connection.executemany(insert, rows)

    def all(self) -> list[Waiting]:
        """Return every alert, oldest first, the sent ones too."""
        rows = self._connection.execute(
            f"SELECT channel, queued, attempts, next, sent, problem, {', '.join(_COLUMNS)} "  # noqa: S608
            "FROM alert ORDER BY at, id, channel"
        )
        return [_waiting(row) for row in rows]

    def due(self, now: datetime, *, everything: bool = False) -> list[Waiting]:
        """Return what is to be sent now; with `everything`, also what waits after a failure."""
        return [
            each
            for each in self.all()
            if each.sent is None and not each.given_up(now) and (everything or each.next <= now)
        ]

    def sent(self, each: Waiting, now: datetime) -> None:
        """Record that an alert arrived."""
        self._update(each, "sent = ?, problem = ''", utc_text(now))

    def failed(self, each: Waiting, problem: str, now: datetime) -> None:
        """Record that an alert did not arrive, and when it is tried next."""
        wait = min(FIRST_WAIT * 2 ** min(each.attempts, 20), LONGEST_WAIT)
        self._update(each, "problem = ?, next = ?", problem, utc_text(now + wait))

    def _update(self, each: Waiting, change: str, *values: str) -> None:
        with self._connection:
            self._connection.execute(
                f"UPDATE alert SET attempts = attempts + 1, {change} WHERE id = ? AND channel = ?",  # noqa: S608
                (*values, each.alert.id, each.channel),
            )


@contextmanager
def open_queue(folder: Path) -> Iterator[Queue]:
    """Open the queue in a folder, made where there is none. Raises BadInput where it cannot be used."""
    file = folder / FILE
    try:
        file.touch(mode=0o600)
        connection = sqlite3.connect(file, timeout=30.0)
    except (OSError, sqlite3.Error) as error:
        raise BadInput(f"{file} cannot be used: {error}") from None
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_SCHEMA)
        yield Queue(connection)
    except sqlite3.Error as error:
        raise BadInput(f"{file} cannot be used: {error}") from None
    finally:
        connection.close()


def _waiting(row: tuple[object, ...]) -> Waiting:
    channel, queued, attempts, next_, sent, problem, *alert = row
    return Waiting(
        alert=Alert(*alert),  # type: ignore[arg-type]
        channel=str(channel),
        queued=_moment(queued),
        attempts=int(str(attempts)),
        next=_moment(next_),
        sent=None if sent is None else _moment(sent),
        problem=str(problem),
    )


def _moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text)).astimezone(UTC)
