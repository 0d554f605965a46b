"""Ratios of two counts that are sent as joint counters: `rate`, `rate_per_hour` and `paired_difference`.

Under a zCDP ledger a device sends, for each group, one integer map of (n, r) in place of six blocks; the
groupings of a metric are then estimated together. Under a pure ledger, whose noise needs the L1 norm, and in
plans of before, they are centred ratios in blocks.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from fa_core.arrays import np
from fa_core.constraints import Forms, stacked
from fa_core.metrics.centred import ALIKE, Centred, at, totals
from fa_core.metrics.feasible import Pairs, counters
from fa_core.metrics.intervals import normal_quantile, simultaneous_level
from fa_core.metrics.joint import COUNTERS, MOST_PAIRS, Domain, Name, mapped, matrix, norms
from fa_core.metrics.kind import (
    Bounds,
    CellOf,
    FloatArray,
    Int64Array,
    Part,
    PartSum,
    Reading,
    Result,
    Shape,
    TooMuch,
    Units,
)
from fa_core.metrics.moments import DEVICES, Moments, N, R, Ratio, unmapped
from fa_core.metrics.nested import Cut, consistent
from fa_core.metrics.reading import anything, assemble, shown_devices

PART = "joint"


class JointRatio(Centred):
    """Base of the kinds whose sums in a group are functions of one pair (n, r) of a device."""

    maps: ClassVar[tuple[Name, Name]]
    """The tables for groupings by facts of the device, and by columns of its events."""
    lever: ClassVar[str] = "max_events"
    """The key that limits how many pairs of counts one device can have."""

    def domain(self, bounds: Bounds) -> Domain:
        """Return what one device can have in a group."""
        raise NotImplementedError

    def table(self, shape: Shape) -> Name:
        """Return the name of the public integers for a grouping."""
        return self.maps[any(axis.level == "event" for axis in shape.axes)]

    def too_much(self, bounds: Bounds) -> TooMuch | None:
        pairs = self.domain(bounds).pairs
        if bounds.counters != "joint" or pairs <= MOST_PAIRS:
            return None
        found = f"with this a device can have any of {pairs:,} counts, too many to try for its bound"
        return TooMuch(self.lever, found, f"lower it until there are at most {MOST_PAIRS:,}")

    def width(self, shape: Shape, bounds: Bounds) -> int:
        return COUNTERS * shape.cells if bounds.counters == "joint" else super().width(shape, bounds)

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        if bounds.counters != "joint":
            return super().parts(shape, bounds)
        most = norms(self.table(shape), self.domain(bounds), shape.touch)
        return (Part(PART, COUNTERS * shape.cells, most.l1, most.l2_squared, 1, most.linf),)

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        if bounds.counters != "joint":
            return super().count(units, cell_of, shape, bounds, devices)
        domain = self.domain(bounds)
        count, size = totals(units["units"], cell_of, shape, devices)
        # An hour of no minutes may have events: they have no size to be a ratio of.
        count = np.minimum(count, domain.count * size)
        return {PART: mapped(self.table(shape), domain, size, count).reshape(devices, -1)}

    def pairs(self, bounds: Bounds) -> Pairs:
        domain = self.domain(bounds)
        # In blocks an hour of no minutes still counts its events.
        apart = bounds.counters != "joint" and domain.size > 1
        return Pairs(domain.units, domain.size, domain.count, domain.signed, apart)

    def tallies(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        found = super().tallies(units, cell_of, shape, bounds, devices)
        if bounds.counters == "joint":
            found["r"] = np.minimum(found["r"], self.domain(bounds).count * found["n"])
        return found

    def vector(self, proved: Mapping[str, Forms], shape: Shape, bounds: Bounds) -> dict[str, Forms]:
        if bounds.counters != "joint":
            return super().vector(proved, shape, bounds)
        a = np.array(matrix(self.table(shape), self.domain(bounds)), np.int64)
        return {PART: stacked(counters(proved)).apply(a)}

    def device_counts(
        self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds
    ) -> tuple[FloatArray, float] | None:
        if bounds.counters != "joint":
            return super().device_counts(sums, shape, bounds)
        found = self._moments(sums, shape, bounds)
        return found.values[:, DEVICES], float(found.covariance[DEVICES, DEVICES])

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        return self.estimates([(shape, sums)], bounds, reading)[0]

    def estimates(
        self, cuts: Sequence[tuple[Shape, Mapping[str, PartSum]]], bounds: Bounds, reading: Reading
    ) -> list[Result]:
        if bounds.counters != "joint":
            return [super(JointRatio, self).estimate(sums, shape, bounds, reading) for shape, sums in cuts]
        return [self._result(moments, bounds, reading) for moments in self.moments(cuts, bounds)]

    def moments(self, cuts: Sequence[tuple[Shape, Mapping[str, PartSum]]], bounds: Bounds) -> list[Moments]:
        """Return the six sums of every group, by grouping, estimated together. For joint counters alone."""
        moments = [self._moments(sums, shape, bounds) for shape, sums in cuts]
        together = consistent(
            [
                Cut(shape.axes, each.values, each.covariance)
                for (shape, _), each in zip(cuts, moments, strict=True)
            ],
            (N, R),
        )
        return [Moments(cut.values, cut.covariance) for cut in together]

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        if bounds.counters != "joint":
            return super().expected(shape, bounds, devices, events)
        a, b = self.centre()
        here, units = shape.spread(devices, self.units_expected(bounds, events))
        size, p = units * self.unit_size(bounds), a / b
        n, nn = here * size, here * size**2
        alike = 1.0 + max(units - 1.0, 0.0) / (ALIKE + 1.0)
        rr = alike * float(self.guess(np.array([n]))[0]) + p * p * nn
        sums = np.array(matrix(self.table(shape), self.domain(bounds))) @ [here, n, p * n, nn, p * nn, rr]
        return {PART: np.tile(sums, shape.cells)}

    def _moments(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds) -> Moments:
        cells = sums[PART]
        return unmapped(self.table(shape), self.domain(bounds), cells.values, cells.variance)

    def ratio(self, moments: Moments, bounds: Bounds) -> Ratio:
        """Return what the ratio in each group follows from, with the variances of its noise and sampling."""
        a, b = self.centre()
        domain = self.domain(bounds)

        def floor(n: FloatArray, p: FloatArray) -> FloatArray:
            found = self.floor(n)
            return np.zeros_like(p) if found is None else np.maximum(at(found, p - a / b), 0.0)

        return Ratio(moments, -domain.count if domain.signed else 0, domain.count, floor)

    def _result(self, moments: Moments, bounds: Bounds, reading: Reading) -> Result:
        """Return the numbers of one grouping."""
        ratio = self.ratio(moments, bounds)
        groups = len(moments.values)
        (low, high, valid), (wide_low, wide_high, wide_valid) = ratio.intervals(
            reading.level, simultaneous_level(reading.level, groups)
        )
        noise_sd = ratio.noise_sd()
        around = normal_quantile(reading.level) * noise_sd
        devices, devices_sd = moments.values[:, DEVICES], float(moments.covariance[DEVICES, DEVICES] ** 0.5)
        numbers = assemble(
            point=ratio.point,
            bounds=(low, high),
            simultaneous=(wide_low, wide_high),
            noise=(ratio.point - around, ratio.point + around),
            denominator=ratio.n,
            noise_sd=noise_sd,
            display=self.display(),
            refusals=(
                anything(devices, devices_sd, reading, self.denominator()),
                shown_devices(devices, devices_sd, reading.min_cohort, self.denominator()),
                (ratio.possible, "the sum lies outside the possible range, further than its noise explains"),
                (valid & wide_valid, "too few events to be distinguished from the privacy noise"),
            ),
        )
        return Result(numbers, devices, devices_sd, np.full(groups, "group", dtype=object))
