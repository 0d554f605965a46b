"""Release to Look: what the gate is decided on, by the same reading of joint counters that gives estimates.

The plan of a gate has the metric `miss_difference`, a `paired_difference` for everyone and by one segment of
device facts, and where unlabelled moments can be counted `unlabelled`, a `count` of the same groupings. The
plan of a live stage has ratios by a segment whose labels are the two versions. Whatever a release does not
show is not measured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fa_core.errors import BadInput
from fa_core.estimate.read import LEVEL, groups, part_sums
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import PartSum, Reading, Shape
from fa_core.metrics.count import Count
from fa_core.metrics.intervals import estimated_variance_quantile, normal_quantile
from fa_core.metrics.joint_ratio import JointRatio
from fa_core.metrics.kind import BoolArray, FloatArray
from fa_core.metrics.moments import N, R, Ratio
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.plan import Plan
from fa_core.rollout.gate import Cell, LiveCell, Look
from fa_core.values import Release

DIFFERENCE: Final = "miss_difference"
UNLABELLED: Final = "unlabelled"
"""The names of the metrics of a gate's plan."""

Cuts = list[tuple[Shape, Mapping[str, PartSum]]]


def look_of(release: Release, plan: Plan) -> Look:
    """Return what a release of a gate's plan says of everyone and of each group.

    Raises BadInput where the release is of another plan, or the plan is not a gate's.
    """
    _require_plan(release, plan)
    metric = plan.metrics.get(DIFFERENCE)
    if not isinstance(metric, PairedDifference) or plan.privacy.counters != "joint":
        raise BadInput(
            f"the plan of a gate has a metric `{DIFFERENCE}` of kind paired_difference, in a population "
            "with zCDP accounting"
        )
    by = segment_of(plan)
    cuts, bounds = _cuts(release, plan, DIFFERENCE), bounds_of(plan)
    reading = Reading(LEVEL, plan.privacy.min_cohort, release.participation.counted)
    moments, results = metric.moments(cuts, bounds), metric.estimates(cuts, bounds, reading)
    found: dict[tuple[str, ...], list[Cell | None]] = {}
    for place, grouping in enumerate(groupings(metric, plan)):
        unlabelled = _unlabelled(release, plan, grouping)
        shown = ~results[place].numbers.suppressed
        found[grouping] = cells_of(metric.ratio(moments[place], bounds), shown, unlabelled)
    labels = [group[0][1] for group in groups(plan, (by,))]
    return Look(found[()][0], dict(zip(labels, found[by,], strict=True)))


def segment_of(plan: Plan) -> str:
    """Return the segment by which a gate's plan compares.

    Raises BadInput where its groupings are not everyone and one segment of device facts, in both metrics.
    """
    wanted = "the plan of a gate reports everyone and one segment of device facts: `group_by: [[], [accent]]`"
    for name in (DIFFERENCE, UNLABELLED):
        if name in plan.metrics:
            cut = sorted(groupings(plan.metrics[name], plan), key=len)
            if [len(each) for each in cut] != [0, 1] or plan.segments[cut[1][0]].level != "device":
                raise BadInput(f"{wanted}; found {[list(each) for each in cut]} in `{name}`")
    return sorted(groupings(plan.metrics[DIFFERENCE], plan), key=len)[1][0]


@dataclass(frozen=True, slots=True, eq=False)
class Unlabelled:
    """The noised count of unlabelled moments by group, its sampling variance, both (K,), and its noise's."""

    count: FloatArray
    sampling: FloatArray
    noise: float


def cells_of(ratio: Ratio, shown: BoolArray, unlabelled: Unlabelled | None) -> list[Cell | None]:
    """Return the cell of each group, None where it is not shown.

    Args:
        ratio: of the differences to the moments, (K,).
        shown: (K,), whether an estimate may be shown of the group.
        unlabelled: None where the plan does not count them.
    """
    covariance = np.broadcast_to(ratio.moments.covariance, (len(ratio.n), 6, 6))
    with np.errstate(invalid="ignore", divide="ignore"):
        sampling, sampling_sd = ratio.sampling()
    return [
        Cell(
            difference=float(ratio.moments.values[k, R]),
            moments=float(ratio.n[k]),
            unlabelled=0.0 if unlabelled is None else float(unlabelled.count[k]),
            variance=float(sampling[k]),
            noise_difference=float(covariance[k, R, R]),
            noise_moments=float(covariance[k, N, N]),
            noise_unlabelled=0.0 if unlabelled is None else unlabelled.noise,
            variance_sd=float(sampling_sd[k]),
            variance_unlabelled=0.0 if unlabelled is None else float(unlabelled.sampling[k]),
        )
        if shown[k]
        else None
        for k in range(len(ratio.n))
    ]


def _unlabelled(release: Release, plan: Plan, grouping: tuple[str, ...]) -> Unlabelled | None:
    """Return the unlabelled moments of a grouping, None where the plan does not count them."""
    metric = plan.metrics.get(UNLABELLED)
    if metric is None:
        return None
    if not isinstance(metric, Count):
        raise BadInput(f"the metric `{UNLABELLED}` of a gate's plan is of kind count, not {metric.kind}")
    place = groupings(metric, plan).index(grouping)
    sums = _cuts(release, plan, UNLABELLED)[place][1]
    sampling = metric.sampling(sums, bounds_of(plan), release.participation.counted).value
    # A device has at most N of them, so the sum of its squares is at most N times the sum.
    most = plan.privacy.max_events * np.maximum(sums["events"].values, 1.0)
    return Unlabelled(sums["events"].values, np.minimum(sampling, most), sums["events"].variance)


@dataclass(frozen=True, slots=True)
class Rate:
    """A measure among the devices where one version acts, and its variance: noise and sampling, widened for
    what noise leaves open of the latter."""

    rate: float
    variance: float


def rates_of(release: Release, plan: Plan, version: str) -> dict[str, Rate | None]:
    """Return every measure of a live stage's release where a version acts; None where it is not shown.

    Raises BadInput where the release is of another plan, or no metric is by a segment with that label.
    """
    _require_plan(release, plan)
    bounds = bounds_of(plan)
    reading = Reading(LEVEL, plan.privacy.min_cohort, release.participation.counted)
    found: dict[str, Rate | None] = {}
    for name, place, index in _acting(plan, version):
        metric = plan.metrics[name]
        assert isinstance(metric, JointRatio)
        cuts = _cuts(release, plan, name)
        numbers = metric.estimates(cuts, bounds, reading)[place].numbers
        if numbers.suppressed[index]:
            found[name] = None
            continue
        ratio = metric.ratio(metric.moments(cuts, bounds)[place], bounds)
        found[name] = Rate(float(numbers.estimate[index]), _variance(ratio, index) * metric.display()[1] ** 2)
    if not found:
        raise BadInput(f"the plan of a live stage has a rate by a segment with the label {version!r}")
    return found


def live_cells(
    candidate: Mapping[str, Rate | None], baseline: Mapping[str, Rate | None]
) -> dict[str, LiveCell | None]:
    """Return how much higher each measure is where the candidate acts.

    In the stage where it acts everywhere, the baseline's are of the stage before.
    """
    return {name: _live_cell(rate, baseline.get(name)) for name, rate in candidate.items()}


def _live_cell(candidate: Rate | None, baseline: Rate | None) -> LiveCell | None:
    if candidate is None or baseline is None:
        return None
    return LiveCell(candidate.rate - baseline.rate, candidate.variance + baseline.variance)


def _acting(plan: Plan, version: str) -> Iterator[tuple[str, int, int]]:
    """Yield each metric with joint counters that has a group of a version alone: its name, the grouping's
    place among its groupings, and the group's there."""
    for name, metric in plan.metrics.items():
        if not isinstance(metric, JointRatio) or isinstance(metric, PairedDifference):
            continue
        for place, grouping in enumerate(groupings(metric, plan)):
            if len(grouping) == 1 and version in plan.segments[grouping[0]].labels:
                yield name, place, plan.segments[grouping[0]].labels.index(version)


def _variance(ratio: Ratio, index: int) -> float:
    """Return the variance of one group's ratio, noise and sampling, as its 95% interval has it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        sampling, left = ratio.sampling()
        noise = ratio.noise_sd() ** 2
    n = ratio.n[index]
    total = float(sampling[index] / n**2 + noise[index])
    z = normal_quantile(LEVEL)
    wide = estimated_variance_quantile(np.asarray(z), np.asarray(left[index] / n**2 / total))
    return total * float(wide / z) ** 2


def _cuts(release: Release, plan: Plan, name: str) -> Cuts:
    """Return the sums of a metric by grouping."""
    sums = part_sums(release, release.sums.astype(np.float64))
    metric, bounds = plan.metrics[name], bounds_of(plan)
    found: Cuts = []
    for grouping in groupings(metric, plan):
        shape = shape_of(plan, grouping)
        found.append(
            (shape, {part.name: sums[name, grouping, part.name] for part in metric.parts(shape, bounds)})
        )
    return found


def _require_plan(release: Release, plan: Plan) -> None:
    """Raise BadInput where a release is of another plan."""
    if release.layout.plan_hash != plan.hash:
        raise BadInput(f"release {release.id} is of another plan than {plan.hash[:12]}…")
