"""The bound on what one device may add: here, and nowhere else."""

from math import isqrt
from typing import Final

from fa_core.arrays import Int64Array, np


def scale_to_l1(counts: Int64Array, limit: int) -> Int64Array:
    """Return each row scaled down so that the sum of its absolute values is at most `limit`.

    A row within the limit is returned unchanged; any other becomes trunc(row·limit/‖row‖₁), rounded
    toward zero so that rounding can only shrink it.

    Args:
        counts: int64 (devices, cells); |cell|·limit must stay below 2^63.
        limit: bound on the L1 norm of a row, at least 0.

    Returns:
        int64 (devices, cells); the input itself where nothing was over the limit.

    >>> import numpy
    >>> scale_to_l1(numpy.array([[3, -1], [6, -4]]), limit=5)
    array([[ 3, -1],
           [ 3, -2]])
    """
    norm = np.abs(counts).sum(axis=1)
    over = norm > limit
    if not over.any():
        return counts
    result = counts.copy()
    rows = counts[over]
    result[over] = np.sign(rows) * (np.abs(rows) * np.int64(limit) // norm[over][:, None])
    return result


def scale_to_l2(values: Int64Array, limit: int) -> Int64Array:
    """Return each row scaled down so that the sum of its squares is at most limit².

    A row within the limit is returned unchanged; any other becomes trunc(row·limit/r) for the smallest whole
    r ≥ ‖row‖₂, in exact integers: squares then add up to at most limit²·Σx²/r² ≤ limit², and rounding toward
    zero only shrinks them. Clipping real numbers and rounding afterwards would go past the limit.

    Args:
        values: int64 (devices, cells); |cell|·limit must stay below 2^63, and Σx² of a row below 2^62.
        limit: bound on the L2 norm of a row, at least 0.

    >>> import numpy
    >>> scale_to_l2(numpy.array([[3, -4], [6, -8], [7, 7]]), limit=5)
    array([[ 3, -4],
           [ 3, -4],
           [ 3,  3]])
    """
    squares = np.einsum("dc,dc->d", values, values)
    over = squares > limit**2
    if not over.any():
        return values
    result = values.copy()
    rows = values[over]
    length = np.array([isqrt(int(square) - 1) + 1 for square in squares[over]], np.int64)
    result[over] = np.sign(rows) * (np.abs(rows) * np.int64(limit) // length[:, None])
    return result


EXACT: Final = 2**62
"""Largest sum of squares that is compared with its bound: int64 holds it, and a float's error beside it."""


def enforce(counts: Int64Array, l1: int, l2_squared: int, linf: int) -> Int64Array:
    """Return counts in which every row keeps the norms that the privacy proof and the ring rely upon.

    Metric kinds keep their declared bounds by construction, so this changes nothing; it stands between
    a mistake in a kind and the claim. A row that breaks a bound adds nothing at all: whatever such
    a kind counted, it is not what the plan says. All three are compared in exact integers.

    Args:
        counts: int64 (devices, cells).
        l1: bound on Σ|x| of a row; cells·linf must stay below 2^63.
        l2_squared: bound on Σx² of a row, below 2^62 unless it is l1².
        linf: bound on |x| of a cell, below 2^63.

    Returns:
        int64 (devices, cells); the input itself where every row keeps its bounds.

    >>> import numpy
    >>> enforce(numpy.array([[2, -1], [3, 3]]), l1=4, l2_squared=9, linf=3)   # the second breaks a bound
    array([[ 2, -1],
           [ 0,  0]])
    """
    over = ((counts > linf) | (counts < -linf)).any(axis=1)
    over |= np.abs(counts).sum(axis=1) > l1
    if l2_squared < l1**2:
        rough = np.einsum("dc,dc->d", counts, counts, dtype=np.float64, casting="safe")
        over |= (rough > EXACT) | (np.einsum("dc,dc->d", counts, counts) > l2_squared)
    if not over.any():
        return counts
    result = counts.copy()
    result[over] = 0
    return result
