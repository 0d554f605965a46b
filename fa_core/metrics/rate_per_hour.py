"""`rate_per_hour`: events per hour of listening (false accepts per hour)."""

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field, StrictInt, field_validator

from fa_core.arrays import np
from fa_core.metrics.centred import Limits, Quadratic, poisson_floor
from fa_core.metrics.filters import Exact, Filter
from fa_core.metrics.joint import Domain, Name
from fa_core.metrics.joint_ratio import JointRatio
from fa_core.metrics.kind import Bounds, FieldUse, FloatArray, Units, many, register
from fa_core.metrics.listening import MINUTES, hour_of_events, minutes_of, sample_hours
from fa_core.metrics.rows import View
from fa_core.tables import LISTENING


@register
class RatePerHour(JointRatio):
    """Events in `of` per hour of listening. Size counts minutes; a unit is one listening row."""

    sources: ClassVar[tuple[str, ...]] = ("wake_events", "detections")
    companions: ClassVar[tuple[str, ...]] = (LISTENING.name,)
    maps: ClassVar[tuple[Name, Name]] = ("rate_per_hour", "rate_per_hour_event")
    lever: ClassVar[str] = "max_hours"
    caps: ClassVar[tuple[tuple[str, ...], ...]] = (("max_hours",),)
    question: ClassVar[str] = "How often an hour does it happen while the device listens?"

    kind: Literal["rate_per_hour"] = "rate_per_hour"
    of: Filter = Field(description="The events that count.")
    expect: Exact = Field(
        default=Fraction(1, 2),
        description="A public guess of the number an hour, above 0: for the preview, and for the width under "
        "pure accounting.",
    )
    max_hours: StrictInt = Field(
        default=24, ge=1, le=1000, description="Hours that one device may weigh, sampled with their events."
    )
    max_per_hour: StrictInt = Field(
        default=4, ge=1, le=1000, description="Events that one device may count in one of those hours."
    )

    @field_validator("expect")
    @classmethod
    def _positive(cls, value: Fraction) -> Fraction:
        if not 0 < value <= 1000:
            raise ValueError("expected a number an hour above 0 and at most 1000")
        return value

    def fields(self) -> tuple[FieldUse, ...]:
        return ()

    def conditions(self) -> tuple[tuple[str, Filter], ...]:
        return ("where", self.where), ("of", self.of)

    def denominator(self) -> str:
        return "hours of listening"

    def guess_text(self) -> str:
        return f"every device to listen in {many(self.max_hours, 'hour')} or more"

    def estimand(self, bounds: Bounds) -> str:
        return (
            f"of at most {many(self.max_hours, 'hour')} a device, and at most "
            f"{many(self.max_per_hour, 'event')} in each"
        )

    def segment_source(self) -> str:
        return LISTENING.name

    def centre(self) -> tuple[int, int]:
        per_minute = (self.expect / MINUTES).limit_denominator(10_000)
        return per_minute.numerator, per_minute.denominator

    def limits(self, bounds: Bounds) -> Limits:
        a, b = self.centre()
        return Limits(
            excess=self.max_hours * max(a * MINUTES, b * self.max_per_hour),
            below=self.max_hours * a * MINUTES,
            size=self.max_hours * MINUTES,
            units=self.max_hours,
        )

    def domain(self, bounds: Bounds) -> Domain:
        return Domain(self.max_hours, MINUTES, self.max_per_hour, signed=False)

    def floor(self, n: FloatArray) -> Quadratic:
        a, b = self.centre()
        return poisson_floor(n, a / b)

    def display(self) -> tuple[float, float, float, float]:
        return 0.0, float(MINUTES), 0.0, float("inf")

    def unit(self) -> str:
        return "per hour"

    def units_expected(self, bounds: Bounds, events: float) -> float:
        return float(self.max_hours)

    def unit_size(self, bounds: Bounds) -> float:
        return float(MINUTES)

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        rows, index = sample_hours(view, where, self.where, self.max_hours)
        _, position = hour_of_events(view, rows, index, str(self.source), self.of)
        events = np.minimum(np.bincount(position, minlength=len(index)), self.max_per_hour)
        minutes = minutes_of(rows, index)
        values = {"count": events, "size": minutes}
        return {"units": Units(rows, index, rows.device[index], values)}
