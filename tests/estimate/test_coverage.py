"""Every formula of the estimators, by simulation: fleets with known truth, noise of the stated
variance, and how often the intervals hold it.

Statistical, so each bound states how far chance goes: 5.5 standard errors of a mean over independent
releases, or more. Noise comes by seed, as the fleets do, so that no run fails by chance; that the real noise
is as large as is stated, and of its kind, is tested in tests/privacy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from fa_core.layout import compile_plan
from fa_core.metrics import KINDS, PartSum, joint_ratio, joint_shares, multinomial, table_of_shares
from fa_core.metrics.intervals import Variances, normal_quantile
from fa_core.metrics.joint_shares import CellSums
from fa_core.metrics.kind import FloatArray
from fa_core.metrics.moments import Moments, unmapped
from fa_core.metrics.multinomial import Dispersion, shares
from fa_core.privacy.audit import geometric_ratio
from fa_core.privacy.distributed import Share
from fa_core.values import Block, Int64Array, Layout
from scripts.bench import simulated
from scripts.bench.simulated import CASES, Level, World, estimate, exact_sums, noised_parts, plan_of

CHANCE = 5.5
"""Standard errors: a normal mean is farther off than this with probability 4e-8."""


@pytest.fixture(autouse=True)
def noise_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the server's noise, and each device's share of it, from a generator of this test's own."""
    random = np.random.default_rng(7)

    def noised(layout: Layout, sums: Int64Array) -> Int64Array:
        return np.concatenate([sums[block.slice] + drawn(layout, block) for block in layout.blocks])

    def drawn(layout: Layout, block: Block) -> Int64Array:
        if layout.mechanism == "geometric":
            q = geometric_ratio(block.variance)
            return random.geometric(1 - q, block.cells) - random.geometric(1 - q, block.cells)
        return np.rint(random.normal(0.0, float(block.variance) ** 0.5, block.cells)).astype(np.int64)

    def share(layout: Layout, vector: Int64Array, shares: tuple[Share, ...]) -> Int64Array:
        sd = np.repeat([each.sigma for each in shares], [block.cells for block in layout.blocks])
        return vector + np.rint(random.normal(0.0, sd)).astype(np.int64)

    monkeypatch.setattr(simulated, "central_noise", noised)
    monkeypatch.setattr(simulated, "noise_share", share)


@dataclass(frozen=True)
class Coverage:
    """Share of shown intervals that hold the truth, by release, and share of releases where all do."""

    by_release: NDArray[np.float64]
    together: NDArray[np.float64]
    shown: float

    def reaches(self, least: float) -> bool:
        """Whether coverage is at least `least`, as far as chance allows."""
        return bool(self.by_release.mean() > least - self.chance())

    def exceeds(self, most: float) -> bool:
        return bool(self.by_release.mean() > most + self.chance())

    def chance(self) -> float:
        spread = max(float(self.by_release.std()), 0.05)
        return CHANCE * spread / len(self.by_release) ** 0.5


def cover(kind: str, world: World, releases: int, seed: int = 1, **privacy: object) -> Coverage:
    """Draw fleets, release each, and see what is covered."""
    case = CASES[kind]
    plan = plan_of(case, world, **privacy)
    layout, random = compile_plan(plan), np.random.default_rng(seed)
    truth = case.truth(world, plan.metrics["metric"])
    covered, together, shown = [], [], []
    for _ in range(releases):
        sums = exact_sums(case, world, plan, layout, random)
        numbers = estimate(plan, noised_parts(plan, layout, sums, world.devices), world.devices).numbers
        seen = ~numbers.suppressed
        shown.append(seen.mean())
        if not seen.any():
            continue
        held = (numbers.low <= truth) & (truth <= numbers.high)
        covered.append(held[seen].mean())
        wide = (numbers.simultaneous_low <= truth) & (truth <= numbers.simultaneous_high)
        together.append(float((wide | ~seen).all()))
    return Coverage(np.array(covered), np.array(together), float(np.mean(shown)))


def world_of(level: Level, devices: int = 4000, p: float = 0.1, kappa: float = 8.0) -> World:
    return World(devices, {"device": 8, "event": 4, "everyone": 1}[level], p, kappa, level)


def releases_of(level: Level, kind: str) -> int:
    """Fewer where one release has many cells."""
    many = kind in ("histogram", "confusion", "det")
    return {"device": 20, "event": 30, "everyone": 60 if many else 150}[level]


@pytest.mark.parametrize("level", ["device", "event", "everyone"])
@pytest.mark.parametrize("kind", CASES)
def test_intervals_hold_the_truth(kind: str, level: Level) -> None:
    found = cover(kind, world_of(level), releases_of(level, kind), epsilon=4)
    assert found.shown > 0.5
    assert found.reaches(0.94), found.by_release.mean()
    assert not found.exceeds(0.97), found.by_release.mean()
    assert found.together.mean() > 0.94 - CHANCE * 0.22 / len(found.together) ** 0.5


def test_every_kind_is_simulated() -> None:
    assert set(CASES) == set(KINDS)


@pytest.mark.parametrize("kind", ["rate", "count", "confusion"])
def test_intervals_hold_the_truth_under_geometric_noise(kind: str) -> None:
    """The quantile is that of normal sampling and Laplace noise together."""
    found = cover(kind, world_of("device"), 20, epsilon=4, accounting="pure", delta=0)
    assert found.reaches(0.94)


def test_intervals_hold_the_truth_under_shares_of_noise() -> None:
    found = cover("rate", world_of("device"), 15, epsilon=4, noise="distributed")
    assert found.reaches(0.94)
    assert not found.exceeds(0.97)


class TestWithoutIt:
    """Controls: an interval that leaves out a term of the variance does not hold."""

    def test_events_of_one_device_taken_for_independent(self) -> None:
        def alone(measured: FloatArray, sd: FloatArray, least: FloatArray, size: FloatArray) -> Variances:
            return Variances(least, 0 * least, least > 0)

        def no_squares(*arguments: Any) -> Moments:
            found = unmapped(*arguments)
            return replace(found, values=found.values * (1, 1, 1, 0, 0, 0))

        with patch.object(joint_ratio, "unmapped", no_squares):
            assert not cover("rate", world_of("device", kappa=3), 20, epsilon=50).reaches(0.94)
        with patch.object(multinomial, "own_or_more", alone):
            pure = {"accounting": "pure", "delta": 0}
            assert not cover("histogram", world_of("device", kappa=3), 10, epsilon=50, **pure).reaches(0.94)

    def test_events_of_one_device_in_a_cell_taken_for_independent(self) -> None:
        def no_squares(*arguments: Any) -> CellSums:
            found = joint_shares.unmapped(*arguments)
            return replace(found, values=found.values * (1, 0, 0))

        with patch.object(table_of_shares, "unmapped", no_squares):
            assert not cover("histogram", world_of("device", kappa=3), 10, epsilon=50).reaches(0.94)

    @pytest.mark.parametrize("kind", ["rate", "ratio", "mean", "confusion", "det"])
    def test_noise_forgotten(self, kind: str) -> None:
        with quiet():
            assert not cover(kind, world_of("device"), 30, epsilon=1).reaches(0.94)


@contextmanager
def quiet() -> Iterator[None]:
    """Read sums as if they had a ninth of the noise that they have."""
    honest = noised_parts

    def less(*arguments: object) -> dict[str, PartSum]:
        parts = honest(*arguments)  # type: ignore[arg-type]
        return {name: PartSum(part.values, part.variance / 9, part.laplace) for name, part in parts.items()}

    with patch(f"{__name__}.noised_parts", less):
        yield


class TestNoiseOnTheEstimate:
    """How far noise moves a number, against the formula, over 4,000 draws (a standard deviation known to
    1.1%, so 8% is seven of its standard errors)."""

    random = np.random.default_rng(17)
    draws = 4000

    def test_noise_on_the_denominator_enters_through_the_distance_to_the_centre(self) -> None:
        """p̂ = p0 + T/(b·n̂): its sd is |p − p0|·σ_n/n, ten times less than an uncentred p·σ_n/n here."""
        n, sigma, p0, p = 10_000.0, 300.0, 0.18, 0.2
        noisy = n + sigma * self.random.normal(size=self.draws)
        found = (p0 + (p - p0) * n / noisy).std()
        assert found == pytest.approx(abs(p - p0) * sigma / n, rel=0.08)
        assert (p * n / noisy).std() == pytest.approx(10 * found, rel=0.16)

    @pytest.mark.parametrize(("k", "cells", "p"), [(1, 5, 0.9), (1, 25, 0.02), (7, 10, 0.4), (4, 5, 0.97)])
    def test_numerator_and_denominator_share_noise(self, k: int, cells: int, p: float) -> None:
        """The variance of X − p·n is σ²[k(1−p)² + (K−k)p²], k of K cells in X."""
        sigma, n = 20.0, 10_000.0
        noise = sigma * self.random.normal(size=(self.draws, cells))
        x, total = p * n + noise[:, :k].sum(axis=1), n + noise.sum(axis=1)
        expected = sigma * (k * (1 - p) ** 2 + (cells - k) * p**2) ** 0.5
        assert (x - p * total).std() == pytest.approx(expected, rel=0.08)
        one = np.array([1.0])
        part = PartSum(noise[0], sigma**2, False)
        spread = Dispersion(one, 0 * one, one > 0)
        read = shares(np.array([p * n]), np.array([n]), np.array([k]), cells, part, spread)
        assert read.noise_sd()[0] * n == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_levels_are_kept_at_any_level(level: float) -> None:
    """Half of 50% intervals hold, and no more: they are not wide for safety's sake."""
    case, world = CASES["rate"], world_of("device")
    plan = plan_of(case, world, epsilon=8)
    layout, random = compile_plan(plan), np.random.default_rng(2)
    held = []
    for _ in range(40):
        sums = exact_sums(case, world, plan, layout, random)
        parts = noised_parts(plan, layout, sums, world.devices)
        numbers = estimate(plan, parts, world.devices, level).numbers
        held.append(((numbers.low <= world.rates()) & (world.rates() <= numbers.high)).mean())
    error = CHANCE * max(float(np.std(held)), (level * (1 - level) / 8) ** 0.5) / 40**0.5
    assert abs(np.mean(held) - level) < error + 0.02
    assert normal_quantile(level) == pytest.approx({0.5: 0.674, 0.95: 1.96}[level], abs=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("kappa", [5.0, 40.0])
@pytest.mark.parametrize("p", [0.02, 0.2])
@pytest.mark.parametrize("epsilon", [1, 8])
@pytest.mark.parametrize("level", ["device", "event", "everyone"])
@pytest.mark.parametrize("kind", CASES)
def test_intervals_hold_the_truth_everywhere(
    kind: str, level: Level, epsilon: int, p: float, kappa: float
) -> None:
    releases = 5 * releases_of(level, kind)
    found = cover(kind, world_of(level, 5000, p, kappa), releases, epsilon=epsilon)
    assert found.reaches(0.94)
