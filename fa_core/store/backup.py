"""A store in one file, and a store again from it, between any two kinds of database.

The file is a tar: `store.json` (version, revision of the tables, when, how many rows and parts), a file of
JSON lines for each table, and the parts of every release and the log's artefacts as they are. All is read in
one snapshot. What comes back is verified before it is kept: ledger, transparency log, catalogue, and the
bytes of every release and artefact.
"""

import base64
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Column, Connection, LargeBinary, Table, func, insert, select

from fa_core.canonical_json import utc_text
from fa_core.errors import BadInput, Refused
from fa_core.store import artefacts, catalogue, chain, schema, translog
from fa_core.store.bodies import Bodies, body_name, fetch
from fa_core.store.migrations import LINEAGE
from fa_core.store.schema import Exact, UtcTime

VERSION: Final = 1
TABLES: Final = (schema.ledger, schema.releases, schema.failures, schema.log, schema.checkpoints)
"""What is kept as rows, in an order in which each may refer to those before it."""

_MANIFEST = "store.json"
_PARTS = (("release", "release_sha256"), ("estimates", "estimates_sha256"))
_BATCH = 500
_UNREADABLE = (tarfile.TarError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds: when it was made, rows by table, releases' parts and artefacts, the log's size."""

    at: datetime
    rows: dict[str, int]
    parts: int
    log_size: int


def backup(connection: Connection, bodies: Bodies, file: Path) -> Contents:
    """Write what a reading connection sees into a new file, readable by its owner alone.

    Raises BadInput where the file is there already or cannot be written, or a release's bytes are not what
    was written: such a store is to be mended first.
    """
    if file.exists():
        raise BadInput(f"{file} is there already; a backup is never overwritten")
    try:
        with _whole(file) as handle, tarfile.open(fileobj=handle, mode="w") as archive:
            return _write(connection, bodies, archive)
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror or error}") from None


def restore(connection: Connection, bodies: Bodies, file: Path) -> Contents:
    """Read a backup into the empty tables of a writing connection, and verify all of it.

    Raises:
        Refused: the store is not empty.
        BadInput: the file is no backup, or was damaged, or what it holds does not verify. The transaction
            must then be undone.
    """
    for table in TABLES:
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise Refused(
                f"this store is not empty ({table.name} has rows); a backup goes into a new one, since "
                "history is never written over"
            )
    try:
        with tarfile.open(file, mode="r:") as archive:
            contents = _read(connection, bodies, archive)
    except (*_UNREADABLE, OSError) as error:
        raise BadInput(f"{file} is no backup of a store, or was cut off or changed ({_why(error)})") from None
    if problems := verify(connection, bodies):
        listing = "\n".join(f"  {each}" for each in problems)
        raise BadInput(f"{file} was read, but does not verify; nothing was kept:\n{listing}")
    return contents


def verify(connection: Connection, bodies: Bodies) -> list[str]:
    """Return what is wrong with ledger, log, catalogue, releases and artefacts; empty where nothing is."""
    try:
        keys = [Ed25519PublicKey.from_public_bytes(key) for key in translog.keys(connection, translog.LOG)]
    except (BadInput, ValueError):
        return ["the log names a key that is none; it was changed"]
    problems = chain.verify(connection) + translog.verify(connection, keys, None, ())
    return problems or catalogue.verify(connection, bodies) + artefacts.verify(connection, bodies)


def _write(connection: Connection, bodies: Bodies, archive: tarfile.TarFile) -> Contents:
    rows: dict[str, int] = {}
    parts = 0
    for table in TABLES:
        order = list(table.primary_key.columns)
        found = connection.execute(select(table).order_by(*order)).mappings()
        lines = [json.dumps({each.name: _as_json(each, row[each.name]) for each in table.c}) for row in found]
        rows[table.name] = len(lines)
        _add(archive, f"{table.name}.jsonl", "".join(line + "\n" for line in lines).encode())
    for name, read in _parts(connection, bodies):
        _add(archive, f"parts/{name}", read())
        parts += 1
    contents = Contents(datetime.now(UTC), rows, parts, rows["log"])
    said = {
        "version": VERSION,
        "revision": LINEAGE.head,
        "at": contents.at.isoformat(),
        "rows": rows,
        "parts": parts,
    }
    _add(archive, _MANIFEST, json.dumps(said, indent=2).encode())
    return contents


def _read(connection: Connection, bodies: Bodies, archive: tarfile.TarFile) -> Contents:
    members = {member.name: member for member in archive.getmembers()}
    said = json.loads(_bytes(archive, members[_MANIFEST]))
    if said["version"] != VERSION or said["revision"] != LINEAGE.head:
        raise BadInput("this backup was written by another version of Unheard; restore it with that one")
    for table in TABLES:
        lines = _bytes(archive, members[f"{table.name}.jsonl"]).splitlines()
        if len(lines) != said["rows"][table.name]:
            raise ValueError(f"{table.name} is not whole")
        for start in range(0, len(lines), _BATCH):
            rows = [_row(table, json.loads(line)) for line in lines[start : start + _BATCH]]
            connection.execute(insert(table), rows)
    parts = 0
    for name, _ in _parts(connection, bodies):
        bodies.write(connection, name, _bytes(archive, members[f"parts/{name}"]))
        parts += 1
    if parts != said["parts"]:
        raise ValueError("the parts of releases are not whole")
    return Contents(datetime.fromisoformat(said["at"]), said["rows"], parts, said["rows"]["log"])


def _parts(connection: Connection, bodies: Bodies) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of every part of every release and of every artefact, and what reads its bytes."""
    columns = [schema.releases.c[column] for _, column in _PARTS]
    for row in connection.execute(select(schema.releases.c.id, *columns).order_by(schema.releases.c.id)):
        for (part, _), digest in zip(_PARTS, row[1:], strict=True):
            yield body_name(row.id, part, digest), partial(fetch, bodies, connection, row.id, part, digest)
    for digest in artefacts.digests(connection):
        yield artefacts.artefact_body(digest), partial(artefacts.fetch, connection, bodies, digest)


def _row(table: Table, said: dict[str, Any]) -> dict[str, Any]:
    return {column.name: _meant(column, said[column.name]) for column in table.c}


def _as_json(column: Column[Any], value: Any) -> Any:
    """Return a value as JSON says it."""
    if value is None:
        return None
    if isinstance(column.type, LargeBinary):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(column.type, Exact) else _time(value)


def _time(value: Any) -> Any:
    return utc_text(value) if isinstance(value, datetime) else value


def _meant(column: Column[Any], said: Any) -> Any:
    """Return the value that JSON says."""
    if said is None:
        return None
    if isinstance(column.type, LargeBinary):
        return base64.b64decode(said, validate=True)
    if isinstance(column.type, UtcTime):
        return datetime.fromisoformat(said)
    if isinstance(column.type, Exact):
        above, _, below = said.partition("/")
        return Fraction(int(above), int(below or "1"))
    if type(said) is not column.type.python_type:
        raise TypeError(f"{column.name} is of another type")
    return said


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    archive.addfile(member, io.BytesIO(data))


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} is no file")
    with file:
        return file.read()


@contextmanager
def _whole(file: Path) -> Iterator[IO[bytes]]:
    """Yield a file that appears under its name, synchronised, only when all of it is written."""
    number, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def _why(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
