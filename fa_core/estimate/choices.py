"""What other choices of an author would cost or gain, each computed by previewing the plan with it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Final

import numpy as np

from fa_core.errors import BadInput, Refused
from fa_core.estimate.expect import Expectation, Key, Source, expectations
from fa_core.layout import bounds_of, compile_plan, groupings
from fa_core.plan import Plan, with_rho

LADDER: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 168)
"""Limits that are tried, from a third of the plan's to twice it."""

COARSER: Final = ("0.05", "0.1", "0.2", "0.3", "0.5")
"""Shares of a metric's budget that are tried for its coarser groupings together."""

FEW: Final = 4
"""Releases that each choice is simulated in: all with the same draws, so that few tell them apart."""

WORTH: Final = 0.97
"""A change is worth a line where it makes intervals this much of what they are, or less."""

WIDER: Final = 1.05
"""No choice is proposed that makes anything wider than this times what it is."""

SOME: Final = 0.02
"""Share of the numbers by which more is shown, and not by the luck of the draw."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change to the plan.

    Attributes:
        factor: by which the mean half-width would shrink (below 1), None where nothing is shown now.
        shown, shown_now: share of the numbers that remain which would be shown with it, and is now.
    """

    change: str
    factor: float | None
    shown: float
    shown_now: float

    @property
    def gain(self) -> str:
        """What it gains, for a person."""
        shown = f"{self.shown:.0%} of the numbers shown, not {self.shown_now:.0%}"
        if self.factor is None:
            return shown
        size = abs(1.0 - self.factor)
        narrower = f"intervals {size:.0%} {'narrower' if self.factor < 1 else 'wider'}"
        return f"{narrower}, {shown}" if self.shown > self.shown_now + SOME else narrower


@dataclass(frozen=True, slots=True)
class Choice:
    """A limit, or a share of the budget, and what is then expected of each metric by its finest groupings.

    Attributes:
        key: where it is chosen: `privacy.max_events`, `metrics.NAME`, `privacy.shares`.
        value: what is chosen, in short.
        written: the line that a plan would have for it.
        current: whether the plan has it now.
        proposed: whether it gives clearly narrower intervals than the plan's, and the narrowest of those
            tried that show as much and make nothing wider.
        factor: mean half-width relative to the plan's now, None where they cannot be compared.
        expectations: of what changes with it.
    """

    key: str
    value: str
    written: str
    current: bool
    proposed: bool
    factor: float | None
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True)
class _Option:
    """A value to try: in short, as a plan has it, and the plan that does."""

    value: str
    written: str
    plan: Plan


def invited(plan: Plan, devices: int) -> int:
    """Return how many of a fleet's devices the plan invites."""
    return ceil(plan.eligibility.sample * devices)


def suggestions(plan: Plan, devices: int, source: Source, longer: Source | None) -> tuple[Suggestion, ...]:
    """Return the changes that would narrow what remains the most, or show the most where little is shown.

    `longer` gives the sums of a window twice as long, None where they are not known.
    """
    found: list[Suggestion] = []
    now = _then(plan, devices, source) or ()
    for change, other, given in _changes(plan, source, longer):
        then = _then(other, devices, given)
        if then is None:
            continue
        kept = [each for each in now if each.key in {after.key for after in then}]
        factor, shown, before = _factor(kept, then), _shown(then), _shown(kept)
        if (factor is not None and factor < WORTH) or shown > before + SOME:
            found.append(Suggestion(change, factor, shown, before))
    found.sort(key=lambda each: (-round(max(each.shown - each.shown_now, 0.0), 1), each.factor or 1.0))
    return tuple(found[:5])


def choices(
    plan: Plan, promised: tuple[Expectation, ...], devices: int, source: Source
) -> tuple[Choice, ...]:
    """Return the limits and the shares that could be chosen instead, for this fleet's size, key by key.

    `promised` is what the plan is expected to show as it is, from more releases than each choice is simulated
    in: the half-width of a choice is the promised one times what the choice makes of it.
    """
    found: list[Choice] = []
    now = _then(plan, devices, source) or ()
    for key, current, options in _options(plan):
        tried: list[tuple[_Option, tuple[Expectation, ...]]] = []
        for option in options:
            then = now if option.value == current else _then(option.plan, devices, source)
            if then is not None:
                tried.append((option, then))
        moved = _moved(now, [then for _, then in tried])
        if key != "privacy.shares":
            moved &= _finest(plan)
        found += _judged(key, current, tried, now, moved)
    return tuple(_scaled(choice, promised, now) for choice in found)


def _scaled(choice: Choice, promised: Iterable[Expectation], now: Iterable[Expectation]) -> Choice:
    better = {each.key: each.half_width for each in promised}
    fewer = {each.key: each.half_width for each in now}

    def of(each: Expectation) -> Expectation:
        whole, part = better.get(each.key), fewer.get(each.key)
        if each.half_width is None or whole is None or not part:
            return each
        return replace(each, half_width=each.half_width * whole / part)

    return replace(choice, expectations=tuple(map(of, choice.expectations)))


def _judged(
    key: str,
    current: str,
    tried: list[tuple[_Option, tuple[Expectation, ...]]],
    now: tuple[Expectation, ...],
    moved: set[Key],
) -> Iterator[Choice]:
    """Yield the choices of one key, nothing where none of them moves anything."""
    if not moved:
        return
    before = [each for each in now if each.key in moved]
    rows = [(option, tuple(each for each in then if each.key in moved)) for option, then in tried]
    factors = {option.value: _factor(before, then) for option, then in rows}
    fair = [option.value for option, then in rows if _fair(before, then)]
    best = min(fair, key=lambda value: factors[value] or 1.0)
    for option, then in rows:
        factor = factors[option.value]
        proposed = option.value == best and factor is not None and factor < WORTH
        yield Choice(key, option.value, option.written, option.value == current, proposed, factor, then)


def _fair(before: Iterable[Expectation], then: Iterable[Expectation]) -> bool:
    """Return whether a choice shows as much as the plan does, and makes nothing clearly wider."""
    after = {each.key: each for each in then}
    return all(
        after[each.key].shown >= each.shown - SOME
        and (each.half_width is None or (after[each.key].half_width or 0.0) <= WIDER * each.half_width)
        for each in before
    )


def _options(plan: Plan) -> Iterator[tuple[str, str, list[_Option]]]:
    """Yield each key, its value now, and the values to try."""
    limit = plan.privacy.max_events
    yield (
        "privacy.max_events",
        str(limit),
        [
            _Option(str(value), f"max_events: {value}", _with_privacy(plan, max_events=value))
            for value in _ladder(limit)
        ],
    )
    for name, metric in plan.metrics.items():
        for keys in metric.caps:
            now = {key: int(getattr(metric, key)) for key in keys}
            largest = max(now.values())
            tried = [{key: max(1, now[key] * value // largest) for key in keys} for value in _ladder(largest)]
            options = [_Option(_text(each), _text(each), _with_metric(plan, name, each)) for each in tried]
            yield f"metrics.{name}", _text(now), options
    current = _coarser_share(plan)
    if current is not None:
        plans = {share: _with_coarser(plan, share) for share in sorted({*map(Fraction, COARSER), current})}
        yield (
            "privacy.shares",
            _text_of(current),
            [_Option(_text_of(share), _shares_text(other), other) for share, other in plans.items()],
        )


def _shares_text(plan: Plan) -> str:
    """Return the shares as a plan has them, the last left out: it gets the rest."""
    shares = (plan.privacy.shares or ())[:-1]
    each = (f"{{metric: {s.metric}, by: [{', '.join(s.by)}], share: {float(s.share):.4g}}}" for s in shares)
    return f"shares: [{', '.join(each)}]"


def _ladder(now: int) -> list[int]:
    return sorted({now, *(value for value in LADDER if now <= 3 * value and value <= 2 * now)})


def _text(values: Mapping[str, int]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def _text_of(share: Fraction) -> str:
    return f"{float(share):.3g} to coarser groupings"


def _coarser(plan: Plan) -> set[tuple[str, frozenset[str]]]:
    """Return the metrics and groupings that a finer grouping of the same metric contains."""
    return {
        (name, frozenset(grouping))
        for name, metric in plan.metrics.items()
        for grouping in groupings(metric, plan)
        if any(set(grouping) < set(other) for other in groupings(metric, plan))
    }


def _finest(plan: Plan) -> set[Key]:
    every = {(name, g) for name, metric in plan.metrics.items() for g in groupings(metric, plan)}
    coarser = _coarser(plan)
    return {(name, g) for name, g in every if (name, frozenset(g)) not in coarser}


def _coarser_share(plan: Plan) -> Fraction | None:
    """Return the share that coarser groupings have together of their metrics' budget, None where none are."""
    coarser, shares = _coarser(plan), plan.privacy.shares or ()
    mixed = {name for name, _ in coarser}
    whole = sum((each.share for each in shares if each.metric in mixed), Fraction(0))
    if not whole:
        return None
    return sum((each.share for each in shares if each.key in coarser), Fraction(0)) / whole


def _with_coarser(plan: Plan, share: Fraction) -> Plan:
    """Return the plan with that share of each metric's budget for its coarser groupings."""
    coarser, shares = _coarser(plan), plan.privacy.shares or ()
    found = []
    for each in shares:
        mine = [other for other in shares if other.metric == each.metric]
        whole = sum((other.share for other in mine), Fraction(0))
        alike = [other for other in mine if (other.key in coarser) == (each.key in coarser)]
        part = share if each.key in coarser else 1 - share
        if not any(other.key in coarser for other in mine):
            part = Fraction(1)
        of_alike = sum((other.share for other in alike), Fraction(0))
        found.append(each.model_copy(update={"share": whole * part * each.share / of_alike}))
    return _with_privacy(plan, shares=tuple(found))


def _changes(plan: Plan, source: Source, longer: Source | None) -> Iterator[tuple[str, Plan, Source]]:
    """Yield (what to do, the plan then, the sums then)."""
    for grouping in plan.group_by:
        rest = tuple(other for other in plan.group_by if other != grouping)
        if rest and all(set(groupings(metric, plan)) & set(rest) for metric in plan.metrics.values()):
            named = f"by {' and '.join(grouping)}" if grouping else "of everyone together"
            yield f"drop the grouping {named}", _regrouped(plan, rest), source
    for name in plan.metrics:
        if len(plan.metrics) > 1:
            rest_metrics = {other: metric for other, metric in plan.metrics.items() if other != name}
            yield f"drop the metric {name}", plan.model_copy(update={"metrics": rest_metrics}), source
    for name, segment in plan.segments.items():
        values = getattr(segment, "values", None)
        if values is not None and len(values) >= 4:
            fewer = segment.model_copy(update={"values": values[: ceil(len(values) / 2)]})
            changed = plan.model_copy(update={"segments": {**plan.segments, name: fewer}})
            yield f"merge the values of {name} into half as many", changed, source
    if longer is not None:
        yield "double the window", plan, longer
    yield "run it on twice the privacy budget", _with_epsilon(plan, 2 * plan.privacy.epsilon), source


def _then(plan: Plan, devices: int, source: Source) -> tuple[Expectation, ...] | None:
    """Return what a changed plan would show, None where it is none that could be run."""
    if any(metric.too_much(bounds_of(plan)) is not None for metric in plan.metrics.values()):
        return None
    try:
        return expectations(plan, compile_plan(plan), invited(plan, devices), source, FEW)
    except (Refused, BadInput):
        return None


def _factor(before: Iterable[Expectation], after: Iterable[Expectation]) -> float | None:
    """Return the mean ratio of half-widths, None where nothing is shown in both."""
    then = {each.key: each.half_width for each in after}
    ratios = [
        width / each.half_width
        for each in before
        if each.half_width and (width := then.get(each.key)) is not None
    ]
    return float(np.mean(ratios)) if ratios else None


def _shown(found: Iterable[Expectation]) -> float:
    """Return the mean share of numbers shown."""
    shown = [each.shown for each in found]
    return float(np.mean(shown)) if shown else 0.0


def _moved(now: Iterable[Expectation], tried: Iterable[tuple[Expectation, ...]]) -> set[Key]:
    """Return what is not the same with every choice."""
    before = {each.key: (each.half_width, each.shown) for each in now}
    return {
        each.key
        for then in tried
        for each in then
        if (each.half_width is None) != (before[each.key][0] is None)
        or abs(each.shown - before[each.key][1]) > 1e-9
        or (each.half_width or 0.0) != (before[each.key][0] or 0.0)
    }


def _with_privacy(plan: Plan, **update: object) -> Plan:
    return plan.model_copy(update={"privacy": plan.privacy.model_copy(update=update)})


def _with_metric(plan: Plan, name: str, update: Mapping[str, int]) -> Plan:
    changed = plan.metrics[name].model_copy(update=dict(update))
    return plan.model_copy(update={"metrics": {**plan.metrics, name: changed}})


def _regrouped(plan: Plan, kept: tuple[tuple[str, ...], ...]) -> Plan:
    metrics = {
        name: metric.model_copy(update={"group_by": tuple(g for g in groupings(metric, plan) if g in kept)})
        for name, metric in plan.metrics.items()
    }
    return plan.model_copy(update={"group_by": kept, "metrics": metrics})


def _with_epsilon(plan: Plan, epsilon: Fraction) -> Plan:
    asked = plan.privacy.model_copy(update={"epsilon": epsilon, "rho": None, "alpha": None})
    return plan.model_copy(update={"privacy": with_rho(asked) or asked})
