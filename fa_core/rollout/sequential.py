"""The sequential test of a rollout's gate: estimates, information and bounds over the looks. Pure, in arrays.

In look k a group's noised sums are T (the candidate's misses less the baseline's), n (labelled moments) and
U (moments that only the candidate heard and nobody labelled). Whatever those would have been labelled, the
difference of the miss rates is between (T − U)/(n + U) and T/n; a rollback is decided on the lower estimate
and a shipment on the upper one. For each, with d̂ the estimate of a look, v the variance that noise gives it
and V the sampling variance of its numerator,

    θ_k = Σ(d̂_i/v_i) / Σ(1/v_i)      D_k = mean of V_i/n_i²      I_k = 1/(D_k + 1/Σ(1/v_i))

over the looks i ≤ k in which the group was measured. Noise is fresh in each look, and its part of the
variance falls; *all* sampling is taken to persist, as devices keep their own ways from look to look, so its
part never falls. Where some of it does not persist that is too large, which is safe. Var θ_k = 1/I_k and
Cov(θ_j, θ_k) = Var θ_k for j ≤ k, so Z_k(x) = (θ_k − x)·√I_k has the covariance that `boundaries` supposes.

α·t^(5/4) is spent for a rollback and α·t² for a shipment, t = min(k/K, I_k/I_K), the latter rounded down to
twelfths of k/K; t never falls. The last planned look spends all that is left; a look in which a group was not
measured spends nothing of the group's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import inf, isfinite, log
from typing import Final

from fa_core.arrays import BoolArray, FloatArray, np
from fa_core.metrics.intervals import estimated_variance_quantile
from fa_core.rollout.boundaries import STEP, boundaries

PARTS: Final = 12
"""Where information falls short of the plan, the share of k/K that is taken is rounded down to twelfths, in
which four looks of which one or two are lost come out even."""

ROLLBACK_POWER, SHIP_POWER = 1.25, 2.0
"""The exponents of t in what is spent. A rollback spends more in the first look, since a candidate that is
worse is to be seen early: as sampling persists, that look has up to half of the information of all."""

OVERALL: Final = "everyone"
"""The name of all groups together."""


@dataclass(frozen=True, slots=True)
class Design:
    """What a rollout's document says of its gate. Margins are differences of miss rates, .01 for one point.

    Attributes:
        looks: K, the planned number of looks.
        alpha: type I error of all looks together, for a false rollback and for a false shipment.
        rollback_above: r, the rise of the miss rate that a group may have and not be rolled back for.
        ship_below: g, what a group's rise must be under.
        overall_below: what everyone's rise must be under.
        groups: the names of the groups that are tested.
        planned_information: I_K by group, in 1/rate²; where left out, what the group's first look
            would come to if all K were like it.
    """

    looks: int
    alpha: float
    rollback_above: float
    ship_below: float
    overall_below: float
    groups: tuple[str, ...]
    planned_information: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a design that cannot be tested."""
        if self.looks < 1 or not 0.0 < self.alpha < 0.5:
            raise ValueError(f"expected looks ≥ 1 and 0 < alpha < .5, found {self.looks} and {self.alpha}")
        if not (
            0.0 <= self.rollback_above < 1.0 and 0.0 < self.ship_below < 1.0 and self.overall_below > 0.0
        ):
            raise ValueError("expected margins of 0 ≤ rollback_above < 1, and above 0 for a shipment")
        if not self.groups or len(set(self.groups)) < len(self.groups) or OVERALL in self.groups:
            raise ValueError(f"expected at least one group, each named once and none {OVERALL!r}")
        if any(not 0.0 < each < inf for each in (self.planned_information or {}).values()):
            raise ValueError("expected planned information above 0")


@dataclass(frozen=True, slots=True)
class Cell:
    """One group's noised sums in one look, in moments.

    Attributes:
        difference: T, the candidate's misses less the baseline's over labelled moments.
        moments: n, labelled moments, above 0.
        unlabelled: U, moments that only the candidate heard and nobody labelled; 0 where none is counted.
        variance: V, sampling variance of T − d·n, the group's own, not below its floor.
        noise_difference, noise_moments, noise_unlabelled: variances of the noise on T, n and U.
        variance_sd: standard deviation of the noise on V.
        variance_unlabelled: sampling variance of U.
    """

    difference: float
    moments: float
    unlabelled: float
    variance: float
    noise_difference: float
    noise_moments: float
    noise_unlabelled: float
    variance_sd: float = 0.0
    variance_unlabelled: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for sums that no release has."""
        every = astuple(self)
        if not all(map(isfinite, every)) or self.moments <= 0.0 or min(every[3:]) < 0.0:
            raise ValueError(f"expected finite sums, moments above 0 and no negative variance: {self}")
        if self.noise_difference == 0.0:
            raise ValueError("expected noise on the difference: a release has some")


@dataclass(frozen=True, slots=True)
class Look:
    """What one release says of everyone and of each group; None where it was not measured."""

    overall: Cell | None
    groups: Mapping[str, Cell | None]


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """The fields of `Cell`, float64 (looks, …, groups + 1), everyone last; NaN where not measured."""

    difference: FloatArray
    moments: FloatArray
    unlabelled: FloatArray
    variance: FloatArray
    noise_difference: FloatArray
    noise_moments: FloatArray
    noise_unlabelled: FloatArray
    variance_sd: FloatArray
    variance_unlabelled: FloatArray

    @classmethod
    def of(cls, cells: Sequence[Sequence[Cell | None]]) -> "Sums":
        """Return the sums of cells by look and group."""
        missing = (float("nan"),) * len(fields(Cell))
        table = np.array([[missing if cell is None else astuple(cell) for cell in look] for look in cells])
        return cls(*np.moveaxis(table, -1, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One estimate over the looks, each float64 (looks, …, groups): θ_k, I_k, the relative standard deviation
    of the noise in 1/I_k, the fraction t_k and the boundary. NaN where a group was not measured yet; the
    boundary is infinite in a look that tests nothing."""

    estimate: FloatArray
    information: FloatArray
    fraction: FloatArray
    boundary: FloatArray

    def z(self, margin: FloatArray | float) -> FloatArray:
        """Return Z_k of a margin."""
        return np.asarray((self.estimate - margin) * np.sqrt(self.information))

    @property
    def reach(self) -> FloatArray:
        """How far the bound of a look is from its estimate; infinite where nothing is tested."""
        return np.asarray(self.boundary / np.sqrt(self.information))


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """Where groups stand after each look.

    Attributes:
        low, high: the lower and the upper estimate, with everyone last.
        lower, upper: the tightest bounds so far, (looks, …, groups + 1); NaN before a group was measured.
        rolled_back: (looks, …, groups), whether a group's rise has been significantly over r.
        shipped: (looks, …, groups + 1), whether it has been significantly under its margin.
    """

    low: Line
    high: Line
    lower: FloatArray
    upper: FloatArray
    rolled_back: BoolArray
    shipped: BoolArray


def progress(design: Design, sums: Sums) -> Progress:
    """Return where every group stands after each look; axes between looks and groups are rollouts."""
    names = (*design.groups, OVERALL)
    asked = design.planned_information or {}
    planned = np.array([asked.get(name, np.nan) for name in names])
    together = np.array([design.alpha / len(design.groups)] * len(design.groups) + [design.alpha])
    low = _line(design, _low(sums), planned, together, ROLLBACK_POWER)
    high = _line(design, _high(sums), planned, np.full(len(names), design.alpha), SHIP_POWER)
    with np.errstate(invalid="ignore"):
        lower = np.fmax.accumulate(low.estimate - low.reach, axis=0)
        upper = np.fmin.accumulate(high.estimate + high.reach, axis=0)
        rolled_back, shipped = lower[..., :-1] >= design.rollback_above, upper <= np.array(margins_of(design))
    return Progress(low, high, lower, upper, rolled_back, shipped)


def margins_of(design: Design) -> list[float]:
    """Return the margin under which each group is shipped, everyone last."""
    return [design.ship_below] * len(design.groups) + [design.overall_below]


def _high(sums: Sums) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return each look's T/n: estimate, sampling variance, the standard deviation of the noise in that, and
    the variance of its own noise."""
    n = sums.moments
    d = sums.difference / n
    return d, sums.variance / n**2, sums.variance_sd / n**2, _noise(sums, d) / n**2


def _low(sums: Sums) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the same of (T − U)/(n + U).

    The sampling variance of T − d·n and that of U are measured apart; that of the two together is at most the
    square of the sum of their roots, however they hang together (Minkowski).
    """
    n = sums.moments + np.maximum(sums.unlabelled, 0.0)
    d = (sums.difference - sums.unlabelled) / n
    own, added = np.sqrt(sums.variance), (1.0 + d) * np.sqrt(sums.variance_unlabelled)
    steep = np.where(added > 0.0, 1.0 + added / np.where(own > 0.0, own, 1.0), 1.0)
    noise = _noise(sums, d) + (1.0 + d) ** 2 * sums.noise_unlabelled
    return d, (own + added) ** 2 / n**2, steep * sums.variance_sd / n**2, noise / n**2


def _noise(sums: Sums, d: FloatArray) -> FloatArray:
    """Return the variance that noise gives T − d·n."""
    return sums.noise_difference + d * d * sums.noise_moments


def _line(
    design: Design,
    each: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    planned: FloatArray,
    alpha: FloatArray,
    power: float,
) -> Line:
    """Return the estimate over the looks.

    Args:
        each: of each look, as `_high` returns it.
        planned: I_K by group, (groups,), NaN where it is not known.
        alpha: type I error of all looks, (groups,); `power` is the exponent of t in what is spent of it.
    """
    d, sampling, sampling_sd, noise = each
    there = np.isfinite(d)

    def added(values: FloatArray) -> FloatArray:
        return np.asarray(np.cumsum(np.where(there, values, 0.0), axis=0))

    with np.errstate(invalid="ignore", divide="ignore"):
        count, precision = np.cumsum(there, axis=0), added(1.0 / noise)
        variance = added(sampling) / count + 1.0 / precision
        relative_sd = np.sqrt(added(sampling_sd**2)) / count / variance
        information = 1.0 / variance
        first = np.expand_dims(there.argmax(axis=0), 0)
        alone = 1.0 / (
            np.take_along_axis(sampling, first, 0) + np.take_along_axis(noise, first, 0) / design.looks
        )
        fraction = _fractions(design.looks, there, information / np.where(np.isnan(planned), alone, planned))
        boundary = _boundaries(alpha, power, there, fraction, information)
        wide = np.where(np.isfinite(boundary), estimated_variance_quantile(boundary, relative_sd), inf)
        return Line(added(d / noise) / precision, information, fraction, wide)


def _fractions(looks: int, there: BoolArray, reached: FloatArray) -> FloatArray:
    """Return t_k, (looks, …, groups), from I_k/I_K of the same shape; 0 before a group was measured."""
    calendar = np.arange(1, len(there) + 1).reshape(-1, *[1] * (there.ndim - 1)) / looks
    share = calendar * np.minimum(np.floor(PARTS * reached / calendar + 1e-6) / PARTS, 1.0)
    share = np.where(there, np.where(calendar == 1.0, 1.0, share), 0.0)
    return np.asarray(np.maximum.accumulate(share, axis=0))


def _boundaries(
    alpha: FloatArray, power: float, there: BoolArray, fraction: FloatArray, information: FloatArray
) -> FloatArray:
    """Return the boundary of each look, of the shape of `there`; infinite where nothing is tested."""
    steps = np.zeros(there.shape, np.int64)
    most = np.zeros(there.shape[1:])
    for k, (here, now) in enumerate(zip(there, information, strict=True)):
        before = steps[k - 1] if k else steps[0]
        rise = np.ceil(np.log(np.where(here & (most > 0.0), now / most, 1.0)) / log(STEP) - 1e-9)
        steps[k] = before + np.where(here & (most > 0.0), np.maximum(rise, 1), 0).astype(np.int64)
        most = np.where(here, np.maximum(most, now), most)
    keys = np.concatenate(
        [there, np.rint(fraction * 1e9), steps, np.broadcast_to(alpha, (1, *there.shape[1:]))]
    )
    different, which = np.unique(keys.reshape(len(keys), -1), axis=1, return_inverse=True)
    found = np.full((len(there), different.shape[1]), inf)
    for place, column in enumerate(different.T):
        measured = np.flatnonzero(column[: len(there)])
        of = column[:-1].reshape(3, -1)[:, measured]
        spent = tuple(float(column[-1]) * float(t) ** power for t in of[1] / 1e9)
        found[measured, place] = boundaries(spent, tuple(int(step) for step in of[2]))
    return found[:, which.ravel()].reshape(there.shape)
