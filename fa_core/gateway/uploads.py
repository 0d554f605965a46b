"""Collections of two aggregators at a gateway: what devices upload once waits here until the leader has it.

    refresh -> (devices upload until the collection closes) -> hand over -> acknowledged -> … -> swept

Every method is one transaction. Those that write lock the collection's row first, so the uploads of one
collection get their serials one after the other, in the order in which they are committed: whoever was handed
everything up to a serial never misses one below it. Several workers and the relay server may call at once.
An upload is on disk before its device is told so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, text, update

from fa_core.collection.report import DEVICE_SIZE, REPORT_ID_SIZE, WITHDRAWAL_SIZE
from fa_core.collection.task import ID_SIZE
from fa_core.database.connection import Database
from fa_core.gateway.schema import collections, invitations, uploads

REPORT, WITHDRAWAL = 0, 1
"""The kinds of an upload: a device may send one of each to a collection."""

KINDS: Final = ("report", "withdrawal")

MOST_UPLOADS, MOST_BYTES = 500, 4 * 1024 * 1024
"""What is handed over at once, at most; an upload that is larger goes alone."""

KEPT_SECONDS: Final = 14 * 86_400
"""How long after its end a collection is kept. The helper forgets its task at the same time."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What a device uploads, by the little of it that a gateway reads. `device`: its public key, 32 bytes."""

    kind: int
    device: bytes
    body: bytes

    @classmethod
    def read(cls, task: bytes, body: bytes) -> "Upload | None":
        """Return the report or the withdrawal in `body`, None where it is neither of this task.

        A report is any bytes of another length that have room for a device; nothing in it is checked.
        """
        if len(body) == WITHDRAWAL_SIZE:
            at = ID_SIZE + REPORT_ID_SIZE
            return cls(WITHDRAWAL, body[at : at + DEVICE_SIZE], body) if body[:ID_SIZE] == task else None
        device = body[REPORT_ID_SIZE : REPORT_ID_SIZE + DEVICE_SIZE]
        return cls(REPORT, device, body) if len(device) == DEVICE_SIZE else None


class Taken(Enum):
    """What became of an upload: taken, taken before with the same bytes, rejected, no collection, full."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    REJECTED = auto()
    OVER = auto()
    FULL = auto()


@dataclass(frozen=True, slots=True)
class Invited:
    """A collection as the server asks for it.

    Attributes:
        task: its id, 32 bytes. closes: seconds since 1970; uploads are taken before.
        size: of the log, by the invitation's checkpoint. invitation: for every device.
    """

    task: bytes
    closes: int
    size: int
    invitation: bytes


@dataclass(frozen=True, slots=True)
class Handed:
    """What was handed over: serial -> bytes, in order; and how many of each kind."""

    items: dict[int, bytes]
    kinds: tuple[int, int]


class Uploads:
    """The collections in a gateway's `database`, whose tables are up to date."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # For devices.

    def offered(self, now: float) -> list[tuple[bytes, int]]:
        """Return (task, closes) of the collections that have not closed, those that close first before."""
        query = select(collections.c.task, collections.c.closes).where(collections.c.closes > now)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(collections.c.closes, collections.c.task))
            return [(bytes(row.task), row.closes) for row in rows]

    def invitation(self, task: bytes, now: float) -> bytes | None:
        """Return the newest invitation to a collection, None where there is none or it has closed."""
        query = select(invitations.c.invitation).join(collections, collections.c.task == invitations.c.task)
        with self._database.reading() as connection:
            found = connection.execute(query.where(collections.c.task == task, collections.c.closes > now))
            row = found.first()
            return None if row is None else bytes(row.invitation)

    def take(self, task: bytes, sent: Sequence[Upload], now: float, most: int) -> list[Taken]:
        """Keep uploads until they are acknowledged, each as if it came alone after those before it.

        A withdrawal deletes the report that it takes back.

        Args:
            most: bytes of all uploads that may wait in this collection.
        """
        with self._database.changing(lasting=True) as connection:
            kept = _locked(connection, task)
            if kept is None or kept["closes"] <= now:
                return [Taken.OVER] * len(sent)
            taking = _Taking(task, kept["last"], kept["waiting"], most, _before(connection, task, sent))
            taken = [taking.take(upload) for upload in sent]
            if taking.taken_back:
                theirs = (uploads.c.task == task, uploads.c.device.in_(taking.taken_back))
                connection.execute(update(uploads).where(*theirs).values(body=None))
            if taking.rows:
                connection.execute(insert(uploads), taking.rows)
                _set(connection, task, last=taking.last, waiting=taking.waiting)
            return taken

    # For the server, through the relay server.

    def refresh(self, invited: Invited, most: int) -> bool:
        """Open a collection, or offer it with a newer invitation; an older checkpoint changes nothing.

        False where it is new and there are `most` already.
        """
        with self._database.changing(lasting=True) as connection:
            if _locked(connection, invited.task) is None:
                if connection.execute(select(func.count()).select_from(collections)).scalar_one() >= most:
                    return False
                connection.execute(_OPEN, {"task": invited.task, "closes": invited.closes})
            row = {"task": invited.task, "size": invited.size, "invitation": invited.invitation}
            connection.execute(_REFRESH, row)
            return True

    def hand_over(self, task: bytes, acknowledged: int) -> Handed | None:
        """Delete what is acknowledged, and return what comes after it, as far as one reply may hold it.

        Asked again with the same, it returns the same, and what came meanwhile. None, and nothing is deleted,
        where there is no such collection or more is acknowledged than was ever handed over.
        """
        with self._database.changing(lasting=True) as connection:
            kept = _locked(connection, task)
            if kept is None or acknowledged > kept["handed"]:
                return None
            start = max(acknowledged, kept["acknowledged"])
            if acknowledged > kept["acknowledged"]:
                freed = _delete_bodies(connection, _between(task, kept["acknowledged"], acknowledged))
                _set(connection, task, acknowledged=acknowledged, waiting=kept["waiting"] - freed)
            end = _fitting(connection, task, start)
            query = select(uploads.c.serial, uploads.c.kind, uploads.c.body).order_by(uploads.c.serial)
            rows = connection.execute(query.where(*_between(task, start, end))).all()
            if end > kept["handed"]:
                _set(connection, task, handed=end)
        kinds = [row.kind for row in rows]
        items = {row.serial: bytes(row.body) for row in rows}
        return Handed(items, (kinds.count(REPORT), kinds.count(WITHDRAWAL)))

    def sweep(self, now: float) -> int:
        """Delete the collections that ended long enough ago, with all of theirs; return how many."""
        with self._database.changing() as connection:
            old = collections.c.closes < now - KEPT_SECONDS
            return connection.execute(delete(collections).where(old)).rowcount


@dataclass(slots=True)
class _Taking:
    """Uploads of one task as they are taken within a transaction that holds its row.

    Attributes:
        last: serial given out last. waiting: bytes that wait, at most `most`.
        before: of what each device sent, by kind, the digest, and how many bytes of it wait.
        rows: what is to be written. taken_back: devices whose reports, kept before, are to be deleted.
    """

    task: bytes
    last: int
    waiting: int
    most: int
    before: dict[bytes, dict[int, tuple[bytes, int]]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    taken_back: list[bytes] = field(default_factory=list)

    def take(self, upload: Upload) -> Taken:
        """Take one, if it may be."""
        before, digest = self.before.setdefault(upload.device, {}), sha256(upload.body).digest()
        if upload.kind in before:
            return Taken.DUPLICATE if before[upload.kind][0] == digest else Taken.REJECTED
        if WITHDRAWAL in before:
            return Taken.REJECTED  # a report that was taken back
        if self.waiting + len(upload.body) > self.most:
            return Taken.FULL
        if before:
            self._take_back(upload.device, before[REPORT][1])
        self.last += 1
        self.waiting += len(upload.body)
        row = {"task": self.task, "device": upload.device, "kind": upload.kind, "digest": digest}
        self.rows.append(row | {"serial": self.last, "body": upload.body})
        before[upload.kind] = digest, len(upload.body)
        return Taken.ACCEPTED

    def _take_back(self, device: bytes, waits: int) -> None:
        """Delete the report of a device, of which so many bytes wait: of those to be written, or kept."""
        self.waiting -= waits
        theirs = [row for row in self.rows if row["device"] == device]
        for row in theirs:
            row["body"] = None
        if not theirs:
            self.taken_back.append(device)


_OPEN = text(
    "INSERT INTO gateway_collections (task, closes, last, handed, acknowledged, waiting) "
    "VALUES (:task, :closes, 0, 0, 0, 0) ON CONFLICT (task) DO NOTHING"
)

_REFRESH = text(
    "INSERT INTO gateway_invitations (task, size, invitation) VALUES (:task, :size, :invitation) "
    "ON CONFLICT (task) DO UPDATE SET size = excluded.size, invitation = excluded.invitation "
    "WHERE gateway_invitations.size <= excluded.size"
)


def _locked(connection: Connection, task: bytes) -> RowMapping | None:
    """Return a collection's row, which no other transaction changes until this one ends.

    SQLite has one writer at a time anyhow, and takes no notice of FOR UPDATE.
    """
    query = select(collections).where(collections.c.task == task).with_for_update()
    return connection.execute(query).mappings().first()


def _set(connection: Connection, task: bytes, **values: int) -> None:
    connection.execute(update(collections).where(collections.c.task == task).values(**values))


def _before(
    connection: Connection, task: bytes, sent: Sequence[Upload]
) -> dict[bytes, dict[int, tuple[bytes, int]]]:
    """Return what the devices of these uploads sent to a collection before, as `_Taking` has it."""
    waits = func.coalesce(func.length(uploads.c.body), 0).label("waits")
    query = select(uploads.c.device, uploads.c.kind, uploads.c.digest, waits).where(uploads.c.task == task)
    found: dict[bytes, dict[int, tuple[bytes, int]]] = {}
    for row in connection.execute(query.where(uploads.c.device.in_({each.device for each in sent}))):
        found.setdefault(bytes(row.device), {})[row.kind] = bytes(row.digest), row.waits
    return found


def _between(task: bytes, after: int, upto: int) -> tuple[ColumnElement[bool], ...]:
    """Return the condition of an upload whose body is here, with a serial in (after, upto]."""
    return (
        uploads.c.task == task,
        uploads.c.serial > after,
        uploads.c.serial <= upto,
        uploads.c.body.is_not(None),
    )


def _delete_bodies(connection: Connection, where: Iterable[ColumnElement[bool]]) -> int:
    """Delete the bodies of uploads and return how many bytes these had."""
    freed = connection.execute(select(func.sum(func.length(uploads.c.body))).where(*where)).scalar()
    connection.execute(update(uploads).where(*where).values(body=None))
    return int(freed or 0)


def _fitting(connection: Connection, task: bytes, after: int) -> int:
    """Return up to which serial uploads fit into one reply; `after` where there are none."""
    query = select(uploads.c.serial, func.length(uploads.c.body).label("bytes")).order_by(uploads.c.serial)
    here = (uploads.c.task == task, uploads.c.serial > after, uploads.c.body.is_not(None))
    total, end = 0, after
    for row in connection.execute(query.where(*here).limit(MOST_UPLOADS)):
        total += row.bytes
        if total > MOST_BYTES and end > after:
            break
        end = int(row.serial)
    return end
