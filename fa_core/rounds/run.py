"""From a plan to a release: announce, charge, run the round, add the noise, estimate, save.

The order matters. Plan and charge are in the transparency log, under a cosigned checkpoint, before a
device is asked, and each device is shown both. After the charge a run ends as exactly one
release or one failure in the store.
"""

import logging
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from functools import partial

import numpy as np

from fa_core.errors import Refused, RoundFailed, UnheardError
from fa_core.estimate import estimate
from fa_core.flower.transport import Grid
from fa_core.layout import MAX_COHORT, NOISE_TAIL, compile_plan, require_headroom
from fa_core.plan import Plan, SignedPlan, canonical
from fa_core.privacy.distributed import scales_of, shares_of, variance_in_sum
from fa_core.privacy.ledger import Charge
from fa_core.privacy.ledger_rows import encode as encode_row
from fa_core.privacy.mechanisms import central_noise
from fa_core.rollout.budget import set_aside
from fa_core.rounds.keys import Signers
from fa_core.rounds.outcome import refusals_recorded, write_failure, write_release
from fa_core.rounds.round import Aggregation, Clock, Interrupted, Pace, Watch, conduct
from fa_core.secagg import Result, Server, Stage, Task, choose, plain, smallest_cohort
from fa_core.secagg.identity import population_id
from fa_core.secagg.messages import join_request
from fa_core.store import Store
from fa_core.trust import checkpoint
from fa_core.trust.budgets import is_signed
from fa_core.values import Estimates, FloatArray, Int64Array, Layout, Participation, Release
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import MAX_CHECKPOINTS, Invitation, encode

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one plan over one population.

    Attributes:
        plan: checked. signed: its signature and the signer's key.
        population: whose budget is charged.
        until: end of the window, a whole hour, UTC.
        engine: one of `fa_core.values.HERE`, or the name of a federation.
        simulated: whether a seed, an in-process fleet or a synthetic fleet takes part.
        synthetic: whether the voices are synthetic.
        nodes: how many nodes to wait for before the round starts.
        devices: how many devices they stand for: as many, or more where nodes are hubs.
        release: id of the release that is to be, 16 bytes.
    """

    plan: Plan
    signed: SignedPlan
    population: str
    until: datetime
    engine: str
    simulated: bool
    synthetic: bool
    nodes: int
    devices: int
    release: bytes = field(default_factory=lambda: secrets.token_bytes(16))


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run needs from outside: the store, the signers, the clocks and the caller's callbacks.

    `today` gives the time of day, UTC; `clock` measures deadlines.
    """

    store: Store
    signers: Signers
    pace: Pace
    clock: Clock
    today: Callable[[], datetime]
    watch: Watch


Sums = tuple[Int64Array, Int64Array, FloatArray]
"""Noised sums, and each block's scale and noise variance, as `noised` returns them."""

Invite = Callable[[], Invitation]
"""Has plan and charge cosigned, and returns what every device is sent, without a first message."""

Ask = Callable[[Layout, Invite], Release]
"""Has the devices count, once the plan is charged, and returns the noised release."""


def run(job: Job, grid: Grid, context: RunContext) -> tuple[Release, Estimates]:
    """Run a plan over the nodes of a Grid and return what was released and stored.

    Raises:
        Refused: too few devices to ask, or over a budget; nothing was charged.
        RoundFailed: the round ended without a release; the charge stands and the failure is stored.
    """
    with refusing(job, context):
        require_cohort(job.plan, job.devices)
    nodes = invite(_present(job, grid, context), job.plan.eligibility.sample)
    if context.watch.stopped():
        raise Interrupted(Stage.JOIN)

    def ask(layout: Layout, invite: Invite) -> Release:
        task, invitation = in_four_stages(job, invite())
        return _round(job, grid, nodes, layout, task, invitation, context)

    return charged(job, context, ask)


def charged(job: Job, context: RunContext, ask: Ask) -> tuple[Release, Estimates]:
    """Announce a plan and charge it, then ask, and save what comes of it: one release or one failure."""
    release, layout = job.release, compile_plan(job.plan)
    with refusing(job, context):
        budgets = require_budgets(job, context)
        entry = context.store.announce(canonical(job.plan), job.signed.key, job.signed.signature)
        paid = context.store.charge(charge_of(job, layout, release.hex(), context.today()), set_aside)
    invite = partial(invitation_of, job, entry.index, paid.log_index, budgets, context)
    return concluded(job, context, lambda: ask(layout, invite))


def concluded(job: Job, context: RunContext, work: Callable[[], Release]) -> tuple[Release, Estimates]:
    """Save what comes of the work on a charged release: one release or one failure."""
    release = job.release.hex()
    try:
        released = work()
        estimates = estimate(released)
        write_release(context.store, context.clock, released, estimates, synthetic=job.synthetic)
    except BaseException as error:
        failure = write_failure(
            context.store, context.clock, release, job.plan, job.population, error, context.today()
        )
        cosign_end(context)
        if failure is None:
            return released, estimates
        if failure is error or not isinstance(error, UnheardError):
            raise
        raise failure from error
    cosign_end(context)
    return released, estimates


def refusing(job: Job, context: RunContext) -> AbstractContextManager[None]:
    """Return a block in which every refusal of a job is recorded in the store."""
    return refusals_recorded(context.store, job.release.hex(), job.plan, job.population, context.today)


def require_cohort(plan: Plan, devices: int) -> None:
    """Raise Refused where not even the whole sample of so many devices could end in a release.

    Checked before anything is announced or charged: a round that must fail would cost its budget.
    """
    require_four_stages(plan)
    privacy, asked = plan.privacy, require_devices(plan, devices)
    if privacy.secure_aggregation and choose(asked, privacy.dropout, privacy.corrupt) is None:
        enough = smallest_cohort(privacy.dropout, privacy.corrupt, asked)
        raise Refused(
            f"{plan.name} would ask {asked} devices, among whom no secure sum can tolerate `dropout` "
            f"{float(privacy.dropout):g} and `corrupt` {float(privacy.corrupt):g}; "
            + (f"ask {enough}, or lower one of them" if enough else "lower one of them")
        )
    if privacy.noise == "distributed":
        shares_of(compile_plan(plan), asked, privacy.dropout, privacy.corrupt)
    else:
        require_headroom(compile_plan(plan), asked)


def require_four_stages(plan: Plan) -> None:
    """Raise Refused for a plan whose sum two aggregators form: not by a round."""
    if plan.privacy.sum != "four_stages":
        raise Refused(
            f"{plan.name} asks for a sum by two aggregators, which only the engine `local` and federations "
            "form; write `sum: four_stages`, or leave it out"
        )


def require_enough(plan: Plan, devices: int) -> None:
    """Raise Refused where a plan over so many devices could not end in a release, by either kind of sum."""
    if plan.privacy.sum == "two_aggregators":
        require_headroom(compile_plan(plan), require_devices(plan, devices))
    else:
        require_cohort(plan, devices)


def require_devices(plan: Plan, devices: int) -> int:
    """Return how many of so many devices are asked. Raises Refused where they are under the least cohort."""
    asked = math.ceil(plan.eligibility.sample * devices)
    if asked < plan.privacy.min_cohort:
        raise Refused(
            f"{plan.name} would ask {asked} of {devices} devices, and fewer than {plan.privacy.min_cohort} "
            "may not be summed up; ask more devices, or lower `min_cohort` or raise `sample` in the plan"
        )
    return asked


def invite(nodes: Sequence[int], sample: Fraction) -> list[int]:
    """Return a random sample of the nodes, a share of them (rounded up), in ascending order."""
    return sorted(secrets.SystemRandom().sample(sorted(nodes), math.ceil(sample * len(nodes))))


def _present(job: Job, grid: Grid, context: RunContext) -> list[int]:
    """Return the nodes that are there, once the expected number is or the deadline has passed."""
    deadline = context.clock.now() + context.pace.deadline
    while True:
        nodes = list(grid.get_node_ids())
        if len(nodes) >= job.nodes or context.clock.now() >= deadline or context.watch.stopped():
            return nodes
        context.clock.sleep(context.pace.poll)


def require_budgets(job: Job, context: RunContext) -> bytes:
    """Return the population's budgets as the enrolment authority signed them.

    Raises Refused where it signed none: devices and witness accept no others, so the round would fail after
    it was charged.
    """
    declared = context.store.declaration(job.population)
    if declared is None or not is_signed(declared, context.signers.authority):
        raise Refused(
            f"nothing was asked: population {job.population!r} has no budgets in this store that the "
            "enrolment authority signed; `fa enrol population` signs them, `fa ledger declare --signed` "
            "takes them in"
        )
    return encode_row(declared)


def invitation_of(
    job: Job, plan_index: int, charge_index: int, budgets: bytes, context: RunContext
) -> Invitation:
    """Have plan and charge cosigned; return what every device is sent, without a first message."""
    store, signed = context.store, job.signed
    store.checkpoint(context.signers.log_key, context.signers.witness)
    logged, charged = store.prove(plan_index), store.prove(charge_index)
    note = logged.note
    size = checkpoint.parse(note).size
    # More than these no device reads; one that saw no checkpoint since the oldest of them declines.
    earlier = sorted(store.consistency_to(size).items())[-MAX_CHECKPOINTS:]
    return Invitation(
        plan=canonical(job.plan),
        key=signed.key,
        signature=signed.signature,
        release=job.release,
        attempt=0,
        until=job.until,
        index=plan_index,
        inclusion=tuple(logged.proof),
        checkpoint=note,
        charge=charged.entry.entry,
        charge_index=charge_index,
        charge_inclusion=tuple(charged.proof),
        budgets=budgets,
        consistency={old: tuple(proof) for old, proof in earlier},
        request=b"",
    )


def in_four_stages(job: Job, invitation: Invitation) -> tuple[Task, Invitation]:
    """Return the task of a round, and the invitation with its first message."""
    proofs = (invitation.checkpoint, invitation.charge)
    _, task = task_of(job.plan, job.release, 0, job.until, population_id(job.population), proofs)
    return task, replace(invitation, request=join_request(task))


def cosign_end(context: RunContext) -> None:
    """Have the end of the run cosigned; where that fails, the next run's checkpoint covers it."""
    try:
        context.store.checkpoint(context.signers.log_key, context.signers.witness)
    except UnheardError as error:
        logger.warning("the end of this run is in the log, but not yet under a checkpoint: %s", error)


def charge_of(job: Job, layout: Layout, release: str, at: datetime) -> Charge:
    """Return what a job's release (32 hex digits) is charged, at a time (UTC)."""
    return Charge(
        population=job.population,
        family=job.plan.metadata.name,
        release=release,
        plan_hash=layout.plan_hash,
        currency=layout.accounting,
        cost=layout.cost,
        epsilon=layout.epsilon,
        delta=layout.delta,
        alpha=job.plan.privacy.alpha,
        window_start=job.until - job.plan.window,
        window_end=job.until,
        at=at,
    )


def _round(
    job: Job,
    grid: Grid,
    nodes: Sequence[int],
    layout: Layout,
    task: Task,
    invitation: Invitation,
    context: RunContext,
) -> Release:
    """Run the round and return its release, noised."""
    secure = job.plan.privacy.secure_aggregation

    def task_in(attempt: int) -> Task:
        return replace(task, attempt=attempt)

    def invite(attempt: int) -> bytes:
        return encode(replace(invitation, attempt=attempt, request=join_request(task_in(attempt))))

    def begin(attempt: int, numbers: Iterable[int]) -> Aggregation:
        numbers = list(numbers)
        if len(numbers) > MAX_COHORT:
            raise RoundFailed(
                f"{len(numbers):,} devices may join, and sums are laid out for {MAX_COHORT:,}; "
                "ask a sample of them"
            )
        current, authority = task_in(attempt), context.signers.authority
        if secure:
            proof = invitation.charge_proof.encode()
            return Server(current, authority, context.signers.witness, numbers, proof)
        return plain.Server(current, authority, numbers)

    release = task.release.hex()
    result, invited = conduct(grid, nodes, invite, release, begin, context.pace, context.clock, context.watch)
    counted = len(result.counted)
    took_part = Participation(invited, result.joined, result.joined - counted, counted)
    sums = noised(layout, result, task.dropout, task.corrupt)
    return release_of(job, layout, took_part, sums, context.today(), secure=secure)


def release_of(
    job: Job, layout: Layout, took_part: Participation, sums: Sums, created: datetime, *, secure: bool
) -> Release:
    """Return what is released of a job."""
    values, scales, variance = sums
    return Release(
        id=job.release.hex(),
        plan=canonical(job.plan),
        layout=layout,
        population=job.population,
        engine=job.engine,
        simulated=job.simulated,
        created=created,
        window_start=job.until - job.plan.window,
        window_end=job.until,
        participation=took_part,
        sums=values,
        scales=scales,
        noise_variance=variance,
        secure_aggregation=secure,
    )


def noised(layout: Layout, result: Result, dropout: Fraction, corrupt: Fraction) -> Sums:
    """Return what may be released of a sum: int64 sums, each block's scale, each block's noise variance.

    The variance is in unscaled squared cells, as it really is. Raises Refused where the sum of so many
    devices may leave the ring, and RoundFailed where it is larger than the devices that are in it may add.
    Only the noised sum is checked: that a round failed is public, so it must not depend on an exact number.
    """
    counted = len(result.counted)
    if layout.noise == "central":
        require_headroom(layout, result.joined)
        scales = np.ones(len(layout.blocks), np.int64)
        variance = np.array([float(block.variance) for block in layout.blocks])
        sums = central_noise(layout, result.total)
    else:
        shares = shares_of(layout, result.joined, dropout, corrupt)
        scales, variance = scales_of(shares), variance_in_sum(shares, counted)
        sums = result.total
    check_range(layout, sums, counted, scales, variance)
    return sums, scales, variance


def check_range(
    layout: Layout, sums: Int64Array, counted: int, scales: Int64Array, variance: FloatArray
) -> None:
    """Raise RoundFailed unless every cell is one that `counted` devices, each within its bound, can make.

    Args:
        sums: int64 (layout.length,), in units of 1/scale.
        scales, variance: one a block; the variance in unscaled squared cells.
    """
    for block, scale, noise in zip(layout.blocks, scales.tolist(), variance.tolist(), strict=True):
        most = scale * (counted * block.linf + NOISE_TAIL * math.sqrt(noise))
        cells = sums[block.slice]
        if np.any((cells > most) | (cells < -most)):  # abs would leave -2^63 negative
            raise RoundFailed(
                f"the sum of {block.metric} ({block.part}) is more than {counted} devices may add: some "
                "device did not keep its bound; nothing was released"
            )
