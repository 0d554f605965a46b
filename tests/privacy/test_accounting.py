"""What noise costs, held against high precision, against dp-accounting, and at its edges."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.privacy.accounting import (
    epsilon_for,
    gaussian_variance,
    geometric_variance,
    pure_as_zcdp,
    rho_for,
)
from fa_core.privacy.mechanisms import float_up, geometric, root_up
from tests.metrics.samples import plan_of

quick = settings(max_examples=40, deadline=None, derandomize=True)
epsilons = st.fractions(Fraction(1, 10**6), 100, max_denominator=10**6)
deltas = st.fractions(Fraction(1, 10**18), Fraction(1, 2), max_denominator=10**18).filter(lambda d: d > 0)


def exact_delta(rho: Fraction, epsilon: Fraction) -> mpmath.mpf:
    """Least delta for which rho-zCDP implies (epsilon, delta): Canonne et al.'s Corollary 13 in 50 digits."""
    with mpmath.workdps(50):
        r, e = (mpmath.mpf(value.numerator) / value.denominator for value in (rho, epsilon))

        def log_delta(log_order: mpmath.mpf) -> mpmath.mpf:
            a = mpmath.exp(log_order)
            alpha = 1 + a
            return a * (alpha * r - e) - mpmath.log(a) + alpha * mpmath.log(a / alpha)

        best = min((mpmath.mpf(step) / 2 for step in range(-40, 90)), key=log_delta)
        low, high = best - 1, best + 1
        for _ in range(80):
            third = (high - low) / 3
            if log_delta(low + third) < log_delta(high - third):
                high -= third
            else:
                low += third
        return mpmath.exp(log_delta((low + high) / 2))


def is_at_most(found: mpmath.mpf, delta: Fraction) -> bool:
    with mpmath.workdps(50):
        return bool(found <= mpmath.mpf(delta.numerator) / delta.denominator)


@quick
@given(epsilon=epsilons, delta=deltas)
def test_a_budget_of_rho_keeps_its_epsilon(epsilon: Fraction, delta: Fraction) -> None:
    rho = rho_for(epsilon, delta)
    assert is_at_most(exact_delta(rho, epsilon), delta) or rho == 0


@quick
@given(rho=st.fractions(Fraction(1, 10**9), 50, max_denominator=10**9), delta=deltas)
def test_an_epsilon_of_a_rho_is_never_too_small(rho: Fraction, delta: Fraction) -> None:
    assert is_at_most(exact_delta(rho, Fraction(epsilon_for(rho, delta))), delta)


@pytest.mark.parametrize("epsilon", ["1e-12", "1e-9", "1e-6", "0.01", "1", "8", "1000"])
@pytest.mark.parametrize("delta", ["1e-30", "1e-12", "1e-8", "0.4", "0.99"])
def test_edges_are_safe(epsilon: str, delta: str) -> None:
    rho = rho_for(Fraction(epsilon), Fraction(delta))
    if rho > 0:
        assert is_at_most(exact_delta(rho, Fraction(epsilon)), Fraction(delta))
        assert is_at_most(exact_delta(rho, Fraction(epsilon_for(rho, Fraction(delta)))), Fraction(delta))


@pytest.mark.parametrize("epsilon", [Fraction(1, 2), Fraction(1), Fraction(4), Fraction(10)])
def test_little_is_given_away(epsilon: Fraction) -> None:
    """The conversion is tight to a billionth both ways, and never rounds against the device."""
    rho = rho_for(epsilon, Fraction(1, 10**8))
    assert float(epsilon) * (1 - 1e-8) < epsilon_for(rho, Fraction(1, 10**8)) < float(epsilon) * (1 + 1e-8)


def test_more_epsilon_or_more_delta_buys_more_rho() -> None:
    grid = [Fraction(step, 4) for step in range(1, 40)]
    small, large = ([rho_for(each, Fraction(1, 10**power)) for each in grid] for power in (10, 6))
    assert small == sorted(small)
    assert large == sorted(large)
    assert all(low < high for low, high in zip(small, large, strict=True))
    assert [epsilon_for(rho, Fraction(1, 10**8)) for rho in small] == sorted(
        epsilon_for(rho, Fraction(1, 10**8)) for rho in small
    )


@pytest.mark.parametrize("rho", ["0.001", "0.0172", "0.25", "2"])
@pytest.mark.parametrize("delta", ["1e-10", "1e-6"])
def test_dp_accounting_agrees(rho: str, delta: str) -> None:
    """Gaussian noise of that rho loses no more by dp-accounting's tight PLD, and what its RDP accountant
    says (a coarser grid of orders, the same conversion) is not below ours by more than a ten-thousandth."""
    ours = epsilon_for(Fraction(rho), Fraction(delta))
    event = GaussianDpEvent(1 / math.sqrt(2 * float(rho)))
    tight, coarse = PLDAccountant(value_discretization_interval=1e-3), RdpAccountant()
    tight.compose(event)
    coarse.compose(event)
    assert tight.get_epsilon(float(delta)) <= ours
    assert ours <= coarse.get_epsilon(float(delta)) * (1 + 1e-4)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, "1e-8"), (-1, "1e-8"), (1, "0"), (1, "1")])
def test_nonsense_is_refused(epsilon: int, delta: str) -> None:
    with pytest.raises(ValueError, match="epsilon above 0"):
        rho_for(Fraction(epsilon), Fraction(delta))


def test_a_budget_for_which_no_noise_is_enough_is_a_clear_error() -> None:
    with pytest.raises(BadInput, match="raise epsilon"):
        compile_plan(plan_of("count", epsilon="0.000000000001", delta="0.00000000000000001"))


def test_pure_epsilon_is_charged_half_its_square() -> None:
    assert pure_as_zcdp(Fraction(3, 2)) == Fraction(9, 8)


def test_variances_are_those_of_the_definitions() -> None:
    assert gaussian_variance(9, Fraction(1, 8)) == 36
    for l1 in (1, 64, 10**9):
        with mpmath.workdps(50):
            q = mpmath.exp(-mpmath.mpf(1) / l1)
            exact = 2 * q / (1 - q) ** 2
        assert float(geometric_variance(l1, Fraction(1))) == pytest.approx(float(exact), rel=1e-12)


@quick
@given(value=st.fractions(Fraction(1, 10**9), 10**12))
def test_floats_are_rounded_up_exactly(value: Fraction) -> None:
    root, above = root_up(value), float_up(value)
    assert (
        Fraction(root) ** 2 >= value > Fraction(math.nextafter(root, 0)) ** 2 or Fraction(root) ** 2 == value
    )
    assert Fraction(above) >= value > Fraction(math.nextafter(above, 0))


def test_geometric_noise_reaches_into_the_tail() -> None:
    """That none of 50,000 draws lies beyond 7 scales, as e^-7 of them do, has the chance e^-45."""
    noise = geometric(np.zeros(50_000, np.int64), 100, Fraction(1))
    assert np.abs(noise).max() > 700
