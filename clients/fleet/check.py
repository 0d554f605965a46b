"""What a device table must be like, column by column, and how its problems are reported.

Messages name file, column and row, and say what would be right. They never repeat a value: a device's
value stays out of every error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fa_core.errors import BadInput
from fa_core.tables import ARROW_TYPES, DEVICE_FACTS, Column, Source

DEVICES_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("device_id", *DEVICE_FACTS)])
"""The columns of devices.parquet: a unique name for each device, and its facts."""

ROWS_NAMED = 3
MICROSECONDS_AN_HOUR = 3_600_000_000

_WAS_ACCEPTED = {"true_accept": True, "false_accept": True, "false_reject": False, "true_reject": False}


@dataclass
class Problems:
    """What was found wrong, in the order found: once for each file, column and kind of problem."""

    rows: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, file: str, column: str, what: str, rows: Sequence[int] | NDArray[np.int64] = ()) -> None:
        """Note a problem of a column at these rows (0 is the first row), or of the column as a whole."""
        key = (file, column, what)
        named = self.rows.setdefault(key, [])
        named.extend(int(row) + 1 for row in rows[: max(0, ROWS_NAMED - len(named))])
        self.counts[key] = self.counts.get(key, 0) + len(rows)

    def raise_any(self) -> None:
        """Raise BadInput with everything found, one line each; return where nothing was found."""
        if self.rows:
            raise BadInput("\n".join(self._line(key) for key in self.rows))

    def _line(self, key: tuple[str, str, str]) -> str:
        file, column, what = key
        named, count = self.rows[key], self.counts[key]
        place = f"{file}: {column}" if column else file
        if named:
            more = f" and {count - len(named):,} more" if count > len(named) else ""
            place += f": {'rows' if count > 1 else 'row'} {', '.join(map(str, named))}{more}"
        return f"{place}: {what}"


def expected_columns(source: Source | None) -> dict[str, Column]:
    """Return the columns of a fleet file: a source's and `device_id`, or those of devices.parquet (None)."""
    if source is None:
        return {name: Column("label") for name in DEVICES_SCHEMA.names}
    return {"device_id": Column("label"), **source.columns}


def check_names(names: Sequence[str], source: Source | None, file: str, problems: Problems) -> bool:
    """Note every missing, unknown or repeated column. Returns True where the names are right."""
    expected = expected_columns(source)
    wrong = False
    for name in expected:
        if name not in names:
            problems.add(file, name, "this column is missing")
            wrong = True
    for name in dict.fromkeys(names):
        if name not in expected:
            what = f"no such column; there are: {', '.join(expected)}. Nothing else may enter a device table"
            problems.add(file, name, what)
            wrong = True
        elif list(names).count(name) > 1:
            problems.add(file, name, "this column appears more than once")
            wrong = True
    return not wrong


def normalise(
    batch: pa.RecordBatch, source: Source | None, file: str, first_row: int, problems: Problems
) -> pa.RecordBatch | None:
    """Return the rows in the source's own types and column order, or None after noting what is wrong.

    Accepts what means the same: plain or dictionary strings, any integer width, integers for numbers, any
    time unit and zone, ISO 8601 text with an offset. `first_row` is the batch's place in its file.
    """
    arrays = {}
    for name, column in expected_columns(source).items():
        values = batch.column(name)
        missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
        if missing.size:
            problems.add(file, name, "has no value", missing + first_row)
            continue
        converted = _convert(values, column, file, name, first_row, problems)
        if converted is not None and _within(converted, column, file, name, first_row, problems):
            arrays[name] = converted
    if source is not None:
        _check_together(arrays, source, file, first_row, problems)
    if len(arrays) != len(expected_columns(source)):
        return None
    schema = DEVICES_SCHEMA if source is None else source.arrow_schema(device_id=True)
    return pa.record_batch([arrays[f.name].cast(f.type) for f in schema], schema=schema)


def _convert(
    values: pa.Array, column: Column, file: str, name: str, first_row: int, problems: Problems
) -> pa.Array | None:
    kind = values.type
    if column.type == "time":
        return _convert_time(values, file, name, first_row, problems)
    if column.type == "label":
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_string(plain) or pa.types.is_large_string(plain):
            return values.cast(ARROW_TYPES["label"])
    elif column.type == "boolean" and pa.types.is_boolean(kind):
        return values
    elif pa.types.is_integer(kind) or (column.type == "number" and pa.types.is_floating(kind)):
        try:
            return values.cast(ARROW_TYPES[column.type])
        except pa.ArrowInvalid:
            problems.add(file, name, "a number here does not fit 64 bits")
            return None
    wanted = {"label": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false"}
    problems.add(file, name, f"is of type {kind}; it must be {wanted[column.type]}")
    return None


def _convert_time(
    values: pa.Array, file: str, name: str, first_row: int, problems: Problems
) -> pa.Array | None:
    right = "a time with its zone, such as 2026-11-22T07:30:00Z"
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        iso = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)$"
        bad = np.flatnonzero(~pc.match_substring_regex(values, iso).to_numpy(zero_copy_only=False))
        if bad.size:
            problems.add(file, name, f"is not {right}", bad + first_row)
            return None
        try:
            return values.cast(ARROW_TYPES["time"])
        except pa.ArrowInvalid:
            problems.add(file, name, f"holds a date or hour that does not exist; it must be {right}")
            return None
    if not pa.types.is_timestamp(values.type):
        problems.add(file, name, f"is of type {values.type}; it must be {right}")
        return None
    if values.type.tz is None:
        problems.add(file, name, "has no time zone; store times in UTC, with the zone in the column's type")
        return None
    try:
        return values.cast(ARROW_TYPES["time"], safe=values.type.unit != "ns")
    except pa.ArrowInvalid:
        problems.add(file, name, "holds a time that is out of range")
        return None


def _within(
    values: pa.Array, column: Column, file: str, name: str, first_row: int, problems: Problems
) -> bool:
    if column.domain is not None:
        known = pc.is_in(values.cast(pa.string()), pa.array(column.domain))
        bad = np.flatnonzero(~known.to_numpy(zero_copy_only=False))
        what = f"must be one of {', '.join(column.domain)}"
    elif column.type == "label":
        labels = values.cast(pa.string()) if not pa.types.is_string(values.type) else values
        bad = np.flatnonzero(pc.equal(labels, "").to_numpy(zero_copy_only=False))
        what = "is empty"
    elif column.type in ("number", "integer"):
        numbers = values.to_numpy(zero_copy_only=False)
        low = -np.inf if column.low is None else column.low
        high = np.inf if column.high is None else column.high
        bad = np.flatnonzero(~((numbers >= low) & (numbers <= high) & np.isfinite(numbers)))
        what = f"must be {_range(column)}"
    else:
        return True
    if bad.size:
        problems.add(file, name, what, bad + first_row)
    return not bad.size


def _range(column: Column) -> str:
    unit = f" {column.unit}" if column.unit else ""
    if column.low is not None and column.high is not None:
        return f"within [{column.low:g}, {column.high:g}]{unit}"
    return f"finite and at least {column.low:g}{unit}" if column.low is not None else f"a finite number{unit}"


def _check_together(
    arrays: dict[str, pa.Array], source: Source, file: str, first_row: int, problems: Problems
) -> None:
    """Check what columns owe each other: listening rows start an hour, outcomes agree with `accepted`."""
    if source.name == "listening" and "time" in arrays:
        off = np.flatnonzero(arrays["time"].cast(pa.int64()).to_numpy() % MICROSECONDS_AN_HOUR)
        if off.size:
            problems.add(file, "time", "must be the start of an hour", off + first_row)
            del arrays["time"]
    if source.name == "wake_events" and "outcome" in arrays and "accepted" in arrays:
        outcome = arrays["outcome"]
        accepted = np.array([_WAS_ACCEPTED[label] for label in outcome.dictionary.to_pylist()], np.bool_)
        expected = accepted[outcome.indices.to_numpy()]
        off = np.flatnonzero(expected != arrays["accepted"].to_numpy(zero_copy_only=False))
        if off.size:
            problems.add(file, "outcome", "contradicts `accepted`: an accept was accepted", off + first_row)
            del arrays["outcome"]
