"""The constraints of every kind admit what some draw of units gives, and nothing else.

For small bounds every assignment of every bit is tried, so that this is shown for dishonest elements too.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest

from fa_core.arrays import Int64Array
from fa_core.constraints import Constraints, Present, Product, Split, System, joined
from fa_core.metrics import Bounds, MetricSpec, mean, rate_per_hour
from fa_core.metrics import det as det_kind
from fa_core.metrics.joint import TABLES
from fa_core.plan import Plan
from fa_core.prio.blocks import Blocks
from fa_core.prio.mapping import shared
from tests.metrics import joint_reference
from tests.metrics.samples import SAMPLES, plan_of, plan_with
from tests.prio import feasible
from tests.prio.feasible import Definition, Tally
from tests.prio.gates import Gates, forms_of, gates_of, value

MINUTES, STEPS = 2, 3
"""In place of 60 minutes of an hour and 1,000 steps of a mean, so that everything can be tried."""

Products = Callable[[Tally], Mapping[str, Tally]]


@dataclass(frozen=True)
class Case:
    """A metric kind with small bounds, its definition, and how its tallies stand in a group."""

    kind: str
    groups: int
    events: int
    definition: Definition
    tallies: tuple[str, ...]
    products: Products
    changes: Mapping[str, Any]
    counters: str = "joint"

    def metric(self) -> MetricSpec:
        metric = plan_of(self.kind).metrics["metric"]
        return metric.model_copy(update=dict(self.changes))

    def system(self) -> tuple[System, dict[str, tuple[int, ...]]]:
        """The system, whose outputs are what is proved; and their names and shapes, in order."""
        constraints = Constraints()
        bounds = Bounds(self.events, None, self.counters)  # type: ignore[arg-type]
        proved = self.metric().prove(constraints, self.groups, bounds)
        shapes = {name: forms.shape for name, forms in proved.items()}
        return constraints.system(joined([*proved.values()])), shapes


def pairs(kind: str, groups: int, events: int, definition: Definition, **changes: Any) -> Case:
    counters = changes.pop("counters", "joint")
    products: Products = lambda tally: feasible.pair_products(*tally)  # noqa: E731
    return Case(kind, groups, events, definition, ("n", "r"), products, changes, counters)


BINS = plan_of("det").metrics["metric"].edges.model_copy(update={"bins": 2})  # type: ignore[attr-defined]
ROW: Mapping[str, Any] = {"edges": BINS, "by": None}
TABLE: Products = lambda tally: feasible.table_products(tally, 2)  # noqa: E731
DET: Products = lambda tally: feasible.det_products(tally, 2)  # noqa: E731

CASES = {
    "rate": pairs("rate", 1, 5, feasible.rate(5)),
    "rate in groups": pairs("rate", 2, 2, feasible.rate(2)),
    "paired": pairs("paired_difference", 1, 3, feasible.paired(3)),
    "paired in groups": pairs("paired_difference", 2, 2, feasible.paired(2)),
    "mean": pairs("mean", 1, 2, feasible.mean(2, STEPS)),
    "mean in groups": pairs("mean", 2, 2, feasible.mean(2, STEPS)),
    "ratio": pairs("ratio", 1, 2, feasible.ratio(2, 2, 3), max_over=2, max_of=3),
    "ratio in groups": pairs("ratio", 2, 2, feasible.ratio(2, 2, 1), max_over=2, max_of=1),
    "rate an hour": pairs(
        "rate_per_hour", 1, 6, feasible.rate_per_hour(2, MINUTES, 3), max_hours=2, max_per_hour=3
    ),
    "rate an hour in groups": pairs(
        "rate_per_hour", 2, 6, feasible.rate_per_hour(2, MINUTES, 1), max_hours=2, max_per_hour=1
    ),
    "rate an hour in blocks": pairs(
        "rate_per_hour",
        2,
        6,
        feasible.ratio(2, MINUTES, 1),
        max_hours=2,
        max_per_hour=1,
        counters="blocks",
    ),
    "count": Case(
        "count", 2, 3, feasible.count(3), ("n",), lambda tally: feasible.pair_products(tally[0], 0), {}
    ),
    "row": Case("histogram", 1, 3, feasible.table(3, 2), ("x",), TABLE, ROW),
    "row in groups": Case("histogram", 2, 2, feasible.table(2, 2), ("x",), TABLE, ROW),
    "table": Case("histogram", 1, 1, feasible.table(1, 8), ("x",), TABLE, {"edges": BINS}),
    "det": Case(
        "det",
        1,
        2,
        feasible.det(2, 2, 2, MINUTES, 1),
        ("positives", "negatives", "minutes"),
        DET,
        {"edges": BINS, "max_hours": 2, "max_per_hour": 1},
    ),
    "det in groups": Case(
        "det",
        2,
        1,
        feasible.det(1, 2, 1, MINUTES, 1),
        ("positives", "negatives", "minutes"),
        DET,
        {"edges": BINS, "max_hours": 1, "max_per_hour": 1},
    ),
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mean, "STEPS", STEPS)
    monkeypatch.setattr(rate_per_hour, "MINUTES", MINUTES)
    monkeypatch.setattr(det_kind, "MINUTES", MINUTES)


def accepted(system: System) -> Int64Array:
    """Return every assignment of whole numbers to the elements with bits 0 and 1 that satisfies all gates.

    Elements are added one number at a time; an assignment goes as soon as a gate has all it needs and fails.
    """
    gates, wires = gates_of(system), forms_of(system)
    needs = [1 + max((e for form in gate for e, _ in form[1]), default=-1) for gate in gates.gates]
    rows, known = np.zeros((1, system.length), np.int64), 0
    for step in system.steps:
        if isinstance(step, Product):
            made = step.elements(rows)
            rows[:, known : known + made.shape[1]] = made
            known += made.shape[1]
            rows = rows[_hold(gates, needs, rows, known - made.shape[1], known)]
            continue
        count = len(step.weights) if isinstance(step, Split) else 1
        choices = np.array(list(np.ndindex(*(2,) * count)), np.int64)
        assert isinstance(step, Split | Present)
        for _ in range(step.source.size):
            rows = np.repeat(rows, len(choices), axis=0)
            rows[:, known : known + count] = np.tile(choices, (len(rows) // len(choices), 1))
            known += count
            rows = rows[_hold(gates, needs, rows, known - count, known)]
    assert known == system.length
    assert len(wires) == system.length + system.forms.size
    return rows


def _hold(gates: Gates, needs: list[int], rows: Int64Array, before: int, known: int) -> Any:
    columns = list(rows.T)
    hold = np.ones(len(rows), np.bool_)
    for gate, need in zip(gates.gates, needs, strict=True):
        if before < need <= known:
            a, b, c = (value(form, columns) for form in gate)
            hold &= a * b == c
    return hold


def read(outputs: Int64Array, shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, Tally]]:
    """Return by group what is proved in it, by name, of one row of outputs."""
    groups = next(iter(shapes.values()))[0]
    found: list[dict[str, Tally]] = [{} for _ in range(groups)]
    at = 0
    for name, shape in shapes.items():
        each = outputs[at : at + int(np.prod(shape))].reshape(groups, -1)
        at += each.size
        for group, values in zip(found, each.tolist(), strict=True):
            group[name] = tuple(values)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_constraints_admit_exactly_what_a_draw_gives(name: str) -> None:
    case = CASES[name]
    system, shapes = case.system()
    found = set()
    for outputs in np.unique(system.outputs.values(accepted(system)), axis=0):
        groups = read(outputs, shapes)
        tallies = tuple(sum((group[each] for each in case.tallies), ()) for group in groups)
        for group, tally in zip(groups, tallies, strict=True):
            products = case.products(tally)
            for each in set(group) - set(case.tallies):
                assert group[each] == products[each], each
        found.add(tallies)
    assert found == set(case.definition.all(case.groups))


def plan_by(*groupings: tuple[str, ...]) -> Plan:
    """A rate of at most two events a device, broken down by three accents and two models."""
    body = {**SAMPLES["rate"].body, "group_by": [list(grouping) for grouping in groupings]}
    return plan_with({"metric": body}, "wake_events", "model", max_events=2)


@pytest.mark.parametrize(
    "groupings",
    [[("accent",)], [(), ("accent",)], [("accent", "model")], [("model",), ("accent", "model")]],
)
def test_a_device_is_in_one_group_of_its_facts(groupings: list[tuple[str, ...]]) -> None:
    """Every assignment that satisfies the gates comes to the vector of a device of one accent."""
    system = shared(plan_by(*groupings)).system
    events = any("model" in grouping for grouping in groupings)
    table = TABLES["rate_event" if events else "rate"]
    a = joint_reference.matrix(table, 2, 2)
    expected = set()
    for accent, tallies in product(range(3), feasible.rate(2).all(2 if events else 1)):
        vector: list[int] = []
        for grouping in groupings:
            for cell in product(*({"accent": range(3), "model": range(2)}[name] for name in grouping)):
                at = dict(zip(grouping, cell, strict=True))
                n, r = tallies[at["model"]] if events else tallies[0]
                here = at.get("accent", accent) == accent
                vector += joint_reference.mapped(a, n * here, r * here)
        expected.add(tuple(vector))
    assert {tuple(row) for row in system.outputs.values(accepted(system)).tolist()} == expected


def tallies_near(case: Case, source: random.Random) -> list[list[Tally]]:
    """Tallies of one device by group and draw: often feasible, often just not."""
    groups = []
    reached = [sorted(case.definition.fewest(draw)) for draw in case.definition.draws]
    for _ in range(case.groups):
        group = []
        for each in reached:
            tally = list(source.choice(each)) if source.random() < 0.8 else [0] * len(each[0])
            if source.random() < 0.2:
                tally[source.randrange(len(tally))] += source.choice((-1, 1))
            group.append(tuple(tally))
        groups.append(group)
    return groups


LARGER = {
    "rate": pairs("rate", 1, 24, feasible.rate(24)),
    "rate in groups": pairs("rate", 3, 12, feasible.rate(12)),
    "paired in groups": pairs("paired_difference", 3, 7, feasible.paired(7)),
    "mean in groups": pairs("mean", 3, 6, feasible.mean(6, STEPS)),
    "ratio in groups": pairs("ratio", 3, 4, feasible.ratio(4, 5, 4), max_over=5, max_of=4),
    "rate an hour in groups": pairs(
        "rate_per_hour", 3, 6, feasible.rate_per_hour(5, MINUTES, 4), max_hours=5, max_per_hour=4
    ),
    "table in groups": Case("histogram", 2, 4, feasible.table(4, 8), ("x",), TABLE, {"edges": BINS}),
    "det in groups": Case(
        "det",
        2,
        5,
        feasible.det(5, 2, 3, MINUTES, 2),
        ("positives", "negatives", "minutes"),
        DET,
        {"edges": BINS, "max_hours": 3, "max_per_hour": 2},
    ),
}


def inputs_from(case: Case, system: System, groups: list[list[Tally]]) -> Int64Array:
    """The device's inputs, with the fewest units that the definition has for them (what the proof shows)."""
    named: dict[str, list[Any]] = {name: [] for name, _ in system.inputs}
    for group in groups:
        flat = sum(group, ())
        at = 0
        for name, shape in system.inputs:
            if name == "units":
                fewest = case.definition.fewest(case.definition.draws[-1])
                named[name].append(fewest.get(group[-1], case.definition.draws[-1].most))
            else:
                size = int(np.prod(shape[1:]))
                named[name].append(flat[at : at + size])
                at += size
    return np.concatenate([np.ravel(values) for values in named.values()])[None].astype(np.int64)


@pytest.mark.parametrize("name", LARGER)
def test_random_tallies_are_provable_exactly_where_they_are_feasible(name: str) -> None:
    case, source = LARGER[name], random.Random(4)
    system, _ = case.system()
    gates = gates_of(system)
    outcomes = set()
    for _ in range(60):
        groups = tallies_near(case, source)
        try:
            elements = system.solved(inputs_from(case, system, groups))[0].tolist()
            provable = not gates.violated(elements)
        except ValueError:
            provable = False
        assert provable == case.definition.feasible(groups), groups
        outcomes.add(provable)
    assert outcomes == {True, False}


def test_every_kind_is_tried() -> None:
    tried = {case.kind for case in CASES.values()}
    assert set(SAMPLES) - tried == {"confusion"}, "a table of shares, as a histogram is"
    for case in CASES.values():
        assert Blocks(case.system()[0]).length
