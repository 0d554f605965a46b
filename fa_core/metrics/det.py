"""`det`: the detection error trade-off, false rejects against false accepts per hour by threshold.

A device sends the score histogram of what should have fired and, from a sample of hours with their
events, the histogram of what should not have, and the minutes listened. Every threshold's two rates
are tails of those histograms (Martin et al. 1997, with the false accepts per hour of keyword
spotting on the other axis).
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar, Final, Literal

from pydantic import Field, StrictInt

from fa_core.arrays import TextArray, np
from fa_core.constraints import Constraints, Forms, constants
from fa_core.errors import BadInput
from fa_core.metrics.centred import ALIKE
from fa_core.metrics.feasible import SIZED, sized
from fa_core.metrics.filters import Condition, Filter
from fa_core.metrics.histogram import Bins
from fa_core.metrics.intervals import (
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
    FieldUse,
    FloatArray,
    Int64Array,
    MetricSpec,
    Numbers,
    Part,
    PartSum,
    Reading,
    Result,
    Shape,
    Units,
    Written,
    many,
    of_events,
    register,
    tally,
)
from fa_core.metrics.listening import MINUTES, hour_of_events, minutes_of, sample_hours
from fa_core.metrics.moments import NN, NR, RR, Moments, N, R, Ratio
from fa_core.metrics.multinomial import dispersion, shares, source_text
from fa_core.metrics.nested import consistent_blocks
from fa_core.metrics.reading import Refusal, assemble, shown_devices
from fa_core.metrics.rows import View
from fa_core.tables import LISTENING, WAKE_EVENTS

POSITIVE: Final[Filter] = {"outcome": Condition(any_of=("true_accept", "false_reject"))}
NEGATIVE: Final[Filter] = {"outcome": Condition(any_of=("false_accept", "true_reject"))}
REJECTS: Final = "false_reject_rate"
ACCEPTS: Final = "false_accepts_per_hour"
TOO_FEW: Final = "too few events to be distinguished from the privacy noise"
TOO_SHORT: Final = "too few hours to be distinguished from the privacy noise"
SHARED: Final = ("positives", "negatives", "minutes")
"""The parts that add up over columns of events too."""


@register
class Det(MetricSpec):
    """False reject rate and false accepts per hour at every threshold between two bins of the score.

    The bands are simultaneous over thresholds, both axes and all groups of a grouping.
    """

    sources: ClassVar[tuple[str, ...]] = ("wake_events",)
    companions: ClassVar[tuple[str, ...]] = (LISTENING.name,)
    caps: ClassVar[tuple[tuple[str, ...], ...]] = (("max_hours",),)
    question: ClassVar[str] = "What would another threshold cost, in misses and in false wakes?"
    written: ClassVar[Written] = "share"

    kind: Literal["det"] = "det"
    field: str = Field(default="score", description="The score column.")
    edges: Bins = Field(
        default=Bins(low=Fraction(0), high=Fraction(1), bins=20),
        description="Public bins of the score; thresholds are the edges between them.",
    )
    positive: Filter = Field(default=POSITIVE, description="Events that should have fired.")
    negative: Filter = Field(default=NEGATIVE, description="Events that should not have fired.")
    max_hours: StrictInt = Field(default=24, ge=1, le=1000, description="Hours that one device may weigh.")
    max_per_hour: StrictInt = Field(
        default=4, ge=1, le=1000, description="False fires counted in one of them."
    )

    def fields(self) -> tuple[FieldUse, ...]:
        return (FieldUse(WAKE_EVENTS.name, self.field, "field", ("number",)),)

    def conditions(self) -> tuple[tuple[str, Filter], ...]:
        return ("where", self.where), ("positive", self.positive), ("negative", self.negative)

    def guess_text(self) -> str:
        return f"every device to listen in {many(self.max_hours, 'hour')} or more"

    def estimand(self, bounds: Bounds) -> str:
        return (
            f"{of_events(bounds)}, and of at most {many(self.max_hours, 'hour')} a device with at most "
            f"{many(self.max_per_hour, 'false accept')} in each"
        )

    def segment_source(self) -> str:
        return LISTENING.name

    def thresholds(self) -> tuple[Fraction, ...]:
        """Return the edges between the bins, ascending."""
        edges = self.edges
        width = (edges.high - edges.low) / edges.bins
        return tuple(edges.low + place * width for place in range(1, edges.bins))

    def labels(self) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Return the name of every number: both axes of each threshold."""
        thresholds = [label.split(" to ")[1] for label in self.edges.labels()[:-1]]
        return tuple(
            (("axis", axis), ("threshold", edge)) for axis in (REJECTS, ACCEPTS) for edge in thresholds
        )

    def parts(self, shape: Shape, bounds: Bounds) -> tuple[Part, ...]:
        n, bins, cells = bounds.max_events, self.edges.bins, shape.cells
        fires, minutes = self.max_hours * self.max_per_hour, self.max_hours * MINUTES
        touched, thresholds = min(shape.touch, n), bins - 1
        if bounds.counters == "joint":
            return (
                Part("positives", cells * bins, n, n**2, 6),
                Part("negatives", cells * bins, fires, fires**2, 6),
                Part("minutes", cells, minutes, minutes**2, 2),
                Part("devices", cells, touched, touched, 1),
                Part("miss_squares", cells * thresholds, thresholds * n**2, thresholds * n**4, 1, n**2),
                Part("miss_sizes", cells * bins, n**2, n**4, 1),
                Part(
                    "fire_squares",
                    cells * thresholds,
                    thresholds * fires**2,
                    thresholds * fires**4,
                    1,
                    fires**2,
                ),
                Part("fire_minutes", cells * bins, fires * minutes, (fires * minutes) ** 2, 1),
                Part("minute_squares", cells, minutes**2, minutes**4, 1),
            )
        return (
            Part("positives", cells * bins, n, n**2, 6),
            Part("negatives", cells * bins, fires, fires**2, 6),
            Part("minutes", cells, minutes, minutes**2, 2),
            Part("devices", cells, touched, touched, 1),
            Part("miss_squares", cells, thresholds * n**2, thresholds**2 * n**4, 1),
            Part("row_squares", cells, n**2, n**4, 1),
            Part("fire_squares", cells, thresholds * fires**2, thresholds**2 * fires**4, 1),
            Part("fire_minutes", cells * bins, fires * minutes, (fires * minutes) ** 2, 1),
            Part("minute_squares", cells, minutes**2, minutes**4, 1),
        )

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        events = view.rows(WAKE_EVENTS.name)
        known = ~np.isnan(events.numbers(self.field))
        bins = events.bins(self.field, self.edges.inner())
        candidates = np.flatnonzero(
            events.mask(where) & events.mask(self.where) & events.mask(self.positive) & known
        )
        index = candidates[view.sample("events", events.device[candidates], bounds.max_events)]
        hours, sampled = sample_hours(view, where, self.where, self.max_hours)
        fired, position = hour_of_events(view, hours, sampled, WAKE_EVENTS.name, self.negative)
        fired, position = fired[known[fired]], position[known[fired]]
        order = np.argsort(position, kind="stable")
        fired, position = fired[order], position[order]
        device = hours.device[sampled[position]]
        kept = view.sample("fires", device, self.max_per_hour, group=position)
        fired, at = fired[kept], sampled[position[kept]]
        ones = np.ones(len(index), np.int64)
        return {
            "positives": Units(events, index, events.device[index], {"cell": bins[index], "one": ones}),
            "negatives": Units(
                hours, at, hours.device[at], {"cell": bins[fired], "one": np.ones(len(at), np.int64)}
            ),
            "hours": Units(hours, sampled, hours.device[sampled], {"minutes": minutes_of(hours, sampled)}),
        }

    def count(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        tallies = self.tallies(units, cell_of, shape, bounds, devices)
        positives, negatives, minutes = tallies["positives"], tallies["negatives"], tallies["minutes"]
        missed = np.cumsum(positives, axis=2)[:, :, :-1]
        fired = np.cumsum(negatives[:, :, ::-1], axis=2)[:, :, :-1]
        size = positives.sum(axis=2)
        counts = {
            "positives": positives.reshape(devices, -1),
            "negatives": negatives.reshape(devices, -1),
            "minutes": minutes,
            "devices": (size > 0).astype(np.int64),
            "fire_minutes": (negatives * minutes[:, :, None]).reshape(devices, -1),
            "minute_squares": minutes * minutes,
        }
        if bounds.counters == "joint":
            return counts | {
                "miss_squares": (missed * missed).reshape(devices, -1),
                "miss_sizes": (positives * size[:, :, None]).reshape(devices, -1),
                "fire_squares": (fired * fired)[:, :, ::-1].reshape(devices, -1),
            }
        return counts | {
            "miss_squares": (missed * missed).sum(axis=2),
            "row_squares": size**2,
            "fire_squares": (fired * fired).sum(axis=2),
        }

    def tallies(
        self, units: Mapping[str, Units], cell_of: CellOf, shape: Shape, bounds: Bounds, devices: int
    ) -> dict[str, Int64Array]:
        bins = self.edges.bins

        def histogram(name: str) -> Int64Array:
            sampled = units[name]
            key = (sampled.device * shape.cells + cell_of(sampled)) * bins + sampled.values["cell"]
            counts = tally(sampled, key, devices * shape.cells * bins, "one")
            return counts.reshape(devices, shape.cells, bins)

        hours = units["hours"]
        key = hours.device * shape.cells + cell_of(hours)
        minutes = tally(hours, key, devices * shape.cells, "minutes").reshape(devices, shape.cells)
        negatives = histogram("negatives")
        fires = -(-negatives.sum(axis=2) // self.max_per_hour)
        return {
            "positives": histogram("positives"),
            "negatives": negatives,
            "minutes": minutes,
            "units": np.maximum(fires, -(-minutes // MINUTES)),
        }

    def prove(self, constraints: Constraints, groups: int, bounds: Bounds) -> dict[str, Forms]:
        if bounds.counters is None:
            raise BadInput("plans without `counters`, of before, are not summed by two aggregators")
        bins, most = self.edges.bins, bounds.max_events
        fires, longest = self.max_hours * self.max_per_hour, self.max_hours * MINUTES
        events = constraints.input("positives", (groups, bins))
        positives = constraints.number(events, most)
        present = constraints.present(events.sum())
        size = positives.sum()
        sized(constraints, size, present, most)
        negatives = constraints.number(constraints.input("negatives", (groups, bins)), fires)
        minutes = constraints.number(constraints.input("minutes", (groups,)), longest)
        if groups == 1:
            constraints.require_range(constants(fires) - negatives.sum(), fires)
        else:
            constraints.require_range(constants(most) - size.sum(), most)
            hours = constraints.number(constraints.input("units", (groups,)), self.max_hours)
            constraints.require_range(hours * self.max_per_hour - negatives.sum(), fires)
            constraints.require_range(hours * MINUTES - minutes, longest)
            constraints.require_range(constants(self.max_hours) - hours.sum(), self.max_hours)
        below = np.tri(bins, dtype=np.int64)[:-1]
        missed, fired = positives.apply(below), negatives.apply(1 - below)
        return {
            SIZED: present,
            "positives": positives,
            "negatives": negatives,
            "minutes": minutes,
            "miss_squares": constraints.product(missed, missed),
            "miss_sizes": constraints.product(positives, size.reshape(groups, 1)),
            "fire_squares": constraints.product(fired, fired),
            "fire_minutes": constraints.product(negatives, minutes.reshape(groups, 1)),
            "minute_squares": constraints.product(minutes, minutes),
        }

    def vector(self, proved: Mapping[str, Forms], shape: Shape, bounds: Bounds) -> dict[str, Forms]:
        found = {name: forms for name, forms in proved.items() if name != SIZED}
        found["devices"] = proved[SIZED]
        if bounds.counters != "joint":
            found["miss_squares"] = found["miss_squares"].sum()
            found["fire_squares"] = found["fire_squares"].sum()
            found["row_squares"] = found.pop("miss_sizes").sum()
        return found

    def estimates(
        self, cuts: Sequence[tuple[Shape, Mapping[str, PartSum]]], bounds: Bounds, reading: Reading
    ) -> list[Result]:
        if bounds.counters == "joint":
            agreed = consistent_blocks(cuts, SHARED)
            cuts = [(shape, sums) for (shape, _), sums in zip(cuts, agreed, strict=True)]
        return [self.estimate(sums, shape, bounds, reading) for shape, sums in cuts]

    def estimate(self, sums: Mapping[str, PartSum], shape: Shape, bounds: Bounds, reading: Reading) -> Result:
        devices, devices_sd = sums["devices"].values, sums["devices"].variance ** 0.5
        passes, reason = shown_devices(devices, devices_sd, reading.min_cohort)
        cohort = (passes[:, None], reason)
        together = simultaneous_level(reading.level, shape.cells * len(self.labels()))
        if bounds.counters == "joint":
            levels = (reading.level, together)
            rejects = _numbers(self._missed(sums), shape.cells, levels, (0.0, 1.0, 0.0, 1.0), cohort, TOO_FEW)
            hourly = (0.0, float(MINUTES), 0.0, float("inf"))
            accepts = _numbers(self._fired(sums), shape.cells, levels, hourly, cohort, TOO_SHORT)
            pooled = np.full(shape.cells, "group", dtype=object)
        else:
            own = bounds.counters is not None
            rejects, pooled = self._rejects(sums, shape, reading.level, together, cohort, own=own)
            accepts = self._accepts(sums, shape, reading.level, together, cohort, own=own)
        both = Numbers(
            **{
                name: np.concatenate((getattr(rejects, name), getattr(accepts, name)), axis=1)
                for name in Numbers.__dataclass_fields__
            }
        )
        return Result(both, devices, devices_sd, pooled, self.labels())

    def _missed(self, sums: Mapping[str, PartSum]) -> Ratio:
        """Return the share of positives under each threshold; noise of tails is shared with their size."""
        bins, x, sizes = self.edges.bins, sums["positives"], sums["miss_sizes"]
        below, with_size = (np.cumsum(part.values.reshape(-1, bins), axis=1) for part in (x, sizes))
        squares = sums["miss_squares"]
        covariance = np.zeros((bins - 1, 6, 6))
        for k, each in enumerate(covariance, start=1):
            each[np.ix_((N, R), (N, R))] = x.variance * np.array([[bins, k], [k, k]])
            each[np.ix_((NN, NR), (NN, NR))] = sizes.variance * np.array([[bins, k], [k, k]])
            each[RR, RR] = squares.variance
        values = _six(
            below[:, -1:], below[:, :-1], with_size[:, -1:], with_size[:, :-1], squares.values, bins - 1
        )
        moments = Moments(values, np.tile(covariance, (len(below), 1, 1)))
        return Ratio(moments, 0.0, 1.0, lambda n, p: n * p * (1.0 - p))

    def _fired(self, sums: Mapping[str, PartSum]) -> Ratio:
        """Return the false fires a minute at or over each threshold."""
        bins, x, with_size = self.edges.bins, sums["negatives"], sums["fire_minutes"]
        above, crossed = (
            np.cumsum(part.values.reshape(-1, bins)[:, ::-1], axis=1)[:, ::-1] for part in (x, with_size)
        )
        minutes, minute_squares, squares = (
            sums[name] for name in ("minutes", "minute_squares", "fire_squares")
        )
        covariance = np.zeros((bins - 1, 6, 6))
        for k, each in enumerate(covariance, start=1):
            each[N, N], each[NN, NN], each[RR, RR] = (
                part.variance for part in (minutes, minute_squares, squares)
            )
            each[R, R], each[NR, NR] = ((bins - k) * part.variance for part in (x, with_size))
        values = _six(
            minutes.values[:, None], above[:, 1:], minute_squares.values[:, None], crossed[:, 1:],
            squares.values, bins - 1,
        )  # fmt: skip
        moments = Moments(values, np.tile(covariance, (len(above), 1, 1)))
        return Ratio(moments, 0.0, self.max_per_hour, lambda n, p: n * p)

    def _rejects(
        self,
        sums: Mapping[str, PartSum],
        shape: Shape,
        level: float,
        together: float,
        cohort: Refusal,
        *,
        own: bool,
    ) -> tuple[Numbers, TextArray]:
        """Return the share of positives whose score is under each threshold, (K, thresholds)."""
        bins, part = self.edges.bins, sums["positives"]
        x = part.values.reshape(shape.cells, bins)
        below = np.cumsum(x, axis=1)[:, :-1]
        n = np.broadcast_to(x.sum(axis=1, keepdims=True), below.shape)
        k = np.broadcast_to(np.arange(1, bins), below.shape)
        noise = part.variance * np.arange(1.0, bins)
        spread = dispersion(below, n[:, 0], noise, sums["miss_squares"], sums["row_squares"], own=own)
        found = shares(below, n, k, bins, part, spread)
        near, wide, noise_sd = found.interval(level), found.interval(together), found.noise_sd()
        z = float(convolved_quantile(level, np.array(float(part.laplace))))
        numbers = assemble(
            point=found.point,
            bounds=(near.low, near.high),
            simultaneous=(wide.low, wide.high),
            noise=(found.point - z * noise_sd, found.point + z * noise_sd),
            denominator=n,
            noise_sd=noise_sd,
            display=(0.0, 1.0, 0.0, 1.0),
            refusals=(cohort, (near.valid & wide.valid, TOO_FEW)),
        )
        return numbers, source_text(spread.pooled, shape.cells)

    def _accepts(
        self,
        sums: Mapping[str, PartSum],
        shape: Shape,
        level: float,
        together: float,
        cohort: Refusal,
        *,
        own: bool,
    ) -> Numbers:
        """Return false fires an hour at or over each threshold, (K, thresholds).

        The sampling variance Σᵢ(fᵢ − λmᵢ)² of fires f at rate λ over minutes m is measured as its sum over
        the thresholds. What it is above Poisson's n·λ goes with λ², as where each device's rate is its own.
        """
        bins, part = self.edges.bins, sums["negatives"]
        x = part.values.reshape(shape.cells, bins)
        above = np.cumsum(x[:, ::-1], axis=1)[:, ::-1][:, 1:]
        minutes = sums["minutes"].values
        n = np.maximum(minutes, 1.0)[:, None]
        per_minute = above / n
        noise = part.variance * np.broadcast_to(np.arange(bins - 1, 0, -1.0), above.shape)
        noise_n = np.full(above.shape, sums["minutes"].variance)
        total = noise + np.maximum(per_minute, 0.0) ** 2 * noise_n
        rate = np.maximum(per_minute, 1.0 / n)
        extra, extra_sd = self._fire_spread(sums, rate, n, own=own)
        phi = 1.0 + extra / (n * rate)
        spread = phi * n
        shown = total + spread * rate
        laplace = total / shown if part.laplace else np.zeros(above.shape)
        size = np.broadcast_to(minutes[:, None], above.shape)

        def interval(at: float) -> tuple[FloatArray, FloatArray, BoolArray]:
            z = estimated_variance_quantile(convolved_quantile(at, laplace), extra_sd / shown)
            found = wilson_fieller(
                above, size, (noise, spread, noise_n), z, p0=0.0, denominator_sd=np.sqrt(noise_n)
            )
            return found.low, found.high, found.valid

        low, high, valid = interval(level)
        wide_low, wide_high, wide_valid = interval(together)
        noise_sd = np.sqrt(total) / n
        z = convolved_quantile(level, np.full(above.shape, float(part.laplace)))
        return assemble(
            point=per_minute,
            bounds=(low, high),
            simultaneous=(wide_low, wide_high),
            noise=(per_minute - z * noise_sd, per_minute + z * noise_sd),
            denominator=size,
            noise_sd=noise_sd,
            display=(0.0, float(MINUTES), 0.0, float("inf")),
            refusals=(cohort, (valid & wide_valid, TOO_SHORT)),
        )

    def _fire_spread(
        self, sums: Mapping[str, PartSum], rate: FloatArray, n: FloatArray, *, own: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Return the variance of fires above Poisson's, and the sd of the noise in it, (K, thresholds)."""
        squares, cross, minutes = (sums[name] for name in ("fire_squares", "fire_minutes", "minute_squares"))
        rate_squares = (rate**2).sum(axis=1)
        # A bin's fires are over every threshold under it: its minutes count once with the rate of each.
        weight = np.concatenate((np.zeros((len(rate), 1)), np.cumsum(rate, axis=1)), axis=1)
        measured = (
            squares.values
            - 2.0 * (weight * cross.values.reshape(weight.shape)).sum(axis=1)
            + rate_squares * minutes.values
        )
        noise = (
            squares.variance
            + 4.0 * (weight**2).sum(axis=1) * cross.variance
            + rate_squares**2 * minutes.variance
        )
        least = (n * rate).sum(axis=1)
        found = (own_or_more if own else lean_on_others)(measured, np.sqrt(noise), least, least)
        share = rate**2 / rate_squares[:, None]
        return share * (found.value - least)[:, None], share * found.sd[:, None]

    def expected(self, shape: Shape, bounds: Bounds, devices: float, events: float) -> dict[str, FloatArray]:
        bins, cells = self.edges.bins, shape.cells
        here, n = shape.spread(devices, min(events, float(bounds.max_events)))
        hours = float(self.max_hours) / max(1.0, min(shape.touch, self.max_hours))
        fires, minutes = 0.5 * hours, hours * MINUTES
        alike = 1.0 + max(n - 1.0, 0.0) / (ALIKE + 1.0)
        tail = np.arange(1, bins) / bins
        tails, squares = float(tail.sum()), float((tail**2).sum())
        found = {
            "positives": np.full(cells * bins, here * n / bins),
            "negatives": np.full(cells * bins, here * fires / bins),
            "minutes": np.full(cells, here * minutes),
            "devices": np.full(cells, here),
            "miss_squares": np.full(cells, alike * here * n * (tails - squares) + squares * here * n**2),
            "row_squares": np.full(cells, here * n**2),
            "fire_squares": np.full(cells, here * (squares * fires**2 * (1.0 + 1.0 / ALIKE) + tails * fires)),
            "fire_minutes": np.full(cells * bins, here * fires * minutes / bins),
            "minute_squares": np.full(cells, here * minutes**2),
        }
        if bounds.counters != "joint":
            return found
        miss_squares = here * n * (alike * (tail - tail**2) + n * tail**2)
        fire_squares = here * (tail**2 * fires**2 * (1.0 + 1.0 / ALIKE) + tail * fires)
        del found["row_squares"]
        return found | {
            "miss_squares": np.tile(miss_squares, cells),
            "miss_sizes": np.full(cells * bins, here * n**2 / bins),
            "fire_squares": np.tile(fire_squares[::-1], cells),
        }


def _six(
    n: FloatArray, r: FloatArray, nn: FloatArray, nr: FloatArray, rr: FloatArray, thresholds: int
) -> FloatArray:
    """Return sums, each (K, thresholds) or (K, 1), as the values of `Moments`, (K·thresholds, 6)."""
    rr = rr.reshape(-1, thresholds)
    sums = (np.zeros(rr.shape), n, r, nn, nr, rr)
    return np.stack([np.broadcast_to(each, rr.shape).ravel() for each in sums], axis=-1)


def _numbers(
    ratio: Ratio,
    groups: int,
    levels: tuple[float, float],
    display: tuple[float, float, float, float],
    cohort: Refusal,
    too_few: str,
) -> Numbers:
    """Return the numbers of one axis, (K, thresholds); a curve is shown as a whole."""

    def by_group(values: FloatArray) -> FloatArray:
        return values.reshape(groups, -1)

    measured = ratio.n > normal_quantile(levels[1]) * ratio.n_sd
    near, wide = ratio.where(measured, *levels)
    noise_sd = ratio.noise_sd()
    around = normal_quantile(levels[0]) * noise_sd
    return assemble(
        point=by_group(ratio.point),
        bounds=(by_group(near[0]), by_group(near[1])),
        simultaneous=(by_group(wide[0]), by_group(wide[1])),
        noise=(by_group(ratio.point - around), by_group(ratio.point + around)),
        denominator=by_group(ratio.n),
        noise_sd=by_group(noise_sd),
        display=display,
        refusals=(cohort, (measured.reshape(groups, -1), too_few)),
    )
