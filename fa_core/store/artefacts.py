"""The bytes of published artefacts: kept under their hash, which a log entry of kind `model` names.

The store reads of a manifest only what it must keep by: the hash and the size.
"""

import json
import re
from collections.abc import Iterator
from hashlib import sha256

from sqlalchemy import Connection

from fa_core.errors import BadInput
from fa_core.store import translog
from fa_core.store.bodies import Bodies
from fa_core.store.translog import LogEntry

_HASH = re.compile(r"[0-9a-f]{64}")  # a name of a file, too: nothing else may be in it


def artefact_body(digest: str) -> str:
    """Return the name of the bytes with this hex SHA-256."""
    return f"artefact-{digest}"


def keep(connection: Connection, bodies: Bodies, subject: str, entry: bytes, data: bytes) -> LogEntry:
    """Write an artefact's bytes and the log's entry that names them, each once; return the entry.

    The connection must be a writing one. Raises BadInput where the entry names other bytes.
    """
    found = translog.find(connection, "model", subject, entry)
    digest, size = _named(found or LogEntry(translog.size(connection), "model", subject, entry))
    if (digest, size) != (sha256(data).hexdigest(), len(data)):
        raise BadInput("the manifest names other bytes than those of the artefact")
    if bodies.read(connection, artefact_body(digest)) != data:
        bodies.write(connection, artefact_body(digest), data)
    return found or translog.append(connection, "model", subject, entry)


def fetch(connection: Connection, bodies: Bodies, digest: str) -> bytes:
    """Return the bytes with this hex SHA-256. Raises BadInput where they are gone or were changed."""
    data = bodies.read(connection, artefact_body(digest))
    if data is None:
        raise BadInput(f"artefact {digest}: its bytes are gone, though the log names them")
    if sha256(data).hexdigest() != digest:
        raise BadInput(f"artefact {digest}: its bytes were cut off or changed ({len(data)} bytes)")
    return data


def digests(connection: Connection) -> tuple[str, ...]:
    """Return the hashes of the artefacts that the log names, each once, sorted."""
    return tuple(sorted({digest for digest, _ in _all(connection)}))


def verify(connection: Connection, bodies: Bodies) -> list[str]:
    """Return which artefacts of the log are missing or were changed, one sentence each."""
    problems: dict[str, None] = {}
    try:
        named = list(_all(connection))
    except BadInput as error:
        return [str(error)]
    for digest, size in named:
        try:
            if len(fetch(connection, bodies, digest)) != size:
                problems[f"artefact {digest}: it has another size than its manifest names"] = None
        except BadInput as error:
            problems[str(error)] = None
    return list(problems)


def _all(connection: Connection) -> Iterator[tuple[str, int]]:
    for entry in translog.of_kind(connection, "model"):
        yield _named(entry)


def _named(entry: LogEntry) -> tuple[str, int]:
    """Return the hash and the size of the artefact that a log entry names."""
    try:
        manifest = json.loads(str(entry.body["document"]))
        digest, size = manifest["sha256"], manifest["size"]
    except (ValueError, KeyError, TypeError, RecursionError):
        digest, size = None, None
    if not isinstance(digest, str) or not _HASH.fullmatch(digest) or not isinstance(size, int):
        raise BadInput(f"log entry {entry.index} is no manifest of an artefact")
    return digest, size
