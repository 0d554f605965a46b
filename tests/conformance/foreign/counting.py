"""From a device's rows to its vector. From docs/device-protocol.md, "Counting".

A row is an object of column to value: text, a number, true or false, null where it is missing; `time` is in
microseconds since 1970.
"""

from bisect import bisect_right
from fractions import Fraction
from math import isqrt, sqrt
from secrets import randbits
from typing import Any

from plan import (
    Layout,
    Plan,
    centre,
    joint_of,
    labels_of,
    rows_and_columns,
    share_matrix,
    text_of,
)
from wire import number

HOUR = 3_600_000_000
UNITS = {"m": 60, "h": 3600, "d": 86400}
FACTS = ("accent", "device_class", "app_version", "power_source")
Row = dict[str, Any]


class Draws:
    """Random numbers of 64 bits: the operating system's, or those that a vector gives."""

    def __init__(self, given: dict[str, list[int]]) -> None:
        self._given = given

    def of(self, purpose: str, ordinal: int) -> int:
        return self._given[purpose][ordinal] if purpose in self._given else randbits(64)

    def sample(self, purpose: str, candidates: list[int], limit: int) -> list[int]:
        """Return the places of `limit` candidates drawn at random, ascending."""
        if len(candidates) <= limit:
            return candidates
        drawn = sorted(candidates, key=lambda place: (self.of(purpose, place), place))
        return sorted(drawn[:limit])

    def rounded(self, purpose: str, ordinal: int, top: int, bottom: int) -> int:
        whole, rest = divmod(top, bottom)
        if not rest:
            return whole
        return whole + ((self.of(purpose, ordinal) >> 11) * 2.0**-53 < rest / bottom)


def window_seconds(plan: Plan) -> int:
    return int(plan["window"][:-1]) * UNITS[plan["window"][-1]]


def value_of(row: Row, column: str, facts: dict[str, str]) -> Any:
    if column in FACTS:
        return facts.get(column)
    if column == "hour":
        return row["time"] // HOUR % 24
    return row.get(column)


def meets(row: Row, where: Plan, facts: dict[str, str]) -> bool:
    return all(holds(value_of(row, column, facts), condition) for column, condition in where.items())


def holds(value: Any, condition: Plan) -> bool:
    if value is None:
        return False
    same = (lambda other: value == other) if isinstance(value, str) else (lambda o: float(value) == float(o))
    if condition["any_of"] is not None and not any(same(other) for other in condition["any_of"]):
        return False
    if condition["not_any_of"] is not None and any(same(other) for other in condition["not_any_of"]):
        return False
    compare = {
        "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b
    }  # fmt: skip
    bounds = {key: condition[key] for key in compare if condition[key] is not None}
    return all(compare[key](float(value), float(number(bound))) for key, bound in bounds.items())


def label_index(segment: Plan, row: Row, facts: dict[str, str]) -> int:
    other = len(labels_of(segment)) - 1
    value = value_of(row, segment["event"], facts) if "event" in segment else facts.get(segment["device"])
    if value is None:
        return other
    if segment.get("edges") is not None:
        return bisect_right([float(number(edge)) for edge in segment["edges"]], float(value))
    for index, named in enumerate(segment["values"]):
        spelled = (segment.get("aliases") or {}).get(text_of(named), [])
        if isinstance(value, str):
            if value == text_of(named) or value in spelled:
                return index
        elif not isinstance(named, str) and float(value) == float(named):
            return index
    return other


class Counter:
    """Counts one metric of a plan."""

    def __init__(
        self, plan: Plan, name: str, tables: dict[str, list[Row]], facts: dict[str, str], draws: Draws
    ):
        self.plan, self.metric, self.facts, self.draws = plan, plan["metrics"][name], facts, draws
        self.name, self.tables = name, tables
        self.n, self.counters = plan["privacy"]["max_events"], plan["privacy"]["counters"]
        self.units = getattr(self, "_" + self.metric["kind"])()

    def _rows(self, table: str, *filters: Plan, known: tuple[str, ...] = ()) -> list[Row]:
        where = (self.plan["where"], self.metric["where"], *filters)
        return [
            row
            for row in self.tables[table]
            if all(meets(row, each, self.facts) for each in where)
            and all(row.get(column) is not None for column in known)
        ]

    def _sampled(self, purpose: str, rows: list[Row], limit: int) -> list[Row]:
        places = self.draws.sample(f"{self.name}/{purpose}", list(range(len(rows))), limit)
        return [rows[place] for place in places]

    def _rate(self) -> list[Any]:
        rows = self._sampled("events", self._rows(self.metric["source"], self.metric["over"]), self.n)
        return [(row, int(meets(row, self.metric["of"], self.facts)), 1) for row in rows]

    def _count(self) -> list[Any]:
        rows = self._sampled("events", self._rows(self.metric["source"], self.metric["of"]), self.n)
        return [(row, 1, 1) for row in rows]

    def _ratio(self) -> list[Any]:
        of, over = self.metric["of"], self.metric["over"]
        rows = self._sampled("events", self._rows(self.metric["source"], known=(of, over)), self.n)
        units = []
        for ordinal, row in enumerate(rows):
            x, n = (min(max(int(row[column]), 0), 2**40) for column in (of, over))
            most_x, most_n = self.metric["max_of"], self.metric["max_over"]
            if n > most_n and n * most_x >= x * most_n:
                x, n = self.draws.rounded(f"{self.name}/scale", ordinal, x * most_n, n), most_n
            elif x > most_x:
                x, n = most_x, self.draws.rounded(f"{self.name}/scale size", ordinal, n * most_x, x)
            units.append((row, x, n))
        return units

    def _mean(self) -> list[Any]:
        field = self.metric["field"]
        low, high = (float(number(self.metric["clip"][key])) for key in ("from", "to"))
        rows = self._sampled("events", self._rows(self.metric["source"], known=(field,)), self.n)
        return [
            (row, round((min(max(float(row[field]), low), high) - low) / (high - low) * 1000), 1)
            for row in rows
        ]

    def _bin(self, value: float) -> int:
        edges = self.metric["edges"]
        low, high, bins = number(edges["from"]), number(edges["to"]), edges["bins"]
        inner = [float(low + Fraction(high - low) * i / bins) for i in range(1, bins)]
        return bisect_right(inner, float(value))

    def _histogram(self) -> list[Any]:
        field, by = self.metric["field"], self.metric["by"]
        rows = self._rows(self.metric["source"], known=(field,))
        names, bins = rows_and_columns(self.metric)
        rows = [row for row in rows if by is None or row.get(by) in names]
        rows = self._sampled("events", rows, self.n)
        return [
            (row, (0 if by is None else names.index(row[by])) * bins + self._bin(row[field]), 1)
            for row in rows
        ]

    def _confusion(self) -> list[Any]:
        names, width = rows_and_columns(self.metric)
        columns = (self.metric["actual"], self.metric["predicted"])
        rows = self._sampled("events", self._rows(self.metric["source"], known=columns), self.n)

        def place(label: str) -> int:
            return names.index(label) if label in names[:-1] else width - 1

        return [(row, place(row[columns[0]]) * width + place(row[columns[1]]), 1) for row in rows]

    def _paired_difference(self) -> list[Any]:
        compare = self.metric["compare"]
        rows = self._rows(self.metric["source"], self.metric["over"])
        sides: dict[str, dict[Any, Row]] = {compare["baseline"]: {}, compare["candidate"]: {}}
        for row in rows:
            if row["model_version"] in sides:
                sides[row["model_version"]].setdefault((row["time"], row.get("wake_word")), row)
        baseline, candidate = sides[compare["baseline"]], sides[compare["candidate"]]
        pairs = [(row, candidate[key]) for key, row in baseline.items() if key in candidate]
        places = self.draws.sample(f"{self.name}/events", list(range(len(pairs))), self.n)
        of = self.metric["of"]
        return [
            (old, int(meets(new, of, self.facts)) - int(meets(old, of, self.facts)), 1)
            for old, new in (pairs[place] for place in places)
        ]

    def _hours(self) -> list[Row]:
        return self._sampled("hours", self._rows("listening"), self.metric["max_hours"])

    @staticmethod
    def _hour_key(row: Row) -> Any:
        return (row["time"] // HOUR, row["wake_word"], row["model_version"], row["playback"])

    def _in_hours(self, hours: list[Row], of: Plan) -> list[list[Row]]:
        place = {self._hour_key(hour): index for index, hour in enumerate(hours)}
        found: list[list[Row]] = [[] for _ in hours]
        for row in self.tables[self.metric["source"]]:
            if meets(row, of, self.facts) and self._hour_key(row) in place:
                found[place[self._hour_key(row)]].append(row)
        return found

    @staticmethod
    def _minutes(hour: Row) -> int:
        return min(max(int(hour["minutes"] or 0), 0), 60)

    def _rate_per_hour(self) -> list[Any]:
        hours = self._hours()
        events, most = self._in_hours(hours, self.metric["of"]), self.metric["max_per_hour"]
        return [(hour, min(len(each), most), self._minutes(hour)) for hour, each in zip(hours, events)]

    def _det(self) -> list[Any]:
        positives = self._rows("wake_events", self.metric["positive"], known=("score",))
        positives = self._sampled("events", positives, self.n)
        hours = self._hours()
        fires = [
            [row for row in each if row.get("score") is not None]
            for each in self._in_hours(hours, self.metric["negative"])
        ]
        kept, before = [], 0
        for each in fires:
            places = list(range(before, before + len(each)))
            kept.append(self.draws.sample(f"{self.name}/fires", places, self.metric["max_per_hour"]))
            before += len(each)
        flat = [row for each in fires for row in each]
        units = [("positives", row, self._bin(row["score"])) for row in positives]
        for hour, places in zip(hours, kept):
            units += [("negatives", hour, self._bin(flat[place]["score"])) for place in places]
            units.append(("minutes", hour, self._minutes(hour)))
        return units

    def _moments(self) -> list[Row]:
        return self._sampled("moments", self._rows("moments"), self.n)

    def _difference(self, rows: list[Row]) -> list[float]:
        # Summed in the order of the rows, then divided, then moved.
        center = [float(number(each)) for each in self.plan["center"]]
        total = [0.0] * len(center)
        for row in rows:
            total = [a + float(b) for a, b in zip(total, row["features"])]
        return [a / len(rows) - c for a, c in zip(total, center)]

    def _one_shot_means(self) -> list[Any]:
        rows = self._moments()
        if not rows:
            return []
        steps = [d * (4096 / float(number(self.plan["clip"]))) for d in self._difference(rows)]
        far = max(max(map(abs, steps)) / 2.0**24, 1.0)
        q = [int(each / far) for each in steps]
        squares = sum(each * each for each in q)
        if squares > 4096**2:
            r = isqrt(squares - 1) + 1
            q = [(1 if each > 0 else -1) * (abs(each) * 4096 // r) for each in q]
        return [(rows[0], q)]

    def _norm_histogram(self) -> list[Any]:
        rows = self._moments()
        if not rows:
            return []
        norm = sqrt(sum(d * d for d in self._difference(rows)))
        return [(rows[0], bisect_right([2 ** (i / 2) / 64 for i in range(1, 28)], norm))]

    # What is sent

    def _grouping(self, grouping: list[str]) -> tuple[int, Any]:
        """Return the number of groups, and a function from a row to its group."""
        segments = [self.plan["segments"][name] for name in grouping]
        groups = 1
        for segment in segments:
            groups *= len(labels_of(segment))

        def group(row: Row) -> int:
            place = 0
            for segment in segments:
                place = place * len(labels_of(segment)) + label_index(segment, row, self.facts)
            return place

        return groups, group

    def tallies(self, grouping: list[str]) -> list[Any]:
        """Return what two aggregators get a proof of, by group: (n, r, m), n, a table, or (p, q, t)."""
        groups, group = self._grouping(grouping)
        kind = self.metric["kind"]
        if kind == "det":
            return list(zip(*self._histograms(groups, group)))
        if kind in ("histogram", "confusion"):
            return self._cells(groups, group)
        count, size = self._sums(groups, group)
        if kind == "count":
            return count
        most = {"ratio": "max_of", "rate_per_hour": "max_per_hour"}.get(kind)
        each = 1000 if kind == "mean" else 1 if most is None else self.metric[most]
        whole = {"ratio": self.metric.get("max_over"), "rate_per_hour": 60}.get(kind, 1)
        found = []
        for r, n in zip(count, size):
            m = max(-(-n // whole), -(-abs(r) // each))
            cut = kind == "rate_per_hour" and self.counters == "joint"
            found.append((n, min(r, each * n) if cut else r, m))
        return found

    def _sums(self, groups: int, group: Any) -> tuple[list[int], list[int]]:
        count, size = [0] * groups, [0] * groups
        for row, r, n in self.units:
            count[group(row)] += r
            size[group(row)] += n
        return count, size

    def blocks(self, grouping: list[str]) -> dict[str, list[int]]:
        """Return the cells of each part."""
        groups, group = self._grouping(grouping)
        kind = self.metric["kind"]
        if kind in ("one_shot_means", "norm_histogram"):
            return self._trained(groups, group)
        if kind == "det":
            return self._curve(groups, group)
        if kind in ("histogram", "confusion"):
            return self._table(groups, group)
        count, size = self._sums(groups, group)
        if kind == "count":
            return {
                "events": count, "devices": [int(c > 0) for c in count], "squares": [c * c for c in count]
            }  # fmt: skip
        if self.counters == "joint" and kind not in ("ratio", "mean"):
            joint = joint_of(
                self.metric, self.n, any("event" in self.plan["segments"][name] for name in grouping)
            )
            return {"joint": [y for r, n in zip(count, size) for y in joint.y(n, min(r, joint.count * n))]}
        a, b = centre(self.metric)
        t = [b * r - a * n for r, n in zip(count, size)]
        return {
            "excess": t, "size": size, "devices": [int(n > 0) for n in size],
            "excess_squared": [x * x for x in t], "excess_size": [x * n for x, n in zip(t, size)],
            "size_squared": [n * n for n in size],
        }  # fmt: skip

    def _cells(self, groups: int, group: Any) -> list[list[int]]:
        names, columns = rows_and_columns(self.metric)
        tables = [[0] * (len(names) * columns) for _ in range(groups)]
        for row, cell, _ in self.units:
            tables[group(row)][cell] += 1
        return tables

    def _table(self, groups: int, group: Any) -> dict[str, list[int]]:
        names, columns = rows_and_columns(self.metric)
        width = len(names) * columns
        cells = [x for table in self._cells(groups, group) for x in table]
        rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
        devices = [int(any(cells[g * width : (g + 1) * width])) for g in range(groups)]
        if self.counters == "joint":
            matrix = share_matrix(self.n)
            sent = [
                sum(a * u for a, u in zip(line, (x, x * sum(row), x * x)))
                for row in rows for x in row for line in matrix
            ]  # fmt: skip
            return {"joint": sent, "devices": devices}
        return {
            "cells": cells, "devices": devices, "cell_squares": [sum(x * x for x in row) for row in rows],
            "row_squares": [sum(row) ** 2 for row in rows],
        }  # fmt: skip

    def _histograms(self, groups: int, group: Any) -> tuple[list[list[int]], list[list[int]], list[int]]:
        bins = self.metric["edges"]["bins"]
        positives = [[0] * bins for _ in range(groups)]
        negatives = [[0] * bins for _ in range(groups)]
        minutes = [0] * groups
        for part, row, value in self.units:
            if part == "minutes":
                minutes[group(row)] += value
            else:
                (positives if part == "positives" else negatives)[group(row)][value] += 1
        return positives, negatives, minutes

    def _curve(self, groups: int, group: Any) -> dict[str, list[int]]:
        bins = self.metric["edges"]["bins"]
        positives, negatives, minutes = self._histograms(groups, group)
        missed = [[sum(p[:k]) for k in range(1, bins)] for p in positives]
        fired = [[sum(n[k:]) for k in range(1, bins)] for n in negatives]
        flat = lambda rows: [x for row in rows for x in row]  # noqa: E731
        sent = {
            "positives": flat(positives), "negatives": flat(negatives), "minutes": minutes,
            "devices": [int(sum(p) > 0) for p in positives],
            "fire_minutes": [x * m for row, m in zip(negatives, minutes) for x in row],
            "minute_squares": [m * m for m in minutes],
        }  # fmt: skip
        if self.counters == "joint":
            return sent | {
                "miss_squares": [x * x for x in flat(missed)], "fire_squares": [x * x for x in flat(fired)],
                "miss_sizes": [x * sum(p) for p in positives for x in p],
            }  # fmt: skip
        return sent | {
            "miss_squares": [sum(x * x for x in row) for row in missed],
            "fire_squares": [sum(x * x for x in row) for row in fired],
            "row_squares": [sum(p) ** 2 for p in positives],
        }

    def _trained(self, groups: int, group: Any) -> dict[str, list[int]]:
        part, width = ("steps", 98) if self.metric["kind"] == "one_shot_means" else ("bins", 28)
        cells = [0] * (groups * width)
        for row, value in self.units:
            at = group(row) * width
            if part == "steps":
                cells[at : at + width] = [*value, 1024]
            else:
                cells[at + value] = 1
        return {part: cells}


def counters_of(
    plan: Plan, until: int, tables: dict[str, list[Row]], facts: dict[str, str], draws: Draws
) -> dict[str, Counter]:
    """Each metric, sampled."""
    start, end = (until - window_seconds(plan)) * 1_000_000, until * 1_000_000
    inside = {name: [row for row in rows if start <= row["time"] < end] for name, rows in tables.items()}
    return {name: Counter(plan, name, inside, facts, draws) for name in sorted(plan["metrics"])}


def vector_of(
    plan: Plan, layout: Layout, until: int, tables: dict[str, list[Row]], facts: dict[str, str], draws: Draws
) -> list[int]:
    """Return a device's counts, before noise."""
    vector, found = [0] * layout.length, {}
    counters = counters_of(plan, until, tables, facts, draws)
    for block in layout.blocks:
        key = (block.metric, block.grouping)
        if key not in found:
            found[key] = counters[block.metric].blocks(list(block.grouping))
        cells = found[key][block.part]
        total, squares = sum(map(abs, cells)), sum(x * x for x in cells)
        if total <= block.l1 and squares <= block.l2_squared and max(map(abs, cells)) <= block.linf:
            vector[block.start : block.start + block.cells] = cells
    return vector
