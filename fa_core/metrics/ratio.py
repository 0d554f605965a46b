"""`ratio`: one counted column over another, where the first may exceed the second (word error rate)."""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field, StrictInt, field_validator

from fa_core.arrays import np
from fa_core.metrics.centred import Centred, Limits
from fa_core.metrics.filters import Exact, Filter
from fa_core.metrics.kind import Bounds, FieldUse, FloatArray, Units, rational, register
from fa_core.metrics.rows import View


@register
class Ratio(Centred):
    """Σ `of` / Σ `over` over sampled events, both columns bounded per event. Variance is empirical."""

    question: ClassVar[str] = "How much of one thing for each of another?"

    kind: Literal["ratio"] = "ratio"
    of: str = Field(description="The column that is summed above the line, such as word_errors.")
    over: str = Field(description="The column that is summed below the line, such as words.")
    expect: Exact = Field(
        default=Fraction(1, 10),
        description="A public guess of the ratio, at least 0; only the width depends on it.",
    )
    max_of: StrictInt = Field(
        default=32, ge=1, le=10_000, description="Most that one event may add above the line."
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

    def display(self) -> tuple[float, float, float, float]:
        return 0.0, 1.0, 0.0, float("inf")

    def unit(self) -> str:
        return f"{self.of} per {self.over}"

    def unit_size(self, bounds: Bounds) -> float:
        return min(8.0, float(self.max_over))

    def guess(self, n: FloatArray) -> FloatArray:
        return n * max(float(self.expect), 0.01)

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        above, below = rows.numbers(self.of), rows.numbers(self.over)
        known = ~(np.isnan(above) | np.isnan(below))
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & known)
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        size = np.clip(below[index], 0, self.max_over).astype(np.int64)
        count = np.clip(above[index], 0, self.max_of).astype(np.int64)
        a, b = self.centre()
        values = {"excess": b * count - a * size, "size": size}
        return {"units": Units(rows, index, rows.device[index], values)}
