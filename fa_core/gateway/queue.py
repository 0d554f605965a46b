"""The desk: what a gateway knows, in a database that all of its processes share.

Every method is one transaction of statements that guard themselves, so that several workers, and the door
beside them, may come at the same time. A seat is given once, a letter is answered once, a stamp is used
once, whoever asks where. What the server was told outlives a database that is killed; the last moments of
what devices said may not, and they are asked again.

    open -> (devices take seats until the window ends) -> collect -> ask -> collect -> … -> end
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import Enum, auto
from secrets import choice

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from fa_core.database.connection import Database
from fa_core.gateway.schema import letters, rounds, seats, stamps
from fa_core.wire.bundle import STAGES

STAMP_SECONDS = 3600.0
"""How long a device's last stamp is kept; far longer than one is taken."""


class Replayed(Exception):
    """A stamp that is not higher than the device's last."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a device: the letter's number, the stage, and the bytes."""

    letter: int
    stage: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What a device that asks is given: a request or none, and the rounds in which it sits."""

    asked: Asked | None
    rounds: frozenset[int]


class Taken(Enum):
    """What became of a reply: taken, taken before byte for byte, or not wanted (any more)."""

    NOW = auto()
    BEFORE = auto()
    UNWANTED = auto()


@dataclass(frozen=True, slots=True)
class Opening:
    """A round that begins: for whom, the invitation, and how many may join until when."""

    release: str
    node: int
    invitation: bytes
    room: int
    joining_until: float
    expires: float


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a stage is: letters written, of these answered; and the seats still free."""

    asked: int
    answered: int
    free: int


@dataclass(frozen=True, slots=True)
class Beat:
    """One round as the workers watch it: its serial rises when there is something new for who sits in it."""

    round: int
    release: str
    serial: int
    free: int


class Desk:
    """The state of a gateway in `database`, whose tables are up to date."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # What devices ask.

    def next(self, device: bytes, stamp: int, now: float, seats: bool = True) -> Found:
        """Return a request that the device has not answered, or a seat where one is free.

        Args:
            seats: whether to look for a free seat.
        Raises:
            Replayed: for a stamp that was used.
        """
        with self._change() as connection:
            _use(connection, device, stamp)
            return _look(connection, device, now, seats)

    def again(self, device: bytes, now: float, seats: bool = True) -> Found:
        """Return the same as `next`, for a device that still waits for the answer to one request."""
        with self._change() as connection:
            return _look(connection, device, now, seats)

    def answer(self, device: bytes, stamp: int, letter: int, reply: bytes) -> Taken:
        """Keep a device's reply to a letter of its own, once. Raises Replayed."""
        with self._change() as connection:
            _use(connection, device, stamp)
            mine = (
                select(seats.c.device)
                .where(seats.c.round == letters.c.round, seats.c.slot == letters.c.slot)
                .where(seats.c.device == device)
                .exists()
            )
            where = (letters.c.id == letter, mine)
            kept = connection.execute(
                update(letters).where(*where, letters.c.reply.is_(None)).values(reply=reply)
            )
            if kept.rowcount:
                return Taken.NOW
            before = connection.execute(select(letters.c.reply).where(*where)).scalar()
            return Taken.BEFORE if before == reply else Taken.UNWANTED

    # What the door does for the server.

    def open(self, opening: Opening) -> int | None:
        """Begin a round and return its number, or that of the same round where it was begun and still joins.

        None where this node's round of the release has another invitation, or is past joining.
        """
        named = asdict(opening) | {"node": str(opening.node)}
        with self._database.changing(lasting=True) as connection:
            made: int | None = connection.execute(_OPEN, named).scalar()
            if made is not None:
                return made
            same = (
                rounds.c.release == opening.release,
                rounds.c.node == str(opening.node),
                rounds.c.invitation == opening.invitation,
                rounds.c.stage == 0,
            )
            return connection.execute(select(rounds.c.id).where(*same)).scalar()

    def find(self, release: str, node: int) -> tuple[int, int] | None:
        """Return (number, stage) of a round that goes on, or None."""
        with self._database.reading() as connection:
            query = select(rounds.c.id, rounds.c.stage)
            row = connection.execute(
                query.where(rounds.c.release == release, rounds.c.node == str(node))
            ).first()
            return None if row is None else (row.id, row.stage)

    def ask(
        self, number: int, stage: int, requests: Mapping[int, bytes], everyone: bytes, expires: float
    ) -> None:
        """Write the letters of the next stage, to seats that there are; a request for all goes to each.

        A stage is begun once, by whoever asks first, and the round is remembered until `expires` from then
        on; the letters of the stage before are forgotten.
        """
        with self._database.changing(lasting=True) as connection:
            begun = connection.execute(
                update(rounds)
                .where(rounds.c.id == number, rounds.c.stage == stage - 1)
                .values(stage=stage, serial=rounds.c.serial + 1, expires=expires)
            )
            if not begun.rowcount:
                return
            connection.execute(delete(letters).where(*_stage(number, stage - 1)))
            held = set(connection.execute(select(seats.c.slot).where(seats.c.round == number)).scalars())
            rows = [
                {"round": number, "slot": slot, "stage": stage, "request": request}
                for slot, request in (dict.fromkeys(held, everyone) if everyone else requests).items()
                if slot in held
            ]
            if rows:
                connection.execute(insert(letters), rows)

    def tally(self, number: int, stage: int) -> Tally:
        """Return how far a stage of a round is."""
        with self._database.reading() as connection:
            query = select(func.count(), func.count(letters.c.reply))
            asked, answered = connection.execute(query.where(*_stage(number, stage))).one()
            free = connection.execute(select(rounds.c.room - rounds.c.taken).where(rounds.c.id == number))
            return Tally(asked, answered, free.scalar() or 0)

    def collect(self, number: int, stage: int) -> dict[int, bytes]:
        """End a stage and return each letter's reply by slot, b"" for none; called again, the same.

        What comes later is not wanted. The replies are forgotten when the next stage begins or the round is
        forgotten: whoever collects may lose them on the way, with the database that they came from.
        """
        with self._database.changing(lasting=True) as connection:
            connection.execute(
                update(rounds)
                .where(rounds.c.id == number)
                .values(joining_until=0.0, serial=rounds.c.serial + 1)
            )
            silent = (*_stage(number, stage), letters.c.reply.is_(None))
            connection.execute(update(letters).where(*silent).values(reply=b""))
            query = select(letters.c.slot, letters.c.reply).where(*_stage(number, stage))
            return {row.slot: row.reply for row in connection.execute(query)}

    def end(self, number: int, expires: float) -> None:
        """Remember a round until `expires` and no longer; of several calls the earliest counts."""
        later = (rounds.c.id == number, rounds.c.expires > expires)
        with self._change() as connection:
            connection.execute(update(rounds).where(*later).values(expires=expires))

    def close(self, number: int) -> None:
        """Forget a round and everything of it at once."""
        with self._change() as connection:
            connection.execute(delete(rounds).where(rounds.c.id == number))

    def sweep(self, now: float) -> int:
        """Forget rounds that expired, and stamps too old to matter; return how many rounds."""
        with self._change() as connection:
            oldest = int((now - STAMP_SECONDS) * 1_000_000)
            connection.execute(delete(stamps).where(stamps.c.stamp < oldest))
            return connection.execute(delete(rounds).where(rounds.c.expires < now)).rowcount

    def pulse(self, now: float) -> list[Beat]:
        """Return every round, for workers that watch for news."""
        with self._database.reading() as connection:
            free = rounds.c.room - rounds.c.taken
            query = select(rounds.c.id, rounds.c.release, rounds.c.serial, free, rounds.c.joining_until)
            return [
                Beat(number, release, serial, free if until > now else 0)
                for number, release, serial, free, until in connection.execute(query)
            ]

    def _change(self) -> AbstractContextManager[Connection]:
        return self._database.changing()


_OPEN = text(
    "INSERT INTO gateway_rounds "
    "(release, node, stage, serial, invitation, room, taken, joining_until, expires) "
    "VALUES (:release, :node, 0, 0, :invitation, :room, 0, :joining_until, :expires) "
    "ON CONFLICT (release, node) DO NOTHING RETURNING id"
)

_USE = text(
    "INSERT INTO gateway_stamps (device, stamp) VALUES (:device, :stamp) "
    "ON CONFLICT (device) DO UPDATE SET stamp = excluded.stamp WHERE gateway_stamps.stamp < excluded.stamp"
)

_TAKE = text(
    "UPDATE gateway_rounds SET taken = taken + 1 WHERE taken < room AND joining_until > :now AND id = ("
    "SELECT id FROM gateway_rounds r WHERE r.joining_until > :now AND r.taken < r.room AND NOT EXISTS ("
    "SELECT 1 FROM gateway_seats s WHERE s.device = :device AND s.release = r.release) "
    "ORDER BY r.taken, r.id LIMIT 1) RETURNING id, release, taken, invitation"
)


def _use(connection: Connection, device: bytes, stamp: int) -> None:
    if connection.execute(_USE, {"device": device, "stamp": stamp}).rowcount != 1:
        raise Replayed


_SITS = (
    select(
        seats.c.round,
        letters.c.id,
        letters.c.stage,
        func.coalesce(letters.c.request, rounds.c.invitation).label("request"),
    )
    .join(rounds, rounds.c.id == seats.c.round)
    .outerjoin(
        letters,
        (letters.c.round == seats.c.round) & (letters.c.slot == seats.c.slot) & letters.c.reply.is_(None),
    )
    .where(seats.c.device == bindparam("device"))
    .order_by(letters.c.id)
)
"""The rounds in which a device sits, each with a letter that it has not answered, where there is one."""


def _look(connection: Connection, device: bytes, now: float, seats: bool) -> Found:
    """Return a letter to this device that has no reply, any of them; else a seat, where it may take one.

    A device does not say which it will not answer, since a gateway is not to tell declining from silence. So
    one that it passes over is not offered ever again before the others.
    """
    sits = connection.execute(_SITS, {"device": device}).all()
    waiting = [Asked(row.id, STAGES[row.stage], row.request) for row in sits if row.id is not None]
    if waiting:
        return Found(choice(waiting), frozenset(row.round for row in sits))
    taken = _seat(connection, device, now) if seats else None
    return taken or Found(None, frozenset(row.round for row in sits))


def _seat(connection: Connection, device: bytes, now: float) -> Found | None:
    """Take a seat in a round that devices may join, and return its invitation."""
    row: RowMapping | None = connection.execute(_TAKE, {"device": device, "now": now}).mappings().first()
    if row is None:
        return None
    slot = row["taken"] - 1
    connection.execute(
        insert(seats).values(round=row["id"], slot=slot, release=row["release"], device=device)
    )
    made = connection.execute(
        insert(letters).values(round=row["id"], slot=slot, stage=0).returning(letters.c.id)
    )
    asked = Asked(int(made.scalar_one()), STAGES[0], bytes(row["invitation"]))
    return Found(asked, frozenset({row["id"]}))


def _stage(number: int, stage: int) -> tuple[ColumnElement[bool], ...]:
    return (letters.c.round == number, letters.c.stage == stage)
