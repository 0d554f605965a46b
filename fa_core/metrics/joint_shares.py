"""Joint counters of a table of shares: one public integer map for each cell of a row.

Where a device has x > 0 of the n events of a row in a cell, it sends y = A·u with u = (x, x·n, x²) there, and
y = 0 elsewhere. A has the rule and the public integers (`SHARES`) of `fa_core.metrics.joint`, with powers of
one largest count N. Over the cells of a row Σx is n and Σx·n is n², so nothing else is sent of the row.

**Bound.** With f(x, n) = |A·u|² a device adds Σf over its cells. Each f is at most x·max f(x, n)/x, and the x
of all its cells are at most N events together, in however many rows and groups: so Σf ≤ N·max f(x, n)/x over
1 ≤ x ≤ n ≤ N, which is found by trying every pair in exact integers. Σ|y| is bounded alike.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fa_core.arrays import Int64Array, np
from fa_core.metrics.joint import SHARES, Norms, Table, scaled
from fa_core.metrics.kind import FloatArray
from fa_core.metrics.moments import NN, NR, RR, Moments, N, R

CELL: Final = 3
"""Length of u and of y."""

X: Final = 0
"""The entry of u that adds up over columns of events too."""

POWERS: Final = ((1, 0), (2, 0), (2, 0))
"""The powers of N in each entry of u, as `scaled` takes them."""


@lru_cache(maxsize=64)
def matrix(most: int) -> Table:
    """Return the integer matrix A for devices of at most `most` events, row by row."""
    return scaled(SHARES, POWERS, most, 1)


def mapped(most: int, x: Int64Array, n: Int64Array) -> Int64Array:
    """Return y = A·u, int64 (…, 3), of counts x in rows of n, int64 that broadcast, 0 ≤ x ≤ n ≤ `most`."""
    u = np.stack(np.broadcast_arrays(x, x * n, x * x), axis=-1)
    return np.asarray(u @ np.array(matrix(most), np.int64).T)


@lru_cache(maxsize=64)
def norms(most: int) -> Norms:
    """Return the bound on what a device of at most `most` events adds, by trying every pair."""
    l1 = l2_squared = linf = 0
    for n in range(1, most + 1):
        x = np.arange(1, n + 1)
        y = mapped(most, x, np.array(n))
        l1 = max(l1, _per_event(np.abs(y).sum(axis=-1), x, most))
        l2_squared = max(l2_squared, _per_event((y * y).sum(axis=-1), x, most))
        linf = max(linf, int(np.abs(y).max()))
    return Norms(l1, l2_squared, linf)


def _per_event(f: Int64Array, x: Int64Array, most: int) -> int:
    """Return max ⌈most·f/x⌉, by whole and rest so that no product leaves int64."""
    whole, rest = np.divmod(f, x)
    return int((most * whole - (-most * rest // x)).max())


def pairs(most: int) -> int:
    """Return how many pairs (x, n) `norms` tries."""
    return most * (most + 1) // 2


@dataclass(frozen=True, slots=True, eq=False)
class CellSums:
    """Noisy (Σx, Σx·n, Σx²) of each cell, float64 (cells, 3), and the covariance of their noise, (3, 3);
    that of two cells is independent."""

    values: FloatArray
    covariance: FloatArray

    def moments(self, columns: int) -> Moments:
        """Return the moments of each share x/n, with n of its row of `columns` cells.

        The noise of a row's Σn and Σn² is that of its cells together, so that each share's is correlated
        with it: with P what the cell's own sums add to its moments, and Q what those of each of the others
        do, the covariance is P·S·Pᵀ + (columns − 1)·Q·S·Qᵀ.
        """
        cells = self.values.reshape(-1, columns, CELL)
        own, other = np.zeros((6, CELL)), np.zeros((6, CELL))
        own[[N, R, NN, NR, RR], [0, 0, 1, 1, 2]] = 1.0
        other[[N, NN], [0, 1]] = 1.0
        rows = cells.sum(axis=1, keepdims=True) @ other.T
        values = rows + cells @ (own - other).T
        s = self.covariance
        return Moments(values.reshape(-1, 6), own @ s @ own.T + (columns - 1) * other @ s @ other.T)


def unmapped(most: int, cells: FloatArray, variance: float) -> CellSums:
    """Return the sums that noised joint counters stand for.

    Args:
        cells: float64 (3·cells,), noised sums of y, cell by cell.
        variance: of the noise in each.
    """
    inverse = np.linalg.inv(np.array(matrix(most), np.float64))
    return CellSums(cells.reshape(-1, CELL) @ inverse.T, variance * inverse @ inverse.T)
