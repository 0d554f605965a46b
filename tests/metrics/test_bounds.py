"""What one device may add, for any tables whatever: the sentence that the whole privacy claim rests on."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients import evaluate
from clients.evaluate import Cohort, cohort_of_one, device_vectors, fleet_sum, seeded_randomness
from fa_core.layout import compile_plan
from fa_core.metrics import KINDS
from fa_core.plan import Plan
from fa_core.privacy.bounding import enforce
from fa_core.values import Layout
from tests.metrics.samples import SAMPLES, UNTIL, before, cohort, emptied, plan_of

Int64Array = NDArray[np.int64]

PLANS = {kind: plan_of(kind) for kind in SAMPLES}
PLANS |= {
    f"{kind} in blocks": plan_of(kind, accounting="pure", delta=0)
    for kind in ("rate", "rate_per_hour", "histogram", "det")
}
PLANS |= {
    f"{kind} of before{'' if clip is None else f' clipped at {clip}'}": before(plan_of(kind), clip)
    for kind, clip in (("rate", None), ("rate", 1), ("paired_difference", 3), ("rate_per_hour", None))
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
seeds = st.integers(0, 2**32 - 1)
any_tables = given(seed=seeds, devices=st.integers(1, 9), most=st.sampled_from((1, 8, 40)))
quick = settings(max_examples=8, deadline=None, derandomize=True)


def vectors(plan: Plan, layout: Layout, devices: Cohort, seed: int = 7) -> Int64Array:
    return device_vectors(plan, layout, devices, UNTIL, seeded_randomness(seed))


def keeps(row: Int64Array, l1: int, l2_squared: int, linf: int) -> bool:
    """Whether one device's cells keep every bound, in exact integers."""
    cells = [abs(int(cell)) for cell in row]
    return sum(cells) <= l1 and sum(cell * cell for cell in cells) <= l2_squared and max(cells) <= linf


def all_keep(row: Int64Array, layout: Layout) -> bool:
    """Whether one device's vector keeps the bounds of every block."""
    return all(keeps(row[b.slice], b.l1, b.l2_squared, b.linf) for b in layout.blocks)


@contextmanager
def unbounded() -> Iterator[list[tuple[Int64Array, int, int, int]]]:
    """Let `enforce` do nothing but write down what it was given."""
    seen: list[tuple[Int64Array, int, int, int]] = []

    def watch(counts: Int64Array, l1: int, l2_squared: int, linf: int) -> Int64Array:
        seen.append((counts, l1, l2_squared, linf))
        return counts

    with patch.object(evaluate, "enforce", watch):
        yield seen


def test_every_kind_has_a_sample() -> None:
    assert set(SAMPLES) == set(KINDS)


@every_plan
@quick
@any_tables
def test_a_device_keeps_its_bounds_before_they_are_enforced(
    plan: Plan, seed: int, devices: int, most: int
) -> None:
    layout = compile_plan(plan)
    with unbounded() as seen:
        vectors(plan, layout, cohort(seed, devices, most))
    assert len(seen) == len(layout.blocks)
    for counts, *bounds in seen:
        assert counts.shape[0] == devices
        assert all(keeps(row, *bounds) for row in counts)


@every_plan
@quick
@any_tables
def test_enforcing_the_bounds_changes_nothing(plan: Plan, seed: int, devices: int, most: int) -> None:
    layout, fleet = compile_plan(plan), cohort(seed, devices, most)
    with unbounded():
        before = vectors(plan, layout, fleet)
    np.testing.assert_array_equal(vectors(plan, layout, fleet), before)


@every_plan
@quick
@any_tables
def test_emptying_a_device_moves_the_sum_within_its_bounds(
    plan: Plan, seed: int, devices: int, most: int
) -> None:
    layout, fleet = compile_plan(plan), cohort(seed, devices, most)
    draw = seeded_randomness(seed)
    everyone = fleet_sum(plan, layout, fleet, UNTIL, draw)
    own = vectors(plan, layout, fleet, seed)
    for device in range(devices):
        neighbour = emptied(fleet, device)
        moved = everyone - fleet_sum(plan, layout, neighbour, UNTIL, draw)
        np.testing.assert_array_equal(moved, own[device])
        assert not vectors(plan, layout, neighbour, seed)[device].any()
        assert all_keep(moved, layout)


@every_plan
@quick
@given(seed=seeds, devices=st.integers(2, 9), cut=st.integers(0, 9))
def test_a_sum_is_the_sum_of_any_split(plan: Plan, seed: int, devices: int, cut: int) -> None:
    layout, fleet = compile_plan(plan), cohort(seed, devices)
    draw, cut = seeded_randomness(seed), min(cut, devices)
    whole = fleet_sum(plan, layout, fleet, UNTIL, draw)
    parts = (fleet.part(0, cut), fleet.part(cut, devices))
    np.testing.assert_array_equal(
        whole, sum(fleet_sum(plan, layout, part, UNTIL, draw) for part in parts if len(part))
    )
    np.testing.assert_array_equal(whole, vectors(plan, layout, fleet, seed).sum(axis=0))


@every_plan
@quick
@given(seed=seeds, devices=st.integers(1, 7), chunk=st.integers(1, 400))
def test_a_device_counts_the_same_alone_and_in_any_chunk(
    plan: Plan, seed: int, devices: int, chunk: int
) -> None:
    layout, fleet = compile_plan(plan), cohort(seed, devices)
    together = vectors(plan, layout, fleet)
    with patch.object(evaluate, "CHUNK_CELLS", chunk):
        np.testing.assert_array_equal(vectors(plan, layout, fleet), together)
    for device in range(devices):
        alone = fleet.part(device, device + 1)
        np.testing.assert_array_equal(vectors(plan, layout, alone)[0], together[device])


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_device_counts_the_same_from_a_table_of_its_own(kind: str) -> None:
    """Label codes are those of a table: a fleet's differ from a device's, and the sample must not."""
    plan = plan_of(kind, max_events=1)
    layout, fleet = compile_plan(plan), cohort(11, 6, 300)
    together = vectors(plan, layout, fleet)
    for device in range(len(fleet)):
        part = fleet.part(device, device + 1)
        tables = {name: _recoded(table) for name, table in part.tables.items()}
        alone = Cohort(part.ids, part.facts, tables, part.offsets)
        np.testing.assert_array_equal(vectors(plan, layout, alone)[0], together[device])


def _recoded(table: pa.Table) -> pa.Table:
    """Return the table with every label column coded by its own values, in the order they come."""
    columns = [
        column.cast(pa.string()).combine_chunks() if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


@pytest.mark.parametrize("kind", SAMPLES)
def test_one_device_by_itself_is_a_fleet_of_one(kind: str) -> None:
    plan = plan_of(kind, max_events=1000)  # nothing to draw, so no seed to agree upon
    layout, fleet = compile_plan(plan), cohort(5, 1, 12)
    code, labels = fleet.facts["accent"]
    facts = {"accent": labels[code[0]]} if code[0] >= 0 else {}
    alone = device_vectors(plan, layout, cohort_of_one(facts, fleet.tables), UNTIL)
    if kind not in ("rate_per_hour", "det", "ratio"):  # those draw hours, and how a scaled event is rounded
        np.testing.assert_array_equal(alone, vectors(plan, layout, fleet))
    assert alone.shape == (1, layout.length)


def test_system_randomness_draws_without_favour() -> None:
    """Each of 40 events is one of the 6 kept as often as the next: chi-square, 39 degrees of freedom, whose
    upper 1e-9 point is 130. False alarms: 1e-9."""
    plan = plan_of("count", max_events=6, epsilon=1)
    rows = cohort(0, 1, 1).tables["wake_events"].slice(0, 0)
    event = {name: [None] * 40 for name in rows.column_names}
    event["time"] = [UNTIL.replace(hour=1)] * 40
    event["accepted"] = [True] * 40
    event["snr_db"] = [float(index) for index in range(40)]
    table = pa.table({name: pa.array(values, rows.schema.field(name).type) for name, values in event.items()})
    one = cohort_of_one({}, {"wake_events": table})
    metric = plan.metrics["metric"]
    seen = np.zeros(40)
    for _ in range(1500):
        view = evaluate.View(
            1, {"wake_events": evaluate.Rows(table, np.zeros(40, np.int64))}, evaluate.system_randomness(one)
        )
        kept = metric.units(view, {}, evaluate.bounds_of(plan))["units"].index
        assert len(kept) == 6
        seen[kept] += 1
    expected = 1500 * 6 / 40
    assert ((seen - expected) ** 2 / (expected * (1 - 6 / 40))).sum() * 39 / 40 < 130


@pytest.mark.parametrize("accounting", ["zcdp", "pure"])
@pytest.mark.parametrize("kind", SAMPLES)
def test_blocks_are_contiguous_and_their_costs_add_up_exactly(kind: str, accounting: str) -> None:
    pure = accounting == "pure"
    plan = plan_of(kind, accounting=accounting, delta=0 if pure else 1e-8)
    layout = compile_plan(plan)
    stops = [0, *(block.stop for block in layout.blocks)]
    assert [block.start for block in layout.blocks] == stops[:-1]
    assert layout.length == stops[-1]
    total = plan.privacy.epsilon if pure else plan.privacy.rho
    assert sum(block.cost for block in layout.blocks) == layout.cost == total
    assert all(block.cost > 0 and block.l2_squared <= block.l1**2 for block in layout.blocks)


class TestABrokenKindIsCaught:
    """What `enforce` is for: a kind that counts more than it declares adds nothing."""

    def test_over_the_first_norm(self) -> None:
        counts = np.array([[3, -3], [3, -4], [0, 6]])
        np.testing.assert_array_equal(enforce(counts, 6, 36, 6), [[3, -3], [0, 0], [0, 6]])

    def test_over_the_second_norm_alone(self) -> None:
        counts = np.array([[3, 3], [4, 2], [5, 0]])
        np.testing.assert_array_equal(enforce(counts, 6, 20, 6), [[3, 3], [4, 2], [0, 0]])

    def test_where_squares_overflow(self) -> None:
        counts = np.array([[2**62, 2**62], [-(2**62), 2**62], [1, 1]])
        np.testing.assert_array_equal(enforce(counts, 2, 4, 2), [[0, 0], [0, 0], [1, 1]])

    def test_over_the_bound_on_one_cell_alone(self) -> None:
        counts = np.array([[3, 3], [4, 0], [-4, 0]])
        np.testing.assert_array_equal(enforce(counts, 6, 36, 3), [[3, 3], [0, 0], [0, 0]])

    def test_by_one_where_floats_cannot_tell(self) -> None:
        """Squares beyond 2^53 are compared in whole numbers."""
        counts, most = np.array([[2**29 + 1, 2**28], [2**29, 2**28]]), 2**58 + 2**56
        np.testing.assert_array_equal(enforce(counts, 2**30, most, 2**30), [[0, 0], [2**29, 2**28]])
        assert float(most) == float(most + 1)
        kept = enforce(np.array([[2**29, 2**28, 1]]), 2**30, most, 2**30)
        np.testing.assert_array_equal(kept, [[0, 0, 0]])

    def test_in_place_of_a_real_kind(self) -> None:
        plan, fleet = plan_of("count"), cohort(3, 5, 40)
        layout = compile_plan(plan)
        honest = type(plan.metrics["metric"]).count

        def twice(*arguments: object) -> dict[str, Int64Array]:
            return {name: 2 * counts for name, counts in honest(*arguments).items()}  # type: ignore[arg-type]

        with patch.object(type(plan.metrics["metric"]), "count", twice):
            found = vectors(plan, layout, fleet)
            with unbounded() as seen:
                vectors(plan, layout, fleet)
        assert any(not keeps(row, *bounds) for counts, *bounds in seen for row in counts)
        assert all(all_keep(row, layout) for row in found)
