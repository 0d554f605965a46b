"""The tables of a gateway: rounds that pass through it, who sits in them, the letters under way.

Nothing here outlives its round but the devices' last stamps, and these not for an hour. Times are seconds
since 1970, by the gateway's clock.
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
MAX_LETTER = 1 << 62


def _number() -> int:
    """Return the number of a new letter. Never that of a forgotten one, to which a reply may still come."""
    return 1 + randbelow(MAX_LETTER - 1)


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

seats = Table(
    "gateway_seats",
    metadata,
    Column("round", Integer, ForeignKey("gateway_rounds.id", ondelete="CASCADE"), primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("release", Text, nullable=False),
    Column("device", LargeBinary, nullable=False),
    UniqueConstraint("device", "release"),
)

letters = Table(
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

stamps = Table(
    "gateway_stamps",
    metadata,
    Column("device", LargeBinary, primary_key=True),
    Column("stamp", BigInteger, nullable=False),
)
