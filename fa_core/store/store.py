"""The store: one value that holds the catalogue, the ledger and the transparency log of a fleet's owner.

Who runs a round calls, in this order:

    store.announce(plan, key, signature)     the plan is in the log before anybody is asked
    store.charge(charge, set_aside)          … and so is what it costs, in the ledger
    store.checkpoint(log_key, witness)       … both under a cosigned checkpoint that devices can check
    store.save(release, estimates, …)        or store.fail(…): the round ends once, and the log says how
    store.checkpoint(log_key, witness)
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.database.connection import Database
from fa_core.errors import BadInput, Refused
from fa_core.merkle import Proof
from fa_core.privacy.ledger import Charge
from fa_core.privacy.ledger_rows import Declaration
from fa_core.store import annotations as annotated
from fa_core.store import artefacts, catalogue, chain, translog
from fa_core.store import backup as backups
from fa_core.store.annotations import Annotation
from fa_core.store.backup import Contents
from fa_core.store.bodies import Bodies, FolderBodies, TableBodies, body_name, fetch
from fa_core.store.catalogue import DEFAULT, Entry, Failure, Query, Refusal
from fa_core.store.chain import Row, SetAside, Written
from fa_core.store.database import FILE, connect_folder, connect_server
from fa_core.store.files import estimates_table
from fa_core.store.translog import Cosigner, Inclusion, LogEntry
from fa_core.trust.checkpoint import Kind, plan_entry
from fa_core.values import Estimates, Release

Ledger = Callable[[str], tuple[Declaration | None, tuple[Charge, ...]]]
"""Returns a population's budgets, None before its first declaration, and its charges, oldest first."""

FOLDER = "releases"
_READERS = 4
_EVERYTHING = Query()


def open_store(where: str | Path = DEFAULT, *, create: bool = True) -> "Store":
    """Open the store in a folder (SQLite, and Parquet files) or at postgresql://… (which holds both).

    A folder is made, and tables are brought up to date; with `create` False a store that is not there is an
    error. Raises BadInput for anything that is not a store.
    """
    if isinstance(where, str) and "://" in where:
        return _prepared(connect_server(where), TableBodies())
    folder = Path(where)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file; a store is a folder or postgresql://…")
    file, files = folder / FILE, folder / FOLDER
    if not file.exists() and not create:
        raise BadInput(f"there is no store in {folder}; `fa run PLAN` makes one, --store names another")
    if (not file.exists() or file.stat().st_size == 0) and any(files.glob("*.parquet")):
        raise BadInput(f"{file} is missing or empty, though {files} holds releases; put it back")
    try:
        files.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{files} cannot be made: {error.strerror}") from None
    return _prepared(connect_folder(folder), FolderBodies(files))


def shown_as(where: str) -> str:
    """Return a store's place as it may be printed: without a database's password."""
    return connect_server(where).name if "://" in where else where


def _prepared(database: Database, bodies: Bodies) -> "Store":
    try:
        database.prepare()
    except BaseException:
        database.close()
        raise
    return Store(database, bodies)


class Store:
    """Releases, failures, charges and the log. Every method is one transaction; writers wait."""

    def __init__(self, database: Database, bodies: Bodies) -> None:
        self._database = database
        self._bodies = bodies

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """What to call this store to a person; holds no password."""
        return self._database.name

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    # Ledger

    def declare(self, declared: Declaration) -> Written:
        """Set a population's budgets from now on. Raises Refused for another kind of ledger than it has."""
        with self._database.writing() as connection:
            return chain.declare(connection, declared)

    def charge(self, asked: Charge, set_aside: SetAside = chain.nothing_set_aside) -> Written:
        """Check a charge against every budget and write it, or raise Refused and write nothing.

        The plan must be in the log. A release is charged once; its charge stands whatever comes after.

        Args:
            set_aside: says what others have set aside of the budgets, which the charge must leave. No other
                writer comes between the two.
        """
        with self._database.writing() as connection:
            return chain.charge(connection, asked, set_aside)

    def declaration(self, population: str) -> Declaration | None:
        """Return a population's kind of ledger and budgets, None before its first declaration or charge."""
        with self._database.reading() as connection:
            return chain.declaration(connection, population)

    def charges(self, population: str) -> tuple[Charge, ...]:
        """Return every charge of a population, oldest first."""
        with self._database.reading() as connection:
            return chain.charges(connection, population)

    def populations(self) -> tuple[str, ...]:
        """Return the names of all populations that have a ledger, sorted."""
        with self._database.reading() as connection:
            return chain.populations(connection)

    def ledger(self) -> tuple[Row, ...]:
        """Return every row of the ledger, oldest first."""
        with self._database.reading() as connection:
            return tuple(chain.rows(connection))

    def verify_ledger(self) -> list[str]:
        """Return what is wrong with the ledger, one sentence each; empty where nothing is."""
        with self._database.reading() as connection:
            return chain.verify(connection)

    # Releases

    def save(self, release: Release, estimates: Estimates, *, synthetic: bool) -> Entry:
        """Write a release with its estimates, once. Raises Refused where it was not charged or has ended.

        `synthetic` says that the fleet's voices were synthetic; every view of the release repeats it.
        """
        with self._database.writing() as connection:
            return catalogue.save(connection, self._bodies, release, estimates, synthetic=synthetic)

    def fail(self, release: str, plan: bytes, population: str, stage: str, reason: str, at: datetime) -> None:
        """Write that a round ended without a release. `reason` must hold no device's value."""
        name, digest = catalogue.plan_name(plan), sha256(plan).hexdigest()
        with self._database.writing() as connection:
            catalogue.fail(connection, Failure(release, name, digest, population, stage, reason, at))

    def refuse(self, release: str, plan: bytes, population: str, reason: str, at: datetime) -> None:
        """Write that a request was refused before it was charged. `reason` must hold no device's value."""
        name, digest = catalogue.plan_name(plan), sha256(plan).hexdigest()
        with self._database.writing() as connection:
            catalogue.refuse(connection, Refusal(release, name, digest, population, reason, at))

    def find(self, text: str) -> Entry:
        """Return the release meant by `latest`, an id or its first digits. Raises BadInput otherwise."""
        with self._database.reading() as connection:
            return catalogue.find(connection, text)

    def releases(self, query: Query = _EVERYTHING, limit: int = 50, offset: int = 0) -> tuple[Entry, ...]:
        """Return a page of the releases that a query names, newest first."""
        with self._database.reading() as connection:
            return catalogue.page(connection, query, limit, offset)

    def count(self, query: Query = _EVERYTHING) -> int:
        """Return how many releases a query names."""
        with self._database.reading() as connection:
            return catalogue.count(connection, query)

    def failures(self, limit: int = 50, offset: int = 0) -> tuple[Failure, ...]:
        """Return a page of the rounds that failed, newest first."""
        with self._database.reading() as connection:
            return catalogue.failed(connection, limit, offset)

    def refusals(self, limit: int = 50, offset: int = 0) -> tuple[Refusal, ...]:
        """Return a page of the requests that were refused, newest first."""
        with self._database.reading() as connection:
            return catalogue.refused(connection, limit, offset)

    def read(self, found: Entry) -> tuple[Release, Estimates]:
        """Return a release and its estimates, equal to what was saved. Raises BadInput for a damaged file."""
        with self._database.reading() as connection:
            return catalogue.read(connection, self._bodies, found)

    def glance(self, found: Entry) -> Estimates:
        """Return a release's numbers and verdicts without the cells of its tables, most of the rows."""
        with self._database.reading() as connection:
            return catalogue.glance(connection, self._bodies, found)

    def release(self, release: str) -> Release:
        """Return the release with this id (or its first digits, or `latest`)."""
        return self.read(self.find(release))[0]

    def release_file(self, release: str) -> bytes:
        """Return the bytes of a release's file, whose SHA-256 is in the log. Raises BadInput if damaged."""
        with self._database.reading() as connection:
            found = catalogue.find(connection, release)
            return fetch(self._bodies, connection, found.id, "release", found.release_sha256)

    def estimates(self, release: str) -> Estimates:
        """Return the estimates of the release with this id (or its first digits, or `latest`)."""
        return self.read(self.find(release))[1]

    def results(
        self,
        found: Sequence[Entry],
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """Return the numbers of many releases as rows, in the order given, with a first column `release`.

        Args:
            columns: of `fa_core.store.files.ESTIMATES_SCHEMA`; all where left out.
            where: a filter over those columns, which must be among those asked for.
        """
        with self._database.reading() as connection:
            parts = [
                (each, fetch(self._bodies, connection, each.id, "estimates", each.estimates_sha256))
                for each in found
            ]

        def rows(part: tuple[Entry, bytes]) -> pa.Table:
            each, data = part
            name = body_name(each.id, "estimates", each.estimates_sha256)
            table = estimates_table(data, name, None if columns is None else list(columns))
            ids = pa.DictionaryArray.from_arrays(pa.nulls(len(table), pa.int32()).fill_null(0), [each.id])
            return table.replace_schema_metadata().add_column(0, "release", ids)

        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(rows, parts))
        if not tables:
            return pa.table({"release": pa.array([], pa.string())})
        joined = pa.concat_tables(tables)
        return joined if where is None else joined.filter(where)

    # Annotations

    def annotate(self, day: date, text: str, plan: str | None = None) -> Annotation:
        """Write what happened on a day (UTC), for the trends of one plan or of all. Raises BadInput."""
        with self._database.writing() as connection:
            return annotated.add(connection, day, text, plan)

    def remove_annotation(self, identifier: str) -> None:
        """Remove an annotation by its id. Raises BadInput where there is none."""
        with self._database.writing() as connection:
            annotated.remove(connection, identifier)

    def annotations(self, plan: str | None = None) -> tuple[Annotation, ...]:
        """Return the annotations that hold for a plan, or all, by day."""
        with self._database.reading() as connection:
            return annotated.listed(connection, plan)

    # Transparency log

    def announce(self, plan: bytes, key: bytes, signature: bytes) -> LogEntry:
        """Put a signed plan in the log and return its entry; one that is there already is returned as it is.

        Args:
            plan: canonical bytes.
            key: raw Ed25519 public key of the signer, 32 bytes; `signature` its signature, 64 bytes.
        """
        catalogue.plan_name(plan)
        subject, data = sha256(plan).hexdigest(), plan_entry(plan, key, signature)
        with self._database.writing() as connection:
            translog.note_key(connection, translog.PLAN, key)
            found = translog.find(connection, "plan", subject, data)
            return found or translog.append(connection, "plan", subject, data)

    def publish(self, kind: Kind, subject: str, data: bytes) -> LogEntry:
        """Put an entry in the log and return it; one with the same bytes is returned as it is.

        Args:
            kind: of what is published: "model", "rollout", "decision", "manifest" or "access".
            subject: what it is about, as `translog` says. data: the entry's bytes, `checkpoint.entry`'s.
        """
        with self._database.writing() as connection:
            found = translog.find(connection, kind, subject, data)
            return found or translog.append(connection, kind, subject, data)

    def follow(
        self, kind: Kind, subject: str, next_entry: Callable[[tuple[LogEntry, ...], Ledger], bytes]
    ) -> LogEntry:
        """Put in the log the entry that follows from those of all rollouts, and return it; one with the same
        bytes is returned as it is.

        Args:
            kind, subject: as of `publish`.
            next_entry: is given the entries of kinds "rollout", "decision" and "manifest", oldest first, and
                the ledger as it stands, and returns the entry's bytes. No other writer comes between the two.
        """
        with self._database.writing() as connection:
            entries = translog.of_kinds(connection, translog.ROLLOUTS)
            data = next_entry(
                entries,
                lambda population: (
                    chain.declaration(connection, population),
                    chain.charges(connection, population),
                ),
            )
            found = translog.find(connection, kind, subject, data)
            return found or translog.append(connection, kind, subject, data)

    def rollouts(self) -> tuple[LogEntry, ...]:
        """Return the log's entries of kinds "rollout", "decision" and "manifest", oldest first."""
        with self._database.reading() as connection:
            return translog.of_kinds(connection, translog.ROLLOUTS)

    def published(self, kind: Kind, subject: str | None = None) -> tuple[LogEntry, ...]:
        """Return the log's entries of a kind, about one subject where it is given, oldest first."""
        with self._database.reading() as connection:
            return translog.of_kind(connection, kind, subject)

    def keep_artefact(self, subject: str, entry: bytes, data: bytes) -> LogEntry:
        """Keep an artefact's bytes and put the entry that names them in the log; what is there stays.

        Args:
            subject: hex SHA-256 of the manifest. entry: of kind "model", `checkpoint.entry`'s bytes.
        Raises:
            BadInput: the manifest names other bytes.
        """
        with self._database.writing() as connection:
            return artefacts.keep(connection, self._bodies, subject, entry, data)

    def artefact(self, digest: str) -> bytes:
        """Return the bytes of an artefact by their hex SHA-256. Raises BadInput where they are gone or were
        changed."""
        with self._database.reading() as connection:
            return artefacts.fetch(connection, self._bodies, digest)

    def plan(self, plan_hash: str) -> bytes:
        """Return the canonical bytes of a plan that was announced, by its hash. Raises BadInput for none."""
        with self._database.reading() as connection:
            found = translog.find(connection, "plan", plan_hash)
        if found is None:
            raise BadInput(f"the log holds no plan {plan_hash[:12]}")
        return str(found.body["plan"]).encode()

    def note_key(self, name: str, key: bytes) -> None:
        """Put in the log that a public key (raw Ed25519) came into use; once. `announce` and `checkpoint`
        do so for the keys of plans and of the log."""
        with self._database.writing() as connection:
            translog.note_key(connection, name, key)

    def keys(self, name: str) -> tuple[bytes, ...]:
        """Return the public keys that came into use under a name ("log", "plan", …), oldest first."""
        with self._database.reading() as connection:
            return translog.keys(connection, name)

    def checkpoint(self, key: Ed25519PrivateKey, witness: Cosigner) -> bytes:
        """Sign the log as it stands, have the witness cosign it, keep the note and return it."""
        witness.seen()  # one that is away is waited for here, while others can write
        with self._database.writing() as connection:
            return translog.checkpoint(connection, key, witness)

    def uncosigned(self, key: Ed25519PrivateKey) -> bytes:
        """Sign the log as it stands and return the note, which the witness has not seen and nobody keeps."""
        with self._database.reading() as connection:
            return translog.uncosigned(connection, key)

    def note(self) -> bytes | None:
        """Return the newest checkpoint's note, or None before the first."""
        with self._database.reading() as connection:
            return translog.latest(connection)

    def entries(self, start: int = 0, stop: int | None = None) -> tuple[LogEntry, ...]:
        """Return the log's entries [start, stop), oldest first."""
        with self._database.reading() as connection:
            return translog.entries(connection, start, translog.size(connection) if stop is None else stop)

    def log_size(self) -> int:
        """Return how many entries the log has."""
        with self._database.reading() as connection:
            return translog.size(connection)

    def prove(self, index: int, note: bytes | None = None) -> Inclusion:
        """Return the proof that entry `index` stands under a checkpoint of this log, by default the newest.

        Raises BadInput outside.
        """
        with self._database.reading() as connection:
            return translog.prove(connection, index, note)

    def consistency(self, old: int, new: int) -> Proof:
        """Return the proof that the log's first `old` entries are a prefix of its first `new`."""
        with self._database.reading() as connection:
            return translog.consistency(connection, old, new)

    def consistency_to(self, size: int) -> dict[int, Proof]:
        """Return the proof from every earlier checkpoint to the one of `size`, for an invitation."""
        with self._database.reading() as connection:
            return translog.consistency_to(connection, size)

    def publication_proofs(self, size: int, also: Collection[int] = ()) -> dict[int, Proof]:
        """Return the proofs from the checkpoints that `translog.followed` names to the one of `size`."""
        with self._database.reading() as connection:
            return translog.publication_proofs(connection, size, also)

    def verify_log(
        self,
        log_key: Ed25519PublicKey | None = None,
        witness_key: Ed25519PublicKey | None = None,
        earlier: Iterable[bytes] = (),
    ) -> list[str]:
        """Return what is wrong with the log, the catalogue and the files; empty where nothing is.

        Signatures are checked against the keys given, the log's own against those it names where none is
        given; the log must extend the `earlier` notes that a reviewer kept.
        """
        with self._database.reading() as connection:
            try:
                keys = [log_key] if log_key else _public(translog.keys(connection, translog.LOG))
            except BadInput as error:
                return [str(error)]
            problems = translog.verify(connection, keys, witness_key, tuple(earlier))
            if problems:
                return problems
            return catalogue.verify(connection, self._bodies) + artefacts.verify(connection, self._bodies)

    # Backup

    def backup(self, file: Path) -> Contents:
        """Write the whole store into a new file, from one snapshot. Raises Refused where it is damaged."""
        with self._database.reading() as connection:
            if problems := backups.verify(connection, self._bodies):
                listing = "\n".join(f"  {each}" for each in problems)
                raise Refused(f"{self.name} does not verify, and so would no backup of it:\n{listing}")
            return backups.backup(connection, self._bodies, file)

    def restore(self, file: Path) -> Contents:
        """Fill this store, which must be empty, from a backup, and verify it. Nothing is kept otherwise."""
        with self._database.writing() as connection:
            return backups.restore(connection, self._bodies, file)


def _public(keys: Iterable[bytes]) -> list[Ed25519PublicKey]:
    try:
        return [Ed25519PublicKey.from_public_bytes(key) for key in keys]
    except ValueError:
        raise BadInput("the log names a key that is none; it was changed") from None
