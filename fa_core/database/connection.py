"""Connections and transactions: one writer at a time, readers on a snapshot, every error a sentence.

SQLite writes under BEGIN IMMEDIATE with WAL; PostgreSQL writes under one advisory lock, taken before anything
is read, so that what a transaction checks is what it changes. A database whose every statement guards itself
may let writers overlap (`changing`).
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from fa_core.database.migration import Lineage
from fa_core.errors import BadInput, UnheardError

if TYPE_CHECKING:
    import psycopg

BUSY_SECONDS, AGAIN_SECONDS = 60, 0.02
TIMEOUTS: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * BUSY_SECONDS,
}
"""Connection parameters of libpq: a server that vanishes is noticed within a minute."""

SECRET = frozenset({"password", "sslpassword"})
"""Parameters of an address that are secret."""
_LOCK = 0x756E68656172
"""Key of the advisory lock, the word "unhear" in ASCII."""


class Unavailable(UnheardError):
    """A database does not answer, is full or busy, or went away in between: what was asked may be done, or
    not, and may work in a moment. So it is no BadInput: that would be taken for "there is no such thing"."""

    exit_code = BadInput.exit_code


class Database:
    """A database with tables of ours. `name` is what errors call it; it never holds a password."""

    def __init__(self, engine: Engine, name: str, lineage: Lineage) -> None:
        self._engine = engine
        self.name = name
        self.lineage = lineage
        self._sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one snapshot."""
        with self._sentences(), self._engine.connect() as connection:
            if not self._sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection that no other writer overlaps; committed at the end, undone by an exception."""
        with self._sentences(), self._engine.connect() as connection:
            connection = connection.execution_options(unheard_writes=True)
            with connection.begin():
                if not self._sqlite:
                    connection.execute(text(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                yield connection

    @contextmanager
    def changing(self, *, lasting: bool = False) -> Iterator[Connection]:
        """Yield a connection for statements that guard themselves; other writers may overlap.

        On SQLite writers wait for one another all the same. What is `lasting`, and all before it, is on disk
        before this ends, also where the database is not durable: a server that is killed does not forget it.
        """
        with self._sentences(), self._engine.connect() as connection:
            connection = connection.execution_options(unheard_writes=True)
            with connection.begin():
                if lasting and not self._sqlite:
                    connection.execute(text("SET LOCAL synchronous_commit = on"))
                yield connection

    def prepare(self) -> None:
        """Bring the tables to this version. Raises BadInput for a database that is not of this kind."""
        lineage = self.lineage
        with self.reading() as connection:
            if lineage.current(connection) == lineage.head:
                return
        with self.writing() as connection:
            found = lineage.current(connection)
            if found is None and set(inspect(connection).get_table_names()) - {lineage.table}:
                raise BadInput(
                    f"{self.name} is a database of something else; a {lineage.kind} needs an empty one"
                )
            if found is not None and found not in lineage.known:
                raise BadInput(f"{self.name} was written by a newer version of Unheard (its tables: {found})")
            lineage.upgrade(connection)

    def revision(self) -> str | None:
        """Return the revision of the tables, None where there are none of ours."""
        with self.reading() as connection:
            return self.lineage.current(connection)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if "locked" in str(error.orig) or "lock timeout" in str(error.orig):
                raise Unavailable(
                    f"{self.name} was busy for {BUSY_SECONDS} seconds; is another run stuck?"
                ) from None
            raise Unavailable(f"{self.name} cannot be used: {_first_line(error)}") from None
        except DBAPIError as error:
            raise BadInput(f"{self.name} cannot be read: {_first_line(error)}") from None
        except sqlite3.Error as error:
            raise BadInput(f"{self.name} cannot be read: {error}") from None


def connect_file(path: Path, lineage: Lineage, *, durable: bool = True) -> Database:
    """Return the SQLite database in a file, whose tables may not be there yet.

    One that is not `durable` may lose its last transactions when the power fails, and nothing else.
    """
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)))

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        _write_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("unheard_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return Database(engine, str(path), lineage)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn a file's write-ahead log on, which the first to open it does.

    SQLite does not wait here as it does elsewhere: where another is writing at that moment, it says at once
    that the file is locked.
    """
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= end:
                raise
        time.sleep(AGAIN_SECONDS)


def connect_server(url: str, lineage: Lineage, *, durable: bool = True) -> Database:
    """Return the PostgreSQL database at `url`; `durable` as above. Raises BadInput for any other address."""
    kind = lineage.kind
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise BadInput(f"the {kind}'s address is neither a folder nor postgresql://…") from None
    if parsed.get_backend_name() != "postgresql":
        raise BadInput(f"a {kind} is a folder or postgresql://…, not {parsed.get_backend_name()}://…")
    parsed = parsed.set(drivername="postgresql+psycopg")
    connect = {name: value for name, value in TIMEOUTS.items() if name not in parsed.query}
    # A statement that is prepared while a table is empty would keep its plan, and read all of it ever after.
    engine = create_engine(parsed, pool_pre_ping=True, connect_args={**connect, "prepare_threshold": None})
    if not durable:

        @event.listens_for(engine, "connect")
        def _connect(connection: "psycopg.Connection", _: ConnectionPoolEntry) -> None:
            connection.execute("SET synchronous_commit = off")
            connection.commit()

    shown = parsed.set(drivername="postgresql").difference_update_query(SECRET)
    return Database(engine, shown.render_as_string(hide_password=True), lineage)


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).splitlines() or ["unknown"])[0]
