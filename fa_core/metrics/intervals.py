"""Interval mathematics, pure: quantiles of the noise, the Wilson–Fieller quadratic, simultaneous levels.

Everything is vectorised over cells. The one interval of this project is the set of all p with

    (t − d·n)² ≤ z²·(v0 + v1·d + v2·d²),    d = p − p0,

where t and n are the noisy centred numerator and the noisy denominator, and the right-hand side is
the variance of t − d·n as a quadratic in d: sampling plus privacy noise. With no noise and
V = n·p(1−p) it is Wilson's score interval (Wilson 1927, JASA 22); with v1 = 0 it is Fieller's
theorem for a ratio (Fieller 1954, JRSS B 16).
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from fa_core.arrays import BoolArray, FloatArray, np

_NORMAL = NormalDist()

FAR: Final = 6.0
"""Standard deviations of noise past which a count is not put down to noise: a chance of 1e-9."""


def normal_quantile(level: float) -> float:
    """Return z with P[|Z| ≤ z] = level for a standard normal Z. `level` in (0, 1).

    >>> round(normal_quantile(0.95), 4)
    1.96
    """
    return _NORMAL.inv_cdf(0.5 + level / 2)


def simultaneous_level(level: float, cells: int) -> float:
    """Return the level of each of `cells` intervals so that all hold together at `level` (Bonferroni).

    >>> round(simultaneous_level(0.95, 10), 4)        # Bonferroni: 0.05 divided over ten cells
    0.995
    """
    return 1.0 - (1.0 - level) / max(cells, 1)


def back_in_range(values: FloatArray, low: FloatArray, high: FloatArray, sd: FloatArray) -> FloatArray:
    """Return noisy values with those that noise took out of [low, high] put back at its end, where the other
    end of their interval is all that is known. What is more than `FAR` sd out is not due to noise, and stays.

    >>> back_in_range(np.array([-3.0, 5.0, -80.0]), np.array(0.0), np.array(10.0), np.array(2.0)).tolist()
    [0.0, 5.0, -80.0]
    """
    inside = np.clip(values, low, np.maximum(low, high))
    return np.where(abs(values - inside) <= FAR * sd, inside, values)


def _tail_normal_laplace(x: FloatArray, normal_sd: FloatArray, laplace_scale: FloatArray) -> FloatArray:
    """Return P[N + L > x] for x ≥ 0, N normal of sd s, L Laplace of scale b, both positive.

    Closed form: Φc(x/s) + ¼e^{−x²/2s²}·[erfcx((s/b − x/s)/√2) − erfcx((s/b + x/s)/√2)], written with
    the scaled complementary error function so that nothing overflows.
    """
    # Imported here: scipy costs more than all the rest of `fa plan check`, which reads no sums.
    from scipy.special import erfcx, ndtr

    u = x / normal_sd
    r = normal_sd / laplace_scale
    near = (r - u) / np.sqrt(2)
    below = np.exp(-0.5 * u * u) * erfcx(np.maximum(near, -6.0)) / 2
    # erfcx grows like 2·exp(y²) for very negative y: there the product is exp(r²/2 − u·r)·Φ(u − r).
    deep = np.exp(np.minimum(0.5 * r * r - u * r, 700.0)) * ndtr(u - r)
    toward = np.where(near < -6.0, deep, below)
    away = np.exp(-0.5 * u * u) * erfcx((r + u) / np.sqrt(2)) / 2
    return np.asarray(ndtr(-u) + 0.5 * toward - 0.5 * away, dtype=np.float64)


def laplace_quantile(level: float) -> float:
    """Return q with P[|L| ≤ q] = level for a Laplace variable L of variance 1."""
    return float(-np.log1p(-level) / np.sqrt(2.0))


def convolved_quantile(level: float, laplace_share: FloatArray) -> FloatArray:
    """Return the two-sided quantile of a unit-variance sum of a normal and a Laplace variable.

    Args:
        level: coverage wanted, in (0, 1).
        laplace_share: share of the variance that is Laplace (two-sided geometric noise at the scale
            of many counts), in [0, 1], any shape.

    Returns:
        float64 of that shape: the normal quantile at 0, the Laplace quantile at 1.
    """
    share = np.clip(np.asarray(laplace_share, dtype=np.float64), 0.0, 1.0)
    z = normal_quantile(level)
    result = np.full(share.shape, z)
    mixed = share > 1e-9
    if not mixed.any():
        return result
    part = np.minimum(share[mixed], 1.0 - 1e-9)
    normal_sd, scale = np.sqrt(1.0 - part), np.sqrt(part / 2.0)
    target = (1.0 - level) / 2
    low = np.full(part.shape, 0.5 * z)
    high = np.full(part.shape, max(laplace_quantile(level), z) * 1.5)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = _tail_normal_laplace(middle, normal_sd, scale) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    result[mixed] = 0.5 * (low + high)
    return result


def estimated_variance_quantile(z: FloatArray, relative_sd: FloatArray) -> FloatArray:
    """Return z widened for a variance that is itself a noisy estimate of relative sd r.

    Second-order expansion of E[2Φ(z·√(1+r·e)) − 1] around r = 0 for e of mean 0 and variance 1: the
    coverage lost is r²·z·φ(z)·(1+z²)/4, which z + r²·z·(1+z²)/8 gives back. r is taken as `WORST` at
    most, beyond which the expansion says nothing.
    """
    return z + np.minimum(relative_sd, WORST) ** 2 * z * (1.0 + z * z) / 8.0


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds on p, float64 of the shape of the inputs; `valid` is False where there is no interval."""

    low: FloatArray
    high: FloatArray
    valid: BoolArray


def wilson_fieller(
    t: FloatArray,
    n: FloatArray,
    variance: tuple[FloatArray, FloatArray, FloatArray],
    z: FloatArray,
    *,
    p0: float,
    denominator_sd: FloatArray,
) -> Interval:
    """Return all p with (t − d·n)² ≤ z²·(v0 + v1·d + v2·d²), d = p − p0, as an interval.

    Args:
        t: noisy centred numerator, Σ(r − p0·n), in events.
        n: noisy denominator, in events.
        variance: (v0, v1, v2), the variance of t − d·n as a quadratic in d.
        z: quantile of the error that was really convolved.
        p0: the public centre.
        denominator_sd: standard deviation of the noise on n; where n ≤ z·sd the denominator cannot be
            distinguished from 0 and there is no interval.

    Returns:
        Interval; valid only where n > z·sd, the quadratic opens upward (the set is bounded) and has
        real roots.
    """
    v0, v1, v2 = variance
    zz = z * z
    a = n * n - zz * v2
    b = -(2.0 * t * n + zz * v1)
    c = t * t - zz * v0
    discriminant = b * b - 4.0 * a * c
    valid = (n > z * denominator_sd) & (a > 0) & (discriminant >= 0)
    root = np.sqrt(np.where(valid, discriminant, 0.0))
    divisor = np.where(valid, 2.0 * a, 1.0)
    low = np.where(valid, p0 + (-b - root) / divisor, np.nan)
    high = np.where(valid, p0 + (-b + root) / divisor, np.nan)
    return Interval(low, high, valid)


UNLIKE: Final = 0.5
"""How much groups are taken to differ in variance, relative to their mean, when one leans on the others."""

WORST: Final = 0.5
"""Largest relative uncertainty of a variance for which the quantile's expansion is used."""


@dataclass(frozen=True, slots=True)
class Variances:
    """Sampling variance by group, by how much it may be too small, and whether it leans on the others."""

    value: FloatArray
    sd: FloatArray
    pooled: BoolArray


def own_or_more(
    measured: FloatArray, measured_sd: FloatArray, least: FloatArray, size: FloatArray
) -> Variances:
    """Return each group's sampling variance: its own measurement, or the others' where that is larger.

    A group whose devices are more unlike than the others' must not be taken for one of them: leaning on calm
    groups made its interval too narrow. A noisy measurement that came out low is lifted to theirs.
    Arguments as of `lean_on_others`.
    """
    others = lean_on_others(measured, measured_sd, least, size)
    own = np.maximum(measured, least)
    lifted = others.value > own
    sd = np.where(lifted, others.sd, np.minimum(measured_sd, own - least))
    return Variances(np.maximum(own, others.value), sd, lifted & others.pooled)


def lean_on_others(
    measured: FloatArray, measured_sd: FloatArray, least: FloatArray, size: FloatArray
) -> Variances:
    """Return each group's sampling variance from its noisy measurement and the others'.

    The group's own measurement and the pooled one are weighed by their precision: groups are taken to
    differ by `UNLIKE` of the pooled value, so a well measured group keeps its own and a noisy one
    leans on the rest (empirical Bayes; Efron & Morris 1975, JASA 70).

    Args:
        measured: noisy variances; below `least` only by noise.
        measured_sd: standard deviation of the noise on each.
        least: the smallest possible variance of each.
        size: what the excess over `least` is proportional to when pooled, above 0.
    """
    share = size / size.sum()
    pooled = least + share * max(float((measured - least).sum()), 0.0)
    pooled_sd = share * float(np.sqrt((measured_sd**2).sum()))
    spread = (UNLIKE * pooled) ** 2 + pooled_sd**2
    weight = spread / np.maximum(spread + measured_sd**2, np.finfo(np.float64).tiny)
    value = np.maximum(pooled + weight * (measured - pooled), least)
    # What is under the floor cannot be underestimated: only the excess over it needs a wider quantile.
    sd = np.minimum(np.sqrt(weight) * measured_sd, value - least)
    return Variances(value, sd, weight < 0.5)
