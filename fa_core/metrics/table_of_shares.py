"""Base of `histogram` and `confusion`: rows by columns of counts, read as shares of their row.

Under a zCDP ledger a device sends, for each cell, one integer map of its count and its row's; each share is
then read with a variance of its own, and the groupings of a metric are estimated together. Under a pure
ledger, and in plans of before, it sends counts and squares in blocks, and a row has one dispersion.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from fa_core.arrays import np
from fa_core.constraints import Constraints, Forms, constants, stacked
from fa_core.errors import BadInput
from fa_core.metrics.centred import ALIKE
from fa_core.metrics.feasible import sized
from fa_core.metrics.intervals import convolved_quantile, normal_quantile, simultaneous_level
from fa_core.metrics.joint import MOST_PAIRS
from fa_core.metrics.joint_shares import CELL, CellSums, X, mapped, matrix, norms, pairs, unmapped
from fa_core.metrics.kind import (
    PRESENT,
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
    TooMuch,
    Units,
    Written,
    of_events,
    tally,
)
from fa_core.metrics.moments import Ratio
from fa_core.metrics.multinomial import dispersion, second_moments, shares, source_text
from fa_core.metrics.nested import Cut, consistent, consistent_blocks, inside
from fa_core.metrics.reading import assemble, shown_devices

PART: Final = "joint"


class TableOfShares(MetricSpec):
    """Each sampled event adds one to a (row, column) cell of its group; a unit carries `cell`."""

    written: ClassVar[Written] = "share"
    row_axis: ClassVar[str] = "row"
    column_axis: ClassVar[str] = "column"

    def row_labels(self) -> tuple[str, ...]:
        """Return the rows, `other` included where there is one."""
        raise NotImplementedError

    def column_labels(self) -> tuple[str, ...]:
        """Return the columns, `other` included where there is one."""
        raise NotImplementedError

    def estimand(self, bounds: Bounds) -> str:
        return of_events(bounds)

    def one_device(self, bounds: Bounds, number: float, denominator: float) -> float | None:
        rest = denominator - bounds.max_events
        return min(bounds.max_events * max(number, 1 - number) / rest, 1.0) if rest > 0 else 1.0

    def labels(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Return the name of every cell, row by row."""
        return tuple(
            ((self.row_axis, row), (self.column_axis, column))
            for row in self.row_labels()
            for column in self.column_labels()
        )

    def too_much(self, bounds: Bounds) -> TooMuch | None:
        if bounds.counters != "joint" or pairs(bounds.max_events) <= MOST_PAIRS:
            return None
        found = (
            f"with this a device can have any of {pairs(bounds.max_events):,} counts in a cell and its row"
        )
        return TooMuch("max_events", found, f"lower it until there are at most {MOST_PAIRS:,} to try")

    def width(self, shape: Shape, bounds: Bounds) -> int:
        joint = shape.cells * (CELL * len(self.labels()) + 1)
        return joint if bounds.counters == "joint" else super().width(shape, bounds)

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        n = bounds.max_events
        rows, cells = len(self.row_labels()), len(self.labels())
        touched = min(shape.touch, n)
        if bounds.counters == "joint":
            most = norms(n)
            return (
                Part(PART, shape.cells * cells * CELL, most.l1, most.l2_squared, 15, most.linf),
                Part("devices", shape.cells, touched, touched, 1),
            )
        return (
            Part("cells", shape.cells * cells, n, n**2, 12),
            Part("devices", shape.cells, touched, touched, 1),
            Part("cell_squares", shape.cells * rows, n**2, n**4, 2),
            Part("row_squares", shape.cells * rows, n**2, n**4, 1),
        )

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        counts = self.tallies(units, cell_of, shape, bounds, devices)["x"]
        rows, columns = counts.shape[2:]
        by_row = counts.reshape(devices, shape.cells * rows, columns)
        present = (counts.sum(axis=(2, 3)) > 0).astype(np.int64)
        if bounds.counters == "joint":
            sent = mapped(bounds.max_events, by_row, by_row.sum(axis=2, keepdims=True))
            return {PART: sent.reshape(devices, -1), "devices": present}
        squares, row_squares = second_moments(by_row)
        return {
            "cells": counts.reshape(devices, -1),
            "devices": present,
            "cell_squares": squares,
            "row_squares": row_squares,
        }

    def tallies(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        sampled = units["units"]
        table = shape.cells, len(self.row_labels()), len(self.column_labels())
        width = len(self.labels())
        group = sampled.device * shape.cells + cell_of(sampled)
        counts = tally(sampled, group * width + sampled.values["cell"], devices * shape.cells * width, "one")
        return {"x": counts.reshape(devices, *table)}

    def prove(self, constraints: Constraints, groups: int, bounds: Bounds) -> dict[str, Forms]:
        if bounds.counters is None:
            raise BadInput("plans without `counters`, of before, are not summed by two aggregators")
        most, rows, columns = bounds.max_events, len(self.row_labels()), len(self.column_labels())
        counted = constraints.input("x", (groups, rows, columns))
        x = constraints.number(counted, most)
        present = constraints.present(counted.sum().sum())
        n = x.sum()
        sized(constraints, n.sum(), present, most)
        if groups > 1:
            constraints.require_range(constants(most) - n.sum().sum(), most)
        row_n = n.reshape(groups, rows, 1)
        return {
            PRESENT: present,
            "x": x,
            "xn": constraints.product(x, row_n),
            "xx": constraints.product(x, x),
        }

    def vector(self, proved: Mapping[str, Forms], shape: Shape, bounds: Bounds) -> dict[str, Forms]:
        if bounds.counters == "joint":
            u = stacked([proved["x"], proved["xn"], proved["xx"]])
            return {PART: u.apply(np.array(matrix(bounds.max_events), np.int64)), "devices": proved[PRESENT]}
        return {
            "cells": proved["x"],
            "devices": proved[PRESENT],
            "cell_squares": proved["xx"].sum(),
            "row_squares": proved["xn"].sum(),
        }

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        if bounds.counters == "joint":
            return self.estimates([(shape, sums)], bounds, reading)[0]
        columns = len(self.column_labels())
        cells = sums["cells"]
        x = cells.values.reshape(-1, columns)
        n = np.broadcast_to(x.sum(axis=1, keepdims=True), x.shape)
        noise = np.full(columns, cells.variance)
        own = bounds.counters is not None
        spread = dispersion(x, n[:, 0], noise, sums["cell_squares"], sums["row_squares"], own=own)
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

    def estimates(
        self, cuts: Sequence[tuple[Shape, Mapping[str, PartSum]]], bounds: Bounds, reading: Reading
    ) -> list[Result]:
        if bounds.counters != "joint":
            return [self.estimate(sums, shape, bounds, reading) for shape, sums in cuts]
        axis = inside(len(self.labels()))
        cells = []
        for shape, sums in cuts:
            found = unmapped(bounds.max_events, sums[PART].values, sums[PART].variance)
            cells.append(Cut((*shape.axes, axis), found.values, found.covariance))
        devices = consistent_blocks([(shape, {"devices": sums["devices"]}) for shape, sums in cuts], ())
        return [
            self._result(CellSums(found.values, found.covariance), there["devices"], reading)
            for found, there in zip(consistent(cells, (X,)), devices, strict=True)
        ]

    def _result(self, cells: CellSums, there: PartSum, reading: Reading) -> Result:
        """Return the numbers of one grouping from its joint counters and its noisy counts of devices."""
        ratio = Ratio(cells.moments(len(self.column_labels())), 0.0, 1.0, lambda n, p: n * p * (1.0 - p))
        together = simultaneous_level(reading.level, len(cells.values))
        devices, devices_sd = there.values, there.variance**0.5
        measured = self._measured(ratio, devices, normal_quantile(together))
        (low, high), (wide_low, wide_high) = ratio.where(measured, reading.level, together)
        noise_sd = ratio.noise_sd()
        around = normal_quantile(reading.level) * noise_sd
        passes, reason = shown_devices(devices, devices_sd, reading.min_cohort)
        by_group = (len(devices), len(self.labels()))

        def grouped(values: FloatArray) -> FloatArray:
            return values.reshape(by_group)

        numbers = assemble(
            point=grouped(ratio.point),
            bounds=(grouped(low), grouped(high)),
            simultaneous=(grouped(wide_low), grouped(wide_high)),
            noise=(grouped(ratio.point - around), grouped(ratio.point + around)),
            denominator=grouped(ratio.n),
            noise_sd=grouped(noise_sd),
            display=(0.0, 1.0, 0.0, 1.0),
            refusals=(
                (passes[:, None], reason),
                (
                    ratio.possible.reshape(by_group),
                    "the sum lies outside the possible range, further than its noise explains",
                ),
                (
                    measured.reshape(by_group),
                    "too few events in the row to be distinguished from the privacy noise",
                ),
            ),
        )
        return Result(
            numbers, devices, devices_sd, np.full(len(devices), "group", dtype=object), self.labels()
        )

    def _measured(self, ratio: Ratio, devices: FloatArray, z: float) -> BoolArray:
        """Return whether the size of each cell's row exceeds its noise, (K·rows·columns,).

        A row that were shown because its own noise was lucky would be shown with the wrong shares. So what
        counts is the size that the group's devices lead to expect, from the row's events for each device over
        all groups; or else, where a group is like no other, its own size twice as far from nothing. A cell of
        such a row may well be anything, and its interval then is all that is possible.
        """
        rows, columns = len(self.row_labels()), len(self.column_labels())
        size = ratio.n.reshape(-1, rows, columns)[:, :, 0]
        typical = devices[:, None] * size.sum(axis=0) / max(float(devices.sum()), 1.0)
        least = z * ratio.n_sd
        return np.repeat((size > 0) & ((typical > least) | (size > 2 * least)), columns)

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        rows, columns = len(self.row_labels()), len(self.column_labels())
        here, units = shape.spread(devices, min(events, float(bounds.max_events)))
        each = units / rows
        alike = 1.0 + max(each - 1.0, 0.0) / (ALIKE + 1.0)
        q = 1.0 / columns
        row_squares = here * each**2
        cell_squares = alike * here * each * (1.0 - q) + q * row_squares
        if bounds.counters == "joint":
            cell = np.array([here * each, row_squares, cell_squares]) / columns
            sent = np.array(matrix(bounds.max_events)) @ cell
            return {
                PART: np.tile(sent, shape.cells * rows * columns),
                "devices": np.full(shape.cells, here),
            }
        return {
            "cells": np.full(shape.cells * rows * columns, here * each / columns),
            "devices": np.full(shape.cells, here),
            "cell_squares": np.full(shape.cells * rows, cell_squares),
            "row_squares": np.full(shape.cells * rows, row_squares),
        }
