"""`histogram`: how a number is distributed, in public bins, by the value of a label column."""

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from fa_core.arrays import np
from fa_core.metrics.filters import Exact, Filter, exact_text
from fa_core.metrics.kind import Bounds, FieldUse, Units, register
from fa_core.metrics.rows import View
from fa_core.metrics.table_of_shares import TableOfShares
from fa_core.tables import event_columns


class Bins(BaseModel):
    """Equal bins from `from` to `to`. Values outside fall into the first or the last bin."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    low: Exact = Field(alias="from", description="Lower edge of the first bin.")
    high: Exact = Field(alias="to", description="Upper edge of the last bin.")
    bins: StrictInt = Field(ge=2, le=200, description="Number of bins.")

    @model_validator(mode="after")
    def _ordered(self) -> "Bins":
        if self.low >= self.high:
            raise ValueError("expected `from` below `to`")
        return self

    def edges(self) -> tuple[float, ...]:
        """Return the bins + 1 edges."""
        return tuple(float(edge) for edge in _edges(self.low, self.high, self.bins))

    def inner(self) -> tuple[float, ...]:
        """Return the edges between two bins."""
        return _inner(self.low, self.high, self.bins)

    def labels(self) -> tuple[str, ...]:
        """Return each bin's name, such as `0.2 to 0.4`."""
        return _names(self.low, self.high, self.bins)


# Devices ask for these over and over, and exact arithmetic is slow.


@lru_cache(maxsize=64)
def _edges(low: Fraction, high: Fraction, bins: int) -> tuple[Fraction, ...]:
    step = (high - low) / bins
    return tuple(low + step * index for index in range(bins + 1))


@lru_cache(maxsize=64)
def _inner(low: Fraction, high: Fraction, bins: int) -> tuple[float, ...]:
    return tuple(float(edge) for edge in _edges(low, high, bins)[1:-1])


@lru_cache(maxsize=64)
def _names(low: Fraction, high: Fraction, bins: int) -> tuple[str, ...]:
    texts = [exact_text(edge) for edge in _edges(low, high, bins)]
    return tuple(f"{below} to {above}" for below, above in pairwise(texts))


@register
class Histogram(TableOfShares):
    """Shares of each bin among events of the same `by` label."""

    question: ClassVar[str] = "How is it distributed?"
    row_axis: ClassVar[str] = "by"
    column_axis: ClassVar[str] = "bin"

    kind: Literal["histogram"] = "histogram"
    field: str = Field(description="The number column that is binned.")
    edges: Bins = Field(description="The public bins.")
    by: str | None = Field(
        default=None, description="A label column with a closed domain; one histogram for each of its values."
    )

    def fields(self) -> tuple[FieldUse, ...]:
        assert self.source is not None
        uses = [FieldUse(self.source, self.field, "field", ("number", "integer"))]
        if self.by is not None:
            uses.append(FieldUse(self.source, self.by, "by", ("domain",)))
        return tuple(uses)

    def row_labels(self) -> tuple[str, ...]:
        if self.by is None:
            return ("all",)
        assert self.source is not None
        return event_columns(self.source)[self.by].domain or ()

    def column_labels(self) -> tuple[str, ...]:
        return self.edges.labels()

    def estimand(self, bounds: Bounds) -> str:
        return f"{super().estimand(bounds)}; values past the edges are in the first and last bin"

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        known = ~np.isnan(rows.numbers(self.field))
        row = np.zeros(len(rows), np.int64)
        if self.by is not None:
            row = rows.codes(self.by, self.row_labels())
            known &= row < len(self.row_labels())
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & known)
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        cell = row[index] * self.edges.bins + rows.bins(self.field, self.edges.inner())[index]
        values = {"cell": cell, "one": np.ones(len(index), np.int64)}
        return {"units": Units(rows, index, rows.device[index], values)}
