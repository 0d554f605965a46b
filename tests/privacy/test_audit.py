"""The noise of the real release path, audited from its outputs; and broken paths, each caught.

Every audit here has a false-alarm rate of 1e-8 by construction, so this file as a whole stays under 1e-6.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from clients import evaluate
from clients.evaluate import cohort_of_one, device_vectors
from fa_core.layout import compile_plan
from fa_core.metrics import joint_ratio
from fa_core.metrics.joint import Norms, norms
from fa_core.plan import Plan
from fa_core.privacy.audit import Check, audit, cumulative, epsilon_found, fit, fresh, mu_found, spread
from fa_core.privacy.distributed import noise_share, scales_of, share_of, shares_of
from fa_core.privacy.mechanisms import central_noise
from fa_core.values import Layout
from tests.metrics.samples import SAMPLES, UNTIL, plan_with
from tests.privacy.worst import misses

Int64Array = NDArray[np.int64]

ALARM = 1e-8


def plan_for(kind: str = "count", **privacy: object) -> Plan:
    metric = {**SAMPLES[kind].body, "of": {"accepted": False}, "group_by": [[]]}
    return plan_with({"misses": metric}, "wake_events", max_events=8, **privacy)


def worst(plan: Plan, layout: Layout) -> Int64Array:
    """The counts of the device that weighs as much as the plan lets any: every event missed."""
    one = cohort_of_one({"accent": "en-GB"}, {"wake_events": misses(8)})
    (vector,) = device_vectors(plan, layout, one, UNTIL)
    return vector


def centrally(layout: Layout) -> Callable[[Int64Array], Int64Array]:
    return lambda sums: central_noise(layout, sums)


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if not check.passes]


@pytest.fixture(scope="module")
def gaussian() -> tuple[Layout, Int64Array]:
    plan = plan_for(epsilon=12)
    layout = compile_plan(plan)
    return layout, worst(plan, layout)


def test_the_canary_is_the_worst_there_is(gaussian: tuple[Layout, Int64Array]) -> None:
    """It reaches every bound at once, so the audit's lower bound has all of mu to find."""
    layout, canary = gaussian
    for block in layout.blocks:
        assert np.abs(canary[block.slice]).sum() == block.l1
    mu = math.sqrt(sum(float((canary[b.slice] ** 2).sum() / b.variance) for b in layout.blocks))
    assert mu == pytest.approx(math.sqrt(2 * layout.cost))


def test_central_gaussian_noise_passes(gaussian: tuple[Layout, Int64Array]) -> None:
    layout, canary = gaussian
    checks = audit(layout, centrally(layout), canary, [1] * len(layout.blocks), 1000, ALARM)
    assert failed(checks) == []
    # The attack is a real one. It finds 1.0 of the 1.8 that are lost, give or take 0.05: eleven times that.
    assert checks[-1].found > 0.5


def test_central_geometric_noise_passes() -> None:
    plan = plan_for(epsilon=4, accounting="pure", delta=0)
    layout = compile_plan(plan)
    checks = audit(layout, centrally(layout), worst(plan, layout), [1] * len(layout.blocks), 600, ALARM)
    assert failed(checks) == []
    assert checks[-1].found > 0.3


def test_noise_of_single_devices_adds_up_to_what_was_charged() -> None:
    """The least there may be: 12 honest shares of 14 joined, the two corrupt having left theirs out."""
    plan = plan_for(epsilon=8, noise="distributed")
    layout = compile_plan(plan)
    shares = shares_of(layout, 14, Fraction(0), Fraction(1, 10))
    scales, nothing = scales_of(shares).tolist(), np.zeros(layout.length, np.int64)

    def path(sums: Int64Array) -> Int64Array:
        return sums + sum(noise_share(layout, nothing, shares) for _ in range(12))

    assert failed(audit(layout, path, worst(plan, layout), scales, 80, ALARM)) == []


class TestABrokenPathIsCaught:
    """Controls: what must be found, on the same release path."""

    def test_noise_too_small_by_a_third(self, gaussian: tuple[Layout, Int64Array]) -> None:
        layout, canary = gaussian

        def path(sums: Int64Array) -> Int64Array:
            return sums + np.rint((central_noise(layout, 0 * sums)) * (2 / 3)).astype(np.int64)

        found = failed(audit(layout, path, canary, [1] * len(layout.blocks), 600, ALARM))
        assert "spread of misses by everyone, events" in found

    def test_noise_too_small_by_half_is_found_by_what_a_device_loses(
        self, gaussian: tuple[Layout, Int64Array]
    ) -> None:
        layout, canary = gaussian

        def path(sums: Int64Array) -> Int64Array:
            return sums + np.rint((central_noise(layout, 0 * sums)) / 2).astype(np.int64)

        found = failed(audit(layout, path, canary, [1] * len(layout.blocks), 1000, ALARM))
        assert "mu that one device loses" in found

    def test_geometric_noise_too_small_by_a_third(self) -> None:
        plan = plan_for(epsilon=4, accounting="pure", delta=0)
        layout = compile_plan(plan)

        def path(sums: Int64Array) -> Int64Array:
            return sums + np.rint(central_noise(layout, 0 * sums) * (2 / 3)).astype(np.int64)

        canary = worst(plan, layout)
        found = failed(audit(layout, path, canary, [1] * len(layout.blocks), 1500, ALARM))
        assert "spread of misses by everyone, events" in found

    def test_joint_counters_whose_bound_is_too_small_by_two(self) -> None:
        """Noise for half of what the map adds: `enforce` stands before the sum, and the audit behind it."""

        def half(*arguments: Any) -> Norms:
            honest = norms(*arguments)
            return replace(honest, l2_squared=honest.l2_squared // 2)

        plan = plan_for("rate", epsilon=16)
        sound = compile_plan(plan)
        canary = worst(plan, sound)
        assert (canary**2).sum() == sound.blocks[0].l2_squared
        assert failed(audit(sound, centrally(sound), canary, [1], 300, ALARM)) == []
        with patch.object(joint_ratio, "norms", half):
            broken = compile_plan(plan)
        assert not worst(plan, broken).any()
        with patch.object(evaluate, "enforce", lambda counts, *_: counts):
            canary = worst(plan, broken)
        assert "mu that one device loses" in failed(
            audit(broken, centrally(broken), canary, [1], 2000, ALARM)
        )

    def test_the_same_noise_twice(self, gaussian: tuple[Layout, Int64Array]) -> None:
        layout, canary = gaussian
        drawn: list[Int64Array] = []

        def path(sums: Int64Array) -> Int64Array:
            if len(drawn) % 2 == 0:
                drawn.append(central_noise(layout, 0 * sums))
            else:
                drawn.append(drawn[-1])
            return sums + drawn[-1]

        found = failed(audit(layout, path, canary, [1] * len(layout.blocks), 200, ALARM))
        assert "correlation between releases" in found

    def test_shares_for_too_few_honest_devices(self) -> None:
        """Shares reckoned for 20 honest devices, of whom 5 added theirs: a quarter of the variance."""
        plan = plan_for(epsilon=8, noise="distributed")
        layout = compile_plan(plan)
        shares = tuple(share_of(block, 20) for block in layout.blocks)
        scales, nothing = scales_of(shares).tolist(), np.zeros(layout.length, np.int64)

        def path(sums: Int64Array) -> Int64Array:
            return sums + sum(noise_share(layout, nothing, shares) for _ in range(5))

        found = failed(audit(layout, path, worst(plan, layout), scales, 250, ALARM))
        assert "spread of misses by everyone, events" in found

    def test_noise_of_another_shape(self) -> None:
        """Uniform noise of the right variance: only its fit shows it."""
        random = np.random.default_rng(5)
        noise = random.integers(-100, 101, (1000, 10))
        variance = Fraction(201**2 - 1, 12)
        assert spread(noise, variance, "discrete_gaussian", ALARM, "").passes
        assert not fit(noise, variance, "discrete_gaussian", ALARM, "").passes


class TestTheChecksThemselves:
    def test_distributions_are_those_of_the_definition(self) -> None:
        k = np.arange(-60, 61)
        for sigma in (1.0, 3.5, 7.0):
            weight = np.exp(-0.5 * (np.arange(-200, 201) / sigma) ** 2)
            exact = np.cumsum(weight / weight.sum())[200 - 60 : 200 + 61]
            np.testing.assert_allclose(
                cumulative(k, Fraction(sigma) ** 2, "discrete_gaussian"), exact, atol=1e-12
            )
        for q in (0.2, 0.9):
            weight = q ** np.abs(np.arange(-4000, 4001))
            exact = np.cumsum(weight / weight.sum())[4000 - 60 : 4000 + 61]
            variance = Fraction(2 * q / (1 - q) ** 2)
            np.testing.assert_allclose(cumulative(k, variance, "geometric"), exact, atol=1e-9)

    def test_the_midpoint_rule_is_near_enough_where_it_begins(self) -> None:
        sigma = 50.0
        weight = np.exp(-0.5 * (np.arange(-1000, 1001) / sigma) ** 2)
        exact = np.cumsum(weight / weight.sum())
        found = cumulative(np.arange(-1000, 1001), Fraction(2500), "discrete_gaussian")
        np.testing.assert_allclose(found, exact, atol=2e-5)

    def test_bounds_lie_under_the_truth(self) -> None:
        random = np.random.default_rng(1)
        without, within = random.normal(size=4000), random.normal(1.5, 1.0, 4000)
        assert 1.1 < mu_found(without, within, ALARM) < 1.5
        assert epsilon_found(without, within, 1e-6, ALARM) > 0
        assert mu_found(without, without, ALARM) < 0
        assert epsilon_found(without, without - 99, 1e-6, ALARM) == -math.inf

    def test_fresh_noise_is_distinguished_from_stale(self) -> None:
        random = np.random.default_rng(2)
        noise = random.normal(size=(300, 5))
        assert fresh(noise, ALARM).passes
        assert not fresh(np.repeat(noise[:150], 2, axis=0), ALARM).passes
