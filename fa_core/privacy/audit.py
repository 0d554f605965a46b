"""Is the noise what the ledger was charged for? Tests of a release path, from its outputs alone.

A path is anything that takes the exact sums and returns what would be released. It is run many times on an
empty fleet and on the same fleet with one more device, the worst that the bounds allow. From what comes out:

  spread   the noise is neither smaller nor larger than claimed (chi-square of its squares, or of its
           absolute values where it is geometric);
  fit      its distribution is the one that was proved private (Pearson's chi-square in equal bins);
  fresh    no release's noise is another's, nor follows from it;
  privacy  a lower bound on what the device really loses, which must not be above what was charged
           (Clopper & Pearson 1934 on a threshold attack; Nasr et al. 2023, "Tight Auditing", for mu).

Each check has a false-alarm rate that the caller states. Pure: nothing here is random.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fa_core.values import Layout, Mechanism

Int64Array = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Path = Callable[[Int64Array], Int64Array]
"""Exact sums int64 (m,) -> released sums int64 (m,)."""

FINE = 50.0
"""From this scale on, the midpoint rule gives an integer distribution's bins to a hundred-thousandth."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tested: what was found, and between which bounds it should lie."""

    name: str
    found: float
    low: float
    high: float

    @property
    def passes(self) -> bool:
        """Whether what was found is what should be."""
        return self.low <= self.found <= self.high


def audit(
    layout: Layout, path: Path, canary: Int64Array, scales: Sequence[int], rounds: int, alarm: float
) -> tuple[Check, ...]:
    """Return every check of a release path.

    Args:
        layout: what the path claims to keep.
        path: run 2·`rounds` times.
        canary: int64 (layout.length,), the counts of the device that is distinguished from none.
        scales: each block's public factor; the path returns factored sums.
        rounds: releases of each fleet, at least 100.
        alarm: chance that an honest path fails any check at all.
    """
    nothing = np.zeros(layout.length, np.int64)
    empty = np.stack([path(nothing) for _ in range(rounds)])
    each = alarm / (2 * len(layout.blocks) + 2)
    checks = []
    for block, scale in zip(layout.blocks, scales, strict=True):
        noise, variance = empty[:, block.slice], block.variance * scale**2
        name = f"{block.metric} by {', '.join(block.grouping) or 'everyone'}, {block.part}"
        checks.append(spread(noise, variance, layout.mechanism, each, f"spread of {name}"))
        checks.append(fit(noise, variance, layout.mechanism, each, f"fit of {name}"))
    checks.append(fresh(empty / _deviations(layout, scales), each))
    factored = canary * np.repeat(scales, [block.cells for block in layout.blocks])
    present = np.stack([path(factored) for _ in range(rounds)])
    weight = factored / _deviations(layout, scales) ** 2
    if layout.accounting == "zcdp":
        found, claimed = mu_found(empty @ weight, present @ weight, each), math.sqrt(2 * layout.cost)
        checks.append(Check("mu that one device loses", found, -math.inf, claimed))
    else:
        scores = [_log_ratio(layout, releases, factored) for releases in (empty, present)]
        found = epsilon_found(scores[0], scores[1], 0.0, each)
        checks.append(Check("epsilon that one device loses", found, -math.inf, float(layout.cost)))
    return tuple(checks)


def spread(noise: Int64Array, variance: Fraction, mechanism: Mechanism, alarm: float, name: str) -> Check:
    """Return whether the noise has the variance claimed, as the ratio of the two.

    Args:
        noise: int64 of any shape; independent draws.
        variance: claimed, in the noise's own units.
        alarm: false-alarm rate.
    """
    count = noise.size
    values = noise.astype(np.float64).ravel()
    if mechanism == "discrete_gaussian":
        found = float((values**2).mean() / float(variance))
        low, high = (float(stats.chi2.ppf(q, count)) / count for q in (alarm / 2, 1 - alarm / 2))
    else:  # |X|/E|X| is about exponential, so the sum of its absolute values is about gamma
        q = geometric_ratio(variance)
        found = float(np.abs(values).mean() / (2 * q / (1 - q * q)))
        low, high = (float(stats.gamma.ppf(p, count)) / count for p in (alarm / 2, 1 - alarm / 2))
    return Check(name, found, low, high)


def fit(noise: Int64Array, variance: Fraction, mechanism: Mechanism, alarm: float, name: str) -> Check:
    """Return whether the noise has the distribution claimed: Pearson's chi-square in up to 16 equal bins."""
    values = np.sort(noise.ravel())
    edges = np.unique(_quantiles(variance, mechanism, np.arange(1, 16) / 16))
    below = np.concatenate(([0.0], cumulative(edges, variance, mechanism), [1.0]))
    expected = np.diff(below) * len(values)
    seen = np.diff(np.concatenate(([0], np.searchsorted(values, edges, side="right"), [len(values)])))
    kept = expected > 0
    found = float(((seen - expected)[kept] ** 2 / expected[kept]).sum())
    return Check(name, found, 0.0, float(stats.chi2.isf(alarm, kept.sum() - 1)))


def fresh(noise: FloatArray, alarm: float) -> Check:
    """Return whether every release's noise is its own: the correlation of each with the next and with the
    one after, as a standard normal variable.

    Args:
        noise: float64 (releases, cells), each cell divided by its standard deviation.
    """
    moved = [noise[lag:] * noise[:-lag] for lag in (1, 2)]
    found = max(abs(float(product.sum())) / math.sqrt(product.size) for product in moved)
    return Check("correlation between releases", found, 0.0, float(stats.norm.isf(alarm / 4)))


def mu_found(without: FloatArray, within: FloatArray, alarm: float) -> float:
    """Return a lower bound on mu of Gaussian differential privacy: no mu-GDP path gives scores that a
    threshold distinguishes so well.

    Args:
        without, within: float64 (n,), scores of releases without the device and with it.
        alarm: chance that the bound is above the truth.
    """
    hits, alarms = _rates(without, within, alarm)
    return _NORMAL.inv_cdf(hits) - _NORMAL.inv_cdf(alarms)


def epsilon_found(without: FloatArray, within: FloatArray, delta: float, alarm: float) -> float:
    """Return a lower bound on epsilon at `delta`. Arguments as for `mu_found`; -inf where none is found."""
    hits, alarms = _rates(without, within, alarm)
    return math.log((hits - delta) / alarms) if hits > delta else -math.inf


def _rates(without: FloatArray, within: FloatArray, alarm: float) -> tuple[float, float]:
    """Return bounds on (true, false) positive rates of the threshold that the first halves suggest, by
    Clopper and Pearson on the second halves."""
    half = len(without) // 2
    threshold = (np.mean(without[:half]) + np.mean(within[:half])) / 2
    hits, alarms = int((within[half:] > threshold).sum()), int((without[half:] > threshold).sum())
    n = len(without) - half
    low = float(stats.beta.ppf(alarm / 2, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.isf(alarm / 2, alarms + 1, n - alarms)) if alarms < n else 1.0
    tiny = 1e-12
    return min(max(low, tiny), 1 - tiny), min(max(high, tiny), 1 - tiny)


def geometric_ratio(variance: Fraction) -> float:
    """Return q of the two-sided geometric distribution with this variance 2q/(1 − q)²."""
    v = float(variance)
    return (1.0 + v - math.sqrt(1.0 + 2.0 * v)) / v


def cumulative(values: Int64Array, variance: Fraction, mechanism: Mechanism) -> FloatArray:
    """Return P[X ≤ k] for integers k (n,)."""
    k = np.asarray(values, dtype=np.float64)
    if mechanism == "geometric":
        q = geometric_ratio(variance)
        return np.where(k >= 0, 1.0 - q ** (np.abs(k) + 1) / (1 + q), q ** np.abs(k) / (1 + q))
    sigma = math.sqrt(variance)
    if sigma >= FINE:
        return np.asarray(stats.norm.cdf((k + 0.5) / sigma))
    grid = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    total = np.cumsum(np.exp(-0.5 * (grid / sigma) ** 2))
    place = np.clip(np.searchsorted(grid, k, side="right") - 1, 0, len(grid) - 1)
    return np.asarray(np.where(k < grid[0], 0.0, total[place] / total[-1]))


def _quantiles(variance: Fraction, mechanism: Mechanism, shares: FloatArray) -> Int64Array:
    """Return integers near the quantiles, where bins may end."""
    sd = math.sqrt(variance)
    law = stats.norm(scale=sd) if mechanism == "discrete_gaussian" else stats.laplace(scale=sd / math.sqrt(2))
    return np.asarray(np.floor(law.ppf(shares)), dtype=np.int64)


def _deviations(layout: Layout, scales: Sequence[int]) -> FloatArray:
    """Return the claimed standard deviation of every cell, float64 (layout.length,)."""
    return np.concatenate(
        [
            np.full(block.cells, math.sqrt(block.variance * scale**2))
            for block, scale in zip(layout.blocks, scales, strict=True)
        ]
    )


def _log_ratio(layout: Layout, releases: Int64Array, canary: Int64Array) -> FloatArray:
    """Return the log likelihood ratio of geometric noise, with the device against without, (releases,)."""
    rates = np.concatenate(
        [np.full(block.cells, -math.log(geometric_ratio(block.variance))) for block in layout.blocks]
    )
    return np.asarray((np.abs(releases) - np.abs(releases - canary)) @ rates, dtype=np.float64)
