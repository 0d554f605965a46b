"""The tables of a gateway: its rounds, the slots that devices took in them, the messages in flight; and its
collections, with what devices uploaded to them.

Nothing here outlives its round but each device's last timestamp, which is kept for an hour, and a collection,
which is kept until 14 days after it closed. Times are seconds since 1970, by the gateway's clock.
"""

from secrets import randbelow

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
MAX_MESSAGE = 1 << 62


def _number() -> int:
    """Return a random number for a new message: never that of a deleted one, whose reply may still arrive."""
    return 1 + randbelow(MAX_MESSAGE - 1)


rounds = Table(
    "gateway_rounds",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("release", Text, nullable=False),
    Column("node", Text, nullable=False),  # of 64 bits without a sign, which no SQL integer holds
    Column("stage", Integer, nullable=False),
    Column("serial", Integer, nullable=False),
    Column("invitation", LargeBinary, nullable=False),
    Column("room", Integer, nullable=False),
    Column("taken", Integer, nullable=False),
    Column("joining_until", Float, nullable=False),
    Column("expires", Float, nullable=False),
    UniqueConstraint("release", "node"),
)

slots = Table(
    "gateway_seats",
    metadata,
    Column("round", Integer, ForeignKey("gateway_rounds.id", ondelete="CASCADE"), primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("release", Text, nullable=False),
    Column("device", LargeBinary, nullable=False),
    UniqueConstraint("device", "release"),
)

messages = Table(
    "gateway_letters",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, default=_number),
    Column("round", Integer, ForeignKey("gateway_rounds.id", ondelete="CASCADE"), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("request", LargeBinary),
    Column("reply", LargeBinary),
    Index("gateway_letters_by_seat", "round", "slot"),
)

timestamps = Table(
    "gateway_stamps",
    metadata,
    Column("device", LargeBinary, primary_key=True),
    Column("stamp", BigInteger, key="timestamp", nullable=False),
)

collections = Table(
    "gateway_collections",
    metadata,
    Column("task", LargeBinary, primary_key=True),
    Column("closes", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("handed", BigInteger, nullable=False),
    Column("acknowledged", BigInteger, nullable=False),
    Column("waiting", BigInteger, nullable=False),  # bytes of bodies
)
"""Serials: the last that an upload got, the highest handed over, the highest acknowledged."""

invitations = Table(
    "gateway_invitations",
    metadata,
    Column("task", LargeBinary, ForeignKey("gateway_collections.task", ondelete="CASCADE"), primary_key=True),
    Column("size", BigInteger, nullable=False),  # of the log, by the invitation's checkpoint
    Column("invitation", LargeBinary, nullable=False),
)
"""Apart from the serials, with which SQLite would write it anew for each upload."""

uploads = Table(
    "gateway_uploads",
    metadata,
    Column("task", LargeBinary, ForeignKey("gateway_collections.task", ondelete="CASCADE"), primary_key=True),
    Column("device", LargeBinary, primary_key=True),
    Column("kind", Integer, primary_key=True),
    Column("serial", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("body", LargeBinary),
    UniqueConstraint("task", "serial"),
)
"""A body is gone once it is acknowledged, or the device took it back; its digest stays."""
