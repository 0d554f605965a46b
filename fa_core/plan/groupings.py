"""The checks of a plan's segments, of their labels and edges, and of its groupings."""

from collections.abc import Iterable, Iterator, Set
from fractions import Fraction

from fa_core.metrics import exact_text
from fa_core.plan.columns import check_value, columns_anywhere, limits, range_text
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import show, suggestion
from fa_core.plan.schema import OTHER, DeviceSegment, EventSegment, Segment, label_text
from fa_core.tables import Column


def check_segment(segment: Segment, loc: Loc) -> Iterator[Finding]:
    """Yield what is wrong with one segment by itself."""
    yield from _aliases(segment, (*loc, "aliases"))
    if isinstance(segment, DeviceSegment):
        yield from _labels(segment.values, (*loc, "values"))
        return
    column = columns_anywhere().get(segment.event)
    if column is None:
        found = f"no table has a column {show(segment.event)}"
        yield Finding((*loc, "event"), found, suggestion(segment.event, columns_anywhere()))
    if segment.values is not None and segment.edges is None and segment.names is None:
        yield from _labels([label_text(value) for value in segment.values], (*loc, "values"))
        yield from _values(segment, column, (*loc, "values"))
    elif segment.values is None and segment.edges is not None and segment.names is not None:
        yield from _labels(segment.names, (*loc, "labels"))
        yield from _edges(segment.event, segment.edges, segment.names, column, loc)
    else:
        yield Finding(
            loc, "how to divide the column is not clear", "give `values`, or `edges` together with `labels`"
        )


def _labels(labels: Iterable[str], loc: Loc) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, label in enumerate(labels):
        if label == OTHER:
            right = "take it out: every segment has it by itself, for all that is not named"
            yield Finding((*loc, index), f"the label {show(OTHER)} is declared", right)
        elif label in seen:
            yield Finding((*loc, index), f"{show(label)} is here twice", "keep one of them")
        seen.add(label)


def _aliases(segment: Segment, loc: Loc) -> Iterator[Finding]:
    column = columns_anywhere().get(segment.column)
    if not segment.aliases:
        return
    if segment.values is None or (column is not None and column.type != "label"):
        yield Finding(
            loc, "aliases of what is no label", "they are spellings of `values`, in a column of text"
        )
        return
    seen = dict.fromkeys(segment.labels, "a label of this segment")
    for label, spelled in segment.aliases.items():
        if label not in segment.labels[:-1]:
            found = f"{show(label)} is no value of this segment"
            yield Finding((*loc, label), found, suggestion(label, segment.labels[:-1]), at_key=True)
        for index, alias in enumerate(spelled):
            if alias in seen:
                right = "take it out: a spelling stands for one label"
                yield Finding((*loc, label, index), f"{show(alias)} is {seen[alias]} already", right)
            elif column is not None:
                yield from check_value(alias, column, segment.column, (*loc, label, index))
            seen.setdefault(alias, f"an alias of {show(label)}")


def _values(segment: EventSegment, column: Column | None, loc: Loc) -> Iterator[Finding]:
    if column is not None and column.type == "number":
        found = f"{show(segment.event)} is a measured number, hardly ever equal to any value"
        yield Finding(loc, found, "cut it by `edges` and `labels`")
    elif column is not None:
        for index, value in enumerate(segment.values or ()):
            yield from check_value(value, column, segment.event, (*loc, index))


def _edges(
    name: str, edges: tuple[Fraction, ...], labels: tuple[str, ...], column: Column | None, loc: Loc
) -> Iterator[Finding]:
    if column is not None and column.type not in {"number", "integer"}:
        yield Finding((*loc, "edges"), f"{show(name)} is no number, so it has no edges", "cut it by `values`")
        return
    if len(labels) != len(edges) + 1:
        found = f"labels here: {len(labels)}, parts that the edges make: {len(edges) + 1}"
        right = "write one label for each part, from the lowest up"
        yield Finding((*loc, "labels"), found, right)
    for index, edge in enumerate(edges):
        at = (*loc, "edges", index)
        if index and edge <= edges[index - 1]:
            found = f"the edge {exact_text(edge)} is not above {exact_text(edges[index - 1])} before it"
            yield Finding(at, found, "write edges once each, ascending, so that parts do not overlap")
        elif column is not None:
            low, high = limits(column)
            if (low is not None and edge <= low) or (high is not None and edge > high):
                found = f"the edge {exact_text(edge)} leaves a part that nothing falls into"
                yield Finding(at, found, f"{show(name)} lies {range_text(column)}")


def check_groupings(group_by: Iterable[tuple[str, ...]], loc: Loc, declared: Set[str]) -> Iterator[Finding]:
    """Yield what is wrong with groupings: unknown segments, one twice, or a grouping twice."""
    seen: list[frozenset[str]] = []
    for index, grouping in enumerate(group_by):
        for place, name in enumerate(grouping):
            at = (*loc, index, place)
            if name not in declared:
                names = sorted(declared)
                right = suggestion(name, names) if names else "declare it under `segments`"
                yield Finding(at, f"no segment is named {show(name)}", right)
            elif name in grouping[:place]:
                yield Finding(at, f"{show(name)} is twice in one grouping", "keep one of them")
        if frozenset(grouping) in seen:
            yield Finding(
                (*loc, index), f"{grouping_text(grouping)} is here twice", "keep one: each is charged for"
            )
        seen.append(frozenset(grouping))


def grouping_text(grouping: Iterable[str]) -> str:
    """Return a grouping as it is written, between back-quotes."""
    return show(f"[{', '.join(grouping)}]")
