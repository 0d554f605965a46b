"""What noise costs, in exact rationals.

The currency of a "zcdp" population is rho of zero-concentrated differential privacy (Bun & Steinke
2016); it adds over releases. The currency of a "pure" one is epsilon. The unit is one device, the
neighbouring relation zero-out: one device's tables and facts are emptied, and it still takes part.

Conversions to (epsilon, delta) are upper bounds whatever the optimiser does: for every alpha > 1,

    rho-zCDP implies delta = exp((α−1)(αρ−ε)) / (α−1) · (1 − 1/α)^α

(Canonne, Kamath & Steinke 2020, "The Discrete Gaussian for Differential Privacy", Corollary 13), so a
poor alpha costs accuracy and never soundness.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Final

GRID: Final = 2**60
"""Rationals that come out of an optimisation are rounded, always to the safe side, to this grid."""

MARGIN: Final = 1e-9
"""Relative slack given away to cover the floating point of a conversion (whose error is under 1e-12)."""


def rho_for(epsilon: Fraction, delta: Fraction) -> Fraction:
    """Return what a plan that carries no rho is charged: nearly the largest that implies (epsilon, delta)-DP.

    It is rounded down, and so is sound, but another library's last bit may differ: plans now carry the rho of
    `zcdp.conversion`, and this is kept for those of before.

    Raises ValueError unless epsilon > 0 and 0 < delta < 1.

    >>> f"{float(rho_for(Fraction(1), Fraction(1, 10**8))):.6f}"
    '0.017205'
    """
    if epsilon <= 0 or not 0 < delta < 1:
        raise ValueError("expected epsilon above 0 and delta between 0 and 1")
    eps, log_delta = float(epsilon), math.log(delta)

    def loss(log_order: float) -> float:
        a = math.exp(log_order)
        alpha = 1.0 + a
        slack = log_delta + math.log(a) + alpha * math.log1p(1 / a)
        return -(eps + slack / a) / alpha

    best = -_minimum(loss)
    return Fraction(math.floor(best * (1.0 - MARGIN) * GRID), GRID) if best > 0 else Fraction(0)


def epsilon_for(rho: Fraction, delta: Fraction) -> float:
    """Return an epsilon, rounded up, for which rho-zCDP implies (epsilon, delta)-DP.

    Raises ValueError unless rho ≥ 0 and 0 < delta < 1.

    >>> f"{epsilon_for(Fraction(1, 2), Fraction(1, 10**8)):.3f}"
    '6.086'
    """
    if rho < 0 or not 0 < delta < 1:
        raise ValueError("expected rho of at least 0 and delta between 0 and 1")
    if rho == 0:
        return 0.0
    r, log_delta = float(rho), math.log(delta)

    def loss(log_order: float) -> float:
        a = math.exp(log_order)
        alpha = 1.0 + a
        return alpha * r + (-log_delta - math.log(a) - alpha * math.log1p(1 / a)) / a

    return max(_minimum(loss), 0.0) * (1.0 + MARGIN) + 1e-12


def pure_as_zcdp(epsilon: Fraction) -> Fraction:
    """Return the rho that an epsilon-DP mechanism is charged in a zCDP ledger: ε²/2 (Bun & Steinke 2016,
    Proposition 1.4).

    >>> pure_as_zcdp(Fraction(1, 2))
    Fraction(1, 8)
    """
    return epsilon * epsilon / 2


def gaussian_variance(l2_squared: int, rho: Fraction) -> Fraction:
    """Return the variance of discrete Gaussian noise that costs rho: Δ₂²/(2ρ) (Canonne et al. 2020,
    Theorem 4).

    >>> gaussian_variance(64, Fraction(1, 50))      # sensitivity 8 (L2), rho 0.02
    Fraction(1600, 1)
    """
    return Fraction(l2_squared) / (2 * rho)


def geometric_variance(l1: int, epsilon: Fraction) -> Fraction:
    """Return the variance of two-sided geometric noise of scale Δ₁/ε: 2q/(1−q)², q = e^(−ε/Δ₁)
    (Ghosh, Roughgarden & Sundararajan 2009).

    >>> float(geometric_variance(8, Fraction(1)))     # sensitivity 8 (L1), epsilon 1
    127.83...
    """
    rate = float(epsilon) / l1
    return Fraction(2 * math.exp(-rate) / math.expm1(-rate) ** 2)


def _minimum(loss: Callable[[float], float]) -> float:
    """Return the least value found over log(α − 1); both losses are unimodal there."""
    # Imported here: plans are checked with this module, and those that carry their rho need no SciPy.
    from scipy.optimize import minimize_scalar

    coarse = min((loss(-12 + 0.25 * step), -12 + 0.25 * step) for step in range(145))[1]
    # SciPy costs more than a whole plan's check, which needs none of this unless the plan is of before.

    found = minimize_scalar(
        loss, bounds=(coarse - 0.3, coarse + 0.3), method="bounded", options={"xatol": 1e-12}
    )
    return float(min(found.fun, loss(coarse)))
