"""The witness: it signs one roster and one survivor bitmap for each release and attempt, ever.

An aggregator that alone chose who is on the roster, in which order, and who dropped out, could surround a
device or sum a part of the cohort apart. The witness takes these choices away. It runs with the enrolment
authority and never with the aggregator; it sees public keys and who answered, and nothing of any vector.

What it signed is in its journal before the signature leaves. The same request again gets the same reply; a
different one for the same release and attempt is refused, after a restart too.
"""

import os
import tempfile
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import Refused
from fa_core.merkle import leaf_hash, root
from fa_core.secagg import messages
from fa_core.secagg.identity import Record
from fa_core.secagg.messages import Malformed, Roster
from fa_core.secagg.parameters import choose
from fa_core.secagg.task import Task


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
            draft.write(entry)
            draft.flush()
            os.fsync(draft.fileno())
            try:
                os.link(draft.name, final)
            except FileExistsError:
                return final.read_bytes()
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        return entry

    def read(self, name: str) -> bytes | None:
        """The entry of this name, if there is one."""
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None


class Witness:
    """The witness as an object. `authority` is the enrolment authority's public key, 32 bytes."""

    def __init__(self, key: Ed25519PrivateKey, authority: bytes, journal: Path) -> None:
        self._key = key
        self._authority = authority
        self._journal = Journal(journal)

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
            task, survivors = messages.read_survivors_request(request)
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
        signature = self._key.sign(messages.survivors_message(roster.hash(task), survivors))
        return self._sign_once(task, "survivors", request, messages.survivors_reply(task.session, signature))

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
