"""What a person should know of a fleet that was imported: its clocks, its labels, and how plans fit it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clients.evaluate import cohort_of_fleet, places_in
from clients.fleet.fit import Fit, fit
from clients.fleet.tables import Fleet
from fa_core.metrics.confusion import Confusion
from fa_core.metrics.filters import Filter
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.plan import Plan
from fa_core.plan.schema import spellings
from fa_core.tables import DEVICE_FACTS, LISTENING, SOURCES

WEEK: Final = timedelta(days=7)
NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Clocks:
    """When the rows of a fleet were recorded.

    Attributes:
        first, last: times of the oldest and the newest row, None where there is none.
        until: the end of the window of a run.
        recent: devices with a row in the week before `until`; silent: devices without any row.
        late: rows from `until` on, which no run counts.
    """

    first: datetime | None
    last: datetime | None
    until: datetime
    recent: int
    silent: int
    late: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What is worth knowing of a fleet.

    Attributes:
        devices: how many there are.
        clocks: when their rows were recorded.
        hours: whether there is a listening table, without which there is no rate per hour.
        unnamed: labels that none of the plans names, by column, with how many devices or rows have them.
            Columns that no plan names a label of are left out.
        fits: how each plan that was asked about fits the fleet.
    """

    devices: int
    clocks: Clocks
    hours: bool
    unnamed: Mapping[str, Mapping[str, int]]
    fits: tuple[Fit, ...]

    def sentences(self) -> Iterator[str]:
        """Yield it in sentences for a person."""
        clocks = self.clocks
        if clocks.first is None or clocks.last is None:
            yield "no table has a row"
        else:
            yield (
                f"rows from {clocks.first:%Y-%m-%d %H:%M} to {clocks.last:%Y-%m-%d %H:%M} UTC; "
                f"a run's window ends at {clocks.until:%Y-%m-%d %H:%M}, "
                f"and {clocks.recent:,} of {self.devices:,} devices have a row in the week before"
            )
        if clocks.silent:
            yield f"devices without any row: {clocks.silent:,}"
        if clocks.late:
            yield f"rows after the end of the window, which no run counts: {clocks.late:,}"
        if not self.hours:
            yield f"warning: there is no {LISTENING.name} table, so nothing can be measured per hour"
        for column, labels in self.unnamed.items():
            what = "devices" if column in DEVICE_FACTS else "rows"
            shown = ", ".join(
                f"`{label}` ({count:,} {what})" for label, count in list(labels.items())[:NAMED]
            )
            more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
            yield f"{column}: labels that no plan names: {shown}{more}"
        for each in self.fits:
            yield from (f"{each.plan}: {text}" for text in each.sentences())

    def as_object(self) -> dict[str, object]:
        """Return it for programs."""
        whole = asdict(self)
        times = {
            name: value and value.isoformat() for name, value in whole["clocks"].items() if name in _TIMES
        }
        return whole | {"clocks": whole["clocks"] | times, "sentences": list(self.sentences())}


_TIMES: Final = ("first", "last", "until")


def quality(fleet: Fleet, plans: Sequence[Plan], asked: Sequence[Plan]) -> Quality:
    """Return what is worth knowing of a fleet.

    Args:
        fleet: the fleet.
        plans: those whose labels are looked for.
        asked: those whose caps and groups are looked at too.
    """
    cohort = cohort_of_fleet(fleet.devices, fleet.tables)
    return Quality(
        len(fleet.devices),
        _clocks(fleet),
        LISTENING.name in fleet.tables,
        _unnamed(fleet, plans),
        tuple(fit(plan, cohort, fleet.until) for plan in asked),
    )


def _clocks(fleet: Fleet) -> Clocks:
    ends = []
    newest = np.full(len(fleet.devices), np.iinfo(np.int64).min)
    end = int(fleet.until.timestamp()) * 1_000_000
    late = 0
    for table in fleet.tables.values():
        if len(table):
            ends += list(pc.min_max(table["time"]).as_py().values())
            time = table["time"].cast(pa.int64()).to_numpy()
            late += int((time >= end).sum())
            place = places_in(table["device_id"], fleet.devices["device_id"])
            np.maximum.at(newest, place[time < end], time[time < end])
    since = end - int(WEEK.total_seconds()) * 1_000_000
    return Clocks(
        min(ends, default=None),
        max(ends, default=None),
        fleet.until,
        recent=int((newest >= since).sum()),
        silent=_silent(fleet),
        late=late,
    )


def _silent(fleet: Fleet) -> int:
    heard = np.zeros(len(fleet.devices), np.bool_)
    for table in fleet.tables.values():
        heard[places_in(table["device_id"], fleet.devices["device_id"])] = True
    return int((~heard).sum())


def _unnamed(fleet: Fleet, plans: Sequence[Plan]) -> dict[str, dict[str, int]]:
    named: dict[str, set[str]] = {}
    for plan in plans:
        for column, labels in _named(plan):
            named.setdefault(column, set()).update(labels)
    here = (name for name in DEVICE_FACTS if name in fleet.devices.column_names)
    columns = [(name, fleet.devices[name]) for name in here]
    columns += [
        (name, fleet.tables[table][name])
        for table in fleet.tables
        for name, column in SOURCES[table].columns.items()
        if column.type == "label" and column.domain is None
    ]
    found: dict[str, dict[str, int]] = {}
    for name, values in columns:
        if name not in named:
            continue
        for each in pc.value_counts(values.cast(pa.string())).to_pylist():
            if each["values"] is not None and each["values"] not in named[name]:
                counts = found.setdefault(name, {})
                counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
    return {name: dict(sorted(counts.items(), key=lambda item: -item[1])) for name, counts in found.items()}


def _named(plan: Plan) -> Iterator[tuple[str, set[str]]]:
    """Yield every column of labels that a plan speaks of, with the labels that it names there."""
    for segment in plan.segments.values():
        if segment.values is not None:
            yield segment.column, set(spellings(segment))
    yield from _compared(plan.where)
    for metric in plan.metrics.values():
        for _, where in metric.conditions():
            yield from _compared(where)
        if isinstance(metric, Confusion):
            yield metric.actual, set(metric.labels_of)
            yield metric.predicted, set(metric.labels_of)
        if isinstance(metric, PairedDifference):
            yield metric.compare.field, {metric.compare.baseline, metric.compare.candidate}


def _compared(where: Filter) -> Iterator[tuple[str, set[str]]]:
    for column, condition in where.items():
        yield column, {str(value) for value in condition.values()}
