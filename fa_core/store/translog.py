"""The transparency log as rows: append, checkpoint, prove, verify.

Trees and proofs are RFC 6962's (`fa_core.merkle`), checkpoints signed notes (`fa_core.trust.checkpoint`).

Entries are never changed or removed. `subject` only helps to find one: the hash of a plan, of an artefact's
manifest or of a rollout, which its decisions and manifests have too; the release's id for a release or a
failure, a name for a key, the random id of a donated sample for a reviewer's access to it.
"""

import json
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, delete, func, insert, select

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.merkle import Proof, Tree, leaf_hash, node_hash
from fa_core.store.schema import checkpoints, log
from fa_core.trust.checkpoint import Kind, cosigned_at, entry, parse, sign, signed_by_log

LOG, PLAN = "log", "plan"
"""Names under which the keys of the log itself and of those who sign plans come into use."""

ROLLOUTS: tuple[Kind, ...] = ("rollout", "decision", "manifest")
"""The kinds of entries from which the state of a rollout follows."""


NEWEST, COVERING = 1536, 448
"""A publication leads from so many of the newest checkpoints, and from so many older ones under which
something was published first: with 27 hashes a proof, as 10^8 entries have, in less than 4 MiB."""


class Cosigner(Protocol):
    """A witness of the log: it signs a checkpoint only if that extends the last one it signed."""

    def seen(self) -> int:
        """Return the size of the last checkpoint that it signed, 0 for none."""
        ...

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        """Return the signature line for `note`; `proof` leads from `seen()` to it. Raises Refused."""
        ...


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry: its place, its bytes, and what its body says."""

    index: int
    kind: Kind
    subject: str
    entry: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the entry."""
        parsed: dict[str, Any] = json.loads(self.entry.split(b"\n", 2)[2])
        return parsed


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Proof that an entry stands in the log under a checkpoint."""

    entry: LogEntry
    proof: Proof
    note: bytes


def append(connection: Connection, kind: Kind, subject: str, data: bytes) -> LogEntry:
    """Write one entry at the end. The connection must be a writing one."""
    index = size(connection)
    connection.execute(
        insert(log).values(seq=index, kind=kind, subject=subject, entry=data, leaf=leaf_hash(data))
    )
    return LogEntry(index, kind, subject, data)


def note_key(connection: Connection, name: str, key: bytes) -> None:
    """Write that a public key (raw Ed25519, 32 bytes) came into use, unless that was written before."""
    data = entry("key", canonical({"key": key.hex(), "name": name}))
    if find(connection, "key", name, data) is None:
        append(connection, "key", name, data)


def keys(connection: Connection, name: str) -> tuple[bytes, ...]:
    """Return the public keys that came into use under a name, oldest first."""
    query = select(log).where(log.c.kind == "key", log.c.subject == name).order_by(log.c.seq)
    bodies = (_body(LogEntry(row.seq, row.kind, row.subject, row.entry)) for row in connection.execute(query))
    try:
        return tuple(bytes.fromhex(str(body["key"])) for body in bodies)
    except (KeyError, ValueError):
        raise BadInput(f"the log names a key of {name} that is none; it was changed") from None


def size(connection: Connection) -> int:
    """Return how many entries there are."""
    last = connection.execute(select(func.max(log.c.seq))).scalar()
    return 0 if last is None else int(last) + 1


def find(connection: Connection, kind: Kind, subject: str, data: bytes | None = None) -> LogEntry | None:
    """Return the first entry of a kind about a subject, with these bytes where given, or None."""
    query = select(log).where(log.c.subject == subject, log.c.kind == kind)
    if data is not None:
        query = query.where(log.c.leaf == leaf_hash(data))
    row = connection.execute(query.order_by(log.c.seq).limit(1)).first()
    return None if row is None else LogEntry(row.seq, row.kind, row.subject, row.entry)


def entries(connection: Connection, start: int, stop: int) -> tuple[LogEntry, ...]:
    """Return the entries [start, stop), oldest first."""
    query = select(log).where(log.c.seq >= start, log.c.seq < stop).order_by(log.c.seq)
    return tuple(LogEntry(row.seq, row.kind, row.subject, row.entry) for row in connection.execute(query))


def of_kind(connection: Connection, kind: Kind, subject: str | None = None) -> tuple[LogEntry, ...]:
    """Return the entries of a kind, about one subject where it is given, oldest first."""
    query = select(log).where(log.c.kind == kind).order_by(log.c.seq)
    if subject is not None:
        query = query.where(log.c.subject == subject)
    return tuple(LogEntry(row.seq, row.kind, row.subject, row.entry) for row in connection.execute(query))


def of_kinds(connection: Connection, kinds: Sequence[Kind]) -> tuple[LogEntry, ...]:
    """Return the entries of some kinds, oldest first."""
    query = select(log).where(log.c.kind.in_(kinds)).order_by(log.c.seq)
    return tuple(LogEntry(row.seq, row.kind, row.subject, row.entry) for row in connection.execute(query))


def ledger_hashes(connection: Connection) -> list[str]:
    """Return the hex hashes of the ledger's rows as the log repeats them. Raises BadInput for a bad entry."""
    query = select(log).where(log.c.kind == "ledger").order_by(log.c.seq)
    found = []
    for row in connection.execute(query):
        logged = _body(LogEntry(row.seq, row.kind, row.subject, row.entry))
        found.append(str(logged.get("hash")))
    return found


def ended(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return what the log says of every release and failure, by release id."""
    query = select(log).where(log.c.kind.in_(("release", "failure"))).order_by(log.c.seq)
    found = {}
    for row in connection.execute(query):
        body = _body(LogEntry(row.seq, row.kind, row.subject, row.entry))
        found[str(body.get("release"))] = body
    return found


def latest(connection: Connection) -> bytes | None:
    """Return the newest checkpoint's note, or None before the first."""
    query = select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
    note: bytes | None = connection.execute(query).scalar()
    return note


def sizes(connection: Connection) -> tuple[int, ...]:
    """Return the sizes at which a checkpoint was made, ascending."""
    return tuple(connection.execute(select(checkpoints.c.size).order_by(checkpoints.c.size)).scalars())


def checkpoint(connection: Connection, key: Ed25519PrivateKey, witness: Cosigner) -> bytes:
    """Sign the log as it stands, have it cosigned, keep the note and return it.

    The connection must be a writing one, so that checkpoints reach the witness in order of size.
    """
    note_key(connection, LOG, key.public_key().public_bytes_raw())
    tree = _tree(connection)
    note = sign(tree.size, tree.root, key)
    seen = witness.seen()
    if seen > tree.size:
        raise BadInput(f"the witness has signed {seen} entries, this log has {tree.size}: some were lost")
    note += witness.cosign(note, tree.consistency(seen))
    connection.execute(delete(checkpoints).where(checkpoints.c.size == tree.size))
    connection.execute(insert(checkpoints).values(size=tree.size, note=note))
    return note


def uncosigned(connection: Connection, key: Ed25519PrivateKey) -> bytes:
    """Sign the log as it stands and return the note, which the witness has not seen and which is not kept."""
    tree = _tree(connection)
    return sign(tree.size, tree.root, key)


def prove(connection: Connection, index: int, note: bytes | None = None) -> Inclusion:
    """Return the proof that entry `index` stands under a checkpoint of this log, by default the newest."""
    note = note or latest(connection)
    if note is None:
        raise BadInput("the log has no checkpoint yet; a run makes one")
    at = parse(note).size
    found = entries(connection, index, index + 1)
    if not found or index >= at:
        raise BadInput(f"the checkpoint covers entries 0 to {at - 1}; {index} is not among them")
    return Inclusion(found[0], _tree(connection, at).inclusion(index), note)


def consistency(connection: Connection, old: int, new: int) -> Proof:
    """Return the proof that the first `old` entries are a prefix of the first `new`."""
    tree = _tree(connection, new)
    if tree.size != new or not 0 <= old <= new:
        raise BadInput(f"there is no proof from {old} to {new} entries in a log of {size(connection)}")
    return tree.consistency(old)


def consistency_to(connection: Connection, size: int) -> dict[int, Proof]:
    """Return the proof from every earlier checkpoint to the first `size` entries, by its size."""
    tree = _tree(connection, size)
    return {old: tree.consistency(old) for old in sizes(connection) if 0 < old < size}


def followed(earlier: Sequence[int], published: Sequence[int], also: Collection[int]) -> tuple[int, ...]:
    """Return the sizes from which a publication proves that the log went on, ascending. Pure.

    A device holds the size under which it read a publication last, which may be long ago where none changed
    since. So what is left out are checkpoints that are neither new nor the first to cover what was published.

    Args:
        earlier: sizes of the checkpoints before, ascending. published: indices of what was published.
        also: sizes of the files that are replaced: whoever asks for them all the time holds these.
    """
    places = {bisect_right(earlier, index) for index in published}
    covering = sorted({earlier[place] for place in places if place < len(earlier)} - {*earlier[-NEWEST:]})
    return tuple(sorted({*earlier[-NEWEST:], *covering[-COVERING:], *({*also} & {*earlier})}))


def publication_proofs(connection: Connection, size: int, also: Collection[int]) -> dict[int, Proof]:
    """Return the proofs to the first `size` entries from the sizes that `followed` says, by size."""
    tree = _tree(connection, size)
    kinds: tuple[Kind, ...] = ("model", "manifest")
    published = connection.execute(select(log.c.seq).where(log.c.kind.in_(kinds))).scalars().all()
    earlier = [old for old in sizes(connection) if 0 < old < size]
    return {old: tree.consistency(old) for old in followed(earlier, published, also)}


def verify(
    connection: Connection,
    log_keys: Sequence[Ed25519PublicKey],
    witness_key: Ed25519PublicKey | None = None,
    earlier: Sequence[bytes] = (),
) -> list[str]:
    """Return what is wrong with the log, one sentence each; empty where nothing is.

    Recomputes every leaf from its entry and every checkpoint's root from the leaves, checks signatures
    against the keys given (one of the log's must hold), and that the log extends the `earlier` notes that
    a reviewer kept.
    """
    problems: list[str] = []
    leaves: list[bytes] = []
    for place, row in enumerate(connection.execute(select(log).order_by(log.c.seq))):
        if row.seq != place:
            return [f"log entry {place} is missing: the next is numbered {row.seq}"]
        leaves.append(leaf_hash(row.entry))
        if row.leaf != leaves[-1]:
            problems.append(f"log entry {place} was rewritten: its leaf hash does not follow from its bytes")
            continue
        try:
            expected = _subject(LogEntry(row.seq, row.kind, row.subject, row.entry))
            if row.subject != expected:
                problems.append(f"log entry {place} is filed under {row.subject!r}, it is about {expected!r}")
        except BadInput as error:
            problems.append(str(error))
    roots = prefix_roots(leaves)
    stored = select(checkpoints.c.size, checkpoints.c.note).order_by(checkpoints.c.size)
    for filed, note in connection.execute(stored):
        problems += _check_note(note, filed, roots, log_keys, witness_key)
    for note in earlier:
        problems += _check_note(note, None, roots, log_keys, witness_key)
    return problems


def _check_note(
    note: bytes,
    filed: int | None,
    roots: Sequence[bytes],
    log_keys: Sequence[Ed25519PublicKey],
    witness_key: Ed25519PublicKey | None,
) -> list[str]:
    """Return what is wrong with one checkpoint; `roots` by prefix, `filed` is the size it is kept under."""
    try:
        found = parse(note)
    except BadInput as error:
        return [f"the checkpoint of {filed} entries: {error}" if filed is not None else str(error)]
    name = f"the checkpoint of {found.size} entries"
    problems = []
    if filed not in (None, found.size):
        problems.append(f"{name} is kept as one of {filed}")
    if found.size >= len(roots):
        problems.append(f"{name} is of a longer log: {len(roots) - 1} are here, the last were cut off")
    elif found.root != roots[found.size]:
        problems.append(f"{name} does not agree with the entries: history was rewritten")
    if not any(signed_by_log(found, key) for key in log_keys):
        problems.append(f"{name} is not signed by the log's key")
    if witness_key is not None and cosigned_at(found, witness_key) is None:
        problems.append(f"{name} is not cosigned by the witness")
    return problems


def prefix_roots(leaves: Sequence[bytes]) -> list[bytes]:
    """Return the root of every prefix, from none to all of the leaves, in one pass.

    `full` holds the roots of the full subtrees that a prefix splits into, largest first: one for each bit
    that is set in its size (RFC 6962, section 2.1).
    """
    roots, full = [Tree([]).root], []
    for count, leaf in enumerate(leaves, start=1):
        full.append(leaf)
        while not count & 1:
            right = full.pop()
            full.append(node_hash(full.pop(), right))
            count >>= 1
        current = full[-1]
        for left in reversed(full[:-1]):
            current = node_hash(left, current)
        roots.append(current)
    return roots


def _tree(connection: Connection, stop: int | None = None) -> Tree:
    query = select(log.c.leaf).order_by(log.c.seq)
    if stop is not None:
        query = query.where(log.c.seq < stop)
    return Tree(list(connection.execute(query).scalars()))


def plan_document(plan: bytes) -> dict[str, Any]:
    """Return the JSON object in a plan's canonical bytes. Raises BadInput for anything else."""
    try:
        document = json.loads(plan)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BadInput("a plan's canonical bytes are a JSON object; these are not")
    return document


def _body(found: LogEntry) -> dict[str, Any]:
    """Return an entry's JSON object. Raises BadInput where the bytes are not those of its kind."""
    magic, kind, _ = (*found.entry.split(b"\n", 2), b"", b"")[:3]
    try:
        body = found.body
    except (ValueError, IndexError):
        body = {}
    if magic != b"unheard-log-1" or kind != found.kind.encode() or not body:
        raise BadInput(f"log entry {found.index} is not an entry of kind {found.kind}")
    return body


def _subject(found: LogEntry) -> str:
    """Return what an entry is about, from its bytes alone."""
    body = _body(found)
    if found.kind == "plan":
        return sha256(str(body.get("plan")).encode()).hexdigest()
    if found.kind in ("model", "rollout"):
        return sha256(str(body.get("document")).encode()).hexdigest()
    if found.kind == "ledger":
        row = body.get("row", {})
        return str(row.get("release", row.get("population")))
    names = {"key": "name", "decision": "rollout", "manifest": "rollout", "access": "sample"}
    return str(body.get(names.get(found.kind, "release")))
