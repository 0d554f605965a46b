"""The helper: it makes the task, checks every report with the leader, and adds noise of its own.

It is run by the witness's operator, never by the leader's, with its own key and its own database. What it
answers is in the database before the answer leaves: the same request gets the same bytes, after a restart
too, and another in its place is refused. It takes one report of a device in a task, whatever the leader
sends, and gives its share of the sum away once, noised, for the reports that the leader counted as well. The
witness keeps the hash of that share, so that a restored database gives no second one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_bytes
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey
from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from fa_core.collection.measured import Measured, measured, measured_for
from fa_core.collection.messages import Batch, Closing, Decision, Entry, Opened, Opening, encode_decisions
from fa_core.collection.refusal import Refusal, RefusedReport
from fa_core.collection.report import body_hash, check_sender, open_share
from fa_core.collection.schema import CLOSED, DRAWN, MADE, OPEN, helper_batches, helper_reports, helper_tasks
from fa_core.collection.sums import Running
from fa_core.collection.task import ID_SIZE, KEPT, Task, asked, label, to_sign
from fa_core.database.connection import Database
from fa_core.errors import BadInput, Refused
from fa_core.layout import covers, layout_hash
from fa_core.prio.field import FIELD64
from fa_core.prio.prio3 import HELPER, Begun, Finished, Input
from fa_core.secagg.identity import population_id
from fa_core.trust import hpke
from fa_core.trust.charges import ChargeProof, Keys, Round, paid, read_row
from fa_core.trust.collection_request import ShareRequest

LONGEST: Final = timedelta(days=31)
"""Longest collection window."""

ENDED: Final = (DRAWN, CLOSED)
"""Stages in which a task has no keys any more, and nothing is added to its sum."""

_KEY_SIZE: Final = 32


class CollectionWitness(Protocol):
    """The witness, as the helper asks it."""

    def sign_collection(self, request: bytes) -> bytes:
        """As `fa_core.trust.witness.Witness.sign_collection`."""
        ...

    def keep_share(self, request: bytes) -> bytes:
        """As `fa_core.trust.witness.Witness.keep_share`."""
        ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """Public keys that a helper trusts, raw Ed25519, 32 bytes: of authority, log, witness and leader."""

    authority: bytes
    log: bytes
    witness: bytes
    leader: bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Collecting:
    """A task that takes batches. `sealing` opens the helper's shares."""

    task: Task
    measured: Measured
    verify_key: bytes = field(repr=False)
    sealing: MLKEM768X25519PrivateKey = field(repr=False)


@dataclass(slots=True)
class _Checked:
    """One report of a batch, as far as it is known: `share` where its sender is who it says."""

    entry: Entry
    refusal: Refusal | None = None
    authentic: bool = False
    share: bytes = field(default=b"", repr=False)


class Helper:
    """The helper over its database, whose tables are up to date. `clock` gives the time, UTC."""

    def __init__(
        self,
        database: Database,
        key: Ed25519PrivateKey,
        pinned: Pinned,
        witness: CollectionWitness,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._key = key
        self._pinned = pinned
        self._witness = witness
        self._clock = clock

    @property
    def public_key(self) -> bytes:
        """32 bytes, which devices and leader pin."""
        return self._key.public_key().public_bytes_raw()

    # Opening.

    def open(self, request: bytes) -> bytes:
        """Make the task of a charged release and have the witness bind the release to it.

        Raises:
            Refused: it is not charged, of another leader, or another task of this release was asked for.
        """
        opening = Opening.decode(request)
        digest = _digest(opening)
        row = self._task_of(opening.release)
        if row is None:
            self._make(opening, digest)
            row = self._task_of(opening.release)
            assert row is not None
        if row["digest"] != digest:
            raise Refused(f"release {opening.release.hex()} has another task already")
        if row["stage"] in ENDED:
            raise Refused(f"release {opening.release.hex()} was collected; there is no second collection")
        task, signature = Task.parse(row["task"]), row["witness"]
        if row["stage"] == MADE:
            signature = self._witness.sign_collection(asked(task, opening.charge).encode())
            with self._database.writing() as connection:
                connection.execute(
                    update(helper_tasks)
                    .where(helper_tasks.c.id == task.id, helper_tasks.c.stage == MADE)
                    .values(stage=OPEN, witness=signature)
                )
        return Opened(task, self._key.sign(to_sign(task)), signature, row["verify_key"]).encode()

    def _make(self, opening: Opening, digest: bytes) -> None:
        """Write down the task of a release, with fresh keys, unless there is one."""
        found = measured(opening.plan)
        sealing = hpke.OpeningKey.generate()
        task = self._task(opening, found, sealing.public)
        values = {
            "id": task.id,
            "release": task.release,
            "digest": digest,
            "task": task.encode(),
            "plan": opening.plan,
            "stage": MADE,
            "closes": int(task.closes.timestamp()),
            "sealing": sealing.raw,
            "verify_key": token_bytes(_KEY_SIZE),
        }
        with self._database.writing() as connection:
            if _find(connection, helper_tasks.c.release == task.release) is None:
                running = Running.nothing(found.prio.length)
                connection.execute(insert(helper_tasks).values(**values, **running.stored()))

    def _task(self, opening: Opening, found: Measured, sealing: bytes) -> Task:
        """Return the task of a request. Raises Refused for one that is not charged, or of another leader."""
        plan, pinned = found.plan, self._pinned
        try:
            proof = ChargeProof.decode(opening.charge)
            population = population_id(read_row(proof.row).population)
            about = Round(opening.release, bytes.fromhex(plan.hash), population)
            charge, _ = paid(proof, about, Keys(pinned.authority, pinned.log, pinned.witness))
        except BadInput as error:
            raise Refused(f"the helper opens no task that is not charged: {error}") from None
        if not covers(charge, plan, found.layout) or charge.window_end - charge.window_start != plan.window:
            raise Refused("the helper opens no task for which another cost or window was charged")
        if opening.leader != pinned.leader:
            raise Refused("the helper opens no task for another leader than the one that it trusts")
        now = self._clock()
        if not max(opening.opens, now) < opening.closes <= min(opening.opens, now) + LONGEST:
            raise Refused(f"reports are taken for at most {LONGEST.days} days from now; this asks otherwise")
        assert plan.privacy.kappa is not None, "a plan of two aggregators has its kappa"
        return Task(
            plan=about.plan_hash,
            layout=layout_hash(found.layout),
            release=opening.release,
            population=population,
            charge=sha256(proof.row).digest(),
            start=charge.window_start,
            until=charge.window_end,
            opens=opening.opens,
            closes=opening.closes,
            leader=pinned.leader,
            helper=self.public_key,
            sealing=sealing,
            least=plan.privacy.min_cohort,
            kappa=plan.privacy.kappa,
        )

    # Verifying.

    def verify(self, batch: bytes) -> bytes:
        """Return the decision on each report of a batch; those that are accepted are counted then.

        Raises Refused for a batch of no open task, or with the number of another batch.
        """
        collecting = self._collecting(batch[:ID_SIZE])
        prio, task = collecting.measured.prio, collecting.task
        asked_for, digest = Batch.decode(batch, prio), sha256(batch).digest()
        kept = self._kept(task.id, asked_for.number, digest)
        if kept is not None:
            return kept
        checked = [_checked(collecting, self._pinned.authority, each) for each in asked_for.entries]
        begun, messages = _proven(collecting, checked)
        with self._database.writing() as connection:
            kept = _reply(connection, task.id, asked_for.number, digest)
            if kept is not None:
                return kept
            row = _open(connection, task.id)
            decisions, finished = _decided(connection, collecting, checked, begun, messages)
            counted = [
                (each.entry.device, each.entry.id)
                for each, decision in zip(checked, decisions, strict=True)
                if decision.refusal is None
            ]
            running = Running.load(row["total"], row["count"], row["checksum"])
            running = running.plus(finished.total, task.id, counted)
            reply = encode_decisions(decisions, prio)
            _update(connection, task.id, running.stored())
            connection.execute(
                insert(helper_batches).values(
                    task=task.id, number=asked_for.number, digest=digest, reply=reply
                )
            )
        return reply

    def _kept(self, task: bytes, number: int, digest: bytes) -> bytes | None:
        with self._database.reading() as connection:
            return _reply(connection, task, number, digest)

    def _collecting(self, task: bytes) -> _Collecting:
        with self._database.reading() as connection:
            row = _open(connection, task)
        found, sealing = Task.parse(row["task"]), hpke.OpeningKey(row["sealing"]).private()
        return _Collecting(found, measured_for(found, row["plan"]), row["verify_key"], sealing)

    # Closing.

    def close(self, request: bytes) -> bytes:
        """Return the noised share of the sum, once both counted the same, and forget all keys of the task.

        Noise is drawn in the transaction that ends the task. Then the witness is asked to keep the share's
        hash, and only then the share is given away. The same request gets the same bytes again.

        Raises:
            Refused: the leader counted otherwise, or too few; or the witness keeps another share's hash.
            RoundFailed: the witness does not answer; ask again.
        """
        closing = Closing.decode(request)
        with self._database.writing() as connection:
            row = _closing(connection, closing)
            if row["stage"] == OPEN:
                _draw(connection, row, closing)
                row = _closing(connection, closing)
        share = bytes(row["share"])
        if row["stage"] == DRAWN:
            self._witness.keep_share(ShareRequest(row["release"], closing.task, _given(row)).encode())
            with self._database.writing() as connection:
                _update(connection, closing.task, {"stage": CLOSED})
        return share

    def forget(self) -> None:
        """Forget the keys and sums of tasks that were not closed within `KEPT` of their windows' ends."""
        before = int((self._clock() - KEPT).timestamp())
        late = helper_tasks.c.closes < before, helper_tasks.c.stage.not_in(ENDED)
        with self._database.writing() as connection:
            for (task,) in connection.execute(select(helper_tasks.c.id).where(*late)).all():
                _end(connection, task, CLOSED, None)

    def _task_of(self, release: bytes) -> RowMapping | None:
        with self._database.reading() as connection:
            return _find(connection, helper_tasks.c.release == release)


def _digest(opening: Opening) -> bytes:
    """Return the hash of a request, whatever checkpoint its charge is proven under."""
    row = ChargeProof.decode(opening.charge).row
    return sha256(replace(opening, charge=row).encode()).digest()


def _checked(collecting: _Collecting, authority: bytes, entry: Entry) -> _Checked:
    """Return who sent a report and the helper's share of it, or why it is refused."""
    checked, task = _Checked(entry), collecting.task
    digest = body_hash(entry.id, entry.device, entry.public, entry.box, entry.leader_hash)
    try:
        check_sender(task, authority, entry.device, entry.certificate, entry.signature, digest)
        checked.authentic = True
        checked.share = open_share(
            task.id, collecting.sealing, entry.id, entry.device, entry.public, entry.box
        )
        _check_joint_part(entry.verifier, entry.public, first=True)
    except RefusedReport as refused:
        checked.refusal = refused.refusal
    return checked


def _check_joint_part(verifier: bytes, public: bytes, *, first: bool) -> None:
    """Refuse a report where an aggregator found another part of its joint randomness than the device says.

    Finishing compares what follows from both parts, and so notices one that is wrong only at the aggregator
    whose part it is. Compared here, both decide alike.
    """
    size = len(public) // 2
    if size and verifier[-size:] != (public[:size] if first else public[size:]):
        raise RefusedReport(Refusal.INVALID)


def _proven(collecting: _Collecting, checked: Sequence[_Checked]) -> tuple[Begun, tuple[bytes | None, ...]]:
    """Check the proofs of what was not refused; a report whose proof does not hold is refused."""
    prio, task = collecting.measured.prio, collecting.task.id
    # A share of no bytes is refused by the proof system too, so rows of the batch keep their places.
    inputs = [Input(each.entry.id, each.entry.public, each.share) for each in checked]
    begun = prio.begin(HELPER, collecting.verify_key, task, inputs)
    messages = prio.decide(task, [each.entry.verifier for each in checked], begun.verifiers)
    for each, verifier, message in zip(checked, begun.verifiers, messages, strict=True):
        if each.refusal is not None:
            continue
        try:
            _check_joint_part(verifier, each.entry.public, first=False)
            if message is None:
                raise RefusedReport(Refusal.INVALID)
        except RefusedReport as refused:
            each.refusal = refused.refusal
    return begun, messages


def _decided(
    connection: Connection,
    collecting: _Collecting,
    checked: Sequence[_Checked],
    begun: Begun,
    messages: Sequence[bytes | None],
) -> tuple[tuple[Decision, ...], Finished]:
    """Take the place of each device that sent something, and add up what is accepted."""
    task = collecting.task.id
    _take_places(connection, task, [each for each in checked if each.authentic])
    kept = [
        message if each.refusal is None else None for each, message in zip(checked, messages, strict=True)
    ]
    finished = collecting.measured.prio.finish(begun, kept)
    decisions = []
    for each, message, accepted in zip(checked, kept, finished.accepted.tolist(), strict=True):
        if accepted and message is not None:
            decisions.append(Decision(None, message))
        else:
            decisions.append(Decision(each.refusal or Refusal.INVALID))
    return tuple(decisions), finished


def _take_places(connection: Connection, task: bytes, checked: Sequence[_Checked]) -> None:
    """Take each device's one place in a task; refuse a report whose device has sent something, or whose id
    another has.

    Such a report is refused for that alone, whatever was found of its share and its proof: who sends a report
    again, with verifiers of its choice, is not told whether they would have held.
    """
    columns = helper_reports.c
    own = columns.device.in_([each.entry.device for each in checked])
    same = columns.id.in_([each.entry.id for each in checked])
    query = select(columns.device, columns.id).where(columns.task == task)
    found = [row for which in (own, same) for row in connection.execute(query.where(which)).all()]
    devices, ids = {bytes(row.device) for row in found}, {bytes(row.id) for row in found}
    rows = []
    for each in checked:
        if each.entry.device in devices:
            each.refusal = Refusal.SECOND_REPORT
        elif each.entry.id in ids:
            each.refusal = Refusal.REPLAYED
        else:
            devices.add(each.entry.device)
            ids.add(each.entry.id)
            rows.append({"task": task, "device": each.entry.device, "id": each.entry.id})
    if rows:
        connection.execute(insert(helper_reports), rows)


def _reply(connection: Connection, task: bytes, number: int, digest: bytes) -> bytes | None:
    """Return what was answered to a batch. Raises Refused where another batch had its number."""
    which = helper_batches.c.task == task, helper_batches.c.number == number
    row = connection.execute(select(helper_batches).where(*which)).mappings().first()
    if row is None:
        return None
    if row["digest"] != digest:
        raise Refused(f"batch {number} was another one; this one is not verified")
    return bytes(row["reply"])


def _open(connection: Connection, task: bytes) -> RowMapping:
    row = _find(connection, helper_tasks.c.id == task)
    if row is None or row["stage"] == MADE:
        raise Refused("the helper has no such task")
    if row["stage"] in ENDED:
        raise Refused("the collection is closed; nothing is added to it")
    return row


def _find(connection: Connection, which: Any) -> RowMapping | None:
    return connection.execute(select(helper_tasks).where(which)).mappings().first()


def _update(connection: Connection, task: bytes, values: dict[str, Any]) -> None:
    connection.execute(update(helper_tasks).where(helper_tasks.c.id == task).values(**values))


def _closing(connection: Connection, closing: Closing) -> RowMapping:
    """Return the task that a leader may close as it asks. Raises Refused."""
    row = _find(connection, helper_tasks.c.id == closing.task)
    if row is None or row["stage"] == MADE:
        raise Refused("the helper has no such task")
    if (row["count"], row["checksum"]) != (closing.count, closing.checksum):
        raise Refused(
            f"leader and helper did not count the same reports ({closing.count} and {row['count']})"
        )
    if row["stage"] == CLOSED and row["share"] is None:
        raise Refused("the collection was given up; it is not collected any more")
    return row


def _draw(connection: Connection, row: RowMapping, closing: Closing) -> None:
    """Draw the noise of a task's share, and end the task. Raises Refused where too few were counted."""
    task = Task.parse(row["task"])
    if closing.count < task.least:
        raise Refused(f"{closing.count} devices were counted; fewer than {task.least} are not summed")
    running = Running.load(row["total"], row["count"], row["checksum"])
    share = FIELD64.encode(measured_for(task, row["plan"]).noised(running.total, "helper"))
    _end(connection, closing.task, DRAWN, share)


def _given(row: RowMapping) -> bytes:
    """Return the hash by which the witness knows the noised share of a task."""
    closing = Closing(row["id"], row["count"], row["checksum"])
    return sha256(label("noised share") + closing.encode() + row["share"]).digest()


def _end(connection: Connection, task: bytes, stage: str, share: bytes | None) -> None:
    """End a task: what remains is who was in it, what was counted, and the noised share, if any."""
    gone = {"sealing": b"", "verify_key": b"", "total": b""}
    _update(connection, task, {"stage": stage, "share": share, **gone})
    connection.execute(delete(helper_batches).where(helper_batches.c.task == task))
