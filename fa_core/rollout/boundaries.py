"""Boundaries of a group-sequential test, for any information fractions, by recursive numerical integration.

One-sided: a test of a null hypothesis rejects at look k where Z_k ≥ b_k. Under the null the Z_k are normal of
variance 1 with Cov(Z_j, Z_k) = √(I_j/I_k) for j ≤ k, I being the information (Jennison & Turnbull 2000, eq.
3.1). What may be spent up to each look is α·t², t being the information fraction: an error-spending function
(Lan & DeMets 1983, Biometrika 70; the power family of Kim & DeMets 1987, Biometrika 74, with ρ = 2). b_k
follows from the looks before it alone: the chance that no earlier look rejects and this one does is what the
look may spend. So neither the number nor the information of later looks need be known (Jennison & Turnbull
2000, section 7.2).
"""

from functools import lru_cache
from math import inf
from typing import Final

from fa_core.arrays import FloatArray, np

STEP: Final = 1.02
"""The growth of information from look to look is taken in steps of 2%, rounded up, and is at least one. That
takes looks for a little less correlated than they are, which makes boundaries larger (Slepian's inequality);
a look that adds nothing is no singular case, and all parties compute the same numbers."""

LEAST_SPENT: Final = 1e-12
"""A look that may spend less than this rejects nothing."""

_FAR: Final = 8.0
"""Standard deviations below which, and above which, nothing is integrated: a chance of 1e-15."""

_NODES: Final = 200

_HALVINGS: Final = 45


@lru_cache(maxsize=100_000)
def boundaries(spent: tuple[float, ...], steps: tuple[int, ...]) -> tuple[float, ...]:
    """Return b_k of each look; infinity where a look may spend nothing.

    Args:
        spent: the type I error that may be spent up to and including each look; it does not fall.
        steps: the information of each look as a power of `STEP`, in units of the first one's; rising.

    Raises ValueError for sequences that fall, or of different lengths.

    >>> [round(b, 2) for b in boundaries(tuple(0.005 * (k / 4) ** 2 for k in (1, 2, 3, 4)), (0, 36, 57, 72))]
    [3.42, 3.09, 2.88, 2.72]
    """
    if len(spent) != len(steps) or sorted(spent) != list(spent) or len(set(steps)) < len(steps):
        raise ValueError(f"expected rising information and spending of one length, found {spent}, {steps}")
    return tuple(_recursion(spent, steps)[0])


@lru_cache(maxsize=100_000)
def _recursion(
    spent: tuple[float, ...], steps: tuple[int, ...]
) -> tuple[tuple[float, ...], FloatArray, FloatArray]:
    """Return the boundaries, and nodes z of the last look with the mass that reached them unrejected, (M,).

    The mass at a node is the density of Z_k with no rejection up to look k, times the node's weight
    (Armitage, McPherson & Rowe 1969; Jennison & Turnbull 2000, chapter 19).
    """
    from scipy.special import ndtr

    if not spent:
        return (), np.zeros(1), np.ones(1)
    before, nodes, mass = _recursion(spent[:-1], steps[:-1])
    # Given Z of the look before, Z of this one is normal: mean `drawn` times it, variance 1 − drawn².
    drawn = STEP ** ((steps[-2] - steps[-1]) / 2) if before else 0.0
    sd = float(np.sqrt(1.0 - drawn * drawn))
    may = spent[-1] - (spent[-2] if before else 0.0)
    low, high = -_FAR, _FAR
    if may >= LEAST_SPENT:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            rejected = float(mass @ ndtr((drawn * nodes - middle) / sd))
            low, high = (middle, high) if rejected > may else (low, middle)
    boundary = high if may >= LEAST_SPENT else inf
    points, weights = _gauss_legendre()
    top = min(boundary, _FAR)
    reached = -_FAR + (top + _FAR) * (points + 1.0) / 2
    kernel = np.exp(-0.5 * ((reached[:, None] - drawn * nodes) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
    return (*before, boundary), reached, weights * (top + _FAR) / 2 * (kernel @ mass)


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of Gauss and Legendre's rule on [−1, 1], each (M,)."""
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    return points, weights
