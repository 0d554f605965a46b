"""The centred ratio: what `rate`, `rate_per_hour`, `ratio`, `mean` and `paired_difference` share.

A device sends T = Σ(b·r − a·n) and the size n, by group, for a public centre p0 = a/b. The estimate
is p0 + T/(b·n); the noise on n enters only through (p − p0)², so n takes a small share of the budget
(docs/privacy.md). How much devices differ is measured per group by three more noised sums, of
T², T·n and n², whose combination V = (S_TT − 2bd·S_Tn + b²d²·S_nn)/b² is Σ(Tᵢ/b − d·nᵢ)²: the
ultimate-cluster variance of a ratio (Hansen, Hurwitz & Madow 1953; Cochran 1977, eq. 11.30). A group's is at
least what was measured of itself. In releases of plans without `counters` T is clipped at half of its bound
in these three sums, and a group's variance leans on the others': they are read as they were made, and hold
less for the worst served.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Final

from fa_core.arrays import TextArray, np
from fa_core.constraints import Constraints, Forms
from fa_core.errors import BadInput
from fa_core.metrics.feasible import Pairs, counters, least_units, prove_pairs
from fa_core.metrics.intervals import (
    FAR,
    back_in_range,
    convolved_quantile,
    estimated_variance_quantile,
    lean_on_others,
    normal_quantile,
    own_or_more,
    simultaneous_level,
    wilson_fieller,
)
from fa_core.metrics.kind import (
    BoolArray,
    Bounds,
    CellOf,
    FloatArray,
    Int64Array,
    MetricSpec,
    Part,
    PartSum,
    Reading,
    Result,
    Shape,
    Units,
    tally,
)
from fa_core.metrics.reading import anything, assemble, shown_devices
from fa_core.privacy.bounding import scale_to_l1

WELL_MEASURED: Final = 0.25
"""Where V is known to within this share, and the noise on p does not halve n·p(1−p), V is scaled with p as
φ·n·p(1−p); else its excess is a constant."""

MEASURED: Final = 0.6
"""The least variance of a group under pure accounting, privacy noise included, in standard deviations of the
noise in what was measured of it: less cannot be distinguished from that noise, much larger there than under
zCDP. Where it came out low, and the other groups are calm, one interval of a dispersed group in thirteen
missed. It is less than that of joint counters (`moments.MEASURED`): a variance that came out low is also
lifted to the other groups'.
"""

ALIKE: Final = 20.0
"""Public guess for previews: events of one device are as alike as in a beta distribution of a + b = 20."""

Quadratic = tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one device can add before any clip: Σ|T| over its groups, the most that T falls below zero, Σn,
    and the number of its units."""

    excess: int
    below: int
    size: int
    units: int


@dataclass(frozen=True, slots=True, eq=False)
class _Ratio:
    """Noisy sums in units of events, and what is derived from them; all float64 (K,)."""

    t: FloatArray
    n: FloatArray
    d: FloatArray
    noise_t: float
    noise_n: float
    variance: FloatArray
    variance_sd: FloatArray


class Centred(MetricSpec):
    """Base of the kinds that estimate Σr/Σn around a public centre."""

    clips: ClassVar[bool] = False
    """Whether the plan's `max_excess` applies: the numerator counts events, one at a time."""

    def centre(self) -> tuple[int, int]:
        """Return (a, b): the public centre a/b of one unit's numerator to its size, b ≥ 1."""
        raise NotImplementedError

    def limits(self, bounds: Bounds) -> Limits:
        """Return what one device can add before any clip."""
        raise NotImplementedError

    def pairs(self, bounds: Bounds) -> Pairs:
        """Return what r and n of one device can be, for a proof of it."""
        raise NotImplementedError

    def floor(self, n: FloatArray) -> Quadratic | None:
        """Return the least sampling variance of Σ(r − p·n) as a quadratic in d, or None."""
        return None

    def display(self) -> tuple[float, float, float, float]:
        """Return (offset, factor, low, high): a shown number is offset + factor·p, within [low, high]."""
        raise NotImplementedError

    def units_expected(self, bounds: Bounds, events: float) -> float:
        """Return how many units a device with so many events is expected to sample, for previews."""
        return min(events, float(bounds.max_events))

    def unit_size(self, bounds: Bounds) -> float:
        """Return the expected size of one unit, for previews."""
        return 1.0

    def guess(self, n: FloatArray) -> FloatArray:
        """Return a public guess of the variance of Σ(r − p·n) between unlike events, for previews."""
        floor = self.floor(n)
        assert floor is not None, "a kind without a floor guesses by itself"
        return floor[0]

    def excess_bound(self, bounds: Bounds) -> int:
        """Return the bound on Σ|T| of one device: b·B where the plan clips and that is less."""
        limit = self.limits(bounds).excess
        if not self.clips or bounds.max_excess is None:
            return limit
        return min(limit, self.centre()[1] * bounds.max_excess)

    def spread_bound(self, bounds: Bounds) -> int:
        """Return the bound on Σ|T| of one device in the sums that measure how much devices differ."""
        if bounds.counters is not None:
            return self.limits(bounds).excess
        return min(self.excess_bound(bounds), max(1, self.limits(bounds).excess // 2))

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        limits, excess, spread = self.limits(bounds), self.excess_bound(bounds), self.spread_bound(bounds)
        size = limits.size
        touched = min(shape.touch, limits.units)
        parts = [
            Part("excess", shape.cells, excess, excess**2, 24),
            Part("size", shape.cells, size, size**2, 5),
            Part("devices", shape.cells, touched, touched, 2),
            Part("excess_squared", shape.cells, spread**2, spread**4, 4),
            Part("excess_size", shape.cells, spread * size, (spread * size) ** 2, 1),
            Part("size_squared", shape.cells, size**2, size**4, 1),
        ]
        if excess < limits.excess:
            # Scaling down rounds toward zero: it takes up to touched − 1 more than the excess over B.
            clipped = limits.excess - excess + touched - 1
            parts.append(Part("clipped", shape.cells, clipped, clipped**2, 4))
        return tuple(parts)

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        count, size = totals(units["units"], cell_of, shape, devices)
        a, b = self.centre()
        raw = b * count - a * size
        excess = scale_to_l1(raw, self.excess_bound(bounds))
        spread = scale_to_l1(raw, self.spread_bound(bounds))
        counts = {
            "excess": excess,
            "size": size,
            "devices": (size > 0).astype(np.int64),
            "excess_squared": spread * spread,
            "excess_size": spread * size,
            "size_squared": size * size,
        }
        if self.excess_bound(bounds) < self.limits(bounds).excess:
            counts["clipped"] = raw - excess
        return counts

    def tallies(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        count, size = totals(units["units"], cell_of, shape, devices)
        return {"n": size, "r": count, "units": least_units(self.pairs(bounds), size, count)}

    def prove(self, constraints: Constraints, groups: int, bounds: Bounds) -> dict[str, Forms]:
        if bounds.counters is None:
            raise BadInput("plans without `counters`, of before, are not summed by two aggregators")
        return prove_pairs(constraints, groups, self.pairs(bounds))

    def vector(self, proved: Mapping[str, Forms], shape: Shape, bounds: Bounds) -> dict[str, Forms]:
        a, b = self.centre()
        present, n, r, nn, nr, rr = counters(proved)
        return {
            "excess": r * b - n * a,
            "size": n,
            "devices": present,
            "excess_squared": rr * b**2 - nr * (2 * a * b) + nn * a**2,
            "excess_size": nr * b - nn * a,
            "size_squared": nn,
        }

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        a, b = self.centre()
        ratio = self._ratio(sums)
        floor = self.floor(ratio.n) or (np.zeros(shape.cells),) * 3
        laplace, own = sums["excess"].laplace, bounds.counters is not None
        sampling, relative_sd, source = self._sampling_variance(ratio, floor, own=own, laplace=laplace)
        noise = ratio.noise_t + ratio.d**2 * ratio.noise_n
        total = noise + at(sampling, ratio.d)
        laplace_share = noise / total if laplace else np.zeros(shape.cells)
        size_sd = np.full(shape.cells, ratio.noise_n**0.5)
        variance = (sampling[0] + ratio.noise_t, sampling[1], sampling[2] + ratio.noise_n)

        def interval(level: float) -> tuple[FloatArray, FloatArray, BoolArray]:
            z = estimated_variance_quantile(convolved_quantile(level, laplace_share), relative_sd)
            found = wilson_fieller(ratio.t, ratio.n, variance, z, p0=a / b, denominator_sd=size_sd)
            low, high = found.low, found.high
            if "clipped" in sums:
                upward = shape.touch == 1 and self.limits(bounds).below <= self.excess_bound(bounds)
                less, more = _clipped_away(sums["clipped"], z, upward=upward)
                safe = np.where(ratio.n > 0, b * ratio.n, np.nan)
                low, high = low + less / safe, high + more / safe
            return low, high, found.valid

        low, high, valid = interval(reading.level)
        wide_low, wide_high, wide_valid = interval(simultaneous_level(reading.level, shape.cells))
        noise_sd = np.sqrt(noise) / np.where(ratio.n > 0, ratio.n, np.nan)
        if bounds.counters is not None:
            together = normal_quantile(simultaneous_level(reading.level, shape.cells))
            valid = valid & well_measured(ratio.n, sums["devices"].values, ratio.noise_n**0.5, together)
        z_noise = convolved_quantile(reading.level, np.full(shape.cells, float(laplace)))
        devices, devices_sd = sums["devices"].values, sums["devices"].variance ** 0.5
        numbers = assemble(
            point=a / b + ratio.d,
            bounds=(low, high),
            simultaneous=(wide_low, wide_high),
            noise=(a / b + ratio.d - z_noise * noise_sd, a / b + ratio.d + z_noise * noise_sd),
            denominator=ratio.n,
            noise_sd=noise_sd,
            display=self.display(),
            refusals=(
                anything(devices, devices_sd, reading, self.denominator()),
                shown_devices(devices, devices_sd, reading.min_cohort, self.denominator()),
                (valid & wide_valid, "too few events to be distinguished from the privacy noise"),
            ),
        )
        return Result(numbers, devices, devices_sd, source)

    def one_device(self, bounds: Bounds, number: float, denominator: float) -> float | None:
        """Of p = r/n one device (r_i, n_i) moves (r_i − p·n_i)/(n − n_i), and |b·r_i − a·n_i| is bounded."""
        (a, b), limits = self.centre(), self.limits(bounds)
        offset, factor, least, most = self.display()
        off_centre = abs((number - offset) / factor - a / b)
        rest = denominator - limits.size
        moved = limits.excess / b + off_centre * limits.size
        return min(abs(factor) * moved / rest, most - least) if rest > 0 else most - least

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        _, b = self.centre()
        here, units = shape.spread(devices, self.units_expected(bounds, events))
        size = units * self.unit_size(bounds)
        n = np.full(shape.cells, here * size)
        alike = 1.0 + max(units - 1.0, 0.0) / (ALIKE + 1.0)
        sums = {
            "excess": np.zeros(shape.cells),
            "size": n,
            "devices": np.full(shape.cells, here),
            "excess_squared": b * b * alike * self.guess(n),
            "excess_size": np.zeros(shape.cells),
            "size_squared": np.full(shape.cells, here * size**2),
        }
        if self.excess_bound(bounds) < self.limits(bounds).excess:
            sums["clipped"] = np.zeros(shape.cells)
        return sums

    def _ratio(self, sums: Mapping[str, PartSum]) -> _Ratio:
        b = self.centre()[1]
        n = sums["size"].values
        t = self._possible(
            sums["excess"].values / b, n, sums["excess"].variance / b**2, sums["size"].variance
        )
        d = np.where(n > 0, t / np.where(n > 0, n, 1.0), 0.0)
        tt, tn, nn = sums["excess_squared"], sums["excess_size"], sums["size_squared"]
        variance = (tt.values - 2 * b * d * tn.values + (b * d) ** 2 * nn.values) / b**2
        noise = tt.variance + (2 * b * d) ** 2 * tn.variance + (b * d) ** 4 * nn.variance
        return _Ratio(
            t, n, d, sums["excess"].variance / b**2, sums["size"].variance, variance, np.sqrt(noise) / b**2
        )

    def _possible(self, t: FloatArray, n: FloatArray, noise_t: float, noise_n: float) -> FloatArray:
        """Return centred numerators that give a ratio within its range, where noise took them out of it."""
        a, b = self.centre()
        offset, factor, least, most = self.display()
        for end in (least, most):
            if isfinite(end):
                d = (end - offset) / factor - a / b
                sd, far = np.full(len(n), (noise_t + d * d * noise_n) ** 0.5), np.full(len(n), np.inf)
                limit = d * np.maximum(n, 0.0)
                low, high = (limit, far) if end == least else (-far, limit)
                t = back_in_range(t, low, high, sd)
        return t

    def _sampling_variance(
        self, ratio: _Ratio, floor: Quadratic, *, own: bool, laplace: bool
    ) -> tuple[Quadratic, FloatArray, TextArray]:
        """Return V as a quadratic in d, its noise relative to the whole variance, and where it came from: at
        least the group's `own` measurement, or, in releases of before, one that leans on the other groups.

        Laplace's rule of succession keeps the floor from vanishing where nothing was seen.
        """
        n = np.maximum(ratio.n, 1.0)
        least = np.maximum(at(floor, ratio.d), at(floor, np.zeros_like(ratio.d)) / n)
        noise = ratio.noise_t + ratio.d**2 * ratio.noise_n
        measured = ratio.variance
        if own and laplace:
            measured = np.maximum(measured, MEASURED * ratio.variance_sd - noise)
        found = (own_or_more if own else lean_on_others)(measured, ratio.variance_sd, least, n)
        step = np.sqrt(noise) / n
        steady = np.minimum(at(floor, ratio.d - step), at(floor, ratio.d + step)) > least / 2
        known = steady & (found.sd <= WELL_MEASURED * found.value)
        factor = np.where(known, found.value / np.where(least > 0, least, 1.0), 1.0)
        constant = np.where(known, 0.0, found.value - least)
        sampling = (floor[0] * factor + constant, floor[1] * factor, floor[2] * factor)
        source = np.where(found.pooled, "pooled", "group").astype(object)
        return sampling, found.sd / (noise + found.value), source


def totals(units: Units, cell_of: CellOf, shape: Shape, devices: int) -> tuple[Int64Array, Int64Array]:
    """Return each device's count r and size n in each group, each int64 (devices, K)."""
    key = units.device * shape.cells + cell_of(units)
    count, size = (tally(units, key, devices * shape.cells, name) for name in ("count", "size"))
    return count.reshape(devices, -1), size.reshape(devices, -1)


def well_measured(size: FloatArray, devices: FloatArray, sd: float, z: float) -> BoolArray:
    """Return whether the size of each group exceeds its noise, whatever that noise is, (K,).

    A group that is shown only where its own noise is lucky is shown too large, and all its misses are on one
    side. The share that misses of those shown is at most that of all, over the share that is shown: which is
    five in six where the size is a standard deviation over the limit. What counts is the size that the
    group's devices lead to expect; or else, where a group is like no other, its own size so far over the
    limit that it is not due to noise.

    Args:
        size, devices: noisy sizes and numbers of devices, (K,).
        sd: of the noise on the sizes.
        z: the limit below which there is no interval, in standard deviations.
    """
    if len(size) == 1:
        return size > z * sd  # nothing else says what size to expect
    typical = devices * size.sum() / max(float(devices.sum()), 1.0)
    return np.asarray((typical > (z + 1.0) * sd) | (size > (z + FAR) * sd))


def bernoulli_floor(n: FloatArray, p0: float) -> Quadratic:
    """Return n·p(1−p) as a quadratic in d = p − p0."""
    return n * p0 * (1.0 - p0), n * (1.0 - 2.0 * p0), -n


def poisson_floor(n: FloatArray, p0: float) -> Quadratic:
    """Return n·p as a quadratic in d = p − p0."""
    return n * p0, n, np.zeros_like(n)


def at(quadratic: Quadratic, d: FloatArray) -> FloatArray:
    return quadratic[0] + quadratic[1] * d + quadratic[2] * d * d


def _clipped_away(clipped: PartSum, z: FloatArray, *, upward: bool) -> tuple[FloatArray, FloatArray]:
    """Return the least and the most that the clip may have taken off the numerator, 0 between them.

    [min(0, X̂ − zσ), max(0, X̂ + zσ)]; where only devices above the centre can be clipped, `upward`, what
    was taken off is never negative.
    """
    sd = clipped.variance**0.5
    low = np.zeros_like(z) if upward else np.minimum(0.0, clipped.values - z * sd)
    return low, np.maximum(0.0, clipped.values + z * sd)
