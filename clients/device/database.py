"""One encrypted file a device (SQLCipher), never replaced.

Whatever is found at the path and is not this device's store (a wrong key, another program's file, a file
cut short) is refused and left as it is. The settings are for a device that may lose power at any moment
and whose owner may ask for deletion: full synchronisation, overwritten free pages, no temporary files.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.keys import StoreKey
from fa_core.errors import BadInput, Refused
from fa_core.tables import STORED, Column, ColumnType

APPLICATION_ID = 0x556E6872
"""Marks a file as a store of ours ("Unhr"), in SQLite's header."""

VERSION = 1
PAGE = 4096
BUSY_MS = 10_000

_SQL_TYPES: dict[ColumnType, str] = {
    "time": "INTEGER NOT NULL",
    "label": "TEXT",
    "number": "REAL",
    "integer": "INTEGER",
    "boolean": "INTEGER",
    "vector": "TEXT",
}

ROLLOUT_TABLES = (
    "CREATE TABLE IF NOT EXISTS rollout (wake_word TEXT PRIMARY KEY, manifest BLOB NOT NULL, "
    "signed BLOB NOT NULL, witnessed INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS rollout_ended (wake_word TEXT PRIMARY KEY, manifest BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS rollout_over (wake_word TEXT NOT NULL, rollout BLOB NOT NULL, "
    "PRIMARY KEY (wake_word, rollout)) STRICT",
    "CREATE TABLE IF NOT EXISTS rollout_floor (wake_word TEXT NOT NULL, version TEXT NOT NULL, "
    "PRIMARY KEY (wake_word, version)) STRICT",
    "CREATE TABLE IF NOT EXISTS rollout_refused (wake_word TEXT PRIMARY KEY, why TEXT NOT NULL) STRICT",
)
"""What a device saw of rollouts (`clients.rollout`). A store that is older than they are gets them too."""

DONATION_TABLE = (
    "CREATE TABLE IF NOT EXISTS donation (sample BLOB PRIMARY KEY, token BLOB NOT NULL, "
    "request BLOB NOT NULL, area TEXT NOT NULL, vault TEXT NOT NULL, vault_key BLOB NOT NULL, "
    "at INTEGER NOT NULL, until TEXT, state TEXT NOT NULL) STRICT"
)
"""What the owner donated (`clients.donation`): tokens and days, no audio."""

REPORT_TABLE = (
    "CREATE TABLE IF NOT EXISTS report (task BLOB PRIMARY KEY, release BLOB NOT NULL UNIQUE, "
    "family TEXT NOT NULL, request BLOB NOT NULL, closes INTEGER NOT NULL, purpose TEXT NOT NULL, "
    "tables TEXT NOT NULL, report BLOB, withdrawal BLOB NOT NULL) STRICT"
)
"""What the device uploads to two aggregators (`clients.device.reports`); older stores get it as well."""

PERSONAL_TABLES = (
    "CREATE TABLE IF NOT EXISTS personal_moment (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    "time INTEGER NOT NULL, wake_word TEXT NOT NULL, base TEXT NOT NULL, session TEXT NOT NULL, "
    "source TEXT NOT NULL, "
    "windows BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS personal_delta (id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, "
    "data BLOB NOT NULL, digest BLOB NOT NULL, signature BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS personal_stage (wake_word TEXT PRIMARY KEY, number INTEGER NOT NULL, "
    "stage TEXT NOT NULL, since INTEGER NOT NULL, heard BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS personal_attempt (wake_word TEXT PRIMARY KEY, at INTEGER NOT NULL, "
    "why TEXT NOT NULL, used INTEGER NOT NULL, done INTEGER NOT NULL) STRICT",
)
"""What a device learns of its owner (`clients.device.personal`); older stores get them as well."""

PERSONAL_ROWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "personal_moment": ("id", "time", "wake_word", "base", "session", "source", "windows"),
        "personal_delta": ("id", "time", "data", "digest", "signature"),
    }
)
"""Those of them whose rows are never changed, with their columns: they are under a deletion's root."""


class Connection(Protocol):
    """What we use of a DB-API connection, so that the benchmark can put plain SQLite in its place."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""
        ...

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        """Run one statement for each row of parameters."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def schema() -> list[str]:
    """Return the statements that make an empty store; event tables follow `fa_core.tables`.

    Times are microseconds since 1970, UTC. Rows carry the purpose under whose consent they were written.
    """
    return [
        *event_tables(),
        *ROLLOUT_TABLES,
        DONATION_TABLE,
        REPORT_TABLE,
        *PERSONAL_TABLES,
        "CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        "CREATE TABLE consent (purpose TEXT PRIMARY KEY, granted INTEGER NOT NULL, "
        "until INTEGER NOT NULL) STRICT",
        "CREATE TABLE journal (sequence INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, "
        "body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL) STRICT",
        "CREATE TABLE contribution (release BLOB PRIMARY KEY, attempt INTEGER NOT NULL, plan TEXT NOT NULL, "
        "family TEXT NOT NULL, window_start INTEGER NOT NULL, window_end INTEGER NOT NULL, "
        "rho TEXT NOT NULL, stamp INTEGER NOT NULL, at INTEGER NOT NULL, "
        "took INTEGER NOT NULL) STRICT",
        "CREATE TABLE reply (release BLOB NOT NULL, attempt INTEGER NOT NULL, stage TEXT NOT NULL, "
        "request BLOB NOT NULL, reply BLOB NOT NULL, PRIMARY KEY (release, attempt, stage)) STRICT",
        "CREATE TABLE revision (family TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT",
        "CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
    ]


def event_tables() -> list[str]:
    """Return the statements that make the event tables which are not there yet."""
    statements = []
    for source in STORED.values():
        columns = [_definition(name, column) for name, column in source.columns.items()]
        head = ["id INTEGER PRIMARY KEY AUTOINCREMENT", "purpose TEXT NOT NULL"]
        statements.append(f"CREATE TABLE IF NOT EXISTS {source.name} ({', '.join(head + columns)}) STRICT")
    return statements


def _definition(name: str, column: Column) -> str:
    return f"{name} {_SQL_TYPES[column.type]}"


def _added_columns(connection: Connection) -> list[str]:
    """Return the statements that add the columns which may be empty and are younger than the store."""
    statements = []
    for source in STORED.values():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({source.name})").fetchall()}
        statements += [
            f"ALTER TABLE {source.name} ADD COLUMN {_definition(name, column)}"
            for name, column in source.columns.items()
            if column.optional and name not in there
        ]
    return statements


def _bring_up_to_date(connection: Connection) -> None:
    """Make the tables and columns that a store of before lacks; where it lacks none, write nothing."""
    for statement in (*event_tables(), *ROLLOUT_TABLES, DONATION_TABLE, REPORT_TABLE, *PERSONAL_TABLES):
        connection.execute(statement)
    if _added_columns(connection):
        with transaction(connection):
            # Asked again under the lock: another process may have opened the store at the same moment.
            for statement in _added_columns(connection):
                connection.execute(statement)


def create(path: Path, key: StoreKey) -> None:
    """Make an empty store at `path`. Raises Refused where anything is there already.

    It is made beside its place and moved there whole, so that a crash leaves no half of a store.
    """
    if path.exists():
        raise Refused(f"{path} exists; a store is never written over another file")
    making = path.with_name(path.name + ".new")
    making.unlink(missing_ok=True)
    try:
        os.close(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise BadInput(f"a store cannot be made at {path}: {error.strerror}") from None
    connection = _connect(making, key)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    with transaction(connection):
        for statement in schema():
            connection.execute(statement)
    connection.close()
    try:
        os.link(making, path)
    except FileExistsError:
        raise Refused(f"{path} exists; a store is never written over another file") from None
    making.unlink()


def connect(path: Path, key: StoreKey) -> Connection:
    """Open the store at `path`. Raises BadInput or Refused, and changes nothing, where it is not one.

    A store of before may lack a table that is younger, or a column that may be empty; they are made.
    """
    check_file(path)
    connection = _connect(path, key)
    try:
        _check_store(connection, path)
        _bring_up_to_date(connection)
    except sqlcipher.DatabaseError as error:
        connection.close()
        raise _unreadable(path, error) from None
    except (BadInput, Refused):
        connection.close()
        raise
    return connection


def check_file(path: Path) -> None:
    """Refuse a file that cannot be an encrypted store, before anything opens it."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise BadInput(f"there is no store at {path}; `fa device init` makes one") from None
    except OSError as error:
        raise BadInput(f"the store {path} cannot be read: {error.strerror}") from None
    if head == b"SQLite format 3\0":
        raise Refused(f"{path} is a plain SQLite file, not an encrypted store; it was left as it is")
    if size == 0 or size % PAGE:
        raise BadInput(
            f"{path} has {size} bytes, and a store is made of whole pages of {PAGE}: it was cut short or is "
            "another file; it was left as it is"
        )


def settings() -> list[str]:
    """Return the settings of every connection, after the key: the same for plain SQLite."""
    return [
        f"PRAGMA busy_timeout = {BUSY_MS}",
        "PRAGMA secure_delete = ON",
        "PRAGMA temp_store = MEMORY",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = EXTRA",
        "PRAGMA trusted_schema = OFF",
    ]


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run a block as one transaction that takes the write lock at once; undo it on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _connect(path: Path, key: StoreKey) -> Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlcipher.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    # Text that is not UTF-8 was not written by us; reading it must not stop the device.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.execute("PRAGMA cipher_log_level = NONE")
    connection.execute(f"""PRAGMA key = "x'{key.secret.hex()}'" """)
    try:
        for statement in settings():
            connection.execute(statement)
    except sqlcipher.DatabaseError as error:
        connection.close()
        raise _unreadable(path, error) from None
    return connection


def _check_store(connection: Connection, path: Path) -> None:
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise Refused(f"{path} is another program's encrypted file; it was left as it is")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise BadInput(f"{path} is a store of version {version}; this program reads version {VERSION}")
    if connection.execute("PRAGMA cipher_integrity_check").fetchall():
        raise BadInput(f"{path} is damaged or was cut short; it was left as it is")


def _unreadable(path: Path, error: Exception) -> Exception:
    if isinstance(error, sqlcipher.OperationalError) and "locked" in str(error):
        return BadInput(f"{path} is in use by another process; try again when it is done")
    return Refused(
        f"{path} does not open with this key: the key is another store's, or the file is damaged or not a "
        "store; it was left as it is"
    )
