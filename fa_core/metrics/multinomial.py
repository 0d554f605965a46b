"""Shares of a row: what `histogram`, `confusion` and the two axes of `det` share.

Each event falls into one of C cells of one row. The share p of a cell (or of a run of k cells) is
x/n with n the row's sum, so numerator and denominator share noise: the variance of X − p·n is
σ²[k(1−p)² + (C−k)p²]. How alike events of one device are is measured a row
by two noised sums over the shares that are shown (cells, or tails of the row), A = Σᵢ Σ_c x²_ic and
B = Σᵢ nᵢ²: if those shares are over-dispersed alike (Dirichlet-multinomial, Mosimann 1962), then
A − Q·B = φ·n·Σ p_c(1 − p_c) with Q = Σ p_c², which gives φ. A device whose scores are all a little higher
moves a tail much and its cells little, so a curve of tails measures its own.
"""

from dataclasses import dataclass

from fa_core.arrays import TextArray, np
from fa_core.metrics.intervals import (
    Interval,
    back_in_range,
    convolved_quantile,
    estimated_variance_quantile,
    lean_on_others,
    own_or_more,
    wilson_fieller,
)
from fa_core.metrics.kind import BoolArray, FloatArray, Int64Array, PartSum


@dataclass(frozen=True, slots=True, eq=False)
class Dispersion:
    """Over-dispersion φ ≥ 1 by row, its noise, and whether it leans on other rows; all (rows,)."""

    phi: FloatArray
    phi_sd: FloatArray
    pooled: BoolArray


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Shares with everything needed for their intervals; arrays of one shape.

    `n` is the row's sum; `noise` is the variance of one cell; `k` of `cells` cells were added up.
    """

    x: FloatArray
    n: FloatArray
    k: FloatArray
    cells: int
    noise: float
    phi: FloatArray
    relative_sd: FloatArray
    laplace: bool

    @property
    def point(self) -> FloatArray:
        """x/n, NaN where n is not positive."""
        return self.x / np.where(self.n > 0, self.n, np.nan)

    def noise_quadratic(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Variance of the noise in x − p·n as a quadratic in p: σ²[k − 2kp + Cp²]."""
        k = self.noise * self.k
        return k, -2.0 * k, np.full(k.shape, self.noise * self.cells)

    def noise_sd(self) -> FloatArray:
        """Standard deviation of the privacy noise on the share."""
        p = np.nan_to_num(np.clip(self.point, 0.0, 1.0))
        v0, v1, v2 = self.noise_quadratic()
        return np.sqrt(v0 + v1 * p + v2 * p * p) / np.where(self.n > 0, self.n, np.nan)

    def interval(self, level: float) -> Interval:
        """Return the Wilson–Fieller interval of each share at `level`."""
        p = np.nan_to_num(np.clip(self.point, 0.0, 1.0))
        v0, v1, v2 = self.noise_quadratic()
        noise = v0 + v1 * p + v2 * p * p
        n = np.maximum(self.n, 1.0)
        total = noise + self.phi * n * np.maximum(p * (1.0 - p), 1.0 / (n + 2.0))
        share = noise / total if self.laplace else np.zeros_like(noise)
        z = estimated_variance_quantile(convolved_quantile(level, share), self.relative_sd)
        spread = self.phi * np.maximum(self.n, 0.0)
        return wilson_fieller(
            self.x,
            self.n,
            (v0, v1 + spread, v2 - spread),
            z,
            p0=0.0,
            denominator_sd=np.full(noise.shape, (self.noise * self.cells) ** 0.5),
        )


def dispersion(
    x: FloatArray, n: FloatArray, noise: FloatArray, squares: PartSum, row_squares: PartSum, *, own: bool
) -> Dispersion:
    """Return φ by row.

    Args:
        x: noisy counts of the shares that are shown, (rows, C).
        n: noisy sizes of the rows, (rows,).
        noise: variance of the noise in each column of x, (C,).
        squares, row_squares: A and B, (rows,).
        own: whether a row has at least its own measurement; else, in releases of before, it leans on others.
    """
    safe = np.maximum(n, 1.0)
    total = np.clip(x.sum(axis=1) / safe, 0.01, x.shape[1])
    # Σp̂² of noisy shares is too large by the noise; take its expectation off.
    q = np.clip((x**2 - noise).sum(axis=1) / safe**2, total**2 / x.shape[1], 0.999 * total)
    least = (total - q) * safe
    measured_sd = np.sqrt(squares.variance + q**2 * row_squares.variance)
    variance_of = own_or_more if own else lean_on_others
    found = variance_of(squares.values - q * row_squares.values, measured_sd, least, least)
    return Dispersion(found.value / least, found.sd / least, found.pooled)


def shares(
    x: FloatArray, n: FloatArray, k: Int64Array, columns: int, cells: PartSum, spread: Dispersion
) -> Shares:
    """Return the shares x/n of k cells each, with their row's dispersion.

    Args:
        x, n, k: float64 or int64 of shape (rows, …); rows as in `spread`.
        columns: number of cells C of a row.
        cells: the part that they were summed from, for its noise.
    """
    axes = (-1,) + (1,) * (x.ndim - 1)
    phi, phi_sd = spread.phi.reshape(axes), spread.phi_sd.reshape(axes)
    safe = np.maximum(n, 1.0)
    p = np.clip(x / safe, 0.0, 1.0)
    scale = safe * np.maximum(p * (1.0 - p), 1.0 / (safe + 2.0))
    noise = cells.variance * (k - 2.0 * k * p + columns * p * p)
    x = back_in_range(x, np.zeros_like(x), n, np.sqrt(noise))
    return Shares(
        x=x,
        n=n,
        k=np.broadcast_to(np.asarray(k, np.float64), x.shape),
        cells=columns,
        noise=cells.variance,
        phi=np.broadcast_to(phi, x.shape),
        relative_sd=phi_sd * scale / (noise + phi * scale),
        laplace=cells.laplace,
    )


def source_text(pooled: BoolArray, groups: int) -> TextArray:
    """Return "pooled" or "group" for each group, from a flag for each of its rows."""
    return np.where(pooled.reshape(groups, -1).any(axis=1), "pooled", "group").astype(object)


def second_moments(counts: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return (Σ_c x², (Σ_c x)²) of counts (devices, rows, columns), each int64 (devices, rows)."""
    return (counts * counts).sum(axis=2), counts.sum(axis=2) ** 2
