"""The clip of a training plan, from a release of norm histograms. Pure."""

from dataclasses import dataclass

import numpy as np

from fa_core.errors import BadInput, Refused
from fa_core.metrics.features import BINS, bin_edges
from fa_core.plan import TrainPlan, from_canonical
from fa_core.values import Release


@dataclass(frozen=True, slots=True)
class Proposal:
    """A clip, and what it rests on.

    Attributes:
        clip: proposed, in the features' own unit.
        quantile: share of the devices that are asked to lie within it.
        devices: noisy number of devices with a moment, and the noise on a bin of it.
    """

    clip: float
    quantile: float
    devices: float
    noise_sd: float


def proposal(release: Release, quantile: float) -> Proposal:
    """Return the clip within which a share of the devices lie, by their noisy counts.

    Counts are summed from the shortest length up, and the clip is where they reach the share, between the
    edges of that bin in proportion (of logarithms). Raises BadInput for another kind of release, Refused
    where noise leaves too few devices to say.
    """
    plan = from_canonical(release.plan)
    if not isinstance(plan, TrainPlan) or plan.method != "norm_histogram":
        raise BadInput(f"release {release.id} is of {plan.name}, which counts no norms of training")
    if not 0 < quantile < 1:
        raise BadInput(f"the quantile {quantile:g} is not between 0 and 1; .8 to .95 is usual")
    counts = release.sums.astype(np.float64) / float(release.scales[0])
    noise_sd = float(release.noise_variance[0]) ** 0.5
    total = float(counts.sum())
    if total < plan.privacy.min_cohort or total < 5 * noise_sd * BINS**0.5:
        raise Refused(
            f"about {total:.0f} devices have a moment, ± {2 * noise_sd * BINS**0.5:.0f} of noise: too few to "
            "choose a clip by; ask more devices, or raise epsilon"
        )
    reached = np.maximum.accumulate(np.cumsum(counts)) / total
    at = int(np.searchsorted(reached, quantile))
    edges = np.concatenate(([bin_edges()[0] / 2**0.5], bin_edges(), [bin_edges()[-1] * 2**0.5]))
    below = float(reached[at - 1]) if at else 0.0
    part = (quantile - below) / max(float(reached[min(at, BINS - 1)]) - below, 1e-9)
    clip = float(edges[min(at, BINS - 1)] * 2.0 ** (min(part, 1.0) / 2.0))
    return Proposal(float(f"{clip:.3g}"), quantile, total, noise_sd)
