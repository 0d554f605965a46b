"""Base of `histogram` and `confusion`: rows by columns of counts, read as shares of their row."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fa_core.metrics.centred import ALIKE
from fa_core.metrics.intervals import convolved_quantile, simultaneous_level
from fa_core.metrics.kind import (
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
from fa_core.metrics.multinomial import dispersion, second_moments, shares, source_text
from fa_core.metrics.reading import assemble, shown_devices


class TableOfShares(MetricSpec):
    """Each sampled event adds one to a (row, column) cell of its group; a unit carries `cell`."""

    row_axis: ClassVar[str] = "row"
    column_axis: ClassVar[str] = "column"

    def row_labels(self) -> tuple[str, ...]:
        """Return the rows, `other` included where there is one."""
        raise NotImplementedError

    def column_labels(self) -> tuple[str, ...]:
        """Return the columns, `other` included where there is one."""
        raise NotImplementedError

    def labels(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Return the name of every cell, row by row."""
        return tuple(
            ((self.row_axis, row), (self.column_axis, column))
            for row in self.row_labels()
            for column in self.column_labels()
        )

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        n = bounds.max_events
        rows, cells = len(self.row_labels()), len(self.labels())
        touched = min(shape.touch, n)
        return (
            Part("cells", shape.cells * cells, n, n**2, 12),
            Part("devices", shape.cells, touched, touched, 1),
            Part("cell_squares", shape.cells * rows, n**2, n**4, 2),
            Part("row_squares", shape.cells * rows, n**2, n**4, 1),
        )

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        sampled = units["units"]
        rows, columns = len(self.row_labels()), len(self.column_labels())
        width = rows * columns
        group = sampled.device * shape.cells + cell_of(sampled)
        size = devices * shape.cells * width
        counts = tally(sampled, group * width + sampled.values["cell"], size, "one")
        squares, row_squares = second_moments(counts.reshape(devices, shape.cells * rows, columns))
        per_group = counts.reshape(devices, shape.cells, width).sum(axis=2)
        return {
            "cells": counts.reshape(devices, shape.cells * width),
            "devices": (per_group > 0).astype(np.int64),
            "cell_squares": squares,
            "row_squares": row_squares,
        }

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        columns = len(self.column_labels())
        cells = sums["cells"]
        x = cells.values.reshape(-1, columns)
        n = np.broadcast_to(x.sum(axis=1, keepdims=True), x.shape)
        noise = np.full(columns, cells.variance)
        spread = dispersion(x, n[:, 0], noise, sums["cell_squares"], sums["row_squares"])
        found = shares(x, n, np.ones(x.shape, np.int64), columns, cells, spread)
        near = found.interval(reading.level)
        wide = found.interval(simultaneous_level(reading.level, shape.cells * len(self.labels())))
        noise_sd = found.noise_sd()
        z = float(convolved_quantile(reading.level, np.array(float(cells.laplace))))
        devices, devices_sd = sums["devices"].values, sums["devices"].variance ** 0.5
        passes, reason = shown_devices(devices, devices_sd, reading.min_cohort)
        by_group = (shape.cells, len(self.labels()))

        def grouped(values: FloatArray) -> FloatArray:
            return values.reshape(by_group)

        numbers = assemble(
            point=grouped(found.point),
            bounds=(grouped(near.low), grouped(near.high)),
            simultaneous=(grouped(wide.low), grouped(wide.high)),
            noise=(grouped(found.point - z * noise_sd), grouped(found.point + z * noise_sd)),
            denominator=grouped(n),
            noise_sd=grouped(noise_sd),
            display=(0.0, 1.0, 0.0, 1.0),
            refusals=(
                (passes[:, None], reason),
                (
                    (near.valid & wide.valid).reshape(by_group),
                    "too few events in the row to be distinguished from the privacy noise",
                ),
            ),
        )
        pooled = source_text(spread.pooled, shape.cells)
        return Result(numbers, devices, devices_sd, pooled, self.labels())

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        rows, columns = len(self.row_labels()), len(self.column_labels())
        here, units = shape.spread(devices, min(events, float(bounds.max_events)))
        each = units / rows
        alike = 1.0 + max(each - 1.0, 0.0) / (ALIKE + 1.0)
        q = 1.0 / columns
        row_squares = here * each**2
        return {
            "cells": np.full(shape.cells * rows * columns, here * each / columns),
            "devices": np.full(shape.cells, here),
            "cell_squares": np.full(shape.cells * rows, alike * here * each * (1.0 - q) + q * row_squares),
            "row_squares": np.full(shape.cells * rows, row_squares),
        }
