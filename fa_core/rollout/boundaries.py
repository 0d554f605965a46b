"""Boundaries of a group-sequential test, for any information fractions, by recursive numerical integration.

One-sided: a test of a null hypothesis rejects at look k where Z_k ≥ b_k. Under the null the Z_k are normal of
variance 1 with Cov(Z_j, Z_k) = √(I_j/I_k) for j ≤ k, I being the information (Jennison & Turnbull 2000, eq.
3.1). What may be spent up to each look is α·t^p, t being the information fraction: an error-spending function
(Lan & DeMets 1983, Biometrika 70; the power family of Kim & DeMets 1987, Biometrika 74). b_k
follows from the looks before it alone: the chance that no earlier look rejects and this one does is what the
look may spend. So neither the number nor the information of later looks need be known (Jennison & Turnbull
2000, section 7.2).
"""

from functools import lru_cache
from math import inf, pi, sqrt
from typing import Final

from fa_core.arrays import FloatArray, np

STEP: Final = 1.03
"""The growth of information from look to look is taken in steps of 3%, rounded up, and is at least one. That
takes looks for a little less correlated than they are, which makes boundaries larger (Slepian's inequality);
a look that adds nothing is no singular case, and all parties compute the same numbers."""

LEAST_SPENT: Final = 1e-12
"""A look that may spend less than this rejects nothing."""

_FAR: Final = 7.0
"""Standard deviations below which, and above which, nothing is integrated: a chance of 1e-12."""

_NODES: Final = 96

_EXACT: Final = 1e-9


def boundaries(spent: tuple[float, ...], steps: tuple[int, ...]) -> tuple[float, ...]:
    """Return b_k of each look; infinity where a look may spend nothing.

    Args:
        spent: the type I error that may be spent up to and including each look; it does not fall.
        steps: the information of each look as a power of `STEP`, in units of the first one's; rising.

    Raises ValueError for sequences that fall, or of different lengths.

    >>> [round(b, 2) for b in boundaries(tuple(0.005 * (k / 4) ** 2 for k in (1, 2, 3, 4)), (0, 24, 38, 48))]
    [3.42, 3.09, 2.88, 2.72]
    """
    if len(spent) != len(steps) or sorted(spent) != list(spent) or len(set(steps)) < len(steps):
        raise ValueError(f"expected rising information and spending of one length, found {spent}, {steps}")
    return tuple(_boundary(spent[:k], steps[:k]) for k in range(1, len(spent) + 1))


@lru_cache(maxsize=200_000)
def _boundary(spent: tuple[float, ...], steps: tuple[int, ...]) -> float:
    """Return the boundary of the last look, by Newton's method kept inside a bracket."""
    from scipy.special import ndtr, ndtri

    may = spent[-1] - (spent[-2] if len(spent) > 1 else 0.0)
    if may < LEAST_SPENT:
        return inf
    nodes, mass = _reached(spent[:-1], steps[:-1])
    drawn, sd = _step(steps)
    low, high = -_FAR, float(-ndtri(may))  # a first look with so much to spend has the largest boundary
    boundary = high
    while high - low > _EXACT:
        z = (drawn * nodes - boundary) / sd
        over = float(mass @ ndtr(z)) - may
        low, high = (boundary, high) if over > 0.0 else (low, boundary)
        slope = float(mass @ np.exp(-0.5 * z * z)) / (sd * sqrt(2.0 * pi))
        wished = boundary + over / slope if slope > 0.0 else low
        if abs(wished - boundary) < _EXACT:
            return wished
        boundary = wished if low < wished < high else (low + high) / 2
    return high


@lru_cache(maxsize=50_000)
def _reached(spent: tuple[float, ...], steps: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Return nodes z of the last look with the mass that reached them unrejected, (M,) each.

    The mass at a node is the density of Z_k with no rejection up to look k, times the node's weight
    (Armitage, McPherson & Rowe 1969; Jennison & Turnbull 2000, chapter 19).
    """
    if not spent:
        return np.zeros(1), np.ones(1)
    before, mass = _reached(spent[:-1], steps[:-1])
    drawn, sd = _step(steps)
    top = min(_boundary(spent, steps), _FAR)
    points, weights = _gauss_legendre()
    nodes = -_FAR + (top + _FAR) * (points + 1.0) / 2
    kernel = np.exp(-0.5 * ((nodes[:, None] - drawn * before) / sd) ** 2) / (sd * sqrt(2.0 * pi))
    return nodes, weights * (top + _FAR) / 2 * (kernel @ mass)


def _step(steps: tuple[int, ...]) -> tuple[float, float]:
    """Return what Z of the last look is, given that of the look before: so many times it on average, and its
    standard deviation."""
    drawn = STEP ** ((steps[-2] - steps[-1]) / 2) if len(steps) > 1 else 0.0
    return drawn, sqrt(1.0 - drawn * drawn)


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of Gauss and Legendre's rule on [−1, 1], each (M,)."""
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    return points, weights
