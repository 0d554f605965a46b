"""Every kind's counts by hand: one device, one row at a time, plain Python. Slow, and meant to be read.

Written from the design and the kinds' docstrings, with no line shared with them. It draws
the same sample because it is given the same priorities, by purpose and place in the list of candidates.
"""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from fa_core.metrics import Condition, MetricSpec
from fa_core.metrics.joint import SHARES, TABLES
from fa_core.plan import EventSegment, Plan
from tests.metrics import joint_reference

Row = Mapping[str, Any]
Priority = Callable[[str, int], int]
"""(purpose, place among the candidates) -> what the draw is sorted by."""

HOUR = timedelta(hours=1)


def vector(
    plan: Plan, facts: Mapping[str, str], tables: Mapping[str, Sequence[Row]], until: datetime, draw: Priority
) -> dict[tuple[str, tuple[str, ...], str], list[int]]:
    """Return one device's bounded counts by (metric, grouping, part)."""
    inside = {
        name: [row for row in rows if until - plan.window <= row["time"] < until]
        for name, rows in tables.items()
    }
    result: dict[tuple[str, tuple[str, ...], str], list[int]] = {}
    for name, metric in plan.metrics.items():

        def drawn(purpose: str, place: int, name: str = name) -> int:
            return draw(f"{name}/{purpose}", place)

        for grouping in metric.group_by or plan.group_by:
            counter = _Counter(plan, metric, grouping, facts, inside, drawn)
            for part, cells in getattr(counter, metric.kind)().items():
                result[name, grouping, part] = cells
    return result


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) or isinstance(wanted, str):
        return bool(value == wanted)
    return float(value) == float(wanted)


def _number(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _passes(row: Row, where: Mapping[str, Condition]) -> bool:
    for column, condition in where.items():
        value = row["time"].hour if column == "hour" else row[column]
        if not _number(value):
            return False
        if condition.any_of is not None and not any(_same(value, each) for each in condition.any_of):
            return False
        if condition.not_any_of is not None and any(_same(value, each) for each in condition.not_any_of):
            return False
        for bound, holds in (
            (condition.lt, lambda x, y: x < y),
            (condition.le, lambda x, y: x <= y),
            (condition.gt, lambda x, y: x > y),
            (condition.ge, lambda x, y: x >= y),
        ):
            if bound is not None and not holds(float(value), float(bound)):
                return False
    return True


class _Counter:
    """One metric of one device in one grouping."""

    def __init__(
        self,
        plan: Plan,
        metric: MetricSpec,
        grouping: tuple[str, ...],
        facts: Mapping[str, str],
        tables: Mapping[str, Sequence[Row]],
        draw: Priority,
    ) -> None:
        self.plan, self.metric, self.facts, self.tables, self.draw = plan, metric, facts, tables, draw
        self.segments = [plan.segments[name] for name in grouping]
        self.groups = math.prod(len(segment.labels) for segment in self.segments)
        self.n = plan.privacy.max_events

    def group(self, row: Row) -> int:
        place = 0
        for segment in self.segments:
            other = len(segment.labels) - 1
            if not isinstance(segment, EventSegment):
                value = self.facts.get(segment.column)
                label = segment.labels.index(value) if value in segment.labels[:-1] else other
            else:
                value = row["time"].hour if segment.column == "hour" else row[segment.column]
                if not _number(value):
                    label = other
                elif segment.edges is not None:
                    label = bisect.bisect_right([float(edge) for edge in segment.edges], value)
                else:
                    labels = list(segment.labels[:-1])
                    text = str(value).lower() if isinstance(value, bool) else str(value)
                    label = labels.index(text) if text in labels else other
            place = place * len(segment.labels) + label
        return place

    def sample(self, purpose: str, rows: Sequence[Any], limit: int, first: int = 0) -> list[Any]:
        if len(rows) <= limit:
            return list(rows)
        chosen = sorted(range(len(rows)), key=lambda place: self.draw(purpose, first + place))[:limit]
        return [rows[place] for place in sorted(chosen)]

    def rows(self, source: str, *filters: Mapping[str, Condition]) -> list[Row]:
        return [
            row
            for row in self.tables[source]
            if all(_passes(row, where) for where in (self.plan.where, self.metric.where, *filters))
        ]

    def ratio_of(
        self, units: Sequence[tuple[int, int, int]], a: int, b: int, most: int
    ) -> dict[str, list[int]]:
        """`units` holds (group, count, size); `most` is what one device may add to the excess over a/b."""
        count, size = [0] * self.groups, [0] * self.groups
        for group, each, length in units:
            count[group] += each
            size[group] += length
        kind = self.metric.kind
        if self.plan.privacy.counters == "joint" and kind in ("rate", "paired_difference", "rate_per_hour"):
            return {"joint": [y for r, n in zip(count, size, strict=True) for y in self.joint(r, n)]}
        return self.centred([b * r - a * n for r, n in zip(count, size, strict=True)], size, b, most)

    def joint(self, r: int, n: int) -> list[int]:
        """The six integers that stand for a pair, by the published rule."""
        metric: Any = self.metric
        cut_by_events = any(isinstance(segment, EventSegment) for segment in self.segments)
        table = metric.kind.removesuffix("_difference") + ("_event" if cut_by_events else "")
        widest, most = self.n, self.n
        if metric.kind == "rate_per_hour":
            widest, most = 60 * metric.max_hours, metric.max_per_hour * metric.max_hours
            r = min(r, metric.max_per_hour * n)
        return joint_reference.mapped(joint_reference.matrix(TABLES[table], widest, most), n, r)

    def centred(self, raw: list[int], size: list[int], b: int, most: int) -> dict[str, list[int]]:
        """`raw` is the excess in each group; `most` is what one device may add to it before any clip."""
        clip = self.plan.privacy.max_excess
        clips = clip is not None and self.metric.kind in ("rate", "paired_difference")
        limit = min(most, b * clip) if clips and clip is not None else most
        before = self.plan.privacy.counters is None
        kept, alike = _within(raw, limit), _within(raw, min(limit, most // 2) if before else most)
        counts = {
            "excess": kept,
            "size": size,
            "devices": [int(each > 0) for each in size],
            "excess_squared": [cell * cell for cell in alike],
            "excess_size": [cell * each for cell, each in zip(alike, size, strict=True)],
            "size_squared": [each * each for each in size],
        }
        if limit < most:
            counts["clipped"] = [before - after for before, after in zip(raw, kept, strict=True)]
        return counts

    def rate(self) -> dict[str, list[int]]:
        a, b = _ratio(self.metric.expect)  # type: ignore[attr-defined]
        rows = self.sample("events", self.rows("wake_events", self.metric.over), self.n)  # type: ignore[attr-defined]
        of = self.metric.of  # type: ignore[attr-defined]
        units = [(self.group(row), int(_passes(row, of)), 1) for row in rows]
        return self.ratio_of(units, a, b, self.n * max(a, b - a))

    def ratio(self) -> dict[str, list[int]]:
        metric: Any = self.metric
        a, b = _ratio(metric.expect)
        rows = [
            row
            for row in self.rows("dictation_events")
            if row[metric.of] is not None and row[metric.over] is not None
        ]
        units = []
        for place, row in enumerate(self.sample("events", rows, self.n)):
            above, below = max(row[metric.of], 0), max(row[metric.over], 0)
            if self.plan.privacy.counters is None:
                above, below = min(above, metric.max_of), min(below, metric.max_over)
            else:
                factor = min(
                    Fraction(1),
                    Fraction(metric.max_of, max(above, 1)),
                    Fraction(metric.max_over, max(below, 1)),
                )
                above, below = (
                    self.rounded(purpose, place, value * factor)
                    for purpose, value in (("scale", above), ("scale size", below))
                )
            units.append((self.group(row), above, below))
        return self.ratio_of(units, a, b, self.n * max(b * metric.max_of, a * metric.max_over))

    def rounded(self, purpose: str, place: int, value: Fraction) -> int:
        """Down or up at random, with the right expectation."""
        whole = math.floor(value)
        rest = value - whole
        return whole + bool(rest and (self.draw(purpose, place) >> 11) * 2.0**-53 < float(rest))

    def mean(self) -> dict[str, list[int]]:
        metric: Any = self.metric
        low, high = float(metric.clip.low), float(metric.clip.high)
        centre = round((metric.expect - metric.clip.low) / (metric.clip.high - metric.clip.low) * 1000)
        rows = [row for row in self.rows("command_events") if _number(row[metric.field])]
        units = []
        for row in self.sample("events", rows, self.n):
            value = min(max(row[metric.field], low), high)
            units.append((self.group(row), round((value - low) / (high - low) * 1000), 1))
        return self.ratio_of(units, centre, 1, self.n * max(centre, 1000 - centre))

    def paired_difference(self) -> dict[str, list[int]]:
        metric: Any = self.metric
        sides: list[dict[Any, Row]] = []
        for version in (metric.compare.baseline, metric.compare.candidate):
            first: dict[Any, Row] = {}
            for row in self.rows("wake_events", metric.over):
                if row["model_version"] == version:
                    first.setdefault((row["time"], row["wake_word"]), row)
            sides.append(first)
        both = [key for key in sides[0] if key in sides[1]]
        units = []
        for key in self.sample("events", both, self.n):
            old, new = sides[0][key], sides[1][key]
            units.append((self.group(old), int(_passes(new, metric.of)) - int(_passes(old, metric.of)), 1))
        return self.ratio_of(units, 0, 1, self.n)

    def count(self) -> dict[str, list[int]]:
        metric: Any = self.metric
        events = [0] * self.groups
        for row in self.sample("events", self.rows("wake_events", metric.of), self.n):
            events[self.group(row)] += 1
        return {
            "events": events,
            "devices": [int(each > 0) for each in events],
            "squares": [each * each for each in events],
        }

    def table(
        self, rows: Sequence[Row], cell: Callable[[Row], tuple[int, int]], shape: tuple[int, int]
    ) -> Any:
        height, width = shape
        cells = [0] * (self.groups * height * width)
        for row in self.sample("events", rows, self.n):
            y, x = cell(row)
            cells[(self.group(row) * height + y) * width + x] += 1
        lines = [cells[start : start + width] for start in range(0, len(cells), width)]
        groups = [lines[start : start + height] for start in range(0, len(lines), height)]
        if self.plan.privacy.counters == "joint":
            return {
                "joint": [y for line in lines for x in line for y in self.share(x, sum(line))],
                "devices": [int(any(map(any, group))) for group in groups],
            }
        return {
            "cells": cells,
            "devices": [int(any(map(any, group))) for group in groups],
            "cell_squares": [sum(x * x for x in line) for line in lines],
            "row_squares": [sum(line) ** 2 for line in lines],
        }

    def share(self, x: int, n: int) -> list[int]:
        """The three integers that stand for x of a row's n events in a cell, by the published rule."""
        s = min(30, max(10, 2 * math.ceil(math.log2(self.n)) + 4))
        return [
            sum(
                math.floor(Fraction(c * 2**s, 2**16 * self.n**power) + Fraction(1, 2)) * u
                for c, power, u in zip(row, (1, 2, 2), (x, x * n, x * x), strict=True)
            )
            for row in SHARES
        ]

    def histogram(self) -> Any:
        metric: Any = self.metric
        labels = metric.row_labels()
        rows = [
            row
            for row in self.rows("wake_events")
            if _number(row[metric.field]) and (metric.by is None or row[metric.by] in labels)
        ]

        def cell(row: Row) -> tuple[int, int]:
            y = 0 if metric.by is None else labels.index(row[metric.by])
            return y, bisect.bisect_right(metric.edges.inner(), row[metric.field])

        return self.table(rows, cell, (len(labels), metric.edges.bins))

    def confusion(self) -> Any:
        metric: Any = self.metric
        labels = (*metric.labels_of, "other")
        rows = [
            row
            for row in self.rows("command_events")
            if row[metric.actual] is not None and row[metric.predicted] is not None
        ]

        def place(value: str) -> int:
            return labels.index(value) if value in labels else len(labels) - 1

        return self.table(
            rows, lambda row: (place(row[metric.actual]), place(row[metric.predicted])), (len(labels),) * 2
        )

    def hours(self) -> list[Row]:
        return self.sample("hours", self.rows("listening"), self.metric.max_hours)  # type: ignore[attr-defined]

    def within(self, hours: Sequence[Row], event: Row) -> int | None:
        """The first sampled hour that an event fell into."""
        for place, hour in enumerate(hours):
            if hour["time"] <= event["time"] < hour["time"] + HOUR and all(
                hour[name] == event[name] for name in ("wake_word", "model_version", "playback")
            ):
                return place
        return None

    def rate_per_hour(self) -> dict[str, list[int]]:
        metric: Any = self.metric
        per_minute = (metric.expect / 60).limit_denominator(10_000)
        hours = self.hours()
        fires: Counter[int | None] = Counter(
            self.within(hours, event) for event in self.tables["wake_events"] if _passes(event, metric.of)
        )
        units = []
        for place, hour in enumerate(hours):
            minutes = min(max(hour["minutes"] or 0, 0), 60)
            capped = min(fires[place], metric.max_per_hour)
            units.append((self.group(hour), capped, minutes))
        one = max(60 * per_minute.numerator, per_minute.denominator * metric.max_per_hour)
        return self.ratio_of(units, per_minute.numerator, per_minute.denominator, metric.max_hours * one)

    def det(self) -> dict[str, list[int]]:
        metric: Any = self.metric
        bins, edges = metric.edges.bins, metric.edges.inner()
        positives = [[0] * bins for _ in range(self.groups)]
        negatives = [[0] * bins for _ in range(self.groups)]
        minutes = [0] * self.groups
        events = [row for row in self.rows("wake_events", metric.positive) if _number(row[metric.field])]
        for row in self.sample("events", events, self.n):
            positives[self.group(row)][bisect.bisect_right(edges, row[metric.field])] += 1
        hours = self.hours()
        fires: list[list[Row]] = [[] for _ in hours]
        for event in self.tables["wake_events"]:
            place = self.within(hours, event) if _passes(event, metric.negative) else None
            if place is not None and _number(event[metric.field]):
                fires[place].append(event)
        seen = 0
        for hour, fired in zip(hours, fires, strict=True):
            minutes[self.group(hour)] += min(max(hour["minutes"] or 0, 0), 60)
            for row in self.sample("fires", fired, metric.max_per_hour, first=seen):
                negatives[self.group(hour)][bisect.bisect_right(edges, row[metric.field])] += 1
            seen += len(fired)
        misses = [[sum(row[:at]) ** 2 for at in range(1, bins)] for row in positives]
        fires_over = [[sum(row[at:]) ** 2 for at in range(1, bins)] for row in negatives]
        if self.plan.privacy.counters == "joint":
            squares = {
                "miss_squares": [each for row in misses for each in row],
                "miss_sizes": [each * sum(row) for row in positives for each in row],
                "fire_squares": [each for row in fires_over for each in row],
            }
        else:
            squares = {
                "miss_squares": [sum(row) for row in misses],
                "row_squares": [sum(row) ** 2 for row in positives],
                "fire_squares": [sum(row) for row in fires_over],
            }
        return {
            **squares,
            "positives": [each for row in positives for each in row],
            "negatives": [each for row in negatives for each in row],
            "minutes": minutes,
            "devices": [int(any(row)) for row in positives],
            "fire_minutes": [
                each * listened for row, listened in zip(negatives, minutes, strict=True) for each in row
            ],
            "minute_squares": [each * each for each in minutes],
        }


def _within(cells: Sequence[int], limit: int) -> list[int]:
    """Scale cells down, toward zero, until they add up to at most `limit`."""
    norm = sum(map(abs, cells))
    if norm <= limit:
        return list(cells)
    return [int(math.copysign(abs(cell) * limit // norm, cell)) for cell in cells]


def _ratio(expect: Fraction) -> tuple[int, int]:
    near = expect.limit_denominator(1000)
    return near.numerator, near.denominator
