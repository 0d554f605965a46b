"""What a plan costs and how precise its numbers will be, before anything is sent.

From the plan and the number of devices, with a public guess of their events or a fleet whose tables are at
hand: what to expect, and what other choices would cost or gain, each computed by previewing it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Final

from fa_core.errors import BadInput
from fa_core.estimate.choices import FEW, Choice, Suggestion, choices, invited, suggestions
from fa_core.estimate.expect import DRAWS, Expectation, Source, expectations, guessed
from fa_core.layout import compile_plan, groupings
from fa_core.plan import Plan
from fa_core.privacy.accounting import epsilon_for
from fa_core.values import Layout

TYPICAL_EVENTS: Final = 20.0
"""Events that a device is guessed to have in a window, where the author gives no better number."""

MOST_DEVICES: Final = 100_000_000
"""Where the search for a fleet large enough gives up."""

ALL: Final = 0.99
"""Share of the numbers that counts as all of them."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a plan costs each device, and how precise its numbers will be.

    Attributes:
        events: of each device, as guessed; None where a fleet was at hand.
        warnings: why the widths may not be what a run gives, and what to give for better ones.
    """

    devices: int
    events: float | None
    cells: int
    bytes_per_device: int
    layout: Layout
    epsilon: float
    expectations: tuple[Expectation, ...]
    suggestions: tuple[Suggestion, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices whose tables are at hand: all of them for the plan itself, and some for other choices."""

    whole: Source
    some: Source


def preview(
    plan: Plan,
    devices: int,
    events: float | None = None,
    width: float | None = None,
    fleet: Fleet | None = None,
) -> Preview:
    """Return what a plan would cost and how precise its numbers would be.

    Args:
        plan: checked.
        devices: devices in the fleet, of which the plan invites its sample.
        events: events that one device has in the window and that pass the filters, a public guess.
        width: a wished 95% half-width, in the unit of each metric.
        fleet: its own events, in place of the guess.

    Raises:
        BadInput: for a fleet without devices.
        Refused: where distributed noise needs more devices.
    """
    if devices < 1:
        raise BadInput("a preview needs at least one device")
    layout = compile_plan(plan)
    guess = TYPICAL_EVENTS if events is None else events
    whole, some = (fleet.whole, fleet.some) if fleet is not None else (guessed(guess), guessed(guess))

    @cache
    def expected(count: int, draws: int) -> tuple[Expectation, ...]:
        return expectations(plan, layout, invited(plan, count), whole, draws)

    found = expected(devices, DRAWS)
    if width is not None:
        found = tuple(_with_need(item, devices, width, expected) for item in found)
    longer = guessed(2 * guess) if fleet is None else None
    epsilon = epsilon_for(layout.cost, layout.delta) if layout.accounting == "zcdp" else float(layout.cost)
    return Preview(
        devices=devices,
        events=guess if fleet is None else None,
        cells=layout.length,
        bytes_per_device=layout.length * layout.modulus_bits // 8,
        layout=layout,
        epsilon=epsilon,
        expectations=found,
        suggestions=suggestions(plan, devices, some, longer),
        warnings=tuple(_warnings(plan, given=events is not None or fleet is not None)),
    )


def choices_of(plan: Plan, found: Preview, fleet: Fleet | None = None) -> tuple[Choice, ...]:
    """Return the limits and the shares of the budget that could be chosen instead, for a preview's devices.

    Apart from `preview`, since it takes the time of twenty.
    """
    source = fleet.some if fleet is not None else guessed(found.events or TYPICAL_EVENTS)
    return choices(plan, found.expectations, found.devices, source)


def _with_need(
    item: Expectation, devices: int, width: float, expected: Callable[[int, int], tuple[Expectation, ...]]
) -> Expectation:
    """Return the expectation with the devices, or the windows, that the wished half-width takes.

    They are looked for in few simulated releases, and then confirmed in as many as the preview's.

    Args:
        expected: returns the expectations for a number of devices, from so many simulated releases.
    """

    def reached(count: int, draws: int = FEW) -> bool:
        found = next(each for each in expected(count, draws) if each.key == item.key)
        return found.half_width is not None and found.shown >= ALL and found.half_width <= width

    high = devices
    while not reached(high) and high < MOST_DEVICES:
        high *= 2
    if high >= MOST_DEVICES:
        return item
    low = 0
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    while not reached(high, DRAWS):
        high += max(1, high // 100)
    windows = None if item.half_width is None else max(1, ceil((item.half_width / width) ** 2))
    return replace(item, devices_for=high, windows_for=windows)


def _warnings(plan: Plan, *, given: bool) -> Iterator[str]:
    """Yield what a preview from the plan alone cannot know."""
    if given:
        return
    filtered = {name: _filtered(plan, name) for name in plan.metrics}
    columns = list(dict.fromkeys(column for found in filtered.values() for column in found))
    if columns:
        yield (
            f"events are filtered by {', '.join(columns)}: give --events with how many of a device's pass, "
            "or --fleet with tables like the devices'; where few events pass, less is shown, or nothing"
        )
    for name, metric in plan.metrics.items():
        if metric.guess_text():
            yield f"{name} takes {metric.guess_text()}; with --fleet it is as in the fleet"
    if any(grouping for metric in plan.metrics.values() for grouping in groupings(metric, plan)):
        yield "devices are taken to be spread evenly over the groups; with --fleet they are as in the fleet"


def _filtered(plan: Plan, name: str) -> list[str]:
    """Return the columns by which a metric's denominators are filtered."""
    metric = plan.metrics[name]
    kept = [plan.where, *(found for key, found in metric.conditions() if key != "of")]
    return [column for conditions in kept for column in conditions]
