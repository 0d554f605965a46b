"""What a plan costs and how precise its numbers will be, before anything is sent.

From the plan and two public guesses, the number of devices and the events of each: the sums that such
a fleet is expected to give are read by the same code that reads a release, so the widths are those of
the estimates themselves. No device's data is touched.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Final

import numpy as np

from fa_core.errors import BadInput, Refused
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import bounds_of, compile_plan, groupings, shape_of
from fa_core.metrics import PartSum
from fa_core.plan import Plan, with_rho
from fa_core.privacy.accounting import epsilon_for
from fa_core.privacy.distributed import shares_of, variance_in_sum
from fa_core.values import Estimate, FloatArray, Layout

TYPICAL_EVENTS: Final = 20.0
"""Events that a device is guessed to have in a window, where the author gives no better number."""

MOST_DEVICES: Final = 100_000_000
"""Where the search for a fleet large enough gives up."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one metric in one grouping is expected to show.

    Attributes:
        half_width: mean half-width of the 95% intervals over its groups; None where none is shown.
        shown: share of the groups (cells, for tables of shares) expected to be shown.
        devices_for: devices needed to reach the wished half-width, where one was wished.
        windows_for: windows of this fleet needed instead, pooling their releases.
    """

    metric: str
    kind: str
    unit: str
    grouping: tuple[str, ...]
    groups: int
    half_width: float | None
    shown: float
    devices_for: int | None = None
    windows_for: int | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change to the plan, and the factor by which the mean half-width would shrink (below 1)."""

    change: str
    factor: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What a plan costs each device, and how precise its numbers will be."""

    devices: int
    events: float
    cells: int
    bytes_per_device: int
    layout: Layout
    epsilon: float
    expectations: tuple[Expectation, ...]
    suggestions: tuple[Suggestion, ...]


def preview(plan: Plan, devices: int, events: float = TYPICAL_EVENTS, width: float | None = None) -> Preview:
    """Return what a plan would cost and how precise its numbers would be.

    Args:
        plan: checked.
        devices: devices in the fleet, of which the plan invites its sample.
        events: events that one device has in the window, a public guess.
        width: a wished 95% half-width, in the unit of each metric.

    Raises:
        BadInput: for a fleet without devices.
        Refused: where distributed noise needs more devices.
    """
    if devices < 1:
        raise BadInput("a preview needs at least one device")
    layout = compile_plan(plan)
    expectations = tuple(_expectations(plan, layout, _invited(plan, devices), events))
    if width is not None:
        expectations = tuple(_with_need(plan, item, devices, events, width) for item in expectations)
    epsilon = epsilon_for(layout.cost, layout.delta) if layout.accounting == "zcdp" else float(layout.cost)
    return Preview(
        devices=devices,
        events=events,
        cells=layout.length,
        bytes_per_device=layout.length * layout.modulus_bits // 8,
        layout=layout,
        epsilon=epsilon,
        expectations=expectations,
        suggestions=tuple(_suggestions(plan, expectations, devices, events)),
    )


def _invited(plan: Plan, devices: int) -> int:
    return ceil(plan.eligibility.sample * devices)


def _expectations(plan: Plan, layout: Layout, devices: int, events: float) -> Iterator[Expectation]:
    results = _expected_results(plan, layout, devices, events)
    for name, metric in plan.metrics.items():
        for grouping in groupings(metric, plan):
            mine = [r for r in results if r.metric == name and tuple(s for s, _ in r.group) == grouping]
            widths, count = _half_widths(mine)
            yield Expectation(
                metric=name,
                kind=metric.kind,
                unit=metric.unit(),
                grouping=grouping,
                groups=shape_of(plan, grouping).cells,
                half_width=float(np.mean(widths)) if widths else None,
                shown=len(widths) / max(count, 1),
            )


def _half_widths(results: list[Estimate]) -> tuple[list[float], int]:
    """Return the half-widths of what would be shown, and how many numbers there are in all."""
    numbers = [cell for result in results for cell in result.cells] or results
    shown = [(n.high - n.low) / 2 for n in numbers if n.low is not None and n.high is not None]
    return shown, len(numbers)


def _expected_results(plan: Plan, layout: Layout, devices: int, events: float) -> tuple[Estimate, ...]:
    variance = noise_variance(plan, layout, devices)
    laplace = layout.mechanism == "geometric"
    sums: dict[tuple[str, tuple[str, ...], str], PartSum] = {}
    blocks = iter(zip(layout.blocks, variance, strict=True))
    for name, metric in plan.metrics.items():
        for grouping in groupings(metric, plan):
            shape, bounds = shape_of(plan, grouping), bounds_of(plan)
            expected = metric.expected(shape, bounds, float(devices), events)
            for part in metric.parts(shape, bounds):
                _, noise = next(blocks)
                sums[name, grouping, part.name] = PartSum(expected[part.name], float(noise), laplace)
    return estimates_of_sums(plan, sums, devices)


def noise_variance(plan: Plan, layout: Layout, devices: int) -> FloatArray:
    """Return each block's noise variance if all of `devices` are counted, float64 (blocks,)."""
    if layout.noise == "central":
        return np.array([float(block.variance) for block in layout.blocks])
    shares = shares_of(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
    return variance_in_sum(shares, devices)


def _with_need(plan: Plan, item: Expectation, devices: int, events: float, width: float) -> Expectation:
    """Return the expectation with the devices, or the windows, that the wished half-width takes."""
    layout = compile_plan(plan)

    def reached(count: int) -> bool:
        found = next(
            e
            for e in _expectations(plan, layout, _invited(plan, count), events)
            if (e.metric, e.grouping) == (item.metric, item.grouping)
        )
        return found.half_width is not None and found.shown == 1.0 and found.half_width <= width

    high = devices
    while not reached(high) and high < MOST_DEVICES:
        high *= 2
    if high >= MOST_DEVICES:
        return item
    low = 0
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    windows = None if item.half_width is None else max(1, ceil((item.half_width / width) ** 2))
    return replace(item, devices_for=high, windows_for=windows)


def _suggestions(
    plan: Plan, now: tuple[Expectation, ...], devices: int, events: float
) -> Iterator[Suggestion]:
    """Yield the changes that would narrow what remains the most, computed by previewing each."""
    found: list[Suggestion] = []
    for change, other, more in _changes(plan, events):
        try:
            layout = compile_plan(other)
            then = {
                (e.metric, e.grouping): e
                for e in _expectations(other, layout, _invited(other, devices), more)
            }
        except (Refused, BadInput):
            continue
        ratios = [
            after.half_width / before.half_width
            for before in now
            if (after := then.get((before.metric, before.grouping))) is not None
            and after.half_width is not None
            and before.half_width
        ]
        if ratios and (factor := float(np.mean(ratios))) < 0.97:
            found.append(Suggestion(change, factor))
    yield from sorted(found, key=lambda suggestion: suggestion.factor)[:5]


def _changes(plan: Plan, events: float) -> Iterator[tuple[str, Plan, float]]:
    """Yield (what to do, the plan then, events a device then)."""
    for grouping in plan.group_by:
        rest = tuple(other for other in plan.group_by if other != grouping)
        if rest:
            named = f"by {' and '.join(grouping)}" if grouping else "of everyone together"
            yield f"drop the grouping {named}", _regrouped(plan, rest), events
    for name in plan.metrics:
        if len(plan.metrics) > 1:
            rest_metrics = {other: metric for other, metric in plan.metrics.items() if other != name}
            yield f"drop the metric {name}", plan.model_copy(update={"metrics": rest_metrics}), events
    for name, segment in plan.segments.items():
        values = getattr(segment, "values", None)
        if values is not None and len(values) >= 4:
            fewer = segment.model_copy(update={"values": values[: ceil(len(values) / 2)]})
            changed = plan.model_copy(update={"segments": {**plan.segments, name: fewer}})
            yield f"merge the values of {name} into half as many", changed, events
    yield "double the window", plan, 2 * events
    yield "run it on twice the privacy budget", _with_epsilon(plan, 2 * plan.privacy.epsilon), events
    halved = max(1, plan.privacy.max_events // 2)
    if events <= halved:
        privacy = plan.privacy.model_copy(update={"max_events": halved})
        yield f"lower max_events to {halved}", plan.model_copy(update={"privacy": privacy}), events


def _regrouped(plan: Plan, kept: tuple[tuple[str, ...], ...]) -> Plan:
    metrics = {
        name: metric.model_copy(
            update={"group_by": tuple(g for g in groupings(metric, plan) if g in kept) or kept[:1]}
        )
        for name, metric in plan.metrics.items()
    }
    return plan.model_copy(update={"group_by": kept, "metrics": metrics})


def _with_epsilon(plan: Plan, epsilon: Fraction) -> Plan:
    asked = plan.privacy.model_copy(update={"epsilon": epsilon, "rho": None, "alpha": None})
    return plan.model_copy(update={"privacy": with_rho(asked) or asked})
