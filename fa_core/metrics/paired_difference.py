"""`paired_difference`: the new model's rate − the old one's, on the same utterances."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fa_core.arrays import np
from fa_core.metrics.centred import Limits
from fa_core.metrics.filters import Filter
from fa_core.metrics.joint import Domain, Name
from fa_core.metrics.joint_ratio import JointRatio
from fa_core.metrics.kind import Bounds, FieldUse, FloatArray, Int64Array, Units, Written, many, register
from fa_core.metrics.rows import Rows, View
from fa_core.tables import SOURCES


class Comparison(BaseModel):
    """Which two versions of what are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    field: Literal["model_version"] = Field(default="model_version", description="Names the model.")
    baseline: str = Field(description="The version that is subtracted.")
    candidate: str = Field(description="The version that it is subtracted from.")

    @model_validator(mode="after")
    def _two(self) -> "Comparison":
        if self.baseline == self.candidate:
            raise ValueError("expected two different versions")
        return self


@register
class PairedDifference(JointRatio):
    """Rate of the candidate less rate of the baseline over pairs scored by both.

    Each pair adds r_candidate − r_baseline ∈ {−1, 0, 1}, so what both models get right or wrong
    together cancels on the device (McNemar 1947) and only disagreement costs width. Pairs are rows of
    one device that share time and, in wake events, wake word.
    """

    question: ClassVar[str] = "Is the new model better than the old one, on the same speech?"
    clips: ClassVar[bool] = True
    maps: ClassVar[tuple[Name, Name]] = ("paired", "paired_event")
    written: ClassVar[Written] = "points"

    kind: Literal["paired_difference"] = "paired_difference"
    of: Filter = Field(description="The events that count.")
    over: Filter = Field(
        default={}, description="The events that they are a share of; both of a pair must be in it."
    )
    compare: Comparison = Field(description="The two versions.")

    def fields(self) -> tuple[FieldUse, ...]:
        assert self.source is not None
        return (FieldUse(self.source, self.compare.field, "compare", ("label",)),)

    def conditions(self) -> tuple[tuple[str, Filter], ...]:
        return ("where", self.where), ("of", self.of), ("over", self.over)

    def centre(self) -> tuple[int, int]:
        return 0, 1

    def limits(self, bounds: Bounds) -> Limits:
        n = bounds.max_events
        return Limits(excess=n, below=n, size=n, units=n)

    def domain(self, bounds: Bounds) -> Domain:
        return Domain(bounds.max_events, 1, 1, signed=True)

    def display(self) -> tuple[float, float, float, float]:
        return 0.0, 1.0, -1.0, 1.0

    def unit(self) -> str:
        return f"{self.compare.candidate} less {self.compare.baseline}"

    def denominator(self) -> str:
        return "events that both models scored"

    def estimand(self, bounds: Bounds) -> str:
        return f"of at most {many(bounds.max_events, 'event')} a device that both models scored"

    def guess(self, n: FloatArray) -> FloatArray:
        return n * 0.1

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        kept = rows.mask(where) & rows.mask(self.where) & rows.mask(self.over)
        version = rows.codes(self.compare.field, (self.compare.baseline, self.compare.candidate))
        also = tuple(name for name in ("wake_word",) if name in SOURCES[self.source].columns)
        baseline, candidate = _pairs(
            rows, also, np.flatnonzero(kept & (version == 0)), np.flatnonzero(kept & (version == 1))
        )
        chosen = view.sample("events", rows.device[baseline], bounds.max_events)
        baseline, candidate = baseline[chosen], candidate[chosen]
        counts = rows.mask(self.of).astype(np.int64)
        values = {
            "count": counts[candidate] - counts[baseline],
            "size": np.ones(len(baseline), np.int64),
        }
        return {"units": Units(rows, baseline, rows.device[baseline], values)}


def _pairs(
    rows: Rows, also: tuple[str, ...], left: Int64Array, right: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return the rows of `left` and `right` that match one to one on device, time and `also`.

    They are in the order of the rows of `left`: label codes differ from table to table, and no device's
    sample may depend on whose table it lies in.
    """
    columns = [rows.time, *(rows.labels(name)[0] for name in also), rows.device]

    def ranked(index: Int64Array) -> Int64Array:
        order = np.lexsort([column[index] for column in columns])
        index = index[order]
        same = np.ones(len(index), np.bool_)
        for column in columns:
            values = column[index]
            same[1:] &= values[1:] == values[:-1]
        same[:1] = False
        return index[~same]

    left, right = ranked(left), ranked(right)
    merged = np.concatenate((left, right))
    side = np.concatenate((np.zeros(len(left), np.int64), np.ones(len(right), np.int64)))
    order = np.lexsort([side, *[column[merged] for column in columns]])
    merged, side = merged[order], side[order]
    match = (side[:-1] == 0) & (side[1:] == 1)
    for column in columns:
        values = column[merged]
        match &= values[1:] == values[:-1]
    first = np.flatnonzero(match)
    first = first[np.argsort(merged[first])]
    return merged[first], merged[first + 1]
