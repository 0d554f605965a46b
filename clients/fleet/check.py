"""What a device table must be like, column by column."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clients.fleet.convert import Place, convert, mask
from clients.fleet.problems import Problems
from fa_core.plan.problems import suggestion
from fa_core.tables import DEVICE_FACTS, ERROR_KINDS, FACTS, LARGEST, Column, Source, arrow_type

DEVICES_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("device_id", *DEVICE_FACTS)])
"""The columns of devices.parquet: a unique name for each device, and its facts."""

MICROSECONDS_AN_HOUR = 3_600_000_000

_WAS_ACCEPTED = {"true_accept": True, "false_accept": True, "false_reject": False, "true_reject": False}


def expected_columns(source: Source | None) -> dict[str, Column]:
    """Return the columns of a fleet file: a source's and `device_id`, or those of devices.parquet (None)."""
    return {"device_id": Column("label"), **(FACTS if source is None else source.columns)}


def check_names(
    names: Sequence[str], source: Source | None, file: str, problems: Problems, advice: str = ""
) -> bool:
    """Note every missing, unknown or repeated column. Returns True where the names are right.

    A column that may be empty may be missing. `advice` says what may be done about an unknown one.
    """
    expected = expected_columns(source)
    wrong = False
    for name, column in expected.items():
        if name not in names and not column.optional:
            problems.add(file, name, "this column is missing")
            wrong = True
    unlike = []
    for name in dict.fromkeys(names):
        if name not in expected:
            nearest = suggestion(name, [each for each in expected if each not in names])
            if nearest.startswith("did you mean"):
                problems.add(file, name, f"no such column; {nearest}{advice}")
            else:
                unlike.append(name)
            wrong = True
        elif list(names).count(name) > 1:
            problems.add(file, name, "this column appears more than once")
            wrong = True
    if unlike:
        what = (
            f"no such column; there are: {', '.join(expected)}. Nothing else may enter a device table{advice}"
        )
        problems.add(file, ", ".join(unlike), what)
    return not wrong


def normalise(
    batch: pa.RecordBatch,
    source: Source | None,
    file: str,
    first_row: int,
    problems: Problems,
    *,
    assume_utc: bool = False,
) -> pa.RecordBatch | None:
    """Return the rows in the source's own types and column order, or None after noting what is wrong.

    Accepts what means the same, as `convert` does. A column that may be empty may be missing. `first_row` is
    the batch's place in its file; `assume_utc` takes times without a zone for UTC.
    """
    arrays = {}
    for name, column in expected_columns(source).items():
        if name not in batch.schema.names:
            arrays[name] = pa.nulls(batch.num_rows, arrow_type(column.type))
            continue
        values = batch.column(name)
        place = Place(file, name, first_row, problems)
        missing = values.is_null().to_numpy(zero_copy_only=False)
        if missing.any() and not column.optional:
            place.add("has no value", missing)
            continue
        converted = convert(values, column, place, assume_utc=assume_utc)
        if converted is not None and _within(converted, column, place):
            arrays[name] = converted
    if source is not None:
        _check_together(arrays, source, file, first_row, problems)
    if len(arrays) != len(expected_columns(source)):
        return None
    schema = DEVICES_SCHEMA if source is None else source.arrow_schema(device_id=True)
    return pa.record_batch([arrays[f.name].cast(f.type) for f in schema], schema=schema)


def _within(values: pa.Array, column: Column, place: Place) -> bool:
    if column.domain is not None:
        bad = ~mask(pc.is_in(values.cast(pa.string()), pa.array([*column.domain, None])))
        what = f"must be one of {', '.join(column.domain)}"
    elif column.type in ("number", "integer"):
        low = -LARGEST if column.low is None else column.low
        high = LARGEST if column.high is None else column.high
        bad = ~mask(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)))
        what = f"must be {_range(column)}"
    else:
        return True
    place.add(what, bad, values, column.domain or ())
    return not bad.any()


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
        off = arrays["time"].cast(pa.int64()).to_numpy() % MICROSECONDS_AN_HOUR != 0
        if off.any():
            place = Place(file, "time", first_row, problems)
            place.add("must be the start of an hour", off, arrays.pop("time"))
    if source.name == "wake_events" and "outcome" in arrays and "accepted" in arrays:
        outcome = arrays["outcome"]
        accepted = np.array([_WAS_ACCEPTED[label] for label in outcome.dictionary.to_pylist()], np.bool_)
        expected = accepted[outcome.indices.to_numpy()]
        off = expected != arrays["accepted"].to_numpy(zero_copy_only=False)
        if off.any():
            what = "contradicts `accepted`: an accept was accepted, a reject was not"
            Place(file, "outcome", first_row, problems).add(what, off, arrays.pop("outcome"))
    needed = ("words", "word_errors", *ERROR_KINDS)
    if source.name == "dictation_events" and all(name in arrays for name in needed):
        _check_word_errors(arrays, file, first_row, problems)


def _check_word_errors(arrays: dict[str, pa.Array], file: str, first_row: int, problems: Problems) -> None:
    """Check that a row has all three kinds of word errors or none, and that they add up."""
    given = [arrays[name].is_valid().to_numpy(zero_copy_only=False) for name in ERROR_KINDS]
    inserted, deleted, substituted = (
        arrays[name].fill_null(0).to_numpy(zero_copy_only=False) for name in ERROR_KINDS
    )
    whole = np.logical_and.reduce(given)
    words, errors = (arrays[name].to_numpy() for name in ("words", "word_errors"))
    place = Place(file, ", ".join(ERROR_KINDS), first_row, problems)
    place.add(
        "some of them are given and some are empty; give all three or none",
        np.logical_or.reduce(given) & ~whole,
    )
    off = whole & (inserted + deleted + substituted != errors)
    place.add("do not add up to `word_errors`", off)
    missed = whole & ~off & (deleted + substituted > words)
    place.add("more words are deleted and substituted than `words` were said", missed)
