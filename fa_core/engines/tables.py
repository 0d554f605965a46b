"""The engine `tables`: a fleet directory is counted whole, by the path that counts for one device.

No device is asked and no message sent, so a million devices take minutes. Everything else is as in a round:
the plan is announced, charged and cosigned before anything is counted, the noise is as large as the plan
says, and the end is one release in the store, marked as a simulation, or one failure. Its clock may be set.
"""

import numpy as np

from clients.evaluate import Cohort, Randomness, fleet_sum
from fa_core.privacy.distributed import scales_of, shares_outside_a_ring, simulated_noise, variance_in_sum
from fa_core.privacy.mechanisms import central_noise
from fa_core.rounds.run import (
    Invite,
    Job,
    RunContext,
    Sums,
    charged,
    check_range,
    invite,
    refusing,
    release_of,
    require_devices,
    require_four_stages,
)
from fa_core.values import Estimates, Layout, Participation, Release


def count(job: Job, cohort: Cohort, context: RunContext, randomness: Randomness) -> tuple[Release, Estimates]:
    """Run a job over a cohort without a protocol, and return what was released and stored.

    Raises:
        Refused: fewer devices than the plan's least cohort, or over a budget; nothing was charged.
        RoundFailed: no release; the charge stands and the failure is stored.
    """
    with refusing(job, context):
        require_four_stages(job.plan)
        asked = require_devices(job.plan, len(cohort))
    devices = cohort
    if asked < len(cohort):
        devices = cohort.choose(np.array(invite(range(len(cohort)), job.plan.eligibility.sample), np.int64))

    def ask(layout: Layout, invite: Invite) -> Release:
        invite()
        sums = _noised(job, layout, devices, randomness)
        check_range(layout, sums[0], asked, sums[1], sums[2])
        took_part = Participation(asked, asked, 0, asked)
        return release_of(job, layout, took_part, sums, context.today(), secure=False)

    return charged(job, context, ask)


def _noised(job: Job, layout: Layout, devices: Cohort, randomness: Randomness) -> Sums:
    """Return the noised sums, and each block's scale and noise variance in unscaled squared cells."""
    privacy, counted = job.plan.privacy, len(devices)
    total = fleet_sum(job.plan, layout, devices, job.until, randomness)
    if layout.noise == "central":
        variance = np.array([float(block.variance) for block in layout.blocks])
        return central_noise(layout, total), np.ones(len(layout.blocks), np.int64), variance
    shares = shares_outside_a_ring(layout, counted, privacy.dropout, privacy.corrupt)
    noised = simulated_noise(layout, total, shares, counted)
    return noised, scales_of(shares), variance_in_sum(shares, counted)
