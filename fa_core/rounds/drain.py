"""A sum by two aggregators in a federation: each run of the ServerApp is one short drain.

A drain opens the collection where it is not open (charge, task, entry of the log), asks every node that is
online for reports, has them verified by the helper, and closes the collection where its window is over or
enough are counted. What is between two drains is in the leader's database and in the store; each step is
done once and found done afterwards, so a drain that is killed anywhere is gone on with by the next.

A helper, a witness or a database that does not answer ends a drain, never the collection.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.collection.exchange import HelperAway
from fa_core.collection.leader import BATCH, Leader
from fa_core.collection.messages import Aggregator
from fa_core.collection.migrations import LINEAGE
from fa_core.collection.refusal import RefusedReport
from fa_core.collection.report import WITHDRAWAL_SIZE
from fa_core.collection.task import KEPT, Offer, SignedTask
from fa_core.database.connection import Database, Unavailable, connect_file, connect_server
from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError
from fa_core.estimate import estimate
from fa_core.flower.transport import Grid
from fa_core.layout import compile_plan
from fa_core.plan import canonical
from fa_core.privacy.ledger import Charge
from fa_core.privacy.two_aggregators import variance_in_release
from fa_core.rollout.budget import set_aside
from fa_core.rounds.inquiry import Inquiry
from fa_core.rounds.outcome import write_failure, write_release
from fa_core.rounds.run import (
    Invite,
    Job,
    RunContext,
    charge_of,
    check_range,
    cosign_end,
    invitation_of,
    refusing,
    release_of,
    require_budgets,
    require_devices,
    require_enough,
)
from fa_core.rounds.standing import Standing
from fa_core.store import Store
from fa_core.trust.charges import read_row
from fa_core.trust.witness_service import WitnessAway
from fa_core.values import Estimates, Participation, Release
from fa_core.wire.invitation import encode

AWAY: Final = (HelperAway, WitnessAway, Unavailable)
"""Errors after which the same may work in a moment."""

LONGEST_SECONDS: Final = 1800.0
"""After so long a drain ends, and the next asks every node again: one without an end delays no other."""

SHOWN_SECONDS: Final = 5.0
"""Between two reports of how far a collection is."""

_SCALE: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Collection:
    """How a sum by two aggregators is collected.

    Attributes:
        window: for how long reports are taken, from the charge on.
        enough: so many counted end it before; 0: only the window's end does.
    """

    leader: Leader
    helper: Aggregator
    window: timedelta
    enough: int = 0


@dataclass(frozen=True, slots=True)
class _Paid:
    """The charge of a release, and where the log has it and the plan."""

    charge: Charge
    index: int
    plan_index: int


def drain(
    job: Job, grid: Grid, collection: Collection, context: RunContext
) -> tuple[Release, Estimates] | Standing:
    """Go on with a release, or begin it; return what was released and stored, or how far it is.

    Raises:
        Refused: too few devices to ask, or over a budget, and nothing was charged; or the release was charged
            for something else.
        RoundFailed: the release has ended without sums; its charge stands and the failure is stored.
    """
    found = ended(context.store, job.release)
    if found is not None:
        return found
    paid = _pay(job, context)
    job = replace(job, until=paid.charge.window_end)
    draining = _Drain(job, collection, paid, context)
    try:
        return draining.run(grid)
    except AWAY as away:
        if not draining.late:
            return draining.left_open(str(away))
        error: BaseException = RoundFailed(f"{away}, and the window is over for {KEPT.days} days")
    except UnheardError as ends:
        error = ends
    except Exception as defect:
        if not draining.late:
            raise
        error = defect
    store, hexed = context.store, job.release.hex()
    failure = write_failure(store, context.clock, hexed, job.plan, job.population, error, context.today())
    cosign_end(context)
    found = None if failure else ended(store, job.release)
    if found is None:
        raise failure or RoundFailed(str(error)) from error
    return found


def ended(store: Store, release: bytes) -> tuple[Release, Estimates] | None:
    """Return a release that has ended, None where it has not. Raises RoundFailed where it has failed."""
    hexed = release.hex()
    failed = [each.reason for each in store.failures(limit=1000) if each.release == hexed]
    if failed:
        raise RoundFailed(failed[0])
    try:
        return store.read(store.find(hexed))
    except BadInput:
        return None


def _pay(job: Job, context: RunContext) -> _Paid:
    """Announce the plan and charge the release; one that was charged before is found."""
    store, layout = context.store, compile_plan(job.plan)
    if (found := _charged(store, job.release)) is None:
        with refusing(job, context):
            require_enough(job.plan, job.devices)
            require_budgets(job, context)
            store.announce(canonical(job.plan), job.signed.key, job.signed.signature)
            store.charge(charge_of(job, layout, job.release.hex(), context.today()), set_aside)
        found = _charged(store, job.release)
        assert found is not None
    charge, index = found
    if (charge.plan_hash, charge.population) != (layout.plan_hash, job.population):
        raise Refused(f"release {charge.release} was charged for another plan or population")
    entry = store.announce(canonical(job.plan), job.signed.key, job.signed.signature)
    return _Paid(charge, index, entry.index)


def _charged(store: Store, release: bytes) -> tuple[Charge, int] | None:
    """Return the charge of a release and its place in the log."""
    for entry in store.published("ledger", release.hex()):
        return read_row(entry.entry), entry.index
    return None


class _Drain:
    """One drain of a charged release."""

    def __init__(self, job: Job, collection: Collection, paid: _Paid, context: RunContext) -> None:
        opens = paid.charge.at.replace(microsecond=0)
        self._job = job
        self._collection = collection
        self._paid = paid
        self._context = context
        self._window = opens, opens + collection.window
        self._refused: Counter[str] = Counter()
        self._problem = ""
        self._helper_away = False
        self._standing = Standing(True, 0, 0, self._window[1], collection.enough)
        self._shown = -math.inf

    @property
    def late(self) -> bool:
        """Whether the helper has forgotten the keys by now, so that waiting on is of no use."""
        return self._context.today() >= self._standing.closes + KEPT

    def run(self, grid: Grid) -> tuple[Release, Estimates] | Standing:
        """Drain once. Raises what `drain` turns into the end of the release, or of this drain alone."""
        job, context, leader = self._job, self._context, self._collection.leader
        budgets = require_budgets(job, context)
        invite = partial(invitation_of, job, self._paid.plan_index, self._paid.index, budgets, context)
        signed = self._open(invite)
        task = signed.task
        self._standing = replace(self._standing, closes=task.closes)
        if not self._full(signed):
            self._show(signed)
            self._ask(grid, signed, invite)
        self._verify(signed)
        over = context.today() >= task.closes and (not self._problem or self.late)
        if not over and not self._full(signed):
            return self._show(signed)
        leader.stop(task.id)
        self._show(signed)
        released = closed(job, self._collection, signed, self._invited(signed), context)
        estimates = estimate(released)
        write_release(context.store, context.clock, released, estimates, synthetic=job.synthetic)
        cosign_end(context)
        return released, estimates

    def left_open(self, problem: str) -> Standing:
        """Report that the collection goes on at the next drain, and why not now."""
        self._standing = replace(self._standing, problem=problem)
        self._context.watch.collected(self._standing)
        return self._standing

    def _open(self, invite: Invite) -> SignedTask:
        """Return the task, which the helper makes at the first call."""
        leader, job = self._collection.leader, self._job
        found = leader.opened(job.release)
        if found is not None:
            return found
        if self._context.today() >= self._window[1]:
            raise RoundFailed(
                "the window was over before the helper had opened the collection; nothing was released"
            )
        proof = invite().charge_proof
        return leader.open(canonical(job.plan), job.release, proof, self._window, self._collection.helper)

    def _full(self, signed: SignedTask) -> bool:
        """Whether no more reports are to be taken, whatever the time is.

        Once the window is over every node is asked a last time, as soon as that works: what waits at a
        gateway came within it.
        """
        leader, enough = self._collection.leader, self._collection.enough
        return not leader.taking(signed.task.id) or 0 < enough <= leader.tally(signed.task.id).counted

    def _ask(self, grid: Grid, signed: SignedTask, invite: Invite) -> None:
        """Take what the nodes have, and verify it as batches are full."""
        context = self._context
        try:
            request = offered(signed, invite, context)
        except UnheardError as error:  # a witness that is away now, or a log that it does not cosign
            self._problem = str(error)
            return
        job, clock = self._job, context.clock
        inquiry = Inquiry(grid, job.release.hex(), request, context.pace, clock)
        inquiry.begin(partial(_sampled, job.release, sample=float(job.plan.eligibility.sample)))
        end, waiting = clock.now() + LONGEST_SECONDS, 0
        while inquiry.waiting and clock.now() < end and not context.watch.stopped():
            parts = inquiry.next()
            self._take(signed.task.id, parts)
            inquiry.acknowledge()
            waiting += len(parts)
            if waiting >= BATCH:
                self._verify(signed)
                waiting = 0
            if self._full_shown(signed):
                break
        self._problem = self._problem or inquiry.problem

    def _take(self, task: bytes, parts: Sequence[bytes]) -> None:
        """Take reports, then withdrawals; what is refused is counted, and nothing else."""
        leader = self._collection.leader
        reports = [part for part in parts if len(part) != WITHDRAWAL_SIZE]
        for refusal in leader.take_all(task, reports) if reports else ():
            if refusal is not None:
                self._refused[refusal.value] += 1
        for part in parts:
            if len(part) == WITHDRAWAL_SIZE:
                try:
                    leader.withdraw(task, part)
                except RefusedReport as refused:
                    self._refused[refused.refusal.value] += 1

    def _verify(self, signed: SignedTask) -> None:
        """Have what waits verified. A helper that is away now is so until the drain ends."""
        leader, helper = self._collection.leader, self._collection.helper
        if self._helper_away:
            return
        try:
            while leader.verify(signed.task.id, helper):
                pass
        except HelperAway as away:
            self._helper_away, self._problem = True, str(away)

    def _full_shown(self, signed: SignedTask) -> bool:
        """Show how far it is, now and then; whether it is full by then."""
        now = self._context.clock.now()
        if now - self._shown < SHOWN_SECONDS:
            return False
        self._shown = now
        self._show(signed)
        return self._full(signed)

    def _show(self, signed: SignedTask) -> Standing:
        """Report how far it is, and return it."""
        leader, task = self._collection.leader, signed.task
        tally = leader.tally(task.id)
        refused = Counter({code.value: count for code, count in tally.refused.items()}) + self._refused
        self._standing = replace(
            self._standing,
            open=leader.taking(task.id),
            arrived=tally.arrived,
            counted=tally.counted,
            refused=dict(refused),
            problem=self._problem,
        )
        self._context.watch.collected(self._standing)
        return self._standing

    def _invited(self, signed: SignedTask) -> int:
        """Return how many devices could have reported: as many as the federation says, or as arrived."""
        arrived = self._collection.leader.tally(signed.task.id).arrived
        return max(require_devices(self._job.plan, self._job.devices), arrived)


def _sampled(release: bytes, node: int, sample: float) -> bool:
    """Whether a node is in the sample: the same at each drain of a release, whose id is random."""
    drawn = int.from_bytes(sha256(b"unheard/sample/1" + release + str(node).encode()).digest()[:8], "big")
    return drawn < sample * _SCALE


def offered(signed: SignedTask, invite: Invite, context: RunContext) -> bytes:
    """Put the task in the log; return what every device is asked with, under a checkpoint that covers it."""
    entry = context.store.publish("task", signed.task.release.hex(), signed.entry())
    invitation = invite()
    logged = context.store.prove(entry.index, invitation.checkpoint)
    offer = Offer(signed, entry.index, tuple(logged.proof))
    return encode(replace(invitation, request=offer.encode()))


def closed(
    job: Job, collection: Collection, signed: SignedTask, invited: int, context: RunContext
) -> Release:
    """Close a collection and return what is released of it, the same at each call but for the moment.

    Raises HelperAway where it is to be asked again; Refused or RoundFailed where nothing will be released.
    """
    leader, task, layout = collection.leader, signed.task.id, compile_plan(job.plan)
    sums = leader.close(task, collection.helper)
    tally = leader.tally(task)
    scales, variance = np.ones(len(layout.blocks), np.int64), variance_in_release(layout)
    check_range(layout, sums, tally.counted, scales, variance)
    took_part = Participation(invited, tally.arrived, tally.arrived - tally.counted, tally.counted)
    return release_of(job, layout, took_part, (sums, scales, variance), context.today(), secure=True)


@contextmanager
def leading(
    where: str,
    key: Ed25519PrivateKey,
    authority: bytes,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Leader]:
    """Yield the leader over its database, made where it is not there: a file, or postgresql://….

    It forgets what nobody closed in time before it is used.
    """
    with database_at(where) as database:
        leader = Leader(database, key, authority, clock)
        leader.forget()
        yield leader


@contextmanager
def database_at(where: str) -> Iterator[Database]:
    """Yield an aggregator's database, its tables made where they are not there."""
    if "://" in where:
        database = connect_server(where, LINEAGE)
    else:
        Path(where).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = connect_file(Path(where), LINEAGE)
    try:
        database.prepare()
        yield database
    finally:
        database.close()
