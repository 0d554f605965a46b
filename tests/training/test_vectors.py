"""What a device adds: within its bound in exact integers, in its own group, nothing where it has nothing."""

from collections.abc import Mapping
from unittest.mock import patch

import numpy as np
import pytest

from clients.evaluate import device_vectors
from fa_core.layout import compile_plan
from fa_core.metrics.features import BINS, CELLS, CLIPPED, COUNTED, OneShotMeans, bin_edges
from fa_core.metrics.kind import Int64Array
from fa_core.plan import TrainPlan
from fa_core.privacy.bounding import scale_to_l2
from fa_core.tables import VECTOR
from tests.training.toy import NOW, Floats, fleet, norms_plan, plan_of


def rows(plan: TrainPlan, groups: list[str], moments: list[Floats]) -> Int64Array:
    return device_vectors(plan, compile_plan(plan), fleet(groups, moments, plan), NOW)


def test_a_device_adds_its_step_and_a_count_to_its_own_group() -> None:
    plan, step = plan_of(), np.zeros((2, VECTOR))
    step[:, 3], step[1, 4] = 0.5, -0.25
    found = rows(plan, ["there", "elsewhere"], [step, step]).reshape(2, 3, CELLS)
    assert found[0, 1, 3] == CLIPPED // 2
    assert found[0, 1, 4] == -CLIPPED // 8  # the mean of two moments
    assert found[0, 1, VECTOR] == COUNTED
    assert not found[0, [0, 2]].any()
    assert (found[1, 2] == found[0, 1]).all()  # whom no label names is `other`


def test_a_device_without_moments_of_the_base_adds_nothing() -> None:
    plan, other = plan_of(), plan_of(sha256="1" * 64)
    cohort = fleet(["here", "here"], [np.zeros((0, VECTOR)), np.ones((1, VECTOR))], other)
    assert not device_vectors(plan, compile_plan(plan), cohort, NOW).any()


WORST = {
    "all cells alike": np.full((1, VECTOR), 50.0),
    "just over the clip": np.full((1, VECTOR), 1.0001 / VECTOR**0.5),
    "one cell": np.eye(1, VECTOR) * 1e6,
    "halves of a step": np.full((1, VECTOR), 0.5 / CLIPPED),
    "as far as a float goes": np.full((1, VECTOR), 3e38),
}


def clip_before_rounding(self: OneShotMeans, vectors: Floats) -> Mapping[str, Int64Array]:
    steps = vectors * (CLIPPED / float(self.clip))
    norms = np.linalg.norm(steps, axis=1, keepdims=True)
    return {"steps": np.rint(steps * np.minimum(1.0, CLIPPED / norms)).astype(np.int64)}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_device_keeps_its_bound_and_is_counted(name: str) -> None:
    plan = plan_of()
    (block,) = compile_plan(plan).blocks
    (row,) = rows(plan, ["here"], [WORST[name]])
    assert (row**2).sum() <= block.l2_squared
    assert np.abs(row).sum() <= block.l1
    assert np.abs(row).max() <= block.linf
    assert row[VECTOR] == COUNTED


def test_a_vector_that_is_clipped_before_rounding_breaks_its_bound_and_is_thrown_away() -> None:
    plan = plan_of()
    (block,) = compile_plan(plan).blocks
    far = WORST["all cells alike"]
    with patch.object(OneShotMeans, "_values", clip_before_rounding):
        assert not rows(plan, ["here"], [far]).any()
        with patch("clients.evaluate.enforce", lambda counts, *_: counts):
            (row,) = rows(plan, ["here"], [far])
    assert (row**2).sum() > block.l2_squared


def test_scaling_keeps_the_bound_exactly_for_any_numbers() -> None:
    random = np.random.default_rng(0)
    for limit in (1, 5, 4096):
        values = random.integers(-(2**20), 2**20, (500, 7)) // random.integers(1, 2**18, (500, 1))
        found = scale_to_l2(values, limit)
        assert ((found**2).sum(axis=1) <= limit**2).all()
        inside = (values**2).sum(axis=1) <= limit**2
        assert (found[inside] == values[inside]).all()
        assert (found * values >= 0).all()


def test_a_norm_falls_into_one_bin_of_half_an_octave() -> None:
    lengths = np.array([0.0, 0.015, 0.9, 1.0, 1.1, 1e9])
    moments = [np.eye(1, VECTOR) * length for length in lengths]
    found = rows(norms_plan(), ["here"] * len(lengths), moments)
    assert (found.sum(axis=1) == 1).all()
    assert found.shape == (len(lengths), BINS)
    expected = np.searchsorted(bin_edges(), lengths.astype(np.float32), side="right")
    assert found.argmax(axis=1).tolist() == expected.tolist()
    assert bin_edges()[11] == 1.0
