"""The checks of guardrails: does the metric report these groups, and can a group be at the limit?"""

from collections.abc import Iterator
from fractions import Fraction
from math import inf

from fa_core.metrics import exact_text
from fa_core.metrics.centred import Centred
from fa_core.metrics.count import Count
from fa_core.metrics.det import ACCEPTS, Det
from fa_core.metrics.listening import MINUTES
from fa_core.plan.groupings import grouping_text
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import show, suggestion
from fa_core.plan.schema import Guardrail
from fa_core.plan.sections import Parts


def check_guardrail(guardrail: Guardrail, loc: Loc, parts: Parts) -> Iterator[Finding]:
    """Yield what is wrong with one guardrail."""
    if guardrail.max is None and guardrail.min is None and guardrail.max_gap is None:
        yield Finding(loc, "this guardrail has no limit", "give `max`, `min` or `max_gap`")
    if guardrail.max is not None and guardrail.min is not None and guardrail.min >= guardrail.max:
        found = f"min {exact_text(guardrail.min)} is not below max {exact_text(guardrail.max)}"
        yield Finding((*loc, "min"), found, "write the lower limit under `min`")
    if guardrail.max_gap is not None and not guardrail.by:
        yield Finding((*loc, "max_gap"), "a gap needs groups", "say which with `by`")
    if guardrail.metric not in parts.metric_locs:
        found = f"no metric is named {show(guardrail.metric)}"
        yield Finding((*loc, "metric"), found, suggestion(guardrail.metric, sorted(parts.metric_locs)))
    yield from _groups(guardrail, loc, parts)
    metric = parts.metrics.get(guardrail.metric)
    if isinstance(metric, Det):
        yield from _operating_point(guardrail, metric, loc)
    elif metric is not None and guardrail.at is not None:
        found = f"a {metric.kind} has no thresholds"
        yield Finding((*loc, "at"), found, "take `at` out: it says where a DET curve is judged", at_key=True)
    elif isinstance(metric, Centred):
        yield from _limits(guardrail, metric.kind, metric.display()[2:], loc)
    elif isinstance(metric, Count):
        yield from _limits(guardrail, metric.kind, (0.0, inf), loc)
    elif metric is not None:
        found = f"a {metric.kind} has no single number to judge"
        yield Finding((*loc, "metric"), found, "judge a rate, a ratio, a mean, a difference or a count")


def _limits(guardrail: Guardrail, kind: str, span: tuple[float, float], loc: Loc) -> Iterator[Finding]:
    """Yield limits that every group keeps, or that none can, for numbers within `span`."""
    low, high = span
    limits = (("max", guardrail.max, low, high), ("max_gap", guardrail.max_gap, 0.0, high - low))
    for key, limit, least, most in limits:
        if limit is not None and not least <= limit < most:
            right = f"write at least {least:g}" + (f" and less than {most:g}" if most < inf else "")
            yield Finding((*loc, key), f"{exact_text(limit)} is no limit for this {kind}", right)
    if guardrail.min is not None and not low < guardrail.min <= high:
        right = f"write more than {low:g}" + (f" and at most {high:g}" if high < inf else "")
        yield Finding((*loc, "min"), f"{exact_text(guardrail.min)} is no limit for this {kind}", right)


def _operating_point(guardrail: Guardrail, metric: Det, loc: Loc) -> Iterator[Finding]:
    at = guardrail.at
    if at is None:
        right = "add `at: {false_accepts_per_hour: 0.5}`, or `at: {threshold: 0.7}`"
        yield Finding(loc, "a DET curve is judged at one point", right)
        return
    points = (at.threshold, at.false_accepts_per_hour, at.false_reject_rate)
    if sum(point is not None for point in points) != 1:
        right = "give one of `threshold`, `false_accepts_per_hour` and `false_reject_rate`"
        yield Finding((*loc, "at"), "this is not one point of a DET curve", right)
        return
    if guardrail.min is not None:
        yield Finding((*loc, "min"), "fewer misses or false wakes break nothing", "write `max`", at_key=True)
    if at.threshold is None:
        if guardrail.max_gap is not None:
            right = "write `max`, or judge the gap at a `threshold`"
            yield Finding(
                (*loc, "max_gap"), "each group is judged at its own threshold here", right, at_key=True
            )
        if at.axis is not None:
            yield Finding((*loc, "at", "axis"), "`axis` goes with `threshold`", "take it out", at_key=True)
    else:
        yield from _threshold(at.threshold, metric, (*loc, "at", "threshold"))
    for key, given, most in (
        ("false_accepts_per_hour", at.false_accepts_per_hour, MINUTES),
        ("false_reject_rate", at.false_reject_rate, 1),
    ):
        if given is not None and not 0 <= given < most:
            found = f"{exact_text(given)} is no {key.replace('_', ' ')}"
            yield Finding((*loc, "at", key), found, f"write at least 0 and less than {most}")
    yield from _limits(guardrail, metric.kind, (0.0, float(MINUTES) if at.judged == ACCEPTS else 1.0), loc)


def _threshold(threshold: Fraction, metric: Det, loc: Loc) -> Iterator[Finding]:
    thresholds = metric.thresholds()
    if threshold not in thresholds:
        nearest = min(thresholds, key=lambda each: abs(each - threshold))
        found = f"{exact_text(threshold)} is no threshold of this curve"
        right = f"write {exact_text(nearest)}: thresholds are the edges between its {metric.edges.bins} bins"
        yield Finding(loc, found, right)


def _groups(guardrail: Guardrail, loc: Loc, parts: Parts) -> Iterator[Finding]:
    unknown = [name for name in guardrail.by if name not in parts.declared_segments]
    for name in unknown:
        names = sorted(parts.declared_segments)
        right = suggestion(name, names) if names else "leave `by` out"
        yield Finding((*loc, "by"), f"no segment is named {show(name)}", right)
    metric = parts.metrics.get(guardrail.metric)
    if metric is None or unknown:
        return
    reported = metric.group_by or ((),)
    if frozenset(guardrail.by) not in {frozenset(grouping) for grouping in reported}:
        found = f"{show(guardrail.metric)} does not report {grouping_text(guardrail.by)}"
        right = f"judge one of {', '.join(map(grouping_text, reported))}"
        yield Finding((*loc, "by") if guardrail.by else loc, found, right)
