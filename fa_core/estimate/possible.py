"""Groups that cannot occur, by the plan alone: `speaker` where only phones are counted, `other` of an hour.

They are in the vector and get their noise, so that every plan has one layout; but nothing is in them, and a
person who reads results should not have to look past them.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from math import inf

from fa_core.metrics import Condition, MetricSpec
from fa_core.plan import Plan
from fa_core.plan.schema import OTHER, EventSegment, Segment, spellings
from fa_core.tables import DEVICE_FACTS, event_columns

Value = str | bool | int


def is_possible(plan: Plan, metric: MetricSpec, group: tuple[tuple[str, str], ...]) -> bool:
    """Return whether a row that a metric counts can be in a group, given as (segment, label) pairs.

    Filters and the tables' columns decide. True wherever that is not certain.
    """
    return all(
        _holds(metric, plan.segments[name], label, _conditions(plan, metric, name)) for name, label in group
    )


def _conditions(plan: Plan, metric: MetricSpec, segment: str) -> list[Condition]:
    """Return the conditions on a segment's column that every counted row meets."""
    column = plan.segments[segment].column
    return [where[column] for where in (plan.where, metric.where) if column in where]


def _holds(metric: MetricSpec, segment: Segment, label: str, conditions: Sequence[Condition]) -> bool:
    if label == OTHER and not conditions and _may_be_missing(metric, segment):
        return True
    if isinstance(segment, EventSegment) and segment.edges is not None:
        return label != OTHER and _part_meets(segment, label, conditions)
    if label != OTHER:
        own = [value for value, place in _values(segment) if segment.labels[place] == label]
        return any(_meets(value, conditions) for value in own)
    named = {value for value, _ in _values(segment)}
    candidates = _all_values(metric, segment, conditions)
    return candidates is None or any(v not in named and _meets(v, conditions) for v in candidates)


def _values(segment: Segment) -> Iterator[tuple[Value, int]]:
    """Yield each value of the tables that a segment names, as it is there, and the place of its label."""
    raw = dict(zip(segment.labels, segment.values or (), strict=False))
    for spelled, place in spellings(segment).items():
        yield raw.get(spelled, spelled), place


def _may_be_missing(metric: MetricSpec, segment: Segment) -> bool:
    if segment.column in DEVICE_FACTS:
        return True
    return event_columns(metric.segment_source())[segment.column].optional


def _all_values(
    metric: MetricSpec, segment: Segment, conditions: Sequence[Condition]
) -> Sequence[Value] | None:
    """Return values that hold all that a row can have and meet the conditions, None where there is no end."""
    for condition in conditions:
        if condition.any_of is not None:
            return condition.any_of
    if segment.column in DEVICE_FACTS:
        return None
    column = event_columns(metric.segment_source())[segment.column]
    return (False, True) if column.type == "boolean" else column.domain


def _meets(value: Value, conditions: Sequence[Condition]) -> bool:
    return all(_allows(condition, value) for condition in conditions)


def _allows(condition: Condition, value: Value) -> bool:
    if condition.any_of is not None and value not in condition.any_of:
        return False
    if condition.not_any_of is not None and value in condition.not_any_of:
        return False
    if isinstance(value, str):
        return True
    (low, low_open), (high, high_closed) = _ends(condition)
    above = value > low or (value == low and not low_open)
    return above and (value < high or (value == high and high_closed))


def _part_meets(segment: EventSegment, label: str, conditions: Sequence[Condition]) -> bool:
    """Return whether a number of the part between two edges can meet the conditions."""
    ends: list[Fraction | float] = [-inf, *(segment.edges or ()), inf]
    parts = dict(zip(segment.names or (), pairwise(ends), strict=True))
    low, high = parts[label]
    for condition in conditions:
        if condition.any_of is not None:
            return any(
                not isinstance(v, str) and low <= v < high and _meets(v, conditions) for v in condition.any_of
            )
    bottom, top = (low, False), (high, False)
    for condition in conditions:
        least, most = _ends(condition)
        bottom, top = max(bottom, least), min(top, most)
    return bottom[0] < top[0] or (bottom[0] == top[0] and not bottom[1] and top[1])


def _ends(condition: Condition) -> tuple[tuple[Fraction | float, bool], tuple[Fraction | float, bool]]:
    """Return the lower end of a condition on numbers and whether it is left out, and the upper end and
    whether it is taken in."""
    bottom = max(
        (-inf if condition.ge is None else condition.ge, False),
        (-inf if condition.gt is None else condition.gt, condition.gt is not None),
    )
    top = min(
        (inf if condition.le is None else condition.le, True),
        (inf if condition.lt is None else condition.lt, condition.lt is None),
    )
    return bottom, top
