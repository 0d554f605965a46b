"""Reading joint counters: the six sums of each group, and the interval of a ratio from them.

With û = A⁻¹ŷ and the covariance S = σ²(AᵀA)⁻¹ of its noise, p is inside the interval if and only if

    (r − p·n)² ≤ z²·(v(p) + ν(p)),    ν(p) = S_rr − 2p·S_nr + p²·S_nn,

where ν is the noise of r − p·n and v its sampling variance. That is measured in the group itself, by
V(p) = Σr² − 2p·Σnr + p²·Σn² = Σᵢ(rᵢ − p·nᵢ)² over devices (the ultimate-cluster variance of a ratio: Hansen,
Hurwitz & Madow 1953; Cochran 1977, eq. 11.30), nothing clipped and nothing borrowed from other groups, and is
at least what independent events would have. V's noise e_V is correlated with that of r − p·n, so what the
latter says of it is taken off: v = max(V − β·(r − p·n), floor), β = Cov(e_V, e_r − p·e_n)/(V + ν). Without it
one tail of the interval would take most of the misses. What is left of the noise in v widens the quantile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fa_core.arrays import np
from fa_core.metrics.intervals import FAR, estimated_variance_quantile, normal_quantile
from fa_core.metrics.joint import Domain, Name, matrix
from fa_core.metrics.kind import BoolArray, FloatArray

DEVICES, N, R, NN, NR, RR = range(6)
"""The entries of u."""

STEPS: Final = 40
"""Halvings of a bracket: the ends are found to 1e-12 of the range."""

MEASURED: Final = 0.8
"""The least variance of r − p·n, in standard deviations of the noise that is left in what was measured of it.

Less cannot be distinguished from that noise. Where a variance that is hardly measured came out low, or below
nothing, the interval would be far too narrow: with noise of 1.5 times the variance only 76% of them hold.
"""

Floor = Callable[[FloatArray, FloatArray], FloatArray]
"""Returns the least sampling variance of r − p·n for sizes n (K,) and ratios p (…, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The six sums of each group, float64 (K, 6), and the covariance of their noise: (6, 6), or (K, 6, 6)
    where each group's is its own."""

    values: FloatArray
    covariance: FloatArray


def unmapped(name: Name, domain: Domain, cells: FloatArray, variance: float) -> Moments:
    """Return the sums that noised joint counters stand for.

    Args:
        cells: float64 (6·K,), noised sums of y, group by group.
        variance: of the noise in each.
    """
    inverse = np.linalg.inv(np.array(matrix(name, domain), np.float64))
    return Moments(cells.reshape(-1, len(inverse)) @ inverse.T, variance * inverse @ inverse.T)


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """What is needed for the interval of r/n in each group: sums, the range of the ratio, and the floor."""

    moments: Moments
    low: float
    high: float
    floor: Floor

    @property
    def n(self) -> FloatArray:
        """The noisy sizes, (K,)."""
        return self.moments.values[:, N]

    @property
    def n_sd(self) -> FloatArray:
        """Standard deviation of the noise on each of them, () or (K,)."""
        return np.asarray(self.moments.covariance[..., N, N] ** 0.5)

    @property
    def r(self) -> FloatArray:
        """The noisy counts, (K,), not further out than the range of the ratio lets them be: what noise takes
        past 0 or 100% leaves the other end of the interval where the end of the range has it."""
        n = np.maximum(self.n, 0.0)
        return np.clip(self.moments.values[:, R], self.low * n, self.high * n)

    @property
    def possible(self) -> BoolArray:
        """Whether the noisy count is where its noise can have taken it, (K,): the exact one is in the range,
        whatever devices sent."""
        found = []
        for end, sign in ((self.low, -1.0), (self.high, 1.0)):
            beyond = sign * (self.moments.values[:, R] - end * self.n)
            found.append(beyond <= FAR * np.sqrt(self._noise(np.full_like(self.n, end))))
        return np.asarray(found[0] & found[1])

    @property
    def point(self) -> FloatArray:
        """The estimate, (K,); NaN where the size is not positive."""
        return self.r / np.where(self.n > 0, self.n, np.nan)

    def noise_sd(self) -> FloatArray:
        """Return the standard deviation of the privacy noise on the estimate, (K,)."""
        return np.sqrt(self._noise(self.point)) / np.where(self.n > 0, self.n, np.nan)

    def sampling(self) -> tuple[FloatArray, FloatArray]:
        """Return the sampling variance of r − p·n at the estimate, and by how much noise may have made it too
        small, in standard deviations of one, each (K,); NaN where the size is not positive."""
        _, sampling, floor, left, _ = self._variance(self._terms(), self.point)
        return sampling, np.minimum(left, sampling - floor)

    def intervals(self, *levels: float) -> list[tuple[FloatArray, FloatArray, BoolArray]]:
        """Return (low, high, valid) at each level, each (K,): there is no interval where the size cannot be
        distinguished from nothing, or where no value of the range is refused.

        Both ends are found by bisection, from the estimate to the ends of the range.
        """
        z = np.array([normal_quantile(level) for level in levels])[:, None, None]
        ends = np.array([self.low, self.high])[:, None]
        inside = np.broadcast_to(np.nan_to_num(self.point, nan=self.low), (len(levels), 2, len(self.n)))
        outside = np.broadcast_to(ends, inside.shape)
        terms = self._terms()
        reaches = self._holds(terms, z, outside)
        for _ in range(STEPS):
            half = (inside + outside) / 2
            holds = self._holds(terms, z, half)
            inside, outside = np.where(holds, half, inside), np.where(holds, outside, half)
        found = np.where(reaches, ends, outside)
        valid = (self.n > z[:, 0] * self.n_sd) & ~reaches.all(axis=1)
        found = np.where(valid[:, None], found, np.nan)
        return [(low, high, good) for (low, high), good in zip(found, valid, strict=True)]

    def where(self, measured: BoolArray, *levels: float) -> list[tuple[FloatArray, FloatArray]]:
        """Return (low, high) at each level, each (K,), wherever the size is `measured`, NaN elsewhere: the
        whole range where no value of it is refused, so that what is shown does not hang on the count."""
        return [
            (
                np.where(measured, np.nan_to_num(low, nan=self.low), np.nan),
                np.where(measured, np.nan_to_num(high, nan=self.high), np.nan),
            )
            for low, high, _ in self.intervals(*levels)
        ]

    def _terms(self) -> "_Terms":
        """Return the polynomials of these sums: e_V is e_rr − 2p·e_nr + p²·e_nn, that of r − p·n is
        e_r − p·e_n."""

        def s(one: int, other: int) -> FloatArray:
            return np.ascontiguousarray(self.moments.covariance[..., one, other])

        values = self.moments.values
        return _Terms(
            off=(self.r, -self.n),
            measured=(values[:, RR], -2 * values[:, NR], values[:, NN]),
            noise=(s(R, R), -2 * s(N, R), s(N, N)),
            along=(
                s(RR, R),
                -s(RR, N) - 2 * s(NR, R),
                s(NN, R) + 2 * s(NR, N),
                -s(NN, N),
            ),
            own=(
                s(RR, RR),
                -4 * s(NR, RR),
                2 * s(NN, RR) + 4 * s(NR, NR),
                -4 * s(NN, NR),
                s(NN, NN),
            ),
        )

    def _holds(self, terms: "_Terms", z: FloatArray, p: FloatArray) -> BoolArray:
        """Say which ratios (…, K) are inside the intervals of quantiles z, which broadcast against them."""
        off, sampling, floor, left, noise = self._variance(terms, p)
        variance = sampling + noise
        wide = estimated_variance_quantile(z, np.minimum(left, sampling - floor) / variance)
        return np.asarray(off**2 <= wide**2 * variance)

    def _variance(self, terms: "_Terms", p: FloatArray) -> tuple[FloatArray, ...]:
        """Return r − p·n, its sampling variance, the floor of that, the standard deviation of what is left of
        the noise in it, and the variance of the privacy noise, each of p's shape (…, K)."""
        off, noise, measured, along, own = (
            _at(each, p) for each in (terms.off, terms.noise, terms.measured, terms.along, terms.own)
        )
        floor = self.floor(np.maximum(self.n, 0.0), p)
        total = np.maximum(np.maximum(measured, floor) + noise, MEASURED * np.sqrt(own))
        left = np.sqrt(np.maximum(own - along**2 / total, 0.0))
        sampling = np.maximum(measured - along / total * off, floor)
        sampling = np.maximum(sampling, MEASURED * left - noise)
        return off, sampling, floor, left, noise

    def _noise(self, p: FloatArray) -> FloatArray:
        """Return ν(p), the variance of the privacy noise in r − p·n, of p's shape."""
        s = self.moments.covariance
        return np.asarray(s[..., R, R] - 2 * p * s[..., N, R] + p * p * s[..., N, N])


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """What the interval of a ratio p is made of, as polynomials in p: coefficients () or (K,), lowest first.

    Attributes:
        off: r − p·n.
        measured: V(p).
        noise: ν(p).
        along: Cov(e_V, e_r − p·e_n).
        own: Var e_V.
    """

    off: tuple[FloatArray, ...]
    measured: tuple[FloatArray, ...]
    noise: tuple[FloatArray, ...]
    along: tuple[FloatArray, ...]
    own: tuple[FloatArray, ...]


def _at(polynomial: tuple[FloatArray, ...], p: FloatArray) -> FloatArray:
    """Return a polynomial's values, of p's shape."""
    value = polynomial[-1]
    for coefficient in reversed(polynomial[:-1]):
        value = coefficient + p * value
    return np.asarray(value)
