"""The witness: it signs rosters that are charged, one survivor bitmap a release, and one history of the log.

An aggregator that alone chose who is on the roster, in which order, and who dropped out, could surround a
device or sum a part of the cohort apart. The witness takes these choices away. It runs with the enrolment
authority and never with the aggregator; it sees public keys and who answered, and nothing of any vector.

What it signed is in its journal before the signature leaves. The same request again gets the same reply; a
different one for the same release and attempt is refused, after a restart too. It also cosigns the
transparency log, if each checkpoint extends the last one that it saw.

No roster is signed unless its release is charged: the row of the ledger is in the log, under a checkpoint
that this witness cosigned, and the budgets that the enrolment authority signed have room for it beside all
that this witness signed for the population before, by its own clock and its own sum. So an aggregator that
charges nothing, too little, to another name or by a clock that runs ahead gets no sum.

Where two aggregators form the sum there is no roster: it binds the release to their one collection, by the
same charge, and keeps the hash of the one share of that sum that the helper gives away.

It grants the stages of a rollout, too (`fa_core.trust.stages`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.errors import BadInput, Refused
from fa_core.merkle import Proof, leaf_hash, root
from fa_core.privacy.ledger import Charge, admit
from fa_core.privacy.ledger_rows import Declaration, decode, encode
from fa_core.secagg import messages
from fa_core.secagg.complaint import liar
from fa_core.secagg.identity import Record, population_id
from fa_core.secagg.keys import KEY_SIZE
from fa_core.secagg.messages import Malformed, Roster
from fa_core.secagg.parameters import choose
from fa_core.secagg.task import MAX_ATTEMPTS, Task
from fa_core.trust import checkpoint
from fa_core.trust.charges import ChargeProof, Keys, Round, context_of, paid
from fa_core.trust.collection_request import TASK_SIZE, CollectionRequest, ShareRequest
from fa_core.trust.grants import KnownRound, Recompute, no_gate
from fa_core.trust.journal import Journal
from fa_core.trust.stages import Stages


class Witness:
    """The witness as an object. `authority` and `log` are public Ed25519 keys, 32 bytes each.

    Without `log` it signs nothing. `clock` gives the time (UTC) that stands in its cosignatures and by which
    budgets free up. `owner_of` names the owner of a device (32 bytes); by default each has one of its own.
    `recompute` computes a rollout's gate again; by default no stage of a rollout is granted.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        authority: bytes,
        journal: Path,
        log: bytes | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        owner_of: Callable[[bytes], str] = bytes.hex,
        recompute: Recompute = no_gate,
    ) -> None:
        self._key = key
        self._authority = authority
        self._journal = Journal(journal)
        self._log = log
        self._clock = clock
        self._owner_of = owner_of
        self.stages = Stages(key, self._journal, log, clock, self.rounds, recompute)

    @property
    def public_key(self) -> bytes:
        """32 bytes, which devices hold as `Trust.witness`."""
        return self._key.public_key().public_bytes_raw()

    def sign_roster(self, request: bytes) -> bytes:
        """Check every record, draw the nonce and sign. Refused for a second roster or for a bad record."""
        try:
            task, proof, encoded = messages.read_roster_request(request)
        except Malformed as error:
            raise Refused(f"the witness cannot read the roster: {error}") from None
        if task.attempt >= MAX_ATTEMPTS:
            raise Refused(f"the witness signs rosters for {MAX_ATTEMPTS} attempts at a release, and no more")
        records = [Record.decode(record) for record in encoded]
        self._check_records(task, records)
        unsigned = Roster(len(records), root([leaf_hash(record) for record in encoded]), token_bytes(32))
        signature = self._key.sign(unsigned.message(task))
        roster = Roster(unsigned.devices, unsigned.root, unsigned.nonce, signature)
        with self._journal.lock():
            self._check_attempts(task)
            self._check_liars(task, records)
            if self._journal.read(_collection(task.release.hex())) is not None:
                raise Refused(
                    f"release {task.release.hex()} is summed by two aggregators; there is no roster"
                )
            self._require_charge(task, proof)
            return self._sign_once(task, "roster", request, messages.roster_reply(task.session, roster))

    def _check_records(self, task: Task, records: Sequence[Record]) -> None:
        """Raise Refused unless the roster is large enough, of certified keys that stand there once, and no
        owner holds more devices than the share that may be corrupt."""
        if len(records) < task.min_devices or choose(len(records), task.dropout, task.corrupt) is None:
            raise Refused(f"the witness signs no roster of {len(records)}: it is too small for this plan")
        names = {name for r in records for name in (r.device, r.share_key, r.mask_key)}
        if len(names) != 3 * len(records):
            raise Refused("the witness signs no roster in which a device or a key stands twice")
        if not all(record.valid(task.session, self._authority, task.population) for record in records):
            raise Refused("the witness signs no roster with a key that is not certified for its population")
        largest = max(Counter(self._owner_of(record.device) for record in records).values())
        allowed = max(1, int(task.corrupt * len(records)))
        if largest > allowed:
            raise Refused(
                f"one owner holds {largest} of the {len(records)} devices on the roster; the plan's "
                f"`corrupt` covers {allowed}"
            )

    def _check_attempts(self, task: Task) -> None:
        """Raise Refused for an attempt after one whose survivors were signed, or before one that was begun.

        A roster for a later attempt closes the earlier ones, and survivors end the release: else one release
        could be opened twice.
        """
        release = task.release.hex()
        for attempt in range(MAX_ATTEMPTS):
            other = replace(task, attempt=attempt)
            if attempt > task.attempt and self._journal.read(_name(other, "roster")) is not None:
                raise Refused(f"attempt {task.attempt} at release {release} was given up for a later one")
            if attempt < task.attempt and self._journal.read(_name(other, "survivors")) is not None:
                raise Refused(f"release {release} was opened in attempt {attempt}; there is no other")

    def _check_liars(self, task: Task, records: Sequence[Record]) -> None:
        """Raise Refused where a device is on the roster that a complaint in this release proved a liar."""
        complaints = self._journal.begin_with(f"{task.release.hex()}-complaint-")
        liars = {entry[:KEY_SIZE] for entry in complaints}
        if any(record.device in liars for record in records):
            raise Refused("the witness signs no roster with a device that dealt garbage in this release")

    def sign_collection(self, request: bytes) -> bytes:
        """Check that a collection of two aggregators is charged, and bind its release to it: 64 bytes.

        One charge pays for one sum: a release that has a roster gets no collection, and one that has a
        collection no roster and no other collection.

        Args:
            request: a `CollectionRequest`; the helper asks, before it opens the task.
        """
        try:
            asked = CollectionRequest.decode(request)
        except BadInput as error:
            raise Refused(f"the witness cannot read the collection: {error}") from None
        release = asked.about.release.hex()
        signature = self._key.sign(asked.message())
        with self._journal.lock():
            rosters = (f"{release}-{attempt}-roster" for attempt in range(MAX_ATTEMPTS))
            if any(self._journal.read(name) is not None for name in rosters):
                raise Refused(f"the witness signed a roster for release {release}; there is no second sum")
            _, charge, declared = self._proven(asked.about, asked.charge, "collection")
            self._spend(charge, declared)
            # Before the signature leaves: a release that may have been opened is never taken for another.
            self._journal.keep(_opened(release), b"%d" % len(self._journal.entries("-opened")))
            kept = self._journal.keep(_collection(release), asked.task + signature)
        if kept[:TASK_SIZE] != asked.task:
            raise Refused(f"the witness signed another collection for release {release}")
        return kept[TASK_SIZE:]

    def keep_share(self, request: bytes) -> bytes:
        """Keep the hash of the one noised share of a collection, and return it.

        A helper whose database was restored draws its noise again; the hash of the share from before stands
        here, and so the second is never given away. The same hash again is fine.

        Args:
            request: a `ShareRequest`; the helper asks, before the share leaves it.
        """
        try:
            asked = ShareRequest.decode(request)
        except BadInput as error:
            raise Refused(f"the witness cannot read which share is meant: {error}") from None
        release = asked.release.hex()
        with self._journal.lock():
            bound = self._journal.read(_collection(release))
            if bound is None or bound[:TASK_SIZE] != asked.task:
                raise Refused(f"the witness signed no such collection for release {release}")
            kept = self._journal.keep(f"{release}-share", asked.digest)
        if kept != asked.digest:
            raise Refused(f"another share of release {release} may have been given away; there is no second")
        return kept

    def _require_charge(self, task: Task, data: bytes) -> None:
        """Raise Refused unless the release is charged, and within budget by this witness's own sum."""
        about = Round(task.release, task.plan_hash, task.population)
        proof, charge, declared = self._proven(about, data, "roster")
        if context_of(charge.window_end, (proof.checkpoint, proof.row)) != task.context:
            raise Refused("the witness signs no roster of another window or checkpoint than its charge names")
        self._spend(charge, declared)

    def _proven(self, about: Round, data: bytes, what: str) -> tuple[ChargeProof, Charge, Declaration]:
        """Return the proof in `data`, the charge and the budgets. Raises Refused unless they hold."""
        if self._log is None:
            raise Refused(f"the witness was not given the key of a transparency log, so it signs no {what}")
        try:
            proof = ChargeProof.decode(data)
            charge, declared = paid(proof, about, Keys(self._authority, self._log, self.public_key))
        except BadInput as error:
            raise Refused(f"the witness signs no {what} that is not charged: {error}") from None
        return proof, charge, declared

    def _spend(self, charge: Charge, declared: Declaration) -> None:
        """Write a charge into the journal, at this witness's own time.

        Time never goes back here: a clock that is set back frees nothing.
        """
        kept = self._journal.read(f"{charge.release}-charge")
        if kept is not None:
            if replace(charge, at=_charge(kept).at) != _charge(kept):
                raise Refused(f"release {charge.release} was signed under another charge")
            return
        name = f"{population_id(charge.population).hex()}-budgets"
        before = self._journal.read(name)
        if before is not None and _declaration(before).at > declared.at:
            raise Refused(f"newer budgets of population {charge.population} are known than the round shows")
        signed = self.charges()
        past = [each for each in signed if each.population == charge.population]
        at = max([self._clock(), *(each.at for each in signed)])
        own = replace(charge, at=at)
        admit(declared.policy, declared.currency, past, own)
        self._journal.replace(name, encode(declared))
        self._journal.keep(f"{charge.release}-charge", encode(own))

    def charges(self) -> tuple[Charge, ...]:
        """Every charge under which a roster was signed, by this witness's own time, oldest first."""
        found = (_charge(entry) for entry in self._journal.entries("-charge"))
        return tuple(sorted(found, key=lambda each: each.at))

    def sign_survivors(self, request: bytes) -> bytes:
        """Check the bitmap against the roster signed before, and sign. Refused for a second bitmap."""
        try:
            task, dealt, survivors = messages.read_survivors_request(request)
        except Malformed as error:
            raise Refused(f"the witness cannot read the survivors: {error}") from None
        roster = self._roster(task)
        parameters = choose(roster.devices, task.dropout, task.corrupt)
        if parameters is None or len(survivors) != roster.devices:
            raise Refused(f"the bitmap is of {len(survivors)} devices; the roster has {roster.devices}")
        least = max(parameters.survivors, task.min_devices)
        if int(survivors.sum()) < least:
            raise Refused(f"{int(survivors.sum())} survivors are too few; {least} must remain")
        if (survivors & ~dealt).any():
            raise Refused("the bitmap names a survivor that never dealt its shares")
        signature = self._key.sign(messages.survivors_message(roster.hash(task), dealt, survivors))
        with self._journal.lock():
            self._check_attempts(task)
            if self._journal.begin_with(f"{task.release.hex()}-complaint-{task.attempt}-"):
                raise Refused(
                    f"attempt {task.attempt} at release {task.release.hex()} was given up for a complaint"
                )
            # Before the signature leaves: a round that may have been opened is never taken for another.
            self._journal.keep(_opened(task.release.hex()), b"%d" % len(self._journal.entries("-opened")))
            return self._sign_once(
                task, "survivors", request, messages.survivors_reply(task.session, signature)
            )

    def record_complaint(self, request: bytes) -> bytes:
        """Check a complaint, write it into the journal, and name the device that it shows to have lied.

        From then on no survivors are signed for its attempt, and no roster of this release with that device.
        Refused where it proves nothing, or where its attempt has survivors already.
        """
        try:
            task, complaint = messages.read_complaint_request(request)
        except Malformed as error:
            raise Refused(f"the witness cannot read the complaint: {error}") from None
        device = liar(task, self._roster(task), complaint)
        if device is None:
            raise Refused("the complaint proves nothing of anybody")
        with self._journal.lock():
            if self._journal.read(_name(task, "survivors")) is not None:
                raise Refused("the complaint comes after the survivors of its attempt were signed")
            name = f"complaint-{task.attempt}-{complaint.accuser_index}-{complaint.accused_index}"
            self._journal.keep(f"{task.release.hex()}-{name}", device + request)
        return messages.complaint_reply(task.session, device)

    def _roster(self, task: Task) -> Roster:
        """The roster that was signed for a task. Raises Refused where there is none."""
        entry = self._journal.read(_name(task, "roster"))
        if entry is None:
            raise Refused("the witness has signed no roster for this release and attempt")
        try:
            return messages.read_roster_reply(task.session, entry[32:])
        except Malformed:
            raise Refused(
                "the witness signed the roster of this release and attempt for another task"
            ) from None

    def seen(self) -> int:
        """The size of the last checkpoint that was cosigned; 0 before the first."""
        last = self._last()
        return 0 if last is None else last.size

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        """The signature line for a checkpoint. Refused where it does not extend the last one."""
        if self._log is None:
            raise Refused("the witness was not given the key of a transparency log, so it cosigns none")
        with self._journal.lock():
            log = Ed25519PublicKey.from_public_bytes(self._log)
            line = checkpoint.cosign(note, self._last(), proof, log, self._key, self._clock())
            self._journal.replace("checkpoint", note)
        return line

    def grant(self, request: bytes) -> bytes:
        """As `Stages.grant`."""
        return self.stages.grant(request)

    def begin(self, request: bytes) -> bytes:
        """As `Stages.begin`."""
        return self.stages.begin(request)

    def hold(self, request: bytes) -> bytes:
        """As `Stages.hold`."""
        return self.stages.hold(request)

    def resume(self, request: bytes) -> bytes:
        """As `Stages.resume`."""
        return self.stages.resume(request)

    def end(self, rollout: bytes) -> bytes:
        """As `Stages.end`."""
        return self.stages.end(rollout)

    def opened(self, request: bytes) -> bytes:
        """Return those of some releases whose survivors this witness signed, in the order in which it did.

        Args:
            request: ids of releases, 16 bytes each; the reply has the same form.
        """
        if len(request) % _RELEASE_SIZE:
            raise Refused("the witness cannot read which releases are meant")
        asked = [request[at : at + _RELEASE_SIZE] for at in range(0, len(request), _RELEASE_SIZE)]
        places = [(self._place(each.hex()), each) for each in asked]
        return b"".join(each for _, each in sorted((at, each) for at, each in places if at is not None))

    def rounds(self) -> tuple[KnownRound, ...]:
        """Every round for which a roster was signed, by this witness's own time, oldest first."""
        return tuple(KnownRound(each, self._place(each.release)) for each in self.charges())

    def _place(self, release: str) -> int | None:
        kept = self._journal.read(_opened(release))
        return None if kept is None else int(kept)

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


_RELEASE_SIZE = 16


def _opened(release: str) -> str:
    return f"{release}-opened"


def _collection(release: str) -> str:
    return f"{release}-collection"


def _name(task: Task, what: str) -> str:
    return f"{task.release.hex()}-{task.attempt}-{what}"


@lru_cache(maxsize=1 << 14)
def _charge(entry: bytes) -> Charge:
    """Return the charge in an entry; remembered by its bytes, since each roster adds up all of them."""
    value = decode(entry)
    assert isinstance(value, Charge)
    return value


def _declaration(entry: bytes) -> Declaration:
    value = decode(entry)
    assert isinstance(value, Declaration)
    return value
