"""How a plan fits a fleet at hand: what no device has, what its caps clip, which groups are small.

For the person who has the fleet in a directory, before anything is charged: exact counts are looked at here,
and only sentences with the plan's own words go out. A plan for devices elsewhere is previewed from public
facts instead (`fa plan preview`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from typing import Final

import numpy as np

from clients.device.receipt import sources
from clients.evaluate import Cohort, cells_of, rows_in_window, seeded_randomness
from fa_core.layout import bounds_of, groupings
from fa_core.metrics import Bounds, MetricSpec, Rows, View
from fa_core.metrics.kind import Units
from fa_core.plan import Plan, window_text
from fa_core.plan.prose import grouping_text
from fa_core.plan.schema import spellings
from fa_core.tables import STORED

NO_CAP: Final = 10**6
CAPS: Final = ("max_hours", "max_per_hour", "max_of", "max_over")
"""The keys of metrics that bound what one device, hour or event may weigh, beside the plan's max_events."""

_WEIGHTS: Final = ("size", "count", "one", "minutes")
NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class SmallGroups:
    """Groups of a metric in a grouping that have fewer devices with something to count than `min_cohort`."""

    metric: str
    grouping: tuple[str, ...]
    small: tuple[tuple[str, ...], ...]
    groups: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How a plan fits a fleet.

    Attributes:
        plan: its name. devices: the fleet's.
        missing: tables that it reads and the fleet lacks; nothing else is known then.
        in_window: devices with a row in its window, in the tables that its metrics count.
        unknown: (segment, label) that no device has, in the window where it is a column of events.
        unmet: (column, value) of its filters that no row in the window has.
        clipped: the largest share of a metric's mass that its caps leave out, by metric; those above 0.
        small: groups that are likely not to be shown.
    """

    plan: str
    devices: int
    window: str
    min_cohort: int
    missing: tuple[str, ...] = ()
    in_window: int = 0
    unknown: tuple[tuple[str, str], ...] = ()
    unmet: tuple[tuple[str, str], ...] = ()
    clipped: Mapping[str, float] | None = None
    small: tuple[SmallGroups, ...] = ()

    def warnings(self) -> Iterator[str]:
        """Yield what makes a run useless, or a label never counted, a sentence each."""
        if self.missing:
            yield f"the plan reads {', '.join(self.missing)}, which the fleet does not have"
            return
        if self.in_window < self.min_cohort:
            yield (
                f"fewer than min_cohort = {self.min_cohort} devices have a row in the window of "
                f"{self.window}: nothing is likely to be shown"
            )
        elif 2 * self.in_window < self.devices:
            yield f"less than half of the devices have a row in the window of {self.window}"
        for column, value in self.unmet:
            yield f"no row in the window has {column} `{value}`, which the plan's filter asks for"
        for segment, label in self.unknown:
            yield f"segment {segment}: no device has the label `{label}`"

    def sentences(self) -> Iterator[str]:
        """Yield the warnings, then what its caps clip and which groups are small."""
        yield from self.warnings()
        for metric, share in (self.clipped or {}).items():
            yield f"{metric}: the caps of the plan leave out {share:.0%} of what the devices have"
        for found in self.small:
            named = ", ".join(" × ".join(labels) for labels in found.small[:NAMED])
            more = f" and {len(found.small) - NAMED} more" if len(found.small) > NAMED else ""
            by = grouping_text(found.grouping)
            which = f": {named}{more}" if found.grouping else ""
            yield (
                f"{found.metric}, {by}: {len(found.small)} of {found.groups} groups have fewer than "
                f"{self.min_cohort} devices with something to count{which}"
            )


def fit(plan: Plan, cohort: Cohort, until: datetime, *, closely: bool = True) -> Fit:
    """Return how a plan fits a fleet, for a window that ends at `until`.

    `closely` looks at caps and groups too, for which every metric is sampled.
    """
    window, least = window_text(plan.window), plan.privacy.min_cohort
    missing = tuple(name for name in sources(plan) if name not in cohort.tables)
    if missing:
        return Fit(plan.name, len(cohort), window, least, missing)
    rows = {name: rows_in_window(cohort, name, plan, until) for name in sources(plan)}
    counted = np.zeros(len(cohort), np.bool_)
    for metric in plan.metrics.values():
        counted[rows[str(metric.source)].device] = True
    found = Fit(
        plan.name,
        len(cohort),
        window,
        least,
        in_window=int(np.count_nonzero(counted)),
        unknown=tuple(_unknown(plan, cohort, rows)),
        unmet=tuple(_unmet(plan, rows)),
    )
    if not closely:
        return found
    sampler = _Sampler(plan, cohort, rows)
    clipped = {name: _clipped(metric, sampler) for name, metric in plan.metrics.items()}
    return replace(
        found,
        clipped={name: share for name, share in clipped.items() if share >= 0.005},
        small=tuple(_small(plan, sampler)),
    )


def _unknown(plan: Plan, cohort: Cohort, rows: Mapping[str, Rows]) -> Iterator[tuple[str, str]]:
    for name, segment in plan.segments.items():
        if segment.level == "device":
            found = set(cohort.facts[segment.column][1])
        else:
            tables = {m.segment_source() for m in plan.metrics.values() if _uses(m, plan, name)}
            columns = [STORED[table].columns.get(segment.column) for table in tables]
            if not columns or any(column is None or column.type != "label" for column in columns):
                continue
            found = {label for table in tables for label in _labels(rows[table], segment.column)}
        places = spellings(segment)
        met = {places[spelling] for spelling in found if spelling in places}
        yield from ((name, label) for place, label in enumerate(segment.labels[:-1]) if place not in met)


def _uses(metric: MetricSpec, plan: Plan, segment: str) -> bool:
    return any(segment in grouping for grouping in groupings(metric, plan))


def _labels(rows: Rows, column: str) -> set[str]:
    codes, names = rows.labels(column)
    met = np.bincount(codes + 1, minlength=len(names) + 1)[1:]  # -1 stands for missing
    return {name for name, count in zip(names, met, strict=True) if count}


def _unmet(plan: Plan, rows: Mapping[str, Rows]) -> Iterator[tuple[str, str]]:
    """Yield values of filters, in open label columns, that no row has."""
    found: dict[tuple[str, str], bool] = {}
    for metric in plan.metrics.values():
        table = str(metric.source)
        for column, condition in [*plan.where.items(), *metric.where.items()]:
            kind = STORED[table].columns.get(column)
            if kind is not None and kind.type == "label" and kind.domain is None:
                there = _labels(rows[table], column)
                for value in condition.any_of or ():
                    found[column, str(value)] = found.get((column, str(value)), False) or value in there
    yield from (each for each, met in found.items() if not met)


@dataclass(frozen=True)
class _Sampler:
    """Draws what each device of a fleet counts for a metric, with the plan's caps or without."""

    plan: Plan
    cohort: Cohort
    rows: Mapping[str, Rows]

    def units(self, metric: MetricSpec, *, capped: bool) -> Mapping[str, Units]:
        bounds = bounds_of(self.plan)
        if not capped:
            bounds = Bounds(NO_CAP, None, bounds.counters)
            metric = metric.model_copy(
                update={key: NO_CAP for key in CAPS if key in type(metric).model_fields}
            )
        view = View(len(self.cohort), self.rows, seeded_randomness(0)(self.cohort))
        return metric.units(view, self.plan.where, bounds)


def _clipped(metric: MetricSpec, sampler: _Sampler) -> float:
    """Return the largest share, over what a metric sums, that its caps leave out."""
    kept, whole = (sampler.units(metric, capped=capped) for capped in (True, False))
    shares = [0.0]
    for part, units in whole.items():
        for weight in _WEIGHTS:
            values = units.values.get(weight)
            if values is not None and values.sum() > 0 and values.min() >= 0:
                shares.append(1.0 - float(kept[part].values[weight].sum() / values.sum()))
    return max(shares)


def _small(plan: Plan, sampler: _Sampler) -> Iterator[SmallGroups]:
    for name, metric in plan.metrics.items():
        units = next(iter(sampler.units(metric, capped=False).values()))
        for grouping in groupings(metric, plan):
            labels = [plan.segments[segment].labels for segment in grouping]
            cell = cells_of(plan, grouping, sampler.cohort)(units)
            groups = list(product(*labels))
            present = np.unique(cell * len(sampler.cohort) + units.device) // len(sampler.cohort)
            devices = np.bincount(present, minlength=len(groups))
            named = [
                (group, count)
                for group, count in zip(groups, devices, strict=True)
                if all(label != each[-1] for label, each in zip(group, labels, strict=True))
            ]
            small = tuple(group for group, count in named if count < plan.privacy.min_cohort)
            if small:
                yield SmallGroups(name, grouping, small, len(named))
