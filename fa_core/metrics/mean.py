"""`mean`: the average of a number, clipped to public bounds (latency, retries)."""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fa_core.arrays import np
from fa_core.metrics.centred import Centred, Limits
from fa_core.metrics.feasible import Pairs
from fa_core.metrics.filters import Exact, Filter, exact_text
from fa_core.metrics.kind import Bounds, FieldUse, FloatArray, Units, of_events, register
from fa_core.metrics.rows import View
from fa_core.tables import event_columns

STEPS: Final = 1000
"""Resolution: values are counted in thousandths of the clipped range, so rounding moves a mean by at
most half a thousandth of it."""


class Clip(BaseModel):
    """The public range that values are clipped to."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    low: Exact = Field(alias="from", description="Values below count as this.")
    high: Exact = Field(alias="to", description="Values above count as this.")

    @model_validator(mode="after")
    def _ordered(self) -> "Clip":
        if self.low >= self.high:
            raise ValueError("expected `from` below `to`")
        return self


@register
class Mean(Centred):
    """The mean of `field` over sampled events, each clipped. Variance is empirical."""

    question: ClassVar[str] = "How large is it on average?"

    kind: Literal["mean"] = "mean"
    field: str = Field(description="The column to average.")
    clip: Clip = Field(description="The public range that values are clipped to.")
    expect: Exact | None = Field(
        default=None, description="A public guess of the mean; the middle of the range where left out."
    )

    @model_validator(mode="after")
    def _guess_inside(self) -> "Mean":
        if self.expect is not None and not self.clip.low <= self.expect <= self.clip.high:
            raise ValueError("expected `expect` within the clipped range")
        return self

    def fields(self) -> tuple[FieldUse, ...]:
        assert self.source is not None
        return (FieldUse(self.source, self.field, "field", ("number", "integer", "boolean")),)

    def centre(self) -> tuple[int, int]:
        low, high = self.clip.low, self.clip.high
        expect = (low + high) / 2 if self.expect is None else self.expect
        return round((expect - low) / (high - low) * STEPS), 1

    def limits(self, bounds: Bounds) -> Limits:
        a, _ = self.centre()
        n = bounds.max_events
        return Limits(excess=n * max(a, STEPS - a), below=n * a, size=n, units=n)

    def pairs(self, bounds: Bounds) -> Pairs:
        return Pairs(bounds.max_events, size=1, count=STEPS)

    def display(self) -> tuple[float, float, float, float]:
        low, high = float(self.clip.low), float(self.clip.high)
        return low, (high - low) / STEPS, low, high

    def unit(self) -> str:
        assert self.source is not None
        return event_columns(self.source)[self.field].unit

    def estimand(self, bounds: Bounds) -> str:
        low, high = exact_text(self.clip.low), exact_text(self.clip.high)
        unit = f" {self.unit()}" if self.unit() else ""
        return f"{of_events(bounds)}, each counted as {low} to {high}{unit}"

    def guess(self, n: FloatArray) -> FloatArray:
        return n * (STEPS / 4) ** 2

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        values = rows.numbers(self.field)
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & ~np.isnan(values))
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        low, high = float(self.clip.low), float(self.clip.high)
        steps = np.rint((np.clip(values[index], low, high) - low) / (high - low) * STEPS).astype(np.int64)
        ones = np.ones(len(index), np.int64)
        return {"units": Units(rows, index, rows.device[index], {"count": steps, "size": ones})}
