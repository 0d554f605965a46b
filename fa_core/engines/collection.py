"""The engine `local` for a plan whose sum two aggregators form: devices upload once, leader and helper add.

Both aggregators are objects of this process, as the witness is, each with its own key and its own database in
the store's folder; or the helper is another process, `fa helper serve`. Whoever may read both databases
before a collection is closed could read reports: in a deployment different organisations run the two.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np

from clients.device.interface import Declined
from clients.uploads import UploadingFleet
from fa_core.collection.exchange import HelperClient, read_address
from fa_core.collection.helper import Helper, Pinned
from fa_core.collection.leader import BATCH, Leader
from fa_core.collection.messages import Aggregator
from fa_core.collection.migrations import LINEAGE
from fa_core.collection.refusal import RefusedReport
from fa_core.collection.task import Offer, SignedTask
from fa_core.database.connection import Database, connect_file
from fa_core.layout import compile_plan, require_headroom
from fa_core.plan import canonical
from fa_core.privacy.two_aggregators import variance_in_release
from fa_core.rounds.keys import LocalKeys, key_in, local_witness
from fa_core.rounds.round import Interrupted
from fa_core.rounds.run import (
    Invite,
    Job,
    RunContext,
    charged,
    check_range,
    invite,
    refusing,
    release_of,
    require_devices,
)
from fa_core.secagg import Stage
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessServer
from fa_core.values import Estimates, Layout, Participation, Release
from fa_core.wire.invitation import encode

WINDOW: Final = timedelta(days=1)
"""How long reports are taken, at most: a fleet directory has answered in minutes, and it closes then."""

HELPER_SECONDS: Final = 60.0
"""For how long a helper that does not answer is asked again; then the round has failed."""


@dataclass(frozen=True, slots=True)
class Aggregators:
    """Leader and helper, and the helper's public key, 32 bytes."""

    leader: Leader
    helper: Aggregator
    helper_key: bytes


@contextmanager
def aggregators_of(
    helper: Path | None, folder: Path, keys: LocalKeys, context: RunContext
) -> Iterator[Aggregators]:
    """Yield the leader within this process, and the helper: within it too, or the one whose file is given.

    Such a helper asks the local witness, at `witness.sock` in `folder`, the one of the local keys.
    """
    with _database(folder / "leader.db") as database:
        key = key_in(folder / "leader.key")
        leader = Leader(database, key, keys.authority.public_key, context.today)
        leader.forget()
        if helper is None:
            with _local_helper(folder / "helper", leader.public_key, keys, context) as own:
                yield Aggregators(leader, own, own.public_key)
        else:
            address = read_address(helper)
            with _served(local_witness(keys, context.today), folder / "witness.sock"):
                client = HelperClient(address, key, HELPER_SECONDS)
                yield Aggregators(leader, client, address.public_key)


@contextmanager
def _local_helper(folder: Path, leader: bytes, keys: LocalKeys, context: RunContext) -> Iterator[Helper]:
    folder.mkdir(mode=0o700, exist_ok=True)
    log, witness = (key.public_key().public_bytes_raw() for key in (keys.log, keys.witness))
    pinned = Pinned(keys.authority.public_key, log, witness, leader)
    with _database(folder / "helper.db") as database:
        key = key_in(folder / "helper.key")
        helper = Helper(database, key, pinned, context.signers.witness, context.today)
        helper.forget()
        yield helper


@contextmanager
def _served(witness: Witness, path: Path) -> Iterator[None]:
    """Have a witness of this process answer at a socket."""
    with WitnessServer(witness, path) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


def collect(
    job: Job, fleet: UploadingFleet, aggregators: Aggregators, context: RunContext
) -> tuple[Release, Estimates]:
    """Run a job over devices that upload once, and return what was released and stored.

    Raises:
        Refused: fewer devices than the plan's least cohort, or over a budget; nothing was charged.
        RoundFailed: no release; the charge stands and the failure is stored.
    """
    with refusing(job, context):
        asked = require_devices(job.plan, job.devices)
        require_headroom(compile_plan(job.plan), asked)
    numbers = invite(range(job.devices), job.plan.eligibility.sample)

    def ask(layout: Layout, invite: Invite) -> Release:
        signed = _open(job, aggregators, context, invite)
        request = _offered(signed, invite, context)
        _upload(fleet, numbers, request, signed, aggregators, context)
        return _close(job, layout, len(numbers), signed, aggregators, context)

    return charged(job, context, ask)


def _open(job: Job, aggregators: Aggregators, context: RunContext, invite: Invite) -> SignedTask:
    """Open the task of a charged release."""
    opens = context.today().replace(microsecond=0)
    proof, window = invite().charge_proof, (opens, opens + WINDOW)
    return aggregators.leader.open(canonical(job.plan), job.release, proof, window, aggregators.helper)


def _offered(signed: SignedTask, invite: Invite, context: RunContext) -> bytes:
    """Put the task in the log; return what every device is asked with, under a checkpoint that covers it."""
    entry = context.store.publish("task", signed.task.release.hex(), signed.entry())
    invitation = invite()
    logged = context.store.prove(entry.index, invitation.checkpoint)
    offer = Offer(signed, entry.index, tuple(logged.proof))
    return encode(replace(invitation, request=offer.encode()))


def _upload(
    fleet: UploadingFleet,
    numbers: Sequence[int],
    request: bytes,
    signed: SignedTask,
    aggregators: Aggregators,
    context: RunContext,
) -> None:
    """Have each device upload its report, and verify as batches are full."""
    leader, task = aggregators.leader, signed.task.id
    for count, number in enumerate(numbers, 1):
        if context.watch.stopped():
            raise Interrupted(Stage.JOIN)
        try:
            leader.take(task, fleet.report(number, request))
        except (Declined, RefusedReport):
            continue
        if count % BATCH == 0:
            leader.verify(task, aggregators.helper)


def _close(
    job: Job,
    layout: Layout,
    invited: int,
    signed: SignedTask,
    aggregators: Aggregators,
    context: RunContext,
) -> Release:
    """Close the collection and return what is released."""
    leader, task = aggregators.leader, signed.task.id
    sums = leader.close(task, aggregators.helper)
    tally = leader.tally(task)
    scales, variance = np.ones(len(layout.blocks), np.int64), variance_in_release(layout)
    check_range(layout, sums, tally.counted, scales, variance)
    took_part = Participation(invited, tally.arrived, tally.arrived - tally.counted, tally.counted)
    return release_of(job, layout, took_part, (sums, scales, variance), context.today(), secure=True)


@contextmanager
def _database(path: Path) -> Iterator[Database]:
    """Yield an aggregator's database in a file, made where it is not there."""
    database = connect_file(path, LINEAGE)
    try:
        database.prepare()
        yield database
    finally:
        database.close()
