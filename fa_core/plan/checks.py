"""The checks that need more than one field of a plan: tables, a policy, a calendar, a fleet's size.

Each check is a generator of findings over the parts that are sound, so one mistake is reported once
and hides no other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from math import prod

from fa_core.metrics import Bounds, Condition, FieldUse, Filter, MetricSpec, Shape, exact_text
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.plan.budget import unsupported
from fa_core.plan.columns import (
    check_filter,
    columns_anywhere,
    missing_column,
)
from fa_core.plan.completed import reported, wrong_shares
from fa_core.plan.groupings import check_groupings, check_segment, grouping_text
from fa_core.plan.guardrails import check_guardrail
from fa_core.plan.located import Finding, Loc
from fa_core.plan.policy import PlanPolicy
from fa_core.plan.problems import one_of, show
from fa_core.plan.schema import (
    EventSegment,
    Metadata,
    Privacy,
    window_text,
)
from fa_core.plan.sections import Parts
from fa_core.plan.training import TrainPlan, rules
from fa_core.tables import event_columns


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan is checked against besides itself.

    Attributes:
        today: the day (UTC) for the expiry, None where an expired plan may be read.
        policy: the organisation's limits, None where they are another's business.
        fleet: public number of devices to be asked, where known.
        file: whether it is a file that its author can still mend. Plans that were released may say what is
            refused in a file, and are read as they are.
    """

    today: date | None = None
    policy: PlanPolicy | None = None
    fleet: int | None = None
    file: bool = False


def check(parts: Parts, situation: Situation) -> Iterator[Finding]:
    """Yield everything that is wrong between the parts of a plan, and with it in its situation."""
    yield from _expiry(parts.fields.get("metadata"), situation.today)
    for name, segment in parts.segments.items():
        yield from check_segment(segment, ("segments", name))
    yield from check_groupings(parts.fields.get("group_by") or (), ("group_by",), parts.declared_segments)
    for name, metric in parts.metrics.items():
        yield from _metric(metric, parts.metric_locs[name], parts)
    yield from _plan_filter(parts)
    for use in parts.filters:
        for table in use.tables:
            yield from check_filter(use.where, table, use.loc)
    if parts.model is TrainPlan:
        yield from rules(parts.fields, parts.segments)
    elif situation.file:
        yield from _unused(parts)
    for index, guardrail in parts.guardrails.items():
        yield from check_guardrail(guardrail, ("guardrails", index), parts)
    privacy = parts.fields.get("privacy")
    if privacy is not None:
        yield from _privacy(privacy)
        yield from _shares(privacy, parts)
    if situation.policy is not None:
        yield from _within_policy(parts, situation.policy)
    yield from _size(parts, situation)


def _expiry(metadata: Metadata | None, today: date | None) -> Iterator[Finding]:
    if metadata is not None and today is not None and metadata.expires < today:
        found = f"this plan expired on {metadata.expires}"
        yield Finding(
            ("metadata", "expires"), found, f"write {today} or a later day, and count `revision` up"
        )


def _unused(parts: Parts) -> Iterator[Finding]:
    """Yield the segments that are in no grouping, and the metrics that report none."""
    for name, metric in parts.metrics.items():
        if metric.group_by == ():
            right = "write `[[]]` for everyone together, or leave it out for the plan's groupings"
            yield Finding((*parts.metric_locs[name], "group_by"), "no grouping is written here", right)
    if (groupings := parts.fields.get("group_by")) is not None:
        for name in sorted(parts.declared_segments - {name for grouping in groupings for name in grouping}):
            right = f"add {show(f'[{name}]')} to `group_by`, or take the segment out"
            yield Finding(("segments", name), f"{show(name)} is in no grouping", right, at_key=True)


# Metrics


def _metric(metric: MetricSpec, loc: Loc, parts: Parts) -> Iterator[Finding]:
    for use in _wrong_fields(metric):
        yield _field_finding(use, (*loc, use.purpose))
    if isinstance(metric, PairedDifference):
        yield from _both_versions(metric, loc, parts)
    planned = parts.fields.get("group_by") or ((),)
    own = metric.group_by or ((),)
    if own != planned:
        yield from check_groupings(own, (*loc, "group_by"), parts.declared_segments)
    allowed = {frozenset(grouping) for grouping in planned}
    for index, grouping in enumerate(own):
        at = (*loc, "group_by", index) if own != planned else loc
        if frozenset(grouping) not in allowed and set(grouping) <= parts.declared_segments:
            right = f"add it there, or report one of {', '.join(map(grouping_text, planned))}"
            yield Finding(at, f"{grouping_text(grouping)} is not in the plan's `group_by`", right)
        yield from _segments_answerable(metric, grouping, at, parts)


def _both_versions(metric: PairedDifference, loc: Loc, parts: Parts) -> Iterator[Finding]:
    """Check that no filter leaves one version of each pair out, which would leave nothing to compare."""
    column = metric.compare.field
    filters = ((("where",), parts.fields.get("where") or {}), ((*loc, "where"), metric.where))
    for at, where in filters:
        condition = where.get(column)
        for version in (metric.compare.baseline, metric.compare.candidate):
            if condition is not None and not _allows(condition, version):
                found = f"this leaves out {show(version)}, which {show(str(loc[-1]))} compares"
                yield Finding(
                    (*at, column), found, f"take {show(column)} out of the filter, or name both versions"
                )


def _allows(condition: Condition, value: str) -> bool:
    named = condition.any_of is None or value in condition.any_of
    return named and value not in (condition.not_any_of or ())


def _wrong_fields(metric: MetricSpec) -> Iterator[FieldUse]:
    for use in metric.fields():
        column = event_columns(use.source).get(use.column)
        kinds = set() if column is None else {column.type, "domain" if column.domain else ""}
        if not kinds & set(use.types):
            yield use


def _field_finding(use: FieldUse, loc: Loc) -> Finding:
    columns = event_columns(use.source)
    if use.column not in columns:
        return missing_column(use.column, use.source, loc)
    fitting = [
        name
        for name, column in columns.items()
        if column.type in use.types or ("domain" in use.types and column.domain)
    ]
    found = f"`{use.purpose}` cannot be {show(use.column)}, a column of type {columns[use.column].type}"
    return Finding(loc, found, one_of(fitting) if fitting else f"{show(use.source)} has no column that fits")


def _segments_answerable(
    metric: MetricSpec, grouping: Iterable[str], loc: Loc, parts: Parts
) -> Iterator[Finding]:
    for name in grouping:
        segment = parts.segments.get(name)
        if not isinstance(segment, EventSegment) or segment.event not in columns_anywhere():
            continue
        for source in (str(metric.source), *metric.companions):
            if segment.event not in event_columns(source):
                found = (
                    f"{grouping_text(grouping)} groups by {show(segment.event)}, which {show(source)} lacks"
                )
                yield Finding(loc, found, "give this metric a `group_by` of its own, without it", at_key=True)


def _plan_filter(parts: Parts) -> Iterator[Finding]:
    where: Filter = parts.fields.get("where") or {}
    readers: dict[str, str] = {}
    for name, metric in parts.metrics.items():
        for table in (str(metric.source), *metric.companions):
            readers.setdefault(table, name)
    source = parts.fields.get("source")
    if not readers and source is not None:
        readers[source] = "plan"
    for table, reader in readers.items():
        for finding in check_filter(where, table, ("where",)):
            is_missing = finding.at_key
            found = f"{finding.found}, which {show(reader)} reads" if is_missing else finding.found
            yield replace(finding, found=found)


# Privacy, policy and size


def _shares(privacy: Privacy, parts: Parts) -> Iterator[Finding]:
    """Check how the budget is shared; a plan of before says nothing of it."""
    if privacy.counters is None:
        return
    wrong = list(wrong_shares(privacy.shares or (), parts))
    yield from wrong
    named = {share.key for share in privacy.shares or ()}
    if not wrong and not parts.findings and len(named) < sum(map(len, reported(parts).values())):
        found = "not every grouping of every metric has a share of the budget"
        yield Finding(("privacy", "shares"), found, "name them all: this form of a plan leaves nothing out")


def _privacy(privacy: Privacy) -> Iterator[Finding]:
    at: Loc = ("privacy",)
    smallest = Fraction(1, privacy.min_cohort)
    if privacy.delta >= smallest:
        found = f"delta {exact_text(privacy.delta)} is not below 1/min_cohort = 1/{privacy.min_cohort}"
        right = "write far less, such as 1e-8: it is the chance that a device is exposed outright"
        yield Finding((*at, "delta"), found, right)
    if (finding := unsupported(privacy)) is not None:
        yield finding
    if privacy.delta == 0 and privacy.accounting == "zcdp":
        yield Finding((*at, "delta"), "delta is 0", "write more than 0, such as 1e-8, or `accounting: pure`")
    if privacy.counters == "joint" and privacy.accounting == "pure":
        found = "joint counters need Gaussian noise, which has no pure epsilon"
        yield Finding((*at, "counters"), found, "write `counters: blocks`, or `accounting: zcdp`")
    if privacy.counters is not None and privacy.max_excess is not None:
        found = "max_excess is gone: it narrowed no interval, and hid the worst groups"
        yield Finding((*at, "max_excess"), found, "take it out, and lower max_events instead", at_key=True)
    elif privacy.max_excess is not None and privacy.max_excess > privacy.max_events:
        found = f"max_excess {privacy.max_excess} is above max_events {privacy.max_events}"
        yield Finding(
            (*at, "max_excess"), found, f"write 1 to {privacy.max_events}, or leave it out to clip nothing"
        )
    if privacy.sum == "two_aggregators":
        yield from _two_aggregators(privacy, at)
    elif privacy.kappa is not None:
        found = "kappa is of the noise that two aggregators add"
        yield Finding((*at, "kappa"), found, "take it out, or write `sum: two_aggregators`", at_key=True)
    elif privacy.noise == "distributed":
        yield from _distributed(privacy, at)
    if privacy.mechanism == "discrete_gaussian" and privacy.accounting == "pure":
        found = "discrete Gaussian noise has no pure epsilon"
        yield Finding((*at, "mechanism"), found, "write `mechanism: geometric`, or `accounting: zcdp`")
    if privacy.mechanism == "geometric" and privacy.accounting == "zcdp":
        found = "geometric noise in a zCDP ledger is never narrower than Gaussian noise at the same cost"
        yield Finding((*at, "mechanism"), found, "write `mechanism: auto`, or `accounting: pure`")
    if privacy.dropout + privacy.corrupt >= Fraction(1, 2):
        found = f"dropout and corrupt add up to {exact_text(privacy.dropout + privacy.corrupt)}"
        right = "keep them below 0.5 together: more cannot be distinguished from an attack"
        yield Finding((*at, "corrupt" if privacy.corrupt >= privacy.dropout else "dropout"), found, right)


def _distributed(privacy: Privacy, at: Loc) -> Iterator[Finding]:
    if not privacy.secure_aggregation:
        found = "distributed noise without secure aggregation shows the server every device's vector"
        yield Finding((*at, "secure_aggregation"), found, "write true, or `noise: central`")
    if privacy.accounting == "pure":
        found = "pure accounting needs geometric noise, which devices cannot add in shares"
        yield Finding((*at, "accounting"), found, "write `noise: central`, or `accounting: zcdp`")


def _two_aggregators(privacy: Privacy, at: Loc) -> Iterator[Finding]:
    if privacy.kappa is None:
        found = "two aggregators need a kappa"
        yield Finding((*at, "sum"), found, "add `kappa:`, 1/4 where in doubt")
    if privacy.noise != "distributed":
        found = "of two aggregators each adds its own noise, and neither sees an exact sum"
        yield Finding((*at, "noise"), found, "write `noise: distributed`, or leave it out")
    if not privacy.secure_aggregation:
        found = "two aggregators are a secure aggregation: neither sees a device's vector"
        yield Finding((*at, "secure_aggregation"), found, "write true, or leave it out")
    if privacy.accounting == "pure":
        found = "two aggregators add Gaussian noise, which has no pure epsilon"
        yield Finding((*at, "accounting"), found, "write `accounting: zcdp`, or leave it out")


def _within_policy(parts: Parts, policy: PlanPolicy) -> Iterator[Finding]:
    window = parts.fields.get("window")
    if window is not None and window > policy.max_window:
        right = f"look back at most {window_text(policy.max_window)}"
        yield Finding(("window",), f"a window of {window_text(window)} is over the policy", right)
    privacy: Privacy | None = parts.fields.get("privacy")
    if privacy is None:
        return
    most = (
        ("epsilon", policy.max_epsilon),
        ("delta", policy.max_delta),
        ("max_events", Fraction(policy.max_events)),
    )
    for key, limit in most:
        value = Fraction(getattr(privacy, key))
        if value > limit:
            found = f"{key} {exact_text(value)} is over the policy"
            yield Finding(("privacy", key), found, f"write at most {exact_text(limit)}")
    if privacy.min_cohort < policy.min_cohort:
        found = f"min_cohort {privacy.min_cohort} is under the policy"
        yield Finding(("privacy", "min_cohort"), found, f"write at least {policy.min_cohort}")


def _size(parts: Parts, situation: Situation) -> Iterator[Finding]:
    """Check that the vector is not too long, and that a fleet can fill the groups it is cut into."""
    privacy: Privacy | None = parts.fields.get("privacy")
    if privacy is None:
        return
    if situation.fleet is not None:
        yield from _fillable(parts, privacy.min_cohort, situation.fleet)
    bounds = Bounds(privacy.max_events, privacy.max_excess, privacy.counters)
    total = 0
    for name, metric in parts.metrics.items():
        if (too_much := metric.too_much(bounds)) is not None:
            own = too_much.key in type(metric).model_fields
            loc = (*parts.metric_locs[name], too_much.key) if own else ("privacy", too_much.key)
            yield Finding(loc, too_much.found, too_much.right)
        elif not any(_wrong_fields(metric)):
            total += sum(_cells(metric, grouping, parts, bounds) for grouping in metric.group_by or ((),))
    if situation.policy is None:
        return
    if total > situation.policy.max_cells:
        found = f"this plan makes a vector of {total:,} cells"
        right = f"the policy allows {situation.policy.max_cells:,}: use fewer segments, labels or bins"
        yield Finding(("metrics",), found, right, at_key=True)


def _cells(metric: MetricSpec, grouping: Iterable[str], parts: Parts, bounds: Bounds) -> int:
    """Return the length of the vector of one metric in one grouping."""
    segments = [parts.segments[name] for name in grouping if name in parts.segments]
    shape = Shape(
        cells=prod(len(segment.labels) for segment in segments),
        touch=prod(len(segment.labels) for segment in segments if segment.level == "event"),
    )
    return metric.width(shape, bounds)


def _fillable(parts: Parts, min_cohort: int, fleet: int) -> Iterator[Finding]:
    for index, grouping in enumerate(parts.fields.get("group_by") or ()):
        segments = [parts.segments[name] for name in grouping if name in parts.segments]
        groups = prod(len(segment.labels) - 1 for segment in segments if segment.level == "device")
        if groups * min_cohort > fleet:
            found = f"{grouping_text(grouping)} makes {groups:,} groups of at least {min_cohort:,} devices"
            right = f"{fleet:,} devices can fill {fleet // min_cohort:,}: use fewer segments or values"
            loc: Loc = ("segments", *grouping) if parts.model is TrainPlan else ("group_by", index)
            yield Finding(loc, found, right)
