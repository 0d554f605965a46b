"""`confusion`: what was said against what was understood, over a closed set of labels and `other`."""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from pydantic import Field, field_validator

from fa_core.arrays import np
from fa_core.metrics.filters import Filter
from fa_core.metrics.kind import Bounds, FieldUse, Units, register
from fa_core.metrics.rows import View
from fa_core.metrics.table_of_shares import TableOfShares

OTHER: Final = "other"


@register
class Confusion(TableOfShares):
    """Row-normalised confusion matrix: of the events that were `actual`, the share taken for `predicted`."""

    question: ClassVar[str] = "Which is taken for which?"
    row_axis: ClassVar[str] = "actual"
    column_axis: ClassVar[str] = "predicted"

    kind: Literal["confusion"] = "confusion"
    actual: str = Field(default="intent_actual", description="The column of what was meant.")
    predicted: str = Field(default="intent_predicted", description="The column of what was understood.")
    labels_of: tuple[str, ...] = Field(
        alias="labels", description="The closed set of labels; anything else counts as `other`."
    )

    @field_validator("labels_of")
    @classmethod
    def _closed_set(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(value) <= 100 or len(set(value)) != len(value) or OTHER in value:
            raise ValueError("expected 1 to 100 different labels; `other` is added by itself")
        return value

    def fields(self) -> tuple[FieldUse, ...]:
        assert self.source is not None
        return (
            FieldUse(self.source, self.actual, "actual", ("label",)),
            FieldUse(self.source, self.predicted, "predicted", ("label",)),
        )

    def row_labels(self) -> tuple[str, ...]:
        return (*self.labels_of, OTHER)

    def column_labels(self) -> tuple[str, ...]:
        return (*self.labels_of, OTHER)

    def units(self, view: View, where: Filter, bounds: Bounds) -> Mapping[str, Units]:
        assert self.source is not None
        rows = view.rows(self.source)
        known = (rows.labels(self.actual)[0] >= 0) & (rows.labels(self.predicted)[0] >= 0)
        candidates = np.flatnonzero(rows.mask(where) & rows.mask(self.where) & known)
        index = candidates[view.sample("events", rows.device[candidates], bounds.max_events)]
        width = len(self.labels_of) + 1
        cell = rows.codes(self.actual, self.labels_of) * width + rows.codes(self.predicted, self.labels_of)
        values = {"cell": cell[index], "one": np.ones(len(index), np.int64)}
        return {"units": Units(rows, index, rows.device[index], values)}
