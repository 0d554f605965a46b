"""Two releases beside each other: what changed, by metric and group, and whether the evidence says so.

The two are taken as unpaired: their intervals are added end to end, so that half-widths sum (se₁ + se₂). That
is wider than for independent samples, and still right where the same devices answered both. A plan with a
`paired_difference` metric compares two models more sharply, from each device's own difference.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, Literal

from fa_core.values import Cell, Estimate, Estimates

Change = Literal["better", "worse", "same within margin", "not enough evidence"]
Labels = tuple[tuple[str, str], ...]

UNLIKE: Final = (
    "one of the two clips each column by itself, as plans did before joint counters, and the other scales an "
    "event as a whole: they are ratios of different things"
)

HIGHER_IS_BETTER = ("command_success_rate",)
"""The preset of which more is better; every other measures something that goes wrong."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How one number changed from a first release to a second.

    Attributes:
        cell: labels of a histogram's, DET's or confusion's cell; () for a plain number.
        before, after: the two estimates, None where suppressed.
        difference: after − before; `low` and `high` bound it at `level` for this number alone,
            `simultaneous_low/high` for all groups of the grouping together; None where either is suppressed.
        change: from the simultaneous bounds.
        reason: why there is no difference.
    """

    metric: str
    kind: str
    unit: str
    group: Labels
    cell: Labels
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    level: float
    change: Change
    reason: str


def compare(
    before: Estimates,
    after: Estimates,
    margin: Fraction = Fraction(0),
    higher_is_better: Sequence[str] = (),
    unlike: Collection[str] = (),
) -> tuple[Difference, ...]:
    """Return the change of every number that both releases have, in the order of the first.

    Args:
        margin: a difference whose interval lies within ±margin counts as the same; in the metric's unit.
        higher_is_better: metrics of which more is better; of all others less is.
        unlike: metrics of which no difference is given, from `unlike_metrics`.
    """
    later = {_key(result): result for result in after.results}
    found: list[Difference] = []
    for first in before.results:
        second = later.get(_key(first))
        if second is not None:
            each = _differences(first, second, float(margin), first.metric in higher_is_better)
            found += map(_refused, each) if first.metric in unlike else each
    return tuple(found)


def unlike_metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    """Return the metrics of two plans, as canonical JSON, whose numbers are of different things under one
    name: ratios, where only one plan has `counters`."""
    if ("counters" in before["privacy"]) == ("counters" in after["privacy"]):
        return frozenset()
    return frozenset(name for name, metric in after["metrics"].items() if metric["kind"] == "ratio")


def _key(result: Estimate) -> tuple[str, str, str, Labels]:
    return (result.metric, result.kind, result.unit, result.group)


def _differences(first: Estimate, second: Estimate, margin: float, more: bool) -> Iterator[Difference]:
    if not first.cells and not second.cells:
        yield _difference(first, first, second, (), margin, more)
        return
    later = {cell.labels: cell for cell in second.cells}
    for cell in first.cells:
        if cell.labels in later:
            yield _difference(first, cell, later[cell.labels], cell.labels, margin, more)


def _difference(
    of: Estimate, first: Estimate | Cell, second: Estimate | Cell, cell: Labels, margin: float, more: bool
) -> Difference:
    reason = next((each.reason for each in (first, second) if each.suppressed), "")
    low, high = _subtract(first.low, first.high, second.low, second.high)
    wide_low, wide_high = _subtract(
        first.simultaneous_low, first.simultaneous_high, second.simultaneous_low, second.simultaneous_high
    )
    difference = None
    if first.estimate is not None and second.estimate is not None:
        difference = second.estimate - first.estimate
    return Difference(
        metric=of.metric,
        kind=of.kind,
        unit=of.unit,
        group=of.group,
        cell=cell,
        before=first.estimate,
        after=second.estimate,
        difference=difference,
        low=low,
        high=high,
        simultaneous_low=wide_low,
        simultaneous_high=wide_high,
        level=of.level,
        change=change_of(wide_low, wide_high, margin, more),
        reason=reason,
    )


def _refused(found: Difference) -> Difference:
    """Return the two numbers without their difference, and why there is none."""
    nothing = dict.fromkeys(("difference", "low", "high", "simultaneous_low", "simultaneous_high"))
    return replace(found, **nothing, change="not enough evidence", reason=UNLIKE)  # type: ignore[arg-type]


def _subtract(
    low: float | None, high: float | None, later_low: float | None, later_high: float | None
) -> tuple[float | None, float | None]:
    """Return the bounds of second − first: each half-width of one adds to the facing one of the other."""
    if low is None or high is None or later_low is None or later_high is None:
        return None, None
    return later_low - high, later_high - low


def change_of(low: float | None, high: float | None, margin: float, more: bool) -> Change:
    """Return what the bounds of a difference say of a change; `more` where a larger number is better.

    >>> change_of(0.01, 0.05, margin=0.0, more=False)    # it rose, and less is better
    'worse'
    >>> change_of(-0.01, 0.05, margin=0.0, more=False)
    'not enough evidence'
    """
    if low is None or high is None:
        return "not enough evidence"
    if -margin <= low and high <= margin:
        return "same within margin"
    if low > margin:
        return "better" if more else "worse"
    if high < -margin:
        return "worse" if more else "better"
    return "not enough evidence"
