"""What training plans count: how far a device's wake words lie from a public centre.

Neither kind is registered: no evaluation plan can name one. `fa_core.plan.training` makes them from a
`TrainPlan`, whose rules hold for what they send: a mean of features names its speaker.

Every device averages the features of its moments (at most `max_events`, drawn at random), subtracts the
plan's public centre, and has one vector x of 97 numbers. `one_shot_means` adds x to the block of the device's
group, `norm_histogram` the bin of its length.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import isqrt
from typing import ClassVar, Final, Literal

from pydantic import Field

from fa_core.arrays import np
from fa_core.metrics.filters import Exact, Filter
from fa_core.metrics.intervals import normal_quantile, simultaneous_level
from fa_core.metrics.kind import (
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
    many,
)
from fa_core.metrics.reading import Refusal, assemble, shown_devices
from fa_core.metrics.rows import View
from fa_core.privacy.bounding import scale_to_l2
from fa_core.tables import MOMENTS, VECTOR
from fa_core.values import STEPS

CLIPPED: Final = 4096
"""c: the length of a clipped vector in whole steps. Truncating its cells costs less than a step in each."""

COUNTED: Final = 1024
"""k: what a device adds to the count beside its vector. The count's noise is c/k times less in devices than
the vector's in steps, and costs (k/c)² = 1/16 more variance."""

CELLS: Final = VECTOR + 1
"""Cells of one group: the vector, then the count."""

BINS: Final = 28
SMALLEST: Final = Fraction(1, 64)
"""Lengths are counted in bins of half an octave from here on: bin i begins at SMALLEST·2^(i/2)."""


def bin_edges() -> FloatArray:
    """Return the edges between the bins of a norm histogram, ascending, float64 (BINS − 1,)."""
    return float(SMALLEST) * 2.0 ** (np.arange(1, BINS) / 2.0)


class _Moments(MetricSpec):
    """Base of the two: one vector a device."""

    sources: ClassVar[tuple[str, ...]] = (MOMENTS.name,)

    source: Literal["moments"] = "moments"  # type: ignore[assignment]
    center: tuple[Exact, ...] = Field(min_length=VECTOR, max_length=VECTOR, exclude=True)

    def fields(self) -> tuple[FieldUse, ...]:
        return (FieldUse(self.source, "features", "features", ("vector",)),)

    def unit(self) -> str:
        return "devices"

    def estimand(self, bounds: Bounds) -> str:
        return f"of at most {many(bounds.max_events, 'moment')} a device"

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        """Return one unit a device: that of its first moment, whose row says which group it is in."""
        rows = view.rows(self.source)
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where))
        index = candidates[view.sample("moments", rows.device[candidates], bounds.max_events)]
        features = rows.vectors("features")[index]
        device, first, size = np.unique(rows.device[index], return_index=True, return_counts=True)
        added = np.add.reduceat(features, first, axis=0) if len(first) else np.empty((0, VECTOR))
        vectors = added / size[:, None] - np.array([float(each) for each in self.center])
        return {"units": Units(rows, index[first], device, self._values(vectors))}

    def _values(self, vectors: FloatArray) -> dict[str, Int64Array]:
        """Return what each device's unit adds, given float64 (D, VECTOR)."""
        raise NotImplementedError


class OneShotMeans(_Moments):
    """The sum of clipped differences from the centre, and the number of devices, in each group.

    Lengths are cut in whole steps of clip/c: first truncation toward zero, then an exact integer bound
    (`scale_to_l2`). So a device adds at most c² + k² of squares in its one group, and nothing elsewhere.
    """

    question: ClassVar[str] = "Where do devices of each group lie from the public centre?"

    kind: Literal["one_shot_means"] = "one_shot_means"
    clip: Exact = Field(gt=0, exclude=True)

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        l1 = isqrt(VECTOR * CLIPPED**2) + COUNTED
        return (Part(STEPS, shape.cells * CELLS, l1, CLIPPED**2 + COUNTED**2, 1, CLIPPED),)

    def _values(self, vectors: FloatArray) -> dict[str, Int64Array]:
        steps = vectors * (CLIPPED / float(self.clip))
        # Far outside the clip only the direction counts, and squares must fit into 62 bits.
        far = np.abs(steps).max(axis=1, initial=1.0) / 2.0**24
        whole = np.trunc(steps / np.maximum(far, 1.0)[:, None]).astype(np.int64)
        return {"steps": scale_to_l2(whole, CLIPPED)}

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        unit = units["units"]
        counts = np.zeros((devices, shape.cells, CELLS), np.int64)
        group = cell_of(unit)
        counts[unit.device, group, :VECTOR] = unit.values["steps"]
        counts[unit.device, group, VECTOR] = COUNTED
        return {STEPS: counts.reshape(devices, -1)}

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        """Return the noisy number of devices of each group: the steps themselves are no number to show."""
        devices = sums[STEPS].values.reshape(-1, CELLS)[:, VECTOR] / COUNTED
        sd = sums[STEPS].variance ** 0.5 / COUNTED
        return _counts(devices, sd, reading, shown_devices(devices, sd, reading.min_cohort, "moments"))

    def device_counts(
        self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds
    ) -> tuple[FloatArray, float] | None:
        counted = sums[STEPS].values.reshape(-1, CELLS)[:, VECTOR] / COUNTED
        return counted, sums[STEPS].variance / COUNTED**2

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        cell = np.zeros(CELLS)
        cell[VECTOR] = COUNTED * devices / shape.cells
        return {STEPS: np.tile(cell, shape.cells)}


class NormHistogram(_Moments):
    """How many devices have a vector of which length, in half octaves: what a clip is chosen by."""

    question: ClassVar[str] = "How far do devices lie from the public centre?"

    kind: Literal["norm_histogram"] = "norm_histogram"

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        return (Part("bins", shape.cells * BINS, 1, 1, 1),)

    def _values(self, vectors: FloatArray) -> dict[str, Int64Array]:
        norms = np.linalg.norm(vectors, axis=1)
        return {"bin": np.searchsorted(bin_edges(), norms, side="right").astype(np.int64)}

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        unit = units["units"]
        counts = np.zeros((devices, shape.cells, BINS), np.int64)
        counts[unit.device, cell_of(unit), unit.values["bin"]] = 1
        return {"bins": counts.reshape(devices, -1)}

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        counts, sd = sums["bins"].values.reshape(-1, BINS), sums["bins"].variance ** 0.5
        devices = counts.sum(axis=1)
        passes, reason = shown_devices(devices, sd * BINS**0.5, reading.min_cohort, "moments")
        found = _counts(counts, sd, reading, (passes[:, None], reason))
        edges = [0.0, *bin_edges().tolist()]
        labels = tuple((("norm", f"{edge:.3g} and up"),) for edge in edges)
        return Result(found.numbers, devices, sd * BINS**0.5, found.variance_source[:, 0], labels)

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        return {"bins": np.full(shape.cells * BINS, devices / shape.cells / BINS)}


def _counts(devices: FloatArray, sd: float, reading: Reading, refusal: Refusal) -> Result:
    """Return noisy counts of devices as numbers, with the interval of the noise alone: they are a census of
    those that took part."""
    near = normal_quantile(reading.level) * sd
    wide = normal_quantile(simultaneous_level(reading.level, devices.size)) * sd
    noise_sd = np.full(devices.shape, sd)
    numbers = assemble(
        point=devices,
        bounds=(devices - near, devices + near),
        simultaneous=(devices - wide, devices + wide),
        noise=(devices - near, devices + near),
        denominator=devices,
        noise_sd=noise_sd,
        display=(0.0, 1.0, 0.0, float("inf")),
        refusals=(refusal,),
    )
    return Result(numbers, devices, sd, np.full(devices.shape, "", dtype=object))
