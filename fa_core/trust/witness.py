"""The witness: it signs one roster and one survivor bitmap for each release and attempt, and one history.

An aggregator that alone chose who is on the roster, in which order, and who dropped out, could surround a
device or sum a part of the cohort apart. The witness takes these choices away. It runs with the enrolment
authority and never with the aggregator; it sees public keys and who answered, and nothing of any vector.

What it signed is in its journal before the signature leaves. The same request again gets the same reply; a
different one for the same release and attempt is refused, after a restart too. It also cosigns the
transparency log, if each checkpoint extends the last one that it saw.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.errors import Refused
from fa_core.merkle import Proof, leaf_hash, root
from fa_core.secagg import messages
from fa_core.secagg.identity import Record
from fa_core.secagg.messages import Malformed, Roster
from fa_core.secagg.parameters import choose
from fa_core.secagg.task import MAX_ATTEMPTS, Task
from fa_core.trust import checkpoint


class Journal:
    """What was signed, one file an entry, in a directory that only the witness writes.

    An entry is written whole and synced under another name, then linked to its own. The link fails if there
    is one already, so the first wins, between processes as well, and a crash leaves all of an entry or none.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory

    def keep(self, name: str, entry: bytes) -> bytes:
        """The entry of this name: `entry` if there was none, else the one that was there."""
        final = self._directory / name
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".") as draft:
            _write(draft.fileno(), entry)
            try:
                os.link(draft.name, final)
            except FileExistsError:
                return final.read_bytes()
        self._sync()
        return entry

    def read(self, name: str) -> bytes | None:
        """The entry of this name, if there is one."""
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, name: str, entry: bytes) -> None:
        """Put `entry` in the place of the one of this name; the caller must hold the lock."""
        draft = os.open(self._directory / f".{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _write(draft, entry)
        os.close(draft)
        os.rename(self._directory / f".{name}", self._directory / name)
        self._sync()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process and thread out."""
        with open(self._directory / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def _write(handle: int, data: bytes) -> None:
    with os.fdopen(handle, "wb", closefd=False) as file:
        file.write(data)
    os.fsync(handle)


class Witness:
    """The witness as an object. `authority` and `log` are public Ed25519 keys, 32 bytes each.

    Without `log` it cosigns nothing. `clock` gives the time (UTC) that stands in its cosignatures.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        authority: bytes,
        journal: Path,
        log: bytes | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._key = key
        self._authority = authority
        self._journal = Journal(journal)
        self._log = None if log is None else Ed25519PublicKey.from_public_bytes(log)
        self._clock = clock

    @property
    def public_key(self) -> bytes:
        """32 bytes, which devices hold as `Trust.witness`."""
        return self._key.public_key().public_bytes_raw()

    def sign_roster(self, request: bytes) -> bytes:
        """Check every record, draw the nonce and sign. Refused for a second roster or for a bad record."""
        try:
            task, encoded = messages.read_roster_request(request)
        except Malformed as error:
            raise Refused(f"the witness cannot read the roster: {error}") from None
        if task.attempt >= MAX_ATTEMPTS:
            raise Refused(f"the witness signs rosters for {MAX_ATTEMPTS} attempts at a release, and no more")
        records = [Record.decode(record) for record in encoded]
        if len(records) < task.min_devices or choose(len(records), task.dropout, task.corrupt) is None:
            raise Refused(f"the witness signs no roster of {len(records)}: it is too small for this plan")
        names = {name for r in records for name in (r.device, r.share_key, r.mask_key)}
        if len(names) != 3 * len(records):
            raise Refused("the witness signs no roster in which a device or a key stands twice")
        if not all(record.valid(task.session, self._authority) for record in records):
            raise Refused("the witness signs no roster with a key that is not certified")
        unsigned = Roster(len(records), root([leaf_hash(record) for record in encoded]), token_bytes(32))
        signature = self._key.sign(unsigned.message(task))
        roster = Roster(unsigned.devices, unsigned.root, unsigned.nonce, signature)
        return self._sign_once(task, "roster", request, messages.roster_reply(task.session, roster))

    def sign_survivors(self, request: bytes) -> bytes:
        """Check the bitmap against the roster signed before, and sign. Refused for a second bitmap."""
        try:
            task, dealt, survivors = messages.read_survivors_request(request)
        except Malformed as error:
            raise Refused(f"the witness cannot read the survivors: {error}") from None
        entry = self._journal.read(_name(task, "roster"))
        if entry is None:
            raise Refused("the witness has signed no roster for this release and attempt")
        try:
            roster = messages.read_roster_reply(task.session, entry[32:])
        except Malformed:
            raise Refused(
                "the witness signed the roster of this release and attempt for another task"
            ) from None
        parameters = choose(roster.devices, task.dropout, task.corrupt)
        if parameters is None or len(survivors) != roster.devices:
            raise Refused(f"the bitmap is of {len(survivors)} devices; the roster has {roster.devices}")
        if int(survivors.sum()) < parameters.survivors:
            raise Refused(f"{int(survivors.sum())} survivors are too few; {parameters.survivors} must remain")
        if (survivors & ~dealt).any():
            raise Refused("the bitmap names a survivor that never dealt its shares")
        signature = self._key.sign(messages.survivors_message(roster.hash(task), dealt, survivors))
        return self._sign_once(task, "survivors", request, messages.survivors_reply(task.session, signature))

    def seen(self) -> int:
        """The size of the last checkpoint that was cosigned; 0 before the first."""
        last = self._last()
        return 0 if last is None else last.size

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        """The signature line for a checkpoint. Refused where it does not extend the last one."""
        if self._log is None:
            raise Refused("the witness was not given the key of a transparency log, so it cosigns none")
        with self._journal.lock():
            line = checkpoint.cosign(note, self._last(), proof, self._log, self._key, self._clock())
            self._journal.replace("checkpoint", note)
        return line

    def _last(self) -> checkpoint.Checkpoint | None:
        note = self._journal.read("checkpoint")
        return None if note is None else checkpoint.parse(note)

    def _sign_once(self, task: Task, what: str, request: bytes, reply: bytes) -> bytes:
        digest = sha256(request).digest()
        kept = self._journal.keep(_name(task, what), digest + reply)
        if kept[:32] != digest:
            raise Refused(
                f"the witness signed another {what} for release {task.release.hex()}, attempt {task.attempt}"
            )
        return kept[32:]


def _name(task: Task, what: str) -> str:
    return f"{task.release.hex()}-{task.attempt}-{what}"
