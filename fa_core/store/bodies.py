"""Where the bytes of releases and artefacts lie: files in a folder beside SQLite, or rows of PostgreSQL.

A name holds the SHA-256 of its bytes, so no writer can replace another's file, and what is read back is
checked against the catalogue. PostgreSQL keeps bodies itself, so that a team needs one address and no share.
"""

import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, delete, insert, select

from fa_core.errors import BadInput
from fa_core.store.schema import bodies


class Bodies(Protocol):
    """Bytes by name. `write` is called inside the transaction that makes them visible."""

    def write(self, connection: Connection, name: str, data: bytes) -> None:
        """Keep the bytes under a name, durably once the transaction is."""
        ...

    def read(self, connection: Connection, name: str) -> bytes | None:
        """Return the bytes, or None where there are none."""
        ...


class FolderBodies:
    """Files in a folder, each written under another name, synchronised, and renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, connection: Connection, name: str, data: bytes) -> None:
        """Write a file; a reader sees all of it or nothing."""
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, self._folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        directory = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def read(self, connection: Connection, name: str) -> bytes | None:
        """Read a file."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadInput(f"{self._folder / name} cannot be read: {error.strerror}") from None


class TableBodies:
    """Rows of the table `bodies`."""

    def write(self, connection: Connection, name: str, data: bytes) -> None:
        """Insert a row, in place of one whose bytes were damaged."""
        connection.execute(delete(bodies).where(bodies.c.name == name))
        connection.execute(insert(bodies).values(name=name, data=data))

    def read(self, connection: Connection, name: str) -> bytes | None:
        """Select a row."""
        data: bytes | None = connection.execute(select(bodies.c.data).where(bodies.c.name == name)).scalar()
        return data


def body_name(release: str, part: str, digest: str) -> str:
    """Return the name of a part ("release" or "estimates") of a release with this hex SHA-256."""
    return f"{release}-{part}-{digest[:16]}.parquet"


def fetch(found: Bodies, connection: Connection, release: str, part: str, digest: str) -> bytes:
    """Return the bytes of a part. Raises BadInput where they are gone or are not those written."""
    name = body_name(release, part, digest)
    data = found.read(connection, name)
    if data is None:
        raise BadInput(f"{name} is gone, though the catalogue lists release {release}")
    if sha256(data).hexdigest() != digest:
        raise BadInput(f"{name} is not what was written: it was cut off or changed ({len(data)} bytes)")
    return data
