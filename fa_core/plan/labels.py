"""The rule for labels, asked of a plan that is read from YAML; plans of before are read as they were sent."""

from collections.abc import Iterable, Iterator, Mapping

from fa_core.labels import lookalikes, wrong
from fa_core.metrics.confusion import Confusion
from fa_core.metrics.filters import Filter
from fa_core.plan.columns import FACTS, columns_anywhere
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import show
from fa_core.plan.schema import EventSegment
from fa_core.plan.sections import Parts


def check_labels(parts: Parts) -> Iterator[Finding]:
    """Yield every label that no table can hold, and every one that looks like another beside it."""
    for name, segment in parts.segments.items():
        loc: Loc = ("segments", name)
        by_edges = isinstance(segment, EventSegment) and segment.values is None
        values = segment.labels[:-1]
        yield from _named(values, (*loc, "labels" if by_edges else "values"))
        yield from _among_aliases(values, segment.aliases or {}, (*loc, "aliases"))
    for name, metric in parts.metrics.items():
        if isinstance(metric, Confusion):
            yield from _named(metric.labels_of, (*parts.metric_locs[name], "labels"))
    yield from _compared(parts.fields.get("where") or {}, ("where",))
    for use in parts.filters:
        yield from _compared(use.where, use.loc)


def _each(labels: Iterable[object], loc: Loc) -> Iterator[Finding]:
    for index, label in enumerate(labels):
        if isinstance(label, str) and (what := wrong(label)) is not None:
            found, _, right = what.partition("; ")
            yield Finding((*loc, index), f"{show(label)} {found}", right)


def _named(labels: tuple[str, ...], loc: Loc) -> Iterator[Finding]:
    """Yield what is wrong with labels that stand side by side."""
    yield from _each(labels, loc)
    for earlier, label in lookalikes(labels):
        yield _alike(earlier, label, (*loc, labels.index(label)))


def _among_aliases(
    values: tuple[str, ...], aliases: Mapping[str, tuple[str, ...]], loc: Loc
) -> Iterator[Finding]:
    """Yield aliases that are no labels, or that look like another label than their own."""
    for label, spelled in aliases.items():
        yield from _each(spelled, (*loc, label))
        others = [value for value in values if value != label]
        for index, alias in enumerate(spelled):
            for earlier, _ in lookalikes([*others, alias]):
                yield _alike(earlier, alias, (*loc, label, index))


def _alike(earlier: str, label: str, loc: Loc) -> Finding:
    found = f"{show(label)} looks like {show(earlier)}: only case, width or spaces differ"
    return Finding(loc, found, "keep one, and name the other spelling under its `aliases`")


def _compared(where: Filter, loc: Loc) -> Iterator[Finding]:
    """Yield values of conditions that no table can hold."""
    columns = {**columns_anywhere(), **FACTS}
    for name, condition in where.items():
        if name in columns and columns[name].type == "label":
            yield from _each(condition.any_of or (), (*loc, name))
            yield from _each(condition.not_any_of or (), (*loc, name, "not"))
