"""`ratio`: one counted column over another, where the first may exceed the second (word error rate)."""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Final, Literal

from pydantic import Field, StrictInt, field_validator

from fa_core.arrays import np
from fa_core.metrics.centred import Centred, Limits
from fa_core.metrics.feasible import Pairs
from fa_core.metrics.filters import Exact, Filter
from fa_core.metrics.kind import (
    Bounds,
    FieldUse,
    FloatArray,
    Int64Array,
    Units,
    Written,
    of_events,
    rational,
    register,
)
from fa_core.metrics.rows import View

LARGEST: Final = 2**40
"""Larger values count as this: a product with a bound still fits 64 bits."""

TYPICAL: Final = 8.0
"""Guessed size of an event, for previews."""


@register
class Ratio(Centred):
    """Σ `of` / Σ `over` over sampled events, both columns bounded per event. Variance is empirical.

    An event over either bound is scaled down as a whole, both columns by one factor min(1, max_of/of,
    max_over/over), so that 3 errors in 30 words stay a tenth. What is not whole after it is rounded up or
    down at random, with the right expectation. The ratio is then of events that weigh at most so much.
    Plans without `counters`, of before, clip each column by itself.
    """

    caps: ClassVar[tuple[tuple[str, ...], ...]] = (("max_of", "max_over"),)
    question: ClassVar[str] = "How much of one thing for each of another?"
    written: ClassVar[Written] = "ratio"

    kind: Literal["ratio"] = "ratio"
    of: str = Field(description="The column that is summed above the line, such as word_errors.")
    over: str = Field(description="The column that is summed below the line, such as words.")
    expect: Exact = Field(
        default=Fraction(1, 10),
        description="A public guess of the ratio, at least 0; only the width depends on it.",
    )
    max_of: StrictInt = Field(
        default=32, ge=1, le=10_000, description="Most that one event may weigh above the line."
    )
    max_over: StrictInt = Field(
        default=32, ge=1, le=10_000, description="Most that one event may add below it."
    )

    @field_validator("expect")
    @classmethod
    def _not_negative(cls, value: Fraction) -> Fraction:
        if not 0 <= value <= 1000:
            raise ValueError("expected a ratio of at least 0 and at most 1000")
        return value

    def fields(self) -> tuple[FieldUse, ...]:
        assert self.source is not None
        return (
            FieldUse(self.source, self.of, "of", ("integer",)),
            FieldUse(self.source, self.over, "over", ("integer",)),
        )

    def centre(self) -> tuple[int, int]:
        return rational(self.expect)

    def limits(self, bounds: Bounds) -> Limits:
        a, b = self.centre()
        per_event = max(b * self.max_of, a * self.max_over)
        n = bounds.max_events
        return Limits(excess=n * per_event, below=n * a * self.max_over, size=n * self.max_over, units=n)

    def pairs(self, bounds: Bounds) -> Pairs:
        return Pairs(bounds.max_events, self.max_over, self.max_of, apart=True)

    def display(self) -> tuple[float, float, float, float]:
        return 0.0, 1.0, 0.0, float("inf")

    def unit(self) -> str:
        return f"{self.of} per {self.over}"

    def denominator(self) -> str:
        return self.over.replace("_", " ")

    def guess_text(self) -> str:
        return f"an event to be {TYPICAL:g} {self.denominator()}"

    def estimand(self, bounds: Bounds) -> str:
        above, below = (name.replace("_", " ") for name in (self.of, self.over))
        limits = f"{self.max_of:,} {above} and {self.max_over:,} {below}"
        if bounds.counters is None:
            return f"{of_events(bounds)}, at most {limits} of each, whatever the other is"
        return f"{of_events(bounds)}, each scaled down as a whole to at most {limits}"

    def unit_size(self, bounds: Bounds) -> float:
        return min(TYPICAL, float(self.max_over))

    def guess(self, n: FloatArray) -> FloatArray:
        return n * max(float(self.expect), 0.01)

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        above, below = rows.numbers(self.of), rows.numbers(self.over)
        known = ~(np.isnan(above) | np.isnan(below))
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & known)
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        count, size = (np.clip(each[index], 0, LARGEST).astype(np.int64) for each in (above, below))
        if bounds.counters is None:
            count, size = np.minimum(count, self.max_of), np.minimum(size, self.max_over)
        else:
            count, size = self._scaled(view, rows.device[index], count, size)
        values = {"count": count, "size": size}
        return {"units": Units(rows, index, rows.device[index], values)}

    def _scaled(
        self, view: View, device: Int64Array, count: Int64Array, size: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """Return both columns of each event, scaled down by one factor where either is over its bound."""
        by_size = (size > self.max_over) & (size * self.max_of >= count * self.max_over)
        by_count = (count > self.max_of) & ~by_size
        ones = np.ones_like(size)
        scaled_count = view.round_at_random(
            "scale", device, np.where(by_size, count * self.max_over, count), np.where(by_size, size, ones)
        )
        scaled_size = view.round_at_random(
            "scale size",
            device,
            np.where(by_count, size * self.max_of, size),
            np.where(by_count, count, ones),
        )
        return (
            np.where(by_count, self.max_of, scaled_count),
            np.where(by_size, self.max_over, scaled_size),
        )
