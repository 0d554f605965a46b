"""From what a device saw to a row of its store, and from rows to Arrow; both pure.

A value that its column cannot hold is an error of the program that sent it and is named by column, never
by value. A label outside its allow-list is no error: it becomes `other`. Nothing enters that counting could
not hold: numbers are finite and below 2^53 in size, where every whole number is a float.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from clients.device.redaction import Redactor, label
from fa_core.errors import BadInput
from fa_core.tables import DICTATION_EVENTS, ERROR_KINDS, VECTOR, Column, Source, arrow_type

Cell = str | int | float | None
_HASH = re.compile(r"[0-9a-f]{64}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LARGEST = 2**53
"""Every number in a store is smaller than this in size: int64 and float64 both hold all whole ones."""


def micros(at: datetime) -> int:
    """Return a time as microseconds since 1970. Raises BadInput for a time without a zone."""
    if at.utcoffset() is None:
        raise BadInput("a time without a time zone; UTC is expected")
    return (at - EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """Return microseconds since 1970 as a time, UTC."""
    return EPOCH + timedelta(microseconds=value)


def to_row(
    source: Source,
    event: Mapping[str, object],
    allowed: Mapping[str, Collection[str]],
    redactor: Redactor,
) -> tuple[Cell, ...]:
    """Return an event as the cells of a row, in the order of the source's columns.

    `allowed` maps an open label column to its allow-list; a column without one lets nothing through but
    `other`. A column left out is null. Raises BadInput naming table and column.
    """
    unknown = set(event) - set(source.columns)
    if unknown:
        raise BadInput(f"{source.name} has no such column; there are {', '.join(source.columns)}")
    row = {
        name: _cell(f"{source.name}.{name}", column, event.get(name), allowed.get(name, ()), redactor)
        for name, column in source.columns.items()
    }
    if source is DICTATION_EVENTS:
        _check_word_errors(row)
    return tuple(row.values())


def _check_word_errors(row: Mapping[str, Cell]) -> None:
    """Raise BadInput where the kinds of word errors are not all there, or not what the other counts say."""
    kinds = [row[name] for name in ERROR_KINDS]
    given = [number for number in kinds if isinstance(number, int)]
    where = f"dictation_events: {', '.join(ERROR_KINDS)}"
    if given and len(given) < len(kinds):
        raise BadInput(f"{where}: give all three or none")
    if given and sum(given) != row["word_errors"]:
        raise BadInput(f"{where}: they must add up to word_errors")
    if given and isinstance(words := row["words"], int) and sum(given[1:]) > words:
        raise BadInput(f"{where}: more words are deleted and substituted than were said")


def _cell(where: str, column: Column, value: object, allowed: Collection[str], redactor: Redactor) -> Cell:
    if column.type == "time":
        if not isinstance(value, datetime):
            raise BadInput(f"{where} must be a time")
        return micros(value)
    if value is None:
        return None
    if column.type == "label":
        if not isinstance(value, str):
            raise BadInput(f"{where} must be a label")
        if column.hashed:
            if not _HASH.fullmatch(value):
                raise BadInput(f"{where} must be a SHA-256 in 64 hexadecimal digits")
            return value
        if column.domain is None:
            return label(value, allowed, redactor)
        if value not in column.domain:
            raise BadInput(f"{where} must be one of {', '.join(column.domain)}")
        return value
    if column.type == "boolean":
        if not isinstance(value, bool):
            raise BadInput(f"{where} must be true or false")
        return int(value)
    if column.type == "vector":
        return _vector(where, value)
    return _number(where, column, value)


def _number(where: str, column: Column, value: object) -> int | float:
    whole = column.type == "integer"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise BadInput(f"{where} must be {'a whole number' if whole else 'a number'}")
    assert isinstance(value, int | float)
    low = -LARGEST if column.low is None else column.low
    high = LARGEST if column.high is None else column.high
    # Not a number (NaN) is within no bounds.
    if not (-LARGEST < value < LARGEST and low <= value <= high):
        raise BadInput(f"{where} must be finite, from {low:g} to {high:g}, and below 2^53 in size")
    return value if whole else float(value)


def _vector(where: str, value: object) -> str:
    """Return numbers as the hexadecimal digits of their little-endian float32."""
    try:
        numbers = np.asarray(value, "<f4")
    except (TypeError, ValueError):
        numbers = np.empty(0, "<f4")
    if numbers.shape != (VECTOR,) or not np.isfinite(numbers).all():
        raise BadInput(f"{where} must be {VECTOR} finite numbers")
    return numbers.tobytes().hex()


def _vectors(values: Sequence[Cell]) -> pa.Array:
    numbers = np.frombuffer(bytes.fromhex("".join(str(value) for value in values)), "<f4")
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.astype(np.float32)), VECTOR)


def to_arrow(source: Source, rows: Sequence[Sequence[Cell]]) -> pa.Table:
    """Return rows (cells in the source's order) as a table of the source's Arrow schema."""
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in source.columns]
    arrays = []
    for column, values in zip(source.columns.values(), columns, strict=True):
        if column.type == "time":
            arrays.append(pa.array(values, pa.int64()).cast(arrow_type("time")))
        elif column.type == "label":
            arrays.append(pa.array(values, pa.string()).dictionary_encode())
        elif column.type == "boolean":
            arrays.append(pa.array([None if value is None else bool(value) for value in values], pa.bool_()))
        elif column.type == "vector":
            arrays.append(_vectors(values))
        else:
            arrays.append(pa.array(values, arrow_type(column.type)))
    return pa.table(arrays, schema=source.arrow_schema())
