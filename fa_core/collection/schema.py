"""The tables of a leader and of a helper. A database is of one of them: whoever had both would read reports.

Of a report its id and its device stay for ever, so that neither is counted twice; its shares are deleted in
the transaction that counts it. A running sum is one row's: uint64 little-endian, mod p. Times are seconds
since 1970.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

OPEN, STOPPED, CLOSED = "open", "stopped", "closed"
"""A leader's task takes reports, takes no more, has its sum. A helper's is open or closed."""

MADE, DRAWN = "made", "drawn"
"""A helper's task that the witness has not yet bound to its release; one whose noised share is written down,
and whose hash the witness may not have yet."""

leader_tasks = Table(
    "leader_tasks",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("release", LargeBinary, nullable=False, unique=True),
    Column("signed", LargeBinary, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("stage", Text, nullable=False),
    Column("verify_key", LargeBinary, nullable=False),
    Column("batches", Integer, nullable=False),
    Column("total", LargeBinary, nullable=False),
    Column("count", Integer, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Column("sums", LargeBinary),
)

leader_reports = Table(
    "leader_reports",
    metadata,
    Column("task", LargeBinary, primary_key=True),
    Column("device", LargeBinary, primary_key=True),
    Column("id", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("body", LargeBinary),  # until it is counted or refused
    Column("batch", Integer),
    Column("outcome", Integer),  # 0: counted; else the number of a refusal
    UniqueConstraint("task", "id"),
    Index("leader_reports_to_verify", "task", "outcome", "batch"),
)

leader_batches = Table(  # those that are not counted yet
    "leader_batches",
    metadata,
    Column("task", LargeBinary, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("until", BigInteger, nullable=False),  # a worker has claimed it until then
)

helper_tasks = Table(
    "helper_tasks",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("release", LargeBinary, nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),  # of the request that it was made for
    Column("task", LargeBinary, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("stage", Text, nullable=False),
    Column("closes", BigInteger, nullable=False),
    Column("sealing", LargeBinary, nullable=False),
    Column("verify_key", LargeBinary, nullable=False),
    Column("witness", LargeBinary),
    Column("total", LargeBinary, nullable=False),
    Column("count", Integer, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Column("share", LargeBinary),
)

helper_reports = Table(
    "helper_reports",
    metadata,
    Column("task", LargeBinary, primary_key=True),
    Column("device", LargeBinary, primary_key=True),
    Column("id", LargeBinary, nullable=False),
    UniqueConstraint("task", "id"),
)

helper_batches = Table(
    "helper_batches",
    metadata,
    Column("task", LargeBinary, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("reply", LargeBinary, nullable=False),
)
