"""From a plan to the elements that a device shares for it, and back to the plan's vector.

A metric's sums in one grouping are one *set* of elements. Groupings of a metric need no set of their own
where a finer one has all their columns of events, and breaks them down by facts of the device alone: a
device is in one group of either, so its tallies there, and their products, are the sums over the finer
groups. Where a column of events is what the finer grouping adds, squares do not add up, and each has a set.

In a set, a device has tallies in as many groups as it may touch: one for each combination of labels of
event columns. Facts of the device choose where they stand: a bit for each combination of their labels, of
which at most one is 1, times all that was proved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import numpy as np

from fa_core.constraints import Constraints, Forms, System, joined
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import Axis, MetricSpec, Shape
from fa_core.metrics.kind import PRESENT
from fa_core.plan import Plan
from fa_core.values import Int64Array

Tallies = Mapping[tuple[str, tuple[str, ...]], Mapping[str, Int64Array]]
"""(metric, grouping) -> named tallies of each device, int64 (devices, groups, …), as `MetricSpec.tallies` has
them."""


@dataclass(frozen=True, slots=True)
class ProvedSet:
    """Where the tallies of one metric in one grouping stand among the system's inputs.

    Attributes:
        metric, grouping: which. shape: of the grouping. inputs: names of the tallies, in order. chosen:
        whether a device's facts choose where they stand; a bit for each choice then follows as an input.
    """

    metric: str
    grouping: tuple[str, ...]
    shape: Shape
    inputs: tuple[str, ...]
    chosen: bool


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What devices share for a plan: the system of their elements, and the sets that its inputs come from."""

    system: System
    sets: tuple[ProvedSet, ...]


def finest(groups: Sequence[tuple[str, ...]], plan: Plan) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return for each grouping of a metric the one whose set it is read from: itself, or a finer one.

    A finer one adds facts of the device alone. Of several, the one that itself has a set and comes first.
    """

    def refines(fine: tuple[str, ...], coarse: tuple[str, ...]) -> bool:
        added = set(fine) - set(coarse)
        axes = {axis.name: axis for axis in shape_of(plan, fine).axes}
        return set(coarse) < set(fine) and all(axes[name].level == "device" for name in added)

    own = [each for each in groups if not any(refines(other, each) for other in groups)]
    return {each: next((fine for fine in own if refines(fine, each)), each) for each in groups}


def shared(plan: Plan) -> Shared:
    """Return what devices share for a plan; the same for everybody who has the plan.

    Raises BadInput for a plan that two aggregators do not sum: of training, or of before `counters`.
    """
    return _shared(_ByHash(plan.hash, plan))


def inputs_of(plan: Plan, tallies: Tallies) -> Int64Array:
    """Return the inputs of the system, int64 (devices, inputs), from what devices counted."""
    columns: list[Int64Array] = []
    for each in shared(plan).sets:
        counted = tallies[each.metric, each.grouping]
        by_choice = [_by_choice(counted[name], each.shape) for name in each.inputs]
        columns += [values.sum(axis=1).reshape(len(values), -1) for values in by_choice]
        if each.chosen:
            found = [(values != 0).any(axis=tuple(range(2, values.ndim))) for values in by_choice]
            columns.append(np.logical_or.reduce(found).astype(np.int64))
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class _ByHash:
    """A plan under its hash, so that what follows from it is worked out once."""

    hash: str
    plan: Plan = field(compare=False)


@lru_cache(maxsize=16)
def _shared(by_hash: _ByHash) -> Shared:
    return collected(by_hash.plan, Constraints())


def collected(plan: Plan, constraints: Constraints) -> Shared:
    """Return what `shared` does, worked out anew in these constraints."""
    bounds = bounds_of(plan)
    sets: list[ProvedSet] = []
    outputs: list[Forms] = []
    for name, metric in plan.metrics.items():
        sources = finest(groupings(metric, plan), plan)
        proved: dict[tuple[str, ...], dict[str, Forms]] = {}
        for grouping in dict.fromkeys(sources.values()):
            shape = shape_of(plan, grouping)
            before = len(constraints.inputs)
            proved[grouping] = _proved(constraints, metric, shape, plan)
            inputs = tuple(each for each, _ in constraints.inputs[before:])
            chosen = _choices(shape) > 1
            sets.append(ProvedSet(name, grouping, shape, inputs[: -1 if chosen else None], chosen))
        for grouping, fine in sources.items():
            shape = shape_of(plan, grouping)
            summed = {
                part: _coarser(forms, shape_of(plan, fine).axes, shape.axes)
                for part, forms in proved[fine].items()
            }
            cells = metric.vector(summed, shape, bounds)
            outputs += [cells[part.name].reshape(-1) for part in metric.parts(shape, bounds)]
    return Shared(constraints.system(joined(outputs)), tuple(sets))


def _choices(shape: Shape) -> int:
    """Return how many combinations of labels of facts of the device there are."""
    return prod(axis.labels for axis in shape.axes if axis.level == "device")


def _proved(constraints: Constraints, metric: MetricSpec, shape: Shape, plan: Plan) -> dict[str, Forms]:
    """Return what is proved of one set, by name, for every group, (K, …)."""
    groups, choices = shape.touch, _choices(shape)
    proved = metric.prove(constraints, groups, bounds_of(plan))
    if choices == 1:
        return proved
    chosen = constraints.present(constraints.input("chosen", (choices,)))
    alone = groups == 1 and PRESENT in proved
    if alone:
        constraints.require_zero(chosen.sum() - proved[PRESENT].sum())
    else:
        any_chosen = chosen.sum()
        constraints.require(any_chosen, any_chosen, any_chosen)
    placed = {}
    for name, forms in proved.items():
        one = chosen.reshape(choices, *(1,) * len(forms.shape))
        made = one if alone and name == PRESENT else constraints.product(one, forms.reshape(1, *forms.shape))
        placed[name] = made.reshape(choices, *forms.shape)
    return {name: _in_order(forms, shape) for name, forms in placed.items()}


def _in_order(forms: Forms, shape: Shape) -> Forms:
    """Return forms (choices, groups touched, …) as (K, …), in the order of the grouping's groups."""
    order = _order(shape)
    labels = tuple(shape.axes[place].labels for place in order)
    rest = forms.shape[2:]
    index = forms.index().reshape(*labels, *rest)
    index = np.moveaxis(index, range(len(order)), order)
    return forms.take(index.reshape(shape.cells, *rest))


def _by_choice(counted: Int64Array, shape: Shape) -> Int64Array:
    """Return tallies (devices, K, …) as (devices, choices, groups touched, …)."""
    rest = counted.shape[2:]
    table = counted.reshape(len(counted), *(axis.labels for axis in shape.axes), *rest)
    order = _order(shape)
    table = np.moveaxis(table, [place + 1 for place in order], range(1, len(order) + 1))
    return table.reshape(len(counted), _choices(shape), shape.touch, *rest)


def _order(shape: Shape) -> list[int]:
    """Return the places of the grouping's segments, facts of the device first."""
    places = range(len(shape.axes))
    return sorted(places, key=lambda place: shape.axes[place].level != "device")


def _coarser(forms: Forms, fine: tuple[Axis, ...], coarse: tuple[Axis, ...]) -> Forms:
    """Return forms by the groups of a finer grouping, (K, …), summed over those of a coarser one."""
    names = [axis.name for axis in fine]
    kept = [names.index(axis.name) for axis in coarse]
    dropped = [place for place in range(len(fine)) if place not in kept]
    if not dropped and kept == sorted(kept):
        return forms
    rest = forms.shape[1:]
    index = forms.index().reshape(*(axis.labels for axis in fine), *rest)
    index = np.moveaxis(index, [*kept, *dropped], range(len(fine)))
    cells = prod(axis.labels for axis in coarse)
    index = index.reshape(cells, -1, *rest)
    return forms.take(np.moveaxis(index, 1, -1)).sum()
