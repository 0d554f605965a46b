"""Checks of a store: reachable, of this version, and what it holds verifies."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fa_core.database.connection import Database
from fa_core.doctor.finding import Finding, broken, good, look
from fa_core.errors import BadInput, UnheardError
from fa_core.store import open_store
from fa_core.store.database import FILE, connect_folder, connect_server
from fa_core.trust import checkpoint
from fa_core.trust.budgets import is_signed
from fa_core.trust.enrolment import read_hex
from fa_core.trust.witness_service import WitnessClient

SKEW = timedelta(minutes=5)


def store(where: str) -> Iterator[Finding]:
    """Check a store, a folder or postgresql://…, without changing it; the first finding is of the store as a
    whole. The checks below open it, which migrates its tables, so they run only if that one is good."""
    if "://" not in where and not (Path(where) / FILE).is_file():
        yield look(
            "store", f"there is none in {where}", "the first `fa run` makes one; --store names another"
        )
        return
    try:
        database = connect_server(where) if "://" in where else connect_folder(Path(where))
        try:
            revision, head = database.revision(), database.lineage.head
        finally:
            database.close()
    except UnheardError as error:
        yield broken("store", str(error), "start its server, or correct its address")
        return
    if revision is None:
        yield broken("store", f"{where} holds no store", "the first `fa run` makes its tables")
        return
    if revision != head:
        yield tables(database, revision)
        return
    yield good("store", f"{database.name}, tables {revision}")
    yield from _whole(where)


def budget(where: str, population: str, authority: Path) -> Finding:
    """Check that the population which a federation charges has budgets that its enrolment authority signed.

    `authority` is the file with the authority's public key.
    """
    if not population:
        mend = "say there whose budget is charged; a lab's is its fleet's"
        return look("budget", "federation.toml names no population", mend)
    mend = (
        f"`fa enrol population {population}` at the authority, then `fa ledger declare --signed` with its "
        f"file and --store {where}; until then no device is asked"
    )
    try:
        with open_store(where, create=False) as opened:
            declared = opened.declaration(population)
    except UnheardError:
        declared = None
    if declared is None:
        return broken("budget", f"{population} has none in {where}", mend)
    try:
        signed = is_signed(declared, read_hex(authority))
    except BadInput as error:
        return broken("budget", str(error), "copy the enrolment authority's authority.pub there")
    if not signed:
        return broken("budget", f"{population}'s in {where} are not signed by the enrolment authority", mend)
    return good("budget", f"{population} has one, in {declared.currency}, signed by the authority")


def tables(database: Database, revision: str) -> Finding:
    """Return the finding on tables of another version."""
    lineage = database.lineage
    if revision in lineage.known:
        return look(
            lineage.kind,
            f"{database.name} has tables {revision}, this version {lineage.head}",
            "back it up; the next command that opens it brings it up to date",
        )
    return broken(lineage.kind, f"{database.name} was written by a newer version", "install that version")


def clock(where: str, witness: WitnessClient | None, key: bytes | None) -> Finding:
    """Check this machine's clock against the witness's: live where it answers, else its last signature."""
    now = datetime.now(UTC)
    try:
        with open_store(where, create=False) as opened:
            note = opened.note()
    except UnheardError:
        note = None
    if note is None or key is None:
        return look("clock", "no witness has signed here yet", "run a plan, then look again")
    public = Ed25519PublicKey.from_public_bytes(key)
    live = _asked(note, witness, public)
    said = live or checkpoint.cosigned_at(checkpoint.parse(note), public)
    if said is None:
        return broken(
            "clock", "the newest checkpoint is not signed by this witness", "check the witness's key"
        )
    mend = "set the clock (NTP): devices refuse a round whose witness and server disagree"
    if said > now + SKEW or (live is not None and said < now - SKEW):
        return broken(
            "clock", f"the witness says {said.isoformat()}, this machine {now:%Y-%m-%dT%H:%M:%SZ}", mend
        )
    if live is None:
        return good("clock", f"not behind the witness's last signature, {said.isoformat()}")
    return good("clock", f"within {abs((now - said).total_seconds()):.0f} s of the witness's")


def _asked(note: bytes, witness: WitnessClient | None, key: Ed25519PublicKey) -> datetime | None:
    """Return the time that the witness says now, by having it sign the newest checkpoint once more."""
    if witness is None:
        return None
    text, _, lines = note.partition(b"\n\n")
    logged = text + b"\n\n" + lines.splitlines(keepends=True)[0]
    try:
        line = witness.cosign(logged, ())
    except UnheardError:
        return None
    return checkpoint.cosigned_at(checkpoint.parse(logged + line), key)


def _whole(where: str) -> Iterator[Finding]:
    mend = "restore a backup (`fa store restore`), and compare with the checkpoints that reviewers kept"
    try:
        with open_store(where, create=False) as opened:
            ledger, log = opened.verify_ledger(), opened.verify_log()
            size = opened.log_size()
    except UnheardError as error:
        yield broken("ledger and log", str(error), mend)
        return
    yield broken("ledger", "; ".join(ledger), mend) if ledger else good("ledger", "verifies")
    yield (
        broken("log", "; ".join(log), mend)
        if log
        else good("log", f"{size} entries verify, and so do releases")
    )
