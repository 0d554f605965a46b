"""The gateway's message queue: its whole state, in a database that all of its processes share.

Every method is one transaction whose statements check their own preconditions, so several workers and the
relay server may call at the same time. Across all of them a slot is assigned once, a message is answered once
and a timestamp is used once. What was reported to the server survives a killed database. The last replies of
devices may be lost with it; those devices are asked again.

    open -> (devices take slots until the window ends) -> collect -> ask -> collect -> … -> end

An attempt that was given up for a complaint goes on with `ask` at `join`, to the devices in their slots.
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
from fa_core.gateway.schema import messages, rounds, slots, timestamps
from fa_core.wire.bundle import FOLLOWS, STAGES

TIMESTAMP_SECONDS = 3600.0
"""How long a device's last timestamp is kept: far longer than one is accepted."""


class Replayed(Exception):
    """A timestamp that is not higher than the device's last."""


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A request for a device: the message's number, the stage, and the bytes."""

    message: int
    stage: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What a device that polls is given: a request or none, and the rounds that it has joined."""

    asked: DeviceRequest | None
    rounds: frozenset[int]


class ReplyOutcome(Enum):
    """What became of a reply: accepted, accepted before with the same bytes, or rejected."""

    ACCEPTED = auto()
    DUPLICATE = auto()
    REJECTED = auto()


@dataclass(frozen=True, slots=True)
class NewRound:
    """A round that begins: for whom, the invitation, and how many may join until when."""

    release: str
    node: int
    invitation: bytes
    room: int
    joining_until: float
    expires: float


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a stage is: messages written, of these answered; and the slots still free."""

    asked: int
    answered: int
    free: int


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """One round as the workers watch it: its serial rises when its devices have something new."""

    round: int
    release: str
    serial: int
    free: int


class Queue:
    """The state of a gateway in `database`, whose tables are up to date."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # For devices.

    def next(self, device: bytes, timestamp: int, now: float, may_join: bool = True) -> Found:
        """Return a request that the device has not answered, or the invitation to a round with a free slot.

        Args:
            may_join: whether to look for a free slot.
        Raises:
            Replayed: for a timestamp that was used.
        """
        with self._change() as connection:
            _use_timestamp(connection, device, timestamp)
            return _look(connection, device, now, may_join)

    def again(self, device: bytes, now: float, may_join: bool = True) -> Found:
        """Look again as `next` does, for an HTTP request that is still waiting."""
        with self._change() as connection:
            return _look(connection, device, now, may_join)

    def answer(self, device: bytes, timestamp: int, message: int, reply: bytes) -> ReplyOutcome:
        """Store a device's reply to a message of its own, once. Raises Replayed."""
        with self._change() as connection:
            _use_timestamp(connection, device, timestamp)
            mine = (
                select(slots.c.device)
                .where(slots.c.round == messages.c.round, slots.c.slot == messages.c.slot)
                .where(slots.c.device == device)
                .exists()
            )
            where = (messages.c.id == message, mine)
            kept = connection.execute(
                update(messages).where(*where, messages.c.reply.is_(None)).values(reply=reply)
            )
            if kept.rowcount:
                return ReplyOutcome.ACCEPTED
            before = connection.execute(select(messages.c.reply).where(*where)).scalar()
            return ReplyOutcome.DUPLICATE if before == reply else ReplyOutcome.REJECTED

    # For the server, through the relay server.

    def open(self, new: NewRound) -> int | None:
        """Begin a round and return its number, or the number of the same round if that is still joining.

        None where this node's round of the release has another invitation, or is past joining.
        """
        named = asdict(new) | {"node": str(new.node)}
        with self._database.changing(lasting=True) as connection:
            made: int | None = connection.execute(_OPEN, named).scalar()
            if made is not None:
                return made
            same = (
                rounds.c.release == new.release,
                rounds.c.node == str(new.node),
                rounds.c.invitation == new.invitation,
                rounds.c.stage == 0,
            )
            return connection.execute(select(rounds.c.id).where(*same)).scalar()

    def find(self, release: str, node: int) -> tuple[int, int] | None:
        """Return (number, stage) of a round that has not ended, or None."""
        with self._database.reading() as connection:
            query = select(rounds.c.id, rounds.c.stage)
            row = connection.execute(
                query.where(rounds.c.release == release, rounds.c.node == str(node))
            ).first()
            return None if row is None else (row.id, row.stage)

    def ask(
        self, number: int, stage: int, requests: Mapping[int, bytes], everyone: bytes, expires: float
    ) -> None:
        """Write the messages of the next stage to slots that exist; a request for all goes to each.

        The first call begins the stage and later ones change nothing. The round is then kept until `expires`,
        and the messages of the previous stage are deleted.
        """
        with self._database.changing(lasting=True) as connection:
            begun = connection.execute(
                update(rounds)
                .where(rounds.c.id == number, rounds.c.stage.in_(map(STAGES.index, FOLLOWS[STAGES[stage]])))
                .values(stage=stage, serial=rounds.c.serial + 1, expires=expires)
            )
            if not begun.rowcount:
                return
            connection.execute(delete(messages).where(messages.c.round == number))
            held = set(connection.execute(select(slots.c.slot).where(slots.c.round == number)).scalars())
            rows = [
                {"round": number, "slot": slot, "stage": stage, "request": request}
                for slot, request in (dict.fromkeys(held, everyone) if everyone else requests).items()
                if slot in held
            ]
            if rows:
                connection.execute(insert(messages), rows)

    def tally(self, number: int, stage: int) -> Tally:
        """Return how far a stage of a round is."""
        with self._database.reading() as connection:
            query = select(func.count(), func.count(messages.c.reply))
            asked, answered = connection.execute(query.where(*_stage(number, stage))).one()
            free = connection.execute(select(rounds.c.room - rounds.c.taken).where(rounds.c.id == number))
            return Tally(asked, answered, free.scalar() or 0)

    def collect(self, number: int, stage: int) -> dict[int, bytes]:
        """End a stage and return the reply of each slot, b"" for none. Called again, it returns the same.

        Later replies are rejected. The stored ones are deleted when the next stage begins or the round is
        deleted, and not before: a caller may lose the result, as the connection may break on the way.
        """
        with self._database.changing(lasting=True) as connection:
            connection.execute(
                update(rounds)
                .where(rounds.c.id == number)
                .values(joining_until=0.0, serial=rounds.c.serial + 1)
            )
            silent = (*_stage(number, stage), messages.c.reply.is_(None))
            connection.execute(update(messages).where(*silent).values(reply=b""))
            query = select(messages.c.slot, messages.c.reply).where(*_stage(number, stage))
            return {row.slot: row.reply for row in connection.execute(query)}

    def end(self, number: int, expires: float) -> None:
        """Keep a round until `expires` and no longer; of several calls the earliest counts."""
        later = (rounds.c.id == number, rounds.c.expires > expires)
        with self._change() as connection:
            connection.execute(update(rounds).where(*later).values(expires=expires))

    def close(self, number: int) -> None:
        """Delete a round and everything of it at once."""
        with self._change() as connection:
            connection.execute(delete(rounds).where(rounds.c.id == number))

    def sweep(self, now: float) -> int:
        """Delete rounds that expired, and timestamps too old to matter; return how many rounds."""
        with self._change() as connection:
            oldest = int((now - TIMESTAMP_SECONDS) * 1_000_000)
            connection.execute(delete(timestamps).where(timestamps.c.timestamp < oldest))
            return connection.execute(delete(rounds).where(rounds.c.expires < now)).rowcount

    def statuses(self, now: float) -> list[RoundStatus]:
        """Return the status of every round, for workers that watch for changes."""
        with self._database.reading() as connection:
            free = rounds.c.room - rounds.c.taken
            query = select(rounds.c.id, rounds.c.release, rounds.c.serial, free, rounds.c.joining_until)
            return [
                RoundStatus(number, release, serial, free if until > now else 0)
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
    "INSERT INTO gateway_stamps (device, stamp) VALUES (:device, :timestamp) "
    "ON CONFLICT (device) DO UPDATE SET stamp = excluded.stamp WHERE gateway_stamps.stamp < excluded.stamp"
)

_TAKE = text(
    "UPDATE gateway_rounds SET taken = taken + 1 WHERE taken < room AND joining_until > :now AND id = ("
    "SELECT id FROM gateway_rounds r WHERE r.joining_until > :now AND r.taken < r.room AND NOT EXISTS ("
    "SELECT 1 FROM gateway_seats s WHERE s.device = :device AND s.release = r.release) "
    "ORDER BY r.taken, r.id LIMIT 1) RETURNING id, release, taken, invitation"
)


def _use_timestamp(connection: Connection, device: bytes, timestamp: int) -> None:
    if connection.execute(_USE, {"device": device, "timestamp": timestamp}).rowcount != 1:
        raise Replayed


_JOINED = (
    select(
        slots.c.round,
        messages.c.id,
        messages.c.stage,
        func.coalesce(messages.c.request, rounds.c.invitation).label("request"),
    )
    .join(rounds, rounds.c.id == slots.c.round)
    .outerjoin(
        messages,
        (messages.c.round == slots.c.round) & (messages.c.slot == slots.c.slot) & messages.c.reply.is_(None),
    )
    .where(slots.c.device == bindparam("device"))
    .order_by(messages.c.id)
)
"""The rounds that a device has joined, each with a message that it has not answered, if there is one."""


def _look(connection: Connection, device: bytes, now: float, may_join: bool) -> Found:
    """Return a random unanswered message to this device; if there is none, join it to a round where it may.

    A device does not say which message it declines: a gateway cannot distinguish declining from silence. The
    random choice keeps a declined message from holding back the others.
    """
    joined = connection.execute(_JOINED, {"device": device}).all()
    waiting = [DeviceRequest(row.id, STAGES[row.stage], row.request) for row in joined if row.id is not None]
    if waiting:
        return Found(choice(waiting), frozenset(row.round for row in joined))
    taken = _assign_slot(connection, device, now) if may_join else None
    return taken or Found(None, frozenset(row.round for row in joined))


def _assign_slot(connection: Connection, device: bytes, now: float) -> Found | None:
    """Take a slot in a round that devices may join, and return its invitation."""
    row: RowMapping | None = connection.execute(_TAKE, {"device": device, "now": now}).mappings().first()
    if row is None:
        return None
    slot = row["taken"] - 1
    connection.execute(
        insert(slots).values(round=row["id"], slot=slot, release=row["release"], device=device)
    )
    made = connection.execute(
        insert(messages).values(round=row["id"], slot=slot, stage=0).returning(messages.c.id)
    )
    asked = DeviceRequest(int(made.scalar_one()), STAGES[0], bytes(row["invitation"]))
    return Found(asked, frozenset({row["id"]}))


def _stage(number: int, stage: int) -> tuple[ColumnElement[bool], ...]:
    return (messages.c.round == number, messages.c.stage == stage)
