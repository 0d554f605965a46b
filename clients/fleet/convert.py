"""Columns of any file to the types of device tables: what means the same is accepted, and nothing else.

Text stands for numbers, truth values and times in CSV, and wherever else a column is text. A time is ISO 8601
with its zone, or a whole number of milliseconds since 1970; it is kept to the microsecond.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clients.fleet.problems import ROWS_NAMED, Problems
from fa_core import labels
from fa_core.tables import EARLIEST, LATEST, VECTOR, Column, arrow_type

RIGHT_TIME = "a time with its zone, such as 2026-11-22T07:30:00Z"
TIMES_FROM, TIMES_TO = (int(each.timestamp()) * 1_000_000 for each in (EARLIEST, LATEST))

_ISO = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?"
_ZONED, _NAIVE = _ISO + r"(Z|[+-]\d\d:?\d\d)$", _ISO + "$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_WHOLE = r"^[+-]?\d{1,18}(\.0*)?$"
_TRUE, _FALSE = ["true", "yes", "1", "1.0"], ["false", "no", "0", "0.0"]
_PLAIN = r"^[!-~]([ -~]{0,62}[!-~])?$"
"""Labels that need no further look: printable ASCII, without spaces around it, not too long."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """Some rows of a column of a file, the first of which is row `first_row` (0 is a file's first)."""

    file: str
    column: str
    first_row: int
    problems: Problems

    def add(
        self,
        what: str,
        bad: Bools | None = None,
        values: pa.Array | None = None,
        domain: Sequence[str] = (),
    ) -> None:
        """Note a problem of the rows that are bad, with what stands there, or of the whole column."""
        rows = np.empty(0, np.int64) if bad is None else np.flatnonzero(bad)
        if bad is not None and not rows.size:
            return
        found = () if values is None else values.take(pa.array(rows[:ROWS_NAMED])).to_pylist()
        self.problems.add(self.file, self.column, what, rows + self.first_row, found, domain)


def convert(values: pa.Array, column: Column, place: Place, *, assume_utc: bool = False) -> pa.Array | None:
    """Return a column in its own type, null where it was, or None after noting what is wrong."""
    if column.type == "label":
        return _label(values, place)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return values.cast(arrow_type(column.type))
    text = _is_text(values.type)
    if text:
        values = pc.utf8_trim_whitespace(values.cast(pa.string()))
    if column.type == "time":
        return _time_text(values, place, assume_utc) if text else _time(values, place, assume_utc)
    convert_one = {"number": _number, "integer": _integer, "boolean": _boolean, "vector": _vector}[
        column.type
    ]
    return convert_one(values, place)


def mask(values: pa.Array) -> Bools:
    """Return a boolean column as numpy, true where it is null."""
    return np.asarray(values.fill_null(True).to_numpy(zero_copy_only=False), np.bool_)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_floating(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _wrong_type(values: pa.Array, place: Place, right: str) -> pa.Array | None:
    """Note the type of a column, and return None."""
    place.add(f"is of type {values.type}; it must be {right}")
    return None


def _number(values: pa.Array, place: Place) -> pa.Array | None:
    if _is_text(values.type):
        bad = ~mask(pc.match_substring_regex(values, _NUMBER))
        place.add("must be a number", bad, values)
        return None if bad.any() else values.cast(pa.float64())
    if pa.types.is_integer(values.type) or _is_floating(values.type):
        return values.cast(pa.float64(), safe=False)
    return _wrong_type(values, place, "a number")


def _vector(values: pa.Array, place: Place) -> pa.Array | None:
    wanted = arrow_type("vector")
    if values.type != wanted:
        return _wrong_type(values, place, f"{VECTOR} float32 in a list of fixed size")
    numbers = np.isfinite(values.flatten().to_numpy(zero_copy_only=False)).reshape(-1, VECTOR)
    bad = ~numbers.all(axis=1)
    place.add("must hold finite numbers", bad)
    return None if bad.any() else values


def _integer(values: pa.Array, place: Place) -> pa.Array | None:
    right = "a whole number"
    if _is_text(values.type):
        bad = ~mask(pc.match_substring_regex(values, _WHOLE))
        place.add(f"must be {right}", bad, values)
        if bad.any():
            return None
        return pc.replace_substring_regex(values, r"(^\+)|(\.0*$)", "").cast(pa.int64())
    if _is_floating(values.type):
        numbers = values.cast(pa.float64())
        bad = ~mask(pc.and_(pc.equal(pc.round(numbers), numbers), pc.less(pc.abs(numbers), 2.0**62)))
        place.add(f"must be {right}", bad, values)
        return None if bad.any() else numbers.cast(pa.int64())
    if not pa.types.is_integer(values.type):
        return _wrong_type(values, place, right)
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        place.add("a number here does not fit 64 bits")
        return None


def _boolean(values: pa.Array, place: Place) -> pa.Array | None:
    if pa.types.is_boolean(values.type):
        return values
    if _is_text(values.type):
        words = pc.utf8_lower(values)
        true, false = (pc.is_in(words, pa.array(each)) for each in (_TRUE, _FALSE))
    elif pa.types.is_integer(values.type) or _is_floating(values.type):
        true, false = pc.equal(values, 1), pc.equal(values, 0)
    else:
        return _wrong_type(values, place, "true or false")
    known = pc.or_(true, false)
    bad = ~mask(known) & ~values.is_null().to_numpy(zero_copy_only=False)
    place.add("must be true or false", bad, values)
    return None if bad.any() else pc.if_else(values.is_valid(), true, None)


# Labels


def _label(values: pa.Array, place: Place) -> pa.Array | None:
    """Return a dictionary column with each label in its normal form, and no label that no row has."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        return _wrong_type(values, place, "text")
    values = _compact(values, kind)
    odd = ~mask(pc.match_substring_regex(values.dictionary, _PLAIN))
    if not odd.any():
        return values
    found = values.dictionary.to_pylist()
    named = [labels.normal(text) if is_odd else text for text, is_odd in zip(found, odd, strict=True)]
    entry = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    longest = math.inf if place.column == "device_id" else labels.LONGEST  # no plan names a device
    wrong = False
    for index in np.flatnonzero(odd):
        what = labels.wrong(named[index], longest)
        if what is not None:
            place.add(what, entry == index, values)
            wrong = True
    if wrong:
        return None
    return (
        pa.DictionaryArray.from_arrays(values.indices, pa.array(named)).cast(pa.string()).dictionary_encode()
    )


def _compact(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column as a dictionary of text that holds what its rows do, once each."""
    if pa.types.is_dictionary(values.type) and _is_text(kind) and not values.dictionary.null_count:
        used = len(pc.unique(values.indices.drop_null()))
        if used == len(values.dictionary) == pc.count_distinct(values.dictionary).as_py():
            return values.cast(arrow_type("label"))
    return values.cast(kind).cast(pa.string()).dictionary_encode()


# Times


def _time(values: pa.Array, place: Place, assume_utc: bool) -> pa.Array | None:
    kind = values.type
    if pa.types.is_integer(kind) or _is_floating(kind):
        whole = _integer(values, place)
        return None if whole is None else _milliseconds(whole, place)
    if not pa.types.is_timestamp(kind):
        return _wrong_type(values, place, RIGHT_TIME)
    if kind.tz is None:
        if not assume_utc:
            place.add(
                "has no time zone; store times with their zone, or give --assume-utc if they are in UTC"
            )
            return None
        values = pc.assume_timezone(values, "UTC")
    if kind.unit == "ns":
        _note_cut(pc.not_equal(pc.subtract(values.cast(pa.int64()), _to_microseconds(values)), 0), place)
        values = values.cast(arrow_type("time"), safe=False)
    try:
        return _in_range(values.cast(arrow_type("time")), place, values)
    except pa.ArrowInvalid:  # seconds or milliseconds that do not fit microseconds
        place.add(f"holds a time outside {_range()}")
        return None


def _to_microseconds(values: pa.Array) -> pa.Array:
    """Return nanoseconds since 1970, cut to whole microseconds."""
    return pc.multiply(values.cast(arrow_type("time"), safe=False).cast(pa.int64()), 1000)


def _time_text(values: pa.Array, place: Place, assume_utc: bool) -> pa.Array | None:
    number, zoned, naive = (
        np.asarray(pc.match_substring_regex(values, each).fill_null(False).to_numpy(zero_copy_only=False))
        for each in (_WHOLE, _ZONED, _NAIVE)
    )
    without_zone = naive & (not assume_utc)
    place.add("has no time zone; add it, or give --assume-utc if all times are in UTC", without_zone, values)
    bad = ~(number | zoned | naive) & mask(values.is_valid())
    place.add(f"is not {RIGHT_TIME}", bad, values)
    if bad.any() or without_zone.any():
        return None
    if number.any() and not (zoned | naive).any():
        whole = _integer(values, place)
        return None if whole is None else _milliseconds(whole, place)
    if number.any():
        place.add("is a number here and a time elsewhere in the column; write one kind", number, values)
        return None
    text = pc.if_else(pa.array(zoned), values, pc.binary_join_element_wise(values, "Z", ""))
    cut = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    _note_cut(pc.match_substring_regex(text, r"\.\d{6}0*[1-9]"), place)
    try:
        return _in_range(cut.cast(arrow_type("time")), place, values)
    except pa.ArrowInvalid:
        place.add(
            f"holds a date or hour that does not exist; it must be {RIGHT_TIME}", _impossible(cut), values
        )
        return None


def _impossible(texts: pa.Array) -> Bools:
    """Return which texts are no time, though they are written as one."""

    def is_time(text: str | None) -> bool:
        try:
            pa.array([text]).cast(arrow_type("time"))
        except pa.ArrowInvalid:
            return False
        return True

    return np.array([not is_time(text) for text in texts.to_pylist()], np.bool_)


def _milliseconds(values: pa.Array, place: Place) -> pa.Array | None:
    """Return whole numbers as milliseconds since 1970."""
    numbers = values.fill_null(TIMES_FROM // 1000).to_numpy(zero_copy_only=False)
    bad = (numbers < TIMES_FROM // 1000) | (numbers >= TIMES_TO // 1000)
    place.add(
        f"is a whole number, so it is read as milliseconds since 1970, and lies outside {_range()}",
        bad,
        values,
    )
    return None if bad.any() else pc.multiply(values, 1000).cast(arrow_type("time"))


def _in_range(times: pa.Array, place: Place, values: pa.Array) -> pa.Array | None:
    at = times.cast(pa.int64())
    bad = ~mask(pc.and_(pc.greater_equal(at, TIMES_FROM), pc.less(at, TIMES_TO)))
    place.add(f"lies outside {_range()}", bad, values)
    return None if bad.any() else times


def _range() -> str:
    return f"{EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}"


def _note_cut(finer: pa.Array, place: Place) -> None:
    count = pc.sum(finer).as_py() or 0
    place.problems.note(f"{place.file}: {place.column}: finer than a microsecond, and cut to it", count)
