"""The engine `local` for a plan whose sum two aggregators form: devices upload once, leader and helper add.

Both aggregators are objects of this process, as the witness is, each with its own key and its own database in
the store's folder; or the helper is another process, `fa helper serve`. Whoever may read both databases
before a collection is closed could read reports: in a deployment different organisations run the two.

A process that is killed leaves a charged release without an end. The next start ends it, with what had
arrived: its devices were that process, and none of them comes again.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from clients.device.interface import Declined
from clients.uploads import UploadingFleet
from fa_core.collection.exchange import HelperClient, read_address
from fa_core.collection.helper import Helper, Pinned
from fa_core.collection.leader import BATCH, Leader
from fa_core.collection.messages import Aggregator
from fa_core.collection.refusal import RefusedReport
from fa_core.collection.task import SignedTask
from fa_core.engines.killed import killed
from fa_core.errors import RoundFailed, UnheardError
from fa_core.plan import canonical
from fa_core.rounds.drain import SHOWN_SECONDS, Collection, closed, database_at, offered
from fa_core.rounds.keys import LocalKeys, key_in, local_witness
from fa_core.rounds.round import Interrupted
from fa_core.rounds.run import (
    Invite,
    Job,
    RunContext,
    charged,
    concluded,
    invite,
    refusing,
    require_enough,
)
from fa_core.rounds.standing import Standing
from fa_core.secagg import Stage
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessServer
from fa_core.values import Estimates, Layout, Release

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

    @property
    def collection(self) -> Collection:
        """How they collect here."""
        return Collection(self.leader, self.helper, WINDOW)


@contextmanager
def aggregators_of(
    helper: Path | None, folder: Path, keys: LocalKeys, context: RunContext
) -> Iterator[Aggregators]:
    """Yield the leader within this process, and the helper: within it too, or the one whose file is given.

    Such a helper asks the local witness, at `witness.sock` in `folder`, the one of the local keys.
    """
    with database_at(str(folder / "leader.db")) as database:
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
    with database_at(str(folder / "helper.db")) as database:
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
        require_enough(job.plan, job.devices)
    numbers = invite(range(job.devices), job.plan.eligibility.sample)

    def ask(layout: Layout, invite: Invite) -> Release:
        signed = _open(job, aggregators, context, invite)
        request = offered(signed, invite, context)
        _upload(fleet, numbers, request, signed, aggregators, context)
        _show(signed, len(numbers), aggregators, context, closing=True)
        return closed(job, aggregators.collection, signed, len(numbers), context)

    return charged(job, context, ask)


def end_killed(
    folder: Path, aggregators: Aggregators, context: RunContext, warn: Callable[[str], None]
) -> None:
    """End every charged release of a process that was killed: released with what arrived, or failed."""
    leader = aggregators.leader

    def work(job: Job) -> Release:
        signed = leader.opened(job.release)
        if signed is None:
            raise RoundFailed("the process was killed before the collection was open; nothing was released")
        return closed(job, aggregators.collection, signed, job.devices, context)

    for job in killed(folder, context.store):
        start = f"release {job.release.hex()} of {job.plan.name}, whose process was killed,"
        try:
            release, _ = concluded(job, context, partial(work, job))
            warn(
                f"{start} is released now with the {release.participation.counted} devices that had reported"
            )
        except UnheardError as error:
            warn(f"{start} has failed, and its charge stands: {error}")


def _open(job: Job, aggregators: Aggregators, context: RunContext, invite: Invite) -> SignedTask:
    """Open the task of a charged release."""
    opens = context.today().replace(microsecond=0)
    proof, window = invite().charge_proof, (opens, opens + WINDOW)
    return aggregators.leader.open(canonical(job.plan), job.release, proof, window, aggregators.helper)


def _upload(
    fleet: UploadingFleet,
    numbers: Sequence[int],
    request: bytes,
    signed: SignedTask,
    aggregators: Aggregators,
    context: RunContext,
) -> None:
    """Have each device upload its report, and verify as batches are full."""
    leader, task, shown = aggregators.leader, signed.task.id, -math.inf
    for count, number in enumerate(numbers, 1):
        if context.watch.stopped():
            raise Interrupted(Stage.JOIN)
        try:
            leader.take(task, fleet.report(number, request))
        except (Declined, RefusedReport):
            continue
        if count % BATCH == 0:
            leader.verify(task, aggregators.helper)
        if context.clock.now() - shown >= SHOWN_SECONDS:
            _show(signed, len(numbers), aggregators, context)
            shown = context.clock.now()


def _show(
    signed: SignedTask, enough: int, aggregators: Aggregators, context: RunContext, *, closing: bool = False
) -> None:
    """Report how far a collection is."""
    tally = aggregators.leader.tally(signed.task.id)
    refused = {code.value: count for code, count in tally.refused.items()}
    closes = signed.task.closes
    context.watch.collected(Standing(not closing, tally.arrived, tally.counted, closes, enough, refused))
