"""The vectorised counts are those of a slow, plain reference, row by row, sample and all."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.evaluate import Cohort, device_vectors, seeded_randomness
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from tests.metrics import reference
from tests.metrics.samples import SAMPLES, UNTIL, before, cohort, plan_of


def rows_of(fleet: Cohort, device: int) -> Mapping[str, Sequence[reference.Row]]:
    """One device's rows as dictionaries; integers of pyarrow's tables stay integers, floats floats."""
    return {
        name: table.slice(
            int(fleet.offsets[name][device]), int(np.diff(fleet.offsets[name])[device])
        ).to_pylist()
        for name, table in fleet.tables.items()
    }


def facts_of(fleet: Cohort, device: int) -> Mapping[str, str]:
    return {
        name: labels[codes[device]] for name, (codes, labels) in fleet.facts.items() if codes[device] >= 0
    }


def compare(plan: Plan, fleet: Cohort, seed: int) -> None:
    layout = compile_plan(plan)
    found = device_vectors(plan, layout, fleet, UNTIL, seeded_randomness(seed))
    priorities = seeded_randomness(seed)(fleet)
    for device in range(len(fleet)):

        def draw(purpose: str, place: int, device: int = device) -> int:
            return int(priorities(purpose, np.array([device]), np.array([place]))[0])

        expected = reference.vector(plan, facts_of(fleet, device), rows_of(fleet, device), UNTIL, draw)
        for block in layout.blocks:
            np.testing.assert_array_equal(
                found[device, block.slice],
                expected[block.metric, block.grouping, block.part],
                err_msg=f"{block.part} by {block.grouping}",
            )


@pytest.mark.parametrize("limit", [4, 1000])
@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_reference(kind: str, limit: int, seed: int) -> None:
    compare(plan_of(kind, max_events=limit), cohort(seed, 4, 16), seed)


@pytest.mark.parametrize("kind", ["rate", "rate_per_hour", "histogram", "confusion", "det"])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_counts_in_blocks_are_those_of_the_reference(kind: str, seed: int) -> None:
    compare(plan_of(kind, accounting="pure", delta=0), cohort(seed, 4, 16), seed)


@pytest.mark.parametrize("kind", ["rate", "paired_difference"])
@pytest.mark.parametrize("clip", [None, 2])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_counts_of_plans_of_before_are_those_of_the_reference(kind: str, clip: int | None, seed: int) -> None:
    compare(before(plan_of(kind, max_events=12), clip), cohort(seed, 4, 24), seed)


def test_the_reference_is_distinguished_from_a_wrong_one() -> None:
    """The control: one more event in one row, and the comparison fails."""
    plan, fleet = plan_of("rate"), cohort(1, 3)
    wrong = plan.model_copy(update={"privacy": plan.privacy.model_copy(update={"max_events": 5})})
    layout = compile_plan(plan)
    found = device_vectors(plan, layout, fleet, UNTIL, seeded_randomness(1))
    other = device_vectors(wrong, compile_plan(wrong), fleet, UNTIL, seeded_randomness(1))
    assert (found != other).any()
