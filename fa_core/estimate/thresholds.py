"""Thresholds from DET curves: the highest one within a false reject limit, and the one of lowest cost.

Pure, and from what a release shows alone. Bands hold for all thresholds, both axes and all groups of a
grouping together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Final

from fa_core.values import Cell, Estimate

REJECTS: Final = "false_reject_rate"
ACCEPTS: Final = "false_accepts_per_hour"


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of one group's curve: false reject rate (a share) and false accepts per hour."""

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
        Point(float(Fraction(threshold)), rejects, sides[ACCEPTS][threshold])
        for threshold, rejects in sides[REJECTS].items()
    )
    return tuple(sorted(points, key=lambda point: point.threshold))


@dataclass(frozen=True, slots=True)
class Side:
    """One axis of a curve at one threshold, on the monotone fit: the value, and its simultaneous band."""

    value: float
    low: float
    high: float


def monotone(points: Iterable[Point]) -> tuple[tuple[float, Side, Side], ...]:
    """Return a curve's thresholds, ascending, with false rejects and false accepts that never run backwards.

    A higher threshold rejects at least as much and accepts at most as much; noise may order estimates
    otherwise. Each axis is fitted by isotonic regression, weighted by the inverse square of the intervals'
    width (Barlow et al. 1972, section 1.2). A bound of the band at one threshold also bounds those that lie
    above it, or below, so bands become narrower and stay simultaneous. Thresholds where an axis is not shown
    are left out.
    """
    shown = [
        point for point in points if point.rejects.estimate is not None and point.accepts.estimate is not None
    ]
    rejects = _fitted([point.rejects for point in shown])
    accepts = _fitted([point.accepts for point in reversed(shown)])[::-1]
    return tuple(
        (point.threshold, reject, accept)
        for point, reject, accept in zip(shown, rejects, accepts, strict=True)
    )


def _fitted(cells: Sequence[Cell]) -> list[Side]:
    """Return cells as an ascending sequence."""
    if not cells:
        return []
    values = [_known(cell.estimate) for cell in cells]
    widths = [max(_known(cell.high) - _known(cell.low), 1e-9) for cell in cells]
    fit = _ascending(values, [1 / width**2 for width in widths])
    lows = accumulate((_known(cell.simultaneous_low) for cell in cells), max)
    highs = list(accumulate((_known(cell.simultaneous_high) for cell in reversed(cells)), min))[::-1]
    return [
        Side(value, min(low, value), max(high, value))
        for value, low, high in zip(fit, lows, highs, strict=True)
    ]


def _ascending(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the ascending sequence nearest to values in weighted least squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, heavy, many), (last, light, few) = pools[-2], pools.pop()
            pools[-1] = ((mean * heavy + last * light) / (heavy + light), heavy + light, many + few)
    return [mean for mean, _, many in pools for _ in range(many)]


@dataclass(frozen=True, slots=True)
class HighestThresholds:
    """The highest thresholds that keep every group's false reject rate within a limit.

    Attributes:
        by_band: up to which every group's band stays within it; None where no threshold does.
        by_estimate: up to which every group's estimate does; None where no threshold does.
        limiting: the group that keeps `by_band` from being higher; None where none does.
        hidden: suppressed groups, which have no curve.
    """

    by_band: float | None
    by_estimate: float | None
    limiting: Estimate | None
    hidden: tuple[Estimate, ...]


def highest_thresholds(results: Sequence[Estimate], limit: float) -> HighestThresholds:
    """Return the highest thresholds up to which no group shown has a false reject rate above `limit`."""
    shown = [result for result in results if not result.suppressed]
    by_band = {id(result): _highest(curve(result), limit, band=True) for result in shown}
    by_estimate = [_highest(curve(result), limit, band=False) for result in shown]
    limiting = min(shown, key=lambda result: _or_none(by_band[id(result)]), default=None)
    last = max((curve(result)[-1].threshold for result in shown), default=0.0)
    if limiting is not None and by_band[id(limiting)] == last:
        limiting = None
    return HighestThresholds(
        by_band=_least(by_band.values()),
        by_estimate=_least(by_estimate),
        limiting=limiting,
        hidden=tuple(result for result in results if result.suppressed),
    )


def cheapest(points: Iterable[Point], weight: float) -> Point | None:
    """Return the point with the lowest estimated cost, false reject rate + weight × false accepts per hour.

    None where no point is shown. `weight` is the cost of one false accept per hour, in false reject rate.
    """
    costs = [
        (point.rejects.estimate + weight * point.accepts.estimate, point)
        for point in points
        if point.rejects.estimate is not None and point.accepts.estimate is not None
    ]
    return min(costs, key=lambda pair: pair[0], default=(0.0, None))[1]


def _highest(points: Sequence[Point], limit: float, *, band: bool) -> float | None:
    found = None
    for point in points:
        value = point.rejects.simultaneous_high if band else point.rejects.estimate
        if value is None or value > limit:
            break
        found = point.threshold
    return found


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


def _or_none(value: float | None) -> float:
    return float("-inf") if value is None else value


def _least(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return None if not found or None in found else min(value for value in found if value is not None)
