"""`rate`: the share of events for which something holds (false reject rate, correction rate, …)."""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from fa_core.arrays import np
from fa_core.metrics.centred import Limits, Quadratic, bernoulli_floor
from fa_core.metrics.filters import Exact, Filter
from fa_core.metrics.joint import Domain, Name
from fa_core.metrics.joint_ratio import JointRatio
from fa_core.metrics.kind import (
    Bounds,
    FieldUse,
    FloatArray,
    Units,
    Written,
    of_events,
    rational,
    register,
)
from fa_core.metrics.rows import View


@register
class Rate(JointRatio):
    """Of the events in `over`, the share that is in `of`."""

    question: ClassVar[str] = "How often does it happen, of the times that it could?"
    clips: ClassVar[bool] = True
    maps: ClassVar[tuple[Name, Name]] = ("rate", "rate_event")
    written: ClassVar[Written] = "share"

    kind: Literal["rate"] = "rate"
    of: Filter = Field(description="The events that count.")
    over: Filter = Field(default={}, description="The events that they are a share of; all where left out.")
    expect: Exact = Field(
        default=Fraction(1, 2),
        description="A public guess of the rate, in (0, 1), or an earlier release's: for the preview, and "
        "for the width of the interval under pure accounting.",
    )

    @field_validator("expect")
    @classmethod
    def _inside(cls, value: Fraction) -> Fraction:
        if not 0 < value < 1:
            raise ValueError("expected a rate above 0 and below 1")
        return value

    def fields(self) -> tuple[FieldUse, ...]:
        return ()

    def conditions(self) -> tuple[tuple[str, Filter], ...]:
        return ("where", self.where), ("of", self.of), ("over", self.over)

    def estimand(self, bounds: Bounds) -> str:
        return of_events(bounds)

    def centre(self) -> tuple[int, int]:
        return rational(self.expect)

    def limits(self, bounds: Bounds) -> Limits:
        a, b = self.centre()
        n = bounds.max_events
        return Limits(excess=n * max(a, b - a), below=n * a, size=n, units=n)

    def domain(self, bounds: Bounds) -> Domain:
        return Domain(bounds.max_events, 1, 1, signed=False)

    def floor(self, n: FloatArray) -> Quadratic:
        a, b = self.centre()
        return bernoulli_floor(n, a / b)

    def display(self) -> tuple[float, float, float, float]:
        return 0.0, 1.0, 0.0, 1.0

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & rows.mask(self.over))
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        count = rows.mask(self.of)[index].astype(np.int64)
        values = {"count": count, "size": np.ones(len(index), np.int64)}
        return {"units": Units(rows, index, rows.device[index], values)}
