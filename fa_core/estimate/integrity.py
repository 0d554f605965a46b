"""How far one device can move the numbers of a release: within its bounds by so much, else by anything.

A masked vector cannot be checked, so a bound limits what an honest device weighs and nobody else; a report
for two aggregators proves that it keeps its bounds. The figure follows from the plan and the noised numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fa_core.errors import BadInput
from fa_core.estimate.groups import name_of
from fa_core.estimate.measure import difference
from fa_core.estimate.sentences import listed, plain
from fa_core.layout import bounds_of
from fa_core.plan import Plan, from_canonical
from fa_core.values import Cell, Estimate, Estimates, Release

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels, Labels]
"""A number of a release: its metric, its group, and the labels of its cell."""


@dataclass(frozen=True, slots=True)
class Move:
    """The most that a device within its bounds moves a number, in its unit; `labels` are a cell's."""

    result: Estimate
    labels: Labels
    by: float


def plan_of(release: Release) -> Plan | None:
    """Return a release's plan, None where this version would refuse it."""
    try:
        return from_canonical(release.plan)
    except BadInput:
        return None


def moves(plan: Plan | None, estimates: Estimates) -> tuple[Move, ...]:
    """Return what one device moves, for each number shown that has such a figure; nothing without a plan."""
    if plan is None:
        return ()
    found = []
    for result in estimates.results:
        metric = plan.metrics[result.metric]
        for number in result.cells or (result,):
            if number.estimate is not None and number.denominator is not None:
                by = metric.one_device(bounds_of(plan), number.estimate, number.denominator)
                if by is not None:
                    labels = number.labels if isinstance(number, Cell) else ()
                    found.append(Move(result, labels, by))
    return tuple(found)


def about_integrity(plan: Plan | None, estimates: Estimates) -> str:
    """Return what one device can do to the numbers that guardrails judge, or to all where there are none."""
    judged = {judgement.metric for judgement in estimates.judgements}
    found = moves(plan, estimates)
    shown = [each for each in found if each.result.metric in judged] or found
    proved = plan is not None and plan.privacy.sum == "two_aggregators"
    return _proved_sentence(shown) if proved else sentence(shown)


def about_difference(read: Iterable[tuple[Plan | None, Estimates]]) -> str:
    """Return what one device can do to differences between releases: it may have taken part in each."""
    total: dict[Key, Move] = {}
    for plan, estimates in read:
        for each in moves(plan, estimates):
            before = total.get(key := _key(each))
            total[key] = replace(each, by=each.by + (before.by if before else 0.0))
    return sentence(total.values())


def sentence(found: Iterable[Move]) -> str:
    """Return the sentence that stands beside verdicts, with the largest move of each metric."""
    moved = _moved(found)
    within = f"one within its bounds moves {moved}; " if moved else ""
    return (
        f"Integrity assumes honest devices: {within}a dishonest one can move any number as far as all "
        "devices together could."
    )


def _proved_sentence(found: Iterable[Move]) -> str:
    """Return what stands in its place where every report proved its bounds."""
    moved = _moved(found)
    most = f", and moves {moved}" if moved else ""
    return (
        "Each report proved that it keeps its device's bounds: one device, honest or not, is one device"
        f"{most}. What it counted it may have made up; leader or helper could falsify the sum."
    )


def _moved(found: Iterable[Move]) -> str:
    """Return the largest move of each metric, in words; nothing where there is none."""
    most: dict[str, Move] = {}
    for each in found:
        before = most.get(each.result.metric)
        if not each.labels and (before is None or each.by > before.by):
            most[each.result.metric] = each
    return listed([_phrase(name, each) for name, each in most.items()], 3) if most else ""


def by_number(found: Iterable[Move]) -> Mapping[Key, float]:
    """Return the moves by metric, group and the labels of a cell, () for a plain number."""
    return {_key(each): each.by for each in found}


def _key(each: Move) -> Key:
    return each.result.metric, each.result.group, each.labels


def _phrase(metric: str, each: Move) -> str:
    size = plain(difference(each.result.kind, each.result.unit), each.by)
    return f"{metric} by at most {size} ({name_of(each.result)})"
