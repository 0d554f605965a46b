"""`count`: how many events there were among the devices that took part, each capped."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from fa_core.arrays import np
from fa_core.constraints import Constraints, Forms, constants
from fa_core.metrics.centred import ALIKE
from fa_core.metrics.feasible import sized
from fa_core.metrics.filters import Filter
from fa_core.metrics.intervals import (
    Variances,
    back_in_range,
    convolved_quantile,
    estimated_variance_quantile,
    lean_on_others,
    own_or_more,
    simultaneous_level,
    wilson_fieller,
)
from fa_core.metrics.kind import (
    PRESENT,
    Bounds,
    CellOf,
    FieldUse,
    FloatArray,
    Int64Array,
    MetricSpec,
    Part,
    PartSum,
    Reading,
    Result,
    Shape,
    Units,
    of_events,
    register,
    tally,
)
from fa_core.metrics.reading import assemble, shown_devices
from fa_core.metrics.rows import View


@register
class Count(MetricSpec):
    """The total number of events in `of`, at most N a device.

    It stands for as many devices like these: its sampling variance is that of the total of D independent
    ones, Σcᵢ² − (Σcᵢ)²/D, with D the public number that were counted and Σcᵢ² a noised sum. As every cᵢ
    is a whole number, Σcᵢ² ≥ Σcᵢ, which bounds the variance from below.
    """

    question: ClassVar[str] = "How many were there?"

    kind: Literal["count"] = "count"
    of: Filter = Field(default={}, description="The events to count; all where left out.")

    def fields(self) -> tuple[FieldUse, ...]:
        return ()

    def conditions(self) -> tuple[tuple[str, Filter], ...]:
        return ("where", self.where), ("of", self.of)

    def unit(self) -> str:
        return "events"

    def estimand(self, bounds: Bounds) -> str:
        return of_events(bounds)

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        n = bounds.max_events
        touched = min(shape.touch, n)
        return (
            Part("events", shape.cells, n, n**2, 12),
            Part("devices", shape.cells, touched, touched, 1),
            Part("squares", shape.cells, n**2, n**4, 2),
        )

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & rows.mask(self.of))
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        ones = np.ones(len(index), np.int64)
        return {"units": Units(rows, index, rows.device[index], {"one": ones})}

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        sampled = units["units"]
        key = sampled.device * shape.cells + cell_of(sampled)
        events = tally(sampled, key, devices * shape.cells, "one").reshape(devices, shape.cells)
        return {"events": events, "devices": (events > 0).astype(np.int64), "squares": events * events}

    def tallies(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        return {"n": self.count(units, cell_of, shape, bounds, devices)["events"]}

    def prove(self, constraints: Constraints, groups: int, bounds: Bounds) -> dict[str, Forms]:
        most = bounds.max_events
        counted = constraints.input("n", (groups,))
        n, present = constraints.number(counted, most), constraints.present(counted)
        sized(constraints, n, present, most)
        if groups > 1:
            constraints.require_range(constants(most) - n.sum(), most)
        return {PRESENT: present, "n": n, "nn": constraints.product(n, n)}

    def vector(self, proved: Mapping[str, Forms], shape: Shape, bounds: Bounds) -> dict[str, Forms]:
        return {"events": proved["n"], "devices": proved[PRESENT], "squares": proved["nn"]}

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        noise_sd = np.full(shape.cells, sums["events"].variance ** 0.5)
        nothing, one = np.zeros(shape.cells), np.ones(shape.cells)
        values = back_in_range(sums["events"].values, nothing, one * np.inf, noise_sd)
        events = replace(sums["events"], values=values)
        seen = np.maximum(events.values, 1.0)
        found = self.sampling(sums, bounds, reading.counted)
        sampling = np.maximum(found.value, 1.0)
        total = sampling + events.variance
        share = events.variance / total if events.laplace else np.zeros(shape.cells)
        relative_sd = found.sd / total

        # All totals m with (x − m)² ≤ z²·(σ² + V·m/x): the variance grows with the total, as Poisson's.
        variance = (nothing + events.variance, sampling / seen, nothing)

        def bounds_at(level: float) -> tuple[FloatArray, FloatArray]:
            z = estimated_variance_quantile(convolved_quantile(level, share), relative_sd)
            found = wilson_fieller(events.values, one, variance, z, p0=0.0, denominator_sd=nothing)
            return found.low, found.high

        z_noise = convolved_quantile(reading.level, np.full(shape.cells, float(events.laplace)))
        devices, devices_sd = sums["devices"].values, sums["devices"].variance ** 0.5
        numbers = assemble(
            point=events.values,
            bounds=bounds_at(reading.level),
            simultaneous=bounds_at(simultaneous_level(reading.level, shape.cells)),
            noise=(events.values - z_noise * noise_sd, events.values + z_noise * noise_sd),
            denominator=devices,
            noise_sd=noise_sd,
            display=(0.0, 1.0, 0.0, float("inf")),
            refusals=(shown_devices(devices, devices_sd, reading.min_cohort),),
        )
        source = np.where(found.pooled, "pooled", "group").astype(object)
        return Result(numbers, devices, devices_sd, source)

    def sampling(self, sums: Mapping[str, PartSum], bounds: Bounds, counted: int) -> Variances:
        """Return the sampling variance of each group's total, (K,), of `counted` devices in all."""
        squares = sums["squares"]
        seen = np.maximum(sums["events"].values, 1.0)
        mean = np.minimum(seen / max(counted, 1), 1.0)
        measured = squares.values - seen * seen / max(counted, 1)
        noise_of_squares = np.full(len(seen), squares.variance**0.5)
        variance_of = lean_on_others if bounds.counters is None else own_or_more
        return variance_of(measured, noise_of_squares, seen * (1.0 - mean), seen)

    def one_device(self, bounds: Bounds, number: float, denominator: float) -> float | None:
        return float(bounds.max_events)

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        here, each = shape.spread(devices, min(events, float(bounds.max_events)))
        square = each**2 * (1.0 + 1.0 / ALIKE) + each
        return {
            "events": np.full(shape.cells, here * each),
            "devices": np.full(shape.cells, here),
            "squares": np.full(shape.cells, here * square),
        }
