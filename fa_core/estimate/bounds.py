"""Choosing `max_excess`: the smallest bound whose bias stays small, from an earlier release.

A release of a plan that clips holds, noised, the mass X that its bound B took away in each group. What
another bound would take away is bounded by it, whatever devices hold: as a function of the bound the mass is
convex and is 0 at the bound N that clips nothing, so a larger bound B' takes at most X·(N − B')/(N − B); each
device that counts loses at most b·(B − B') more under a smaller one. Both need every clipped device to lie on
one side of the centre; where they may lie on both, losses could hide each other and nothing is proposed.

The release's charge covers the counter: a proposal is made of published numbers, and costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fa_core.estimate.read import LEVEL
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import PartSum
from fa_core.metrics.centred import Centred
from fa_core.metrics.intervals import normal_quantile, simultaneous_level
from fa_core.plan import Plan
from fa_core.values import FloatArray

CLIPPED: Final = "clipped"


@dataclass(frozen=True, slots=True)
class Proposal:
    """The smallest `max_excess` that keeps every group's bias under a width, as far as a release shows.

    Attributes:
        bound: in events; `now` is the plan's.
        bias: upper bound on the bias of the worst group at `bound`, in the metric's own share.
        untold: groups that have too few events to say anything; the proposal does not cover them.
    """

    metric: str
    grouping: tuple[str, ...]
    now: int
    bound: int
    bias: float
    untold: int


def proposals(
    plan: Plan, sums: Mapping[tuple[str, tuple[str, ...], str], PartSum], width: float
) -> tuple[Proposal, ...]:
    """Return a proposal for each metric and grouping with a clipped counter; the largest serves them all.

    Args:
        plan: of the earlier release; `sums` its noisy sums.
        width: largest bias that the author accepts, above 0.
    """
    found = []
    for name, metric in plan.metrics.items():
        for grouping in groupings(metric, plan):
            if (name, grouping, CLIPPED) not in sums or not isinstance(metric, Centred):
                continue
            if _one_side(plan, metric, grouping):
                parts = {part: sums[name, grouping, part] for part in (CLIPPED, "size", "devices")}
                proposal = _proposal(plan, metric, name, grouping, parts, width)
                found += [] if proposal is None else [proposal]
    return tuple(found)


def _one_side(plan: Plan, metric: Centred, grouping: tuple[str, ...]) -> bool:
    """Whether only devices above the centre can be clipped, each in one group."""
    bounds = bounds_of(plan)
    return shape_of(plan, grouping).touch == 1 and metric.limits(bounds).below <= metric.excess_bound(bounds)


def _proposal(
    plan: Plan,
    metric: Centred,
    name: str,
    grouping: tuple[str, ...],
    parts: Mapping[str, PartSum],
    width: float,
) -> Proposal | None:
    """Return the smallest bound for one grouping, None where no group can be distinguished from noise."""
    b, bounds = metric.centre()[1], bounds_of(plan)
    now = metric.excess_bound(bounds) // b
    most = -(-metric.limits(bounds).excess // b)
    groups = shape_of(plan, grouping).cells
    z = normal_quantile(simultaneous_level(LEVEL, 3 * groups))
    high = {part: noisy.values + z * noisy.variance**0.5 for part, noisy in parts.items()}
    least = parts["size"].values - z * parts["size"].variance ** 0.5
    seen = least > 0
    if not seen.any():
        return None
    clipped = np.maximum(high[CLIPPED], 0.0)

    def bias(bound: int) -> float:
        lost = _lost(clipped, high["devices"], now, bound, most, b)
        return float((lost[seen] / least[seen]).max()) / b

    # The bias falls as the bound grows, to 0 at `most`.
    low, up = 0, most
    while up - low > 1:
        middle = (low + up) // 2
        low, up = (low, middle) if bias(middle) <= width else (middle, up)
    return Proposal(name, grouping, now, up, bias(up), int((~seen).sum()))


def _lost(clipped: FloatArray, devices: FloatArray, now: int, bound: int, most: int, b: int) -> FloatArray:
    """Return an upper bound on what `bound` takes off each group's numerator, from what `now` took."""
    if bound >= most:
        return np.zeros_like(clipped)
    if bound >= now:
        less: FloatArray = clipped * ((most - bound) / (most - now))
        return less
    more: FloatArray = clipped + np.maximum(devices, 0.0) * (b * (now - bound))
    return more
