"""The vault's file: sealed samples, what became of them, reads and accesses. SQLite, one writer at a time.

A connection of its own and not `fa_core.database`'s: deleted pages are overwritten, and no write-ahead log
keeps them. The file may be backed up; it holds no share of a key.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fa_core.errors import BadInput, Refused, UnheardError

FILE: Final = "vault.db"
APPLICATION_ID: Final = 0x556E7661
"""Marks a file as a vault's ("Unva"), in SQLite's header."""

VERSION: Final = 1
BUSY_SECONDS: Final = 10.0

SCHEMA: Final = (
    "CREATE TABLE sample (id BLOB PRIMARY KEY, request BLOB NOT NULL, digest BLOB NOT NULL, "
    "day TEXT NOT NULL, until TEXT NOT NULL, sealed BLOB NOT NULL) STRICT",
    "CREATE TABLE gone (id BLOB PRIMARY KEY, request BLOB NOT NULL, day TEXT NOT NULL, "
    "why TEXT NOT NULL) STRICT",
    "CREATE TABLE reading (id BLOB PRIMARY KEY, sample BLOB NOT NULL, reviewer BLOB NOT NULL, "
    "asked INTEGER NOT NULL, released INTEGER, over INTEGER) STRICT",
    "CREATE TABLE access (statement BLOB PRIMARY KEY, sample BLOB NOT NULL, read BLOB NOT NULL, "
    "action TEXT NOT NULL, reviewer BLOB NOT NULL, at INTEGER NOT NULL, entry INTEGER NOT NULL) STRICT",
)
"""Days are UTC, ISO; `asked`, `released` and `entry` are places in the log; `over`, `at` are Unix times."""


class Unusable(UnheardError):
    """The vault's file cannot be used now. Carries nothing of what it holds."""

    exit_code = BadInput.exit_code


def create(path: Path) -> None:
    """Make an empty file. Raises BadInput where one is there."""
    if path.exists():
        raise BadInput(f"{path} is there already; a vault is never made anew")
    connection = _connect(path, "rwc")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    with transaction(connection):
        for statement in SCHEMA:
            connection.execute(statement)
    connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open a vault's file. Raises BadInput or Refused for anything else."""
    if not path.is_file():
        raise BadInput(f"there is no vault at {path}; `fa vault init` makes one")
    try:
        connection = _connect(path, "rw")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError:
        raise Refused(f"{path} is no vault's file, or is damaged; it was left as it is") from None
    if application != APPLICATION_ID:
        raise Refused(f"{path} is another program's file; it was left as it is")
    if version != VERSION:
        raise BadInput(f"{path} is a vault's file of version {version}; this program reads version {VERSION}")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a block as one transaction with the write lock from the start. Raises Unusable if SQLite fails."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise Unusable(f"the vault's file cannot be used: {type(error).__name__}") from None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    for statement in (
        "secure_delete = ON",
        "journal_mode = DELETE",
        "synchronous = EXTRA",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {statement}")
    return connection
