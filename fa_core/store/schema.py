"""The tables of a store: what SQL holds. Bodies of releases are Parquet (`fa_core.store.files`).

Exact numbers are text ("1/20"), times are UTC in one ISO form that sorts as text. The migrations in
`fa_core.store.migrations` build these tables; a test holds the two together.
"""

from datetime import datetime
from fractions import Fraction

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

from fa_core.canonical_json import utc_text
from fa_core.errors import BadInput


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC as ISO-8601 text with microseconds; refuses one without a zone."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Return the text of a moment."""
        return None if value is None else utc_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Return the moment of a text. Raises BadInput where it is none."""
        try:
            return None if value is None else datetime.fromisoformat(value)
        except ValueError:
            raise BadInput(f"the store holds {value!r} where a time should be; it was changed") from None


class Exact(TypeDecorator[Fraction]):
    """An exact number as text: "1/20"."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Fraction | None, dialect: Dialect) -> str | None:
        """Return the text of a number."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Fraction | None:
        """Return the number of a text. Raises BadInput where it is none."""
        try:
            return None if value is None else Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise BadInput(f"the store holds {value!r} where a number should be; it was changed") from None


metadata = MetaData()

ledger = Table(
    "ledger",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("population", Text, nullable=False),
    Column("release", Text, unique=True),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("ledger_by_population", "population", "kind"),
)

releases = Table(
    "releases",
    metadata,
    Column("id", Text, ForeignKey("ledger.release"), primary_key=True),
    Column("plan", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("population", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("synthetic", Boolean, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("window_start", UtcTime, nullable=False),
    Column("window_end", UtcTime, nullable=False),
    Column("invited", Integer, nullable=False),
    Column("joined", Integer, nullable=False),
    Column("dropped", Integer, nullable=False),
    Column("counted", Integer, nullable=False),
    Column("accounting", Text, nullable=False),
    Column("cost", Exact, nullable=False),
    Column("results", Integer, nullable=False),
    Column("suppressed", Integer, nullable=False),
    Column("broken", Integer, nullable=False),
    Column("release_sha256", Text, nullable=False),
    Column("estimates_sha256", Text, nullable=False),
    Index("releases_by_time", "created"),
    Index("releases_by_plan", "plan", "created"),
    Index("releases_by_population", "population", "created"),
)

failures = Table(
    "failures",
    metadata,
    Column("release", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("population", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Index("failures_by_time", "at"),
)

refusals = Table(
    "refusals",
    metadata,
    Column("release", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("plan_hash", Text, nullable=False),
    Column("population", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Index("refusals_by_time", "at"),
)

annotations = Table(
    "annotations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("day", Text, nullable=False),
    Column("plan", Text),
    Column("text", Text, nullable=False),
)

bodies = Table(
    "bodies",
    metadata,
    Column("name", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

log = Table(
    "log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Index("log_by_subject", "subject", "kind"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", Integer, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)
