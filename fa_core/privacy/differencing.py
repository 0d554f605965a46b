"""Which earlier releases could be subtracted from a new one, and whom the difference would be about.

Two releases that count nearly the same rows differ by the rows that only one of them counts. Where filters,
windows and groups agree in all but one column, subtracting one count from the other leaves just those rows:
the group that the pair isolates. Differential privacy bounds what any such difference may say of one device,
and both releases are charged to the same population; this names the group to a person before a plan is sent.

Every number counts the rows of a *box*: a region of values for each column that it restricts, and a window of
time. Boxes are plain values, read here from a plan's canonical JSON; nothing else of ours is known.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise, product
from typing import Any, Final

Scalar = str | int | bool
TIME: Final = "time"


@dataclass(frozen=True, slots=True)
class Region:
    """Values of a column: those named, or, with `others`, all in [low, high) but those named.

    Bounds are numbers or infinite. `low_open` leaves `low` out; `high_closed` takes `high` in.
    """

    named: frozenset[Scalar]
    others: bool = False
    low: Fraction | float = -math.inf
    high: Fraction | float = math.inf
    low_open: bool = False
    high_closed: bool = False

    def __contains__(self, value: Scalar) -> bool:
        if not self.others:
            return value in self.named
        if value in self.named:
            return False
        if isinstance(value, str):
            return (self.low, self.high) == (-math.inf, math.inf)
        above = value > self.low or (value == self.low and not self.low_open)
        return above and (value < self.high or (value == self.high and self.high_closed))


EVERYTHING: Final = Region(frozenset(), others=True)
Box = Mapping[str, Region]


@dataclass(frozen=True, slots=True)
class Question:
    """The rows that a release counts in one source: `boxes`, each within the window [start, end), UTC.

    `release` is its id, or "" for a plan that was not sent yet; `plan` its name, for a person.
    """

    release: str
    plan: str
    source: str
    start: datetime
    end: datetime
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Isolated:
    """The group that a difference is about: rows that exactly one of two releases counts.

    Attributes:
        column: the one column in which the two differ, or "time".
        regions: values of that column that only one counts; empty for "time".
        spans: stretches of time that only one counts; the shared window for another column.
        group: the regions that both share in the other columns.
        devices: at most so many devices are expected in the group, None where the fleet's size is not given.
    """

    column: str
    regions: tuple[Region, ...]
    spans: tuple[tuple[datetime, datetime], ...]
    group: Box
    devices: float | None

    @property
    def length(self) -> timedelta:
        """How much time the group covers."""
        return sum((end - start for start, end in self.spans), timedelta())


@dataclass(frozen=True, slots=True)
class Overlap:
    """An earlier release that counts some of the same rows, and the smallest group that the pair isolates.

    `isolated` is None where every pair of groups is the same, or differs in more than one column.
    """

    release: str
    plan: str
    isolated: Isolated | None


def questions(plan: Mapping[str, Any], release: str, start: datetime, end: datetime) -> tuple[Question, ...]:
    """Return what a plan (its canonical JSON, parsed) asks about a window, a question for each source."""
    boxes: dict[str, list[Box]] = {}
    for metric in plan["metrics"].values():
        asked = boxes.setdefault(metric["source"], [])
        for grouping in metric["group_by"]:
            parts = [list(_labels(plan["segments"][name])) for name in grouping]
            for group in product(*parts):
                filters = [
                    (name, region(allowed))
                    for where in (plan["where"], metric["where"])
                    for name, allowed in where.items()
                ]
                box = _box([*filters, *group])
                if box not in asked:
                    asked.append(box)
    name = plan["metadata"]["name"]
    return tuple(Question(release, name, source, start, end, tuple(own)) for source, own in boxes.items())


def overlaps(
    new: Question,
    earlier: Sequence[Question],
    devices: int | None = None,
    shares: Mapping[tuple[str, Scalar], float] | None = None,
) -> tuple[Overlap, ...]:
    """Return every earlier release that counts some of the same rows, the smallest isolated group first.

    Args:
        devices: the public size of the fleet.
        shares: a public guess of the share of devices with a value, by column and value: a survey's, or an
            earlier release's. A value without one is taken as everybody.
    """
    found = []
    for each in earlier:
        if new.source != each.source or new.start >= each.end or each.start >= new.end:
            continue
        pairs = [(a, b) for a in new.boxes for b in each.boxes if _meet(a, b)]
        if pairs:
            isolated = [
                group for a, b in pairs if (group := _isolated(new, a, each, b, devices, shares or {}))
            ]
            found.append(Overlap(each.release, each.plan, min(isolated, key=_size, default=None)))
    return tuple(sorted(found, key=lambda overlap: _size(overlap.isolated)))


def sentence(overlap: Overlap) -> str:
    """Return an overlap as a sentence for a person."""
    what = f"counts some of the same rows as release {overlap.release[:12]} of {overlap.plan}"
    found = overlap.isolated
    if found is None:
        return f"{what}; no single subtraction of the two isolates a group"
    if found.column == TIME:
        spans = " and ".join(f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" for start, end in found.spans)
        group = f"the time {spans}"
    else:
        group = f"{found.column} {' or '.join(_text(piece) for piece in found.regions)}"
    if found.group:
        group += " where " + ", ".join(f"{name} is {_text(allowed)}" for name, allowed in found.group.items())
    size = "" if found.devices is None else f" (about {found.devices:.0f} devices at most)"
    return f"{what}; subtracting the two isolates {group}{size}"


def _text(allowed: Region) -> str:
    named = ", ".join(sorted(str(value) for value in allowed.named))
    if not allowed.others:
        return named
    bounds = [f"{'above' if allowed.low_open else 'from'} {allowed.low}"] if allowed.low != -math.inf else []
    if allowed.high != math.inf:
        bounds.append(f"{'up to' if allowed.high_closed else 'below'} {allowed.high}")
    text = " ".join(bounds) or "anything"
    return f"{text} but {named}" if named else text


def region(condition: Mapping[str, Any]) -> Region:
    """Return the values that satisfy a condition of a plan's canonical JSON (any_of, not_any_of, lt, …)."""
    bounds = {
        key: Fraction(condition[key]) for key in ("lt", "le", "gt", "ge") if condition.get(key) is not None
    }
    inside = EVERYTHING
    for key, bound in bounds.items():
        if key in ("gt", "ge"):
            one = Region(frozenset(), True, low=bound, low_open=key == "gt")
        else:
            one = Region(frozenset(), True, high=bound, high_closed=key == "le")
        inside = _both(inside, one)
    if condition.get("not_any_of") is not None:
        inside = _both(inside, Region(frozenset(condition["not_any_of"]), others=True))
    if condition.get("any_of") is not None:
        inside = _both(inside, Region(frozenset(condition["any_of"])))
    return inside


def _labels(segment: Mapping[str, Any]) -> Iterator[tuple[str, Region]]:
    """Yield each label's column and region. `other` of a segment with edges holds nulls only: no region."""
    column = segment.get("device") or segment["event"]
    if segment.get("edges") is None:
        aliases: Mapping[str, Sequence[str]] = segment.get("aliases") or {}
        named = [frozenset([value, *aliases.get(str(value), ())]) for value in segment["values"]]
        for values in named:
            yield column, Region(values)
        yield column, Region(frozenset().union(*named), others=True)
        return
    edges: list[Fraction | float] = [-math.inf, *map(Fraction, segment["edges"]), math.inf]
    for low, high in pairwise(edges):
        yield column, Region(frozenset(), True, low, high)


def _box(restrictions: Sequence[tuple[str, Region]]) -> Box:
    box: dict[str, Region] = {}
    for column, allowed in restrictions:
        box[column] = _both(box.get(column, EVERYTHING), allowed)
    return {column: allowed for column, allowed in box.items() if allowed != EVERYTHING}


def _both(a: Region, b: Region) -> Region:
    """Return the values in both regions."""
    if not a.others:
        return Region(frozenset(value for value in a.named if value in b))
    if not b.others:
        return _both(b, a)
    low, low_open = max((a.low, a.low_open), (b.low, b.low_open))
    high, high_closed = min((a.high, a.high_closed), (b.high, b.high_closed))
    return Region(a.named | b.named, True, low, high, low_open, high_closed)


def _empty(allowed: Region) -> bool:
    if not allowed.others:
        return not allowed.named
    return allowed.low > allowed.high or (
        allowed.low == allowed.high and (allowed.low_open or not allowed.high_closed)
    )


def _without(a: Region, b: Region) -> tuple[Region, ...]:
    """Return what is in `a` and not in `b`, as regions that do not meet."""
    if _empty(_both(a, b)):
        return () if _empty(a) else (a,)
    if not a.others:
        left = frozenset(value for value in a.named if value not in b)
        return (Region(left),) if left else ()
    if not b.others:
        return (Region(a.named | b.named, True, a.low, a.high, a.low_open, a.high_closed),)
    below = _both(a, Region(frozenset(), True, high=b.low, high_closed=b.low_open))
    above = _both(a, Region(frozenset(), True, low=b.high, low_open=b.high_closed))
    points = _both(Region(b.named), a)
    inside = Region(frozenset(), True, b.low, b.high, b.low_open, b.high_closed)
    return tuple(piece for piece in (below, above, _both(points, inside)) if not _empty(piece))


def _meet(a: Box, b: Box) -> bool:
    """Whether some row can be in both boxes."""
    return not any(_empty(_both(a[column], b[column])) for column in a.keys() & b.keys())


def _isolated(
    new: Question,
    a: Box,
    earlier: Question,
    b: Box,
    devices: int | None,
    shares: Mapping[tuple[str, Scalar], float],
) -> Isolated | None:
    """Return the group of a pair of boxes that differ in one column or in time alone."""
    columns = [
        column
        for column in sorted(a.keys() | b.keys())
        if a.get(column, EVERYTHING) != b.get(column, EVERYTHING)
    ]
    same_time = (new.start, new.end) == (earlier.start, earlier.end)
    if len(columns) + (not same_time) != 1:
        return None
    if not same_time:
        edges = (sorted((new.start, earlier.start)), sorted((new.end, earlier.end)))
        spans = tuple((start, end) for start, end in edges if start < end)
        return Isolated(TIME, (), spans, a, _expected(devices, a, (), "", shares))
    (column,) = columns
    mine, theirs = a.get(column, EVERYTHING), b.get(column, EVERYTHING)
    pieces = (*_without(mine, theirs), *_without(theirs, mine))
    group = {name: allowed for name, allowed in a.items() if name != column}
    window = ((new.start, new.end),)
    return Isolated(column, pieces, window, group, _expected(devices, group, pieces, column, shares))


def _expected(
    devices: int | None,
    group: Box,
    pieces: Sequence[Region],
    column: str,
    shares: Mapping[tuple[str, Scalar], float],
) -> float | None:
    if devices is None:
        return None
    expected = float(devices)
    for name, allowed in group.items():
        expected *= _share(name, allowed, shares)
    return expected * min(1.0, sum(_share(column, piece, shares) for piece in pieces)) if pieces else expected


def _share(column: str, allowed: Region, shares: Mapping[tuple[str, Scalar], float]) -> float:
    """Return the largest share of devices that may be in a region, by the guess."""
    if allowed.others:
        return max(0.0, 1.0 - sum(shares.get((column, value), 0.0) for value in allowed.named))
    return min(1.0, sum(shares.get((column, value), 1.0) for value in allowed.named))


def _size(isolated: Isolated | None) -> tuple[float, timedelta, int]:
    """Return what makes one group smaller than another: devices, then time, then how much of it is named."""
    if isolated is None:
        return (math.inf, timedelta.max, 0)
    named = sum(len(piece.named) if not piece.others else 1000 for piece in isolated.regions)
    return (math.inf if isolated.devices is None else isolated.devices, isolated.length, named)
