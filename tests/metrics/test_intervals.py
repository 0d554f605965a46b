"""Interval mathematics against textbooks, brute force and numeric integration."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from fa_core.metrics import KINDS, Bounds, PartSum, Reading, Shape
from fa_core.metrics.intervals import (
    convolved_quantile,
    estimated_variance_quantile,
    laplace_quantile,
    lean_on_others,
    normal_quantile,
    simultaneous_level,
    wilson_fieller,
)

quick = settings(max_examples=60, deadline=None, derandomize=True)


def wilson(hits: int, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval as textbooks print it (Wilson 1927)."""
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def interval(
    t: float, n: float, variance: tuple[float, float, float], z: float, p0: float, sd: float
) -> tuple[float, float, bool]:
    v0, v1, v2 = (np.array([each]) for each in variance)
    found = wilson_fieller(
        np.array([t]), np.array([n]), (v0, v1, v2), np.array([z]), p0=p0, denominator_sd=np.array([sd])
    )
    return float(found.low[0]), float(found.high[0]), bool(found.valid[0])


@quick
@given(n=st.integers(1, 10**6), share=st.floats(0, 1), p0=st.floats(0.01, 0.99))
def test_without_noise_and_with_independent_events_it_is_wilson(n: int, share: float, p0: float) -> None:
    """Whatever the centre: V = n·p(1−p) written around p0, no noise, φ = 1."""
    hits, z = round(share * n), 1.959963984540054
    variance = (n * p0 * (1 - p0), n * (1 - 2 * p0), -float(n))
    low, high, valid = interval(hits - p0 * n, n, variance, z, p0, 0.0)
    assert valid
    assert (low, high) == pytest.approx(wilson(hits, n, z), abs=1e-7)


def test_the_rate_itself_is_wilson_without_noise_and_with_independent_events() -> None:
    """Through the kind: devices of one event each have φ = 1 exactly at the floor."""
    rate = KINDS["rate"].model_validate(
        {"kind": "rate", "source": "wake_events", "of": {"outcome": "x"}, "expect": "0.1"}
    )
    a, b = rate.centre()  # type: ignore[attr-defined]
    n, hits = 5000.0, 400.0
    t = b * hits - a * n
    squares = hits * (b - a) ** 2 + (n - hits) * a * a
    sums = {
        name: PartSum(np.array([value]), 0.0, False)
        for name, value in {
            "excess": t,
            "size": n,
            "devices": n,
            "excess_squared": squares,
            "excess_size": t,
            "size_squared": n,
        }.items()
    }
    numbers = rate.estimate(sums, Shape(1, 1), Bounds(64, None), Reading(0.95, 100, 5000)).numbers
    assert (numbers.low[0], numbers.high[0]) == pytest.approx(
        wilson(400, 5000, normal_quantile(0.95)), abs=1e-9
    )


@quick
@given(
    t=st.floats(-500, 500),
    n=st.floats(1, 5000),
    v0=st.floats(0, 1e5),
    v1=st.floats(-1000, 1000),
    v2=st.floats(-5000, 5000),
    p0=st.floats(0, 1),
)
def test_it_is_all_p_that_the_data_do_not_refuse(
    t: float, n: float, v0: float, v1: float, v2: float, p0: float
) -> None:
    """Brute force: p is inside if and only if (t − d·n)² ≤ z²·(v0 + v1·d + v2·d²)."""
    z = 1.96
    low, high, valid = interval(t, n, (v0, v1, v2), z, p0, 0.0)
    if not valid:
        assert math.isnan(low)
        assert math.isnan(high)
        return
    width = max(high - low, 1e-6)
    for p in np.linspace(low - width, high + width, 41):
        d = p - p0
        refused = (t - d * n) ** 2 - z * z * (v0 + v1 * d + v2 * d * d)
        slack = 1e-6 * (1 + t * t + (d * n) ** 2)
        if low + 1e-3 * width < p < high - 1e-3 * width:
            assert refused <= slack
        elif p < low - 1e-3 * width or p > high + 1e-3 * width:
            assert refused >= -slack


def test_there_is_none_where_the_denominator_is_not_distinguished_from_0() -> None:
    assert not interval(0.0, 10.0, (1.0, 0.0, 25.0), 2.0, 0.1, 5.1)[2]
    assert interval(0.0, 10.0, (1.0, 0.0, 20.0), 2.0, 0.1, 4.5)[2]


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-4, 0.05, 0.3, 0.5, 0.8, 0.99, 1.0])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.9975])
def test_the_quantile_is_that_of_the_noise_convolved(share: float, level: float) -> None:
    found = float(convolved_quantile(level, np.array([share]))[0])
    if share == 0:
        assert found == pytest.approx(stats.norm.isf((1 - level) / 2))
        return
    if share == 1:
        assert found == pytest.approx(-math.log1p(-level) / math.sqrt(2), rel=1e-4)
        assert laplace_quantile(level) == pytest.approx(-math.log1p(-level) / math.sqrt(2))
        return
    normal, scale = math.sqrt(1 - share), math.sqrt(share / 2)

    def tail(x: float) -> float:
        """P[N + L > x] by integrating over the Laplace variable, half by half around its kink."""

        def under(y: float) -> float:
            return float(stats.norm.sf((x - y) / normal) * stats.laplace.pdf(y, scale=scale))

        ends = sorted({-40 * scale, 0.0, x, x - 8 * normal, x + 8 * normal, x + 40 * scale})
        return sum(integrate.quad(under, low, high, epsabs=1e-13)[0] for low, high in pairwise(ends)) + float(
            stats.laplace.sf(ends[-1], scale=scale)
        )

    exact = optimize.brentq(lambda x: tail(x) - (1 - level) / 2, 0.1, 20)
    assert found == pytest.approx(exact, abs=2e-6)


def test_a_variance_that_is_itself_noisy_widens_as_its_expansion_says() -> None:
    """Coverage of z·√(1 + r·e) for a normal e, integrated: the correction keeps 95% to two thousandths."""
    for r in (0.05, 0.15, 0.25):
        z = float(estimated_variance_quantile(np.array([1.96]), np.array([r]))[0])
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        width = np.sqrt(np.maximum(1 + r * nodes, 0.0))
        plain, mended = (
            float(((2 * stats.norm.cdf(q * width) - 1) * weights).sum() / weights.sum()) for q in (1.96, z)
        )
        assert abs(mended - 0.95) < 0.002
        assert plain < mended


def test_all_hold_together_by_bonferroni() -> None:
    assert simultaneous_level(0.95, 1) == pytest.approx(0.95)
    assert simultaneous_level(0.95, 10) == pytest.approx(0.995)
    assert simultaneous_level(0.95, 0) == pytest.approx(0.95)


class TestLeaningOnOthers:
    least = np.full(4, 10.0)
    size = np.full(4, 1.0)

    def test_what_is_well_measured_stands_by_itself(self) -> None:
        measured = np.array([20.0, 30.0, 40.0, 50.0])
        found = lean_on_others(measured, np.full(4, 0.01), self.least, self.size)
        np.testing.assert_allclose(found.value, measured, rtol=1e-3)
        assert not found.pooled.any()

    def test_what_is_drowned_in_noise_leans_on_the_rest(self) -> None:
        measured = np.array([20.0, 30.0, 40.0, 5000.0])
        found = lean_on_others(measured, np.array([0.01, 0.01, 0.01, 2000.0]), self.least, self.size)
        assert found.pooled.tolist() == [False, False, False, True]
        assert found.value[3] < 5000

    def test_nothing_is_under_the_floor(self) -> None:
        found = lean_on_others(np.array([-99.0, 5.0, 9.0, 10.0]), np.full(4, 30.0), self.least, self.size)
        assert (found.value >= self.least).all()
        assert (found.sd <= found.value - self.least + 1e-12).all()
