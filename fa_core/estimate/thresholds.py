"""Reading thresholds off DET curves: which one keeps a group under a limit, and which one costs least.

Pure, and from what a release shows alone. Bands hold for all thresholds, both axes and all groups of a
grouping together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fa_core.values import Cell, Estimate

REJECTS: Final = "false_reject_rate"
ACCEPTS: Final = "false_accepts_per_hour"


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of one group's curve: what is missed (a share) and what fires falsely (per hour)."""

    threshold: float
    rejects: Cell
    accepts: Cell


def curve(result: Estimate) -> tuple[Point, ...]:
    """Return the points of a DET estimate by ascending threshold. Raises ValueError for another kind."""
    if result.kind != "det":
        raise ValueError(f"{result.metric} is a {result.kind}, not a DET curve")
    sides: dict[str, dict[str, Cell]] = {REJECTS: {}, ACCEPTS: {}}
    for cell in result.cells:
        labels = dict(cell.labels)
        sides[labels["axis"]][labels["threshold"]] = cell
    points = (
        Point(float(threshold), rejects, sides[ACCEPTS][threshold])
        for threshold, rejects in sides[REJECTS].items()
    )
    return tuple(sorted(points, key=lambda point: point.threshold))


@dataclass(frozen=True, slots=True)
class Keeping:
    """The highest thresholds that keep every group's misses within a limit.

    Attributes:
        surely: up to which every group's band stays within it; None where no threshold does.
        likely: up to which every group's estimate does; None where no threshold does.
        holding: the group that stops `surely` from being higher; None where nothing does.
        hidden: groups without a curve, of which nothing is known.
    """

    surely: float | None
    likely: float | None
    holding: Estimate | None
    hidden: tuple[Estimate, ...]


def keeping(results: Sequence[Estimate], limit: float) -> Keeping:
    """Return the highest thresholds at which, and under which, no group shown misses more than `limit`."""
    shown = [result for result in results if not result.suppressed]
    surely = {id(result): _highest(curve(result), limit, sure=True) for result in shown}
    likely = [_highest(curve(result), limit, sure=False) for result in shown]
    holding = min(shown, key=lambda result: _or_none(surely[id(result)]), default=None)
    last = max((curve(result)[-1].threshold for result in shown), default=0.0)
    if holding is not None and surely[id(holding)] == last:
        holding = None
    return Keeping(
        surely=_least(surely.values()),
        likely=_least(likely),
        holding=holding,
        hidden=tuple(result for result in results if result.suppressed),
    )


def cheapest(points: Iterable[Point], weight: float) -> Point | None:
    """Return the point with the least estimated cost, misses + weight × false accepts per hour; None where no
    point is shown. `weight` is the share of misses that one false accept an hour is worth."""
    costs = [
        (point.rejects.estimate + weight * point.accepts.estimate, point)
        for point in points
        if point.rejects.estimate is not None and point.accepts.estimate is not None
    ]
    return min(costs, key=lambda pair: pair[0], default=(0.0, None))[1]


def _highest(points: Sequence[Point], limit: float, *, sure: bool) -> float | None:
    found = None
    for point in points:
        value = point.rejects.simultaneous_high if sure else point.rejects.estimate
        if value is None or value > limit:
            break
        found = point.threshold
    return found


def _or_none(value: float | None) -> float:
    return float("-inf") if value is None else value


def _least(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if not found or None in found else min(value for value in found if value is not None)
