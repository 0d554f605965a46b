"""Bring somebody's own device tables into a fleet directory, checked whole before anything is written.

The source directory holds `devices.parquet` or `devices.jsonl`, and one Parquet or JSON Lines file for each
table recorded, by the names and columns of `fa_core.tables`, each with `device_id`. A `fleet.json` may give
`population`, `until` and `synthetic`; left out, they are the directory's name, the end of the last recorded
hour, and false. Files are read and checked in pieces; only rows in their final, compact types are kept.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clients.fleet.check import (
    DEVICES_SCHEMA,
    MICROSECONDS_AN_HOUR,
    Problems,
    check_names,
    expected_columns,
    normalise,
)
from clients.fleet.make import require_empty
from clients.fleet.tables import METADATA_FILE, check_devices, device_places, parse_until
from fa_core.errors import BadInput
from fa_core.tables import LISTENING_KEY, SOURCES, Source

BATCH = 1 << 16


def import_fleet(source: Path, out: Path) -> dict[str, int]:
    """Check the tables in `source` and write them as a fleet directory; return the rows of each table.

    Raises BadInput with everything wrong that was found, by file, column and row. Writes nothing then.
    """
    if not source.is_dir():
        raise BadInput(f"{source}: no such directory")
    require_empty(out)
    metadata = _read_metadata(source)
    problems = Problems()
    found = {name: _find(source, name, problems) for name in ("devices", *SOURCES)}
    files = {name: file for name, file in found.items() if file is not None}
    if "devices" not in files:
        problems.add("devices.parquet or devices.jsonl", "", f"is not in {source}")
    if not files.keys() & SOURCES.keys():
        problems.add(str(source), "", f"holds none of the tables {', '.join(SOURCES)}")
    problems.raise_any()
    tables = {name: _read(file, SOURCES.get(name), problems) for name, file in files.items()}
    problems.raise_any()
    devices = tables.pop("devices").sort_by("device_id")
    check_devices(devices["device_id"].to_numpy(), files["devices"].name, problems)
    for name, rows in tables.items():
        unknown = np.flatnonzero(device_places(rows["device_id"], devices["device_id"]) < 0)
        if unknown.size:
            problems.add(files[name].name, "device_id", f"has no row in {files['devices'].name}", unknown)
    problems.raise_any()
    if "listening" in tables:
        _check_listening(tables, files, devices, problems)
    problems.raise_any()
    return _write(out, metadata, devices, tables)


def _read_metadata(source: Path) -> dict[str, Any]:
    defaults: dict[str, Any] = {"population": source.resolve().name, "synthetic": False, "until": None}
    file = source / METADATA_FILE
    if not file.exists():
        return defaults
    try:
        given = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not a JSON file: {error}") from None
    if not isinstance(given, dict):
        raise BadInput(f"{file}: must hold one JSON object")
    metadata = {**defaults, **{name: given[name] for name in defaults if name in given}}
    if not isinstance(metadata["population"], str) or not metadata["population"]:
        raise BadInput(f"{file}: population: must be a name, in text")
    if not isinstance(metadata["synthetic"], bool):
        raise BadInput(f"{file}: synthetic: must be true or false")
    if metadata["until"] is not None:
        metadata["until"] = parse_until(metadata["until"], str(file))
    return metadata


def _find(source: Path, name: str, problems: Problems) -> Path | None:
    found = [file for file in (source / f"{name}.parquet", source / f"{name}.jsonl") if file.is_file()]
    if len(found) > 1:
        problems.add(f"{name}.parquet", "", f"is there, and {name}.jsonl too; keep one of the two")
    return found[0] if found else None


def _read(file: Path, source: Source | None, problems: Problems) -> pa.Table:
    """Read and normalise one file. Problems are noted; the table returned then means nothing."""
    schema = DEVICES_SCHEMA if source is None else source.arrow_schema(device_id=True)
    batches = []
    first_row = 0
    pieces = (
        _parquet(file, source, problems) if file.suffix == ".parquet" else _json_lines(file, source, problems)
    )
    for batch in pieces:
        rows = normalise(batch, source, file.name, first_row, problems)
        first_row += batch.num_rows
        if rows is not None and not problems.rows:
            batches.append(rows)
    return pa.Table.from_batches(batches, schema).unify_dictionaries()


def _parquet(file: Path, source: Source | None, problems: Problems) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file) as parquet:
            if check_names(parquet.schema_arrow.names, source, file.name, problems):
                for batch in parquet.iter_batches(batch_size=BATCH):
                    batch.validate(full=True)  # or text that is no UTF-8 goes on, until something reads it
                    yield batch
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        problems.add(file.name, "", f"cannot be read as Parquet ({reason}); is it cut short?")


def _json_lines(file: Path, source: Source | None, problems: Problems) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file as batches. Line n is row n; a blank line is no object and is refused."""
    expected = expected_columns(source)
    columns: dict[str, list[Any]] = {name: [] for name in expected}
    first_row = 0
    with file.open("rb") as lines:
        for row, line in enumerate(lines):
            record = _parse(line, file.name, row, problems)
            if record is None:
                return
            if record.keys() != expected.keys() and not check_names(
                list(record), source, file.name, problems
            ):
                problems.add(file.name, "", "does not have the right columns", [row])
                return
            for name, values in columns.items():
                values.append(record[name])
            if row + 1 - first_row == BATCH:
                yield from _batch(columns, file.name, first_row, source, problems)
                first_row, columns = row + 1, {name: [] for name in expected}
    yield from _batch(columns, file.name, first_row, source, problems)


def _parse(line: bytes, file: str, row: int, problems: Problems) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        problems.add(file, "", "is not one JSON object in UTF-8", [row])
        return None
    if not isinstance(record, dict):
        problems.add(file, "", "is not one JSON object in UTF-8", [row])
        return None
    return record


_JSON_TYPES: dict[str, tuple[tuple[type, ...], pa.DataType, str]] = {
    "label": ((str,), pa.string(), "must be text"),
    "time": ((str,), pa.string(), "must be a time with its zone, such as 2026-11-22T07:30:00Z"),
    "number": ((int, float), pa.float64(), "must be a number"),
    "integer": ((int,), pa.int64(), "must be a whole number"),
    "boolean": ((bool,), pa.bool_(), "must be true or false"),
}


def _batch(
    columns: dict[str, list[Any]], file: str, first_row: int, source: Source | None, problems: Problems
) -> Iterator[pa.RecordBatch]:
    """Yield the columns as one batch, or nothing after noting values of the wrong JSON type."""
    arrays = {}
    for name, column in expected_columns(source).items():
        types, arrow, right = _JSON_TYPES[column.type]
        values = columns[name]
        wrong = [row for row, value in enumerate(values) if not _is(value, types)]
        if wrong:
            problems.add(file, name, right, np.array(wrong) + first_row)
        else:
            arrays[name] = pa.array(values, arrow)
    if len(arrays) == len(columns):
        yield pa.record_batch(arrays)


def _is(value: object, types: tuple[type, ...]) -> bool:
    """Whether a JSON value has one of the types, or is null (which has an error of its own)."""
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return False
    return value is None or isinstance(value, types)


def _check_listening(
    tables: dict[str, pa.Table], files: dict[str, Path], devices: pa.Table, problems: Problems
) -> None:
    """Note listening rows with the same key, and wake events that fall into no listening row."""
    file = files["listening"].name
    keyed = [tables[name] for name in ("listening", "wake_events") if name in tables]
    names = {
        name: sorted({label for table in keyed for label in _labels(table[name])})
        for name in ("wake_word", "model_version")
    }
    if len(devices) * math.prod(map(len, names.values())) >= 1 << 38:
        raise BadInput(f"{file}: too many devices, wake words and model versions to check against each other")
    keys = _keys(tables["listening"], devices, names)
    order = np.argsort(keys, kind="stable")
    repeated = np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])
    if repeated.size:
        what = f"repeat the device and {', '.join(LISTENING_KEY)} of an earlier row; there is one row an hour"
        problems.add(file, "time", what, repeated)
    if "wake_events" in tables:
        lost = np.flatnonzero(~np.isin(_keys(tables["wake_events"], devices, names), keys))
        if lost.size:
            what = f"falls into no row of {file} of the same device, hour, {', '.join(LISTENING_KEY[1:])}"
            problems.add(files["wake_events"].name, "time", what, lost)


def _labels(column: pa.ChunkedArray) -> list[str]:
    return [label for chunk in column.chunks for label in chunk.dictionary.to_pylist()]


def _keys(
    table: pa.Table, devices: pa.Table, names: dict[str, list[str]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return one int64 for each row, its device and listening key: 24 bits of hours, then the rest."""
    key = device_places(table["device_id"], devices["device_id"])
    for name, labels in names.items():
        key = key * len(labels) + device_places(table[name], pa.chunked_array([pa.array(labels)]))
    key = key * 2 + table["playback"].to_numpy().astype(np.int64)
    hour = table["time"].cast(pa.int64()).to_numpy() // MICROSECONDS_AN_HOUR
    whole: np.ndarray[Any, np.dtype[np.int64]] = (key << 24) + (hour & 0xFFFFFF)
    return whole


def _write(
    out: Path, metadata: dict[str, Any], devices: pa.Table, tables: dict[str, pa.Table]
) -> dict[str, int]:
    """Write the fleet beside `out` and rename it, so that it is there whole or not at all."""
    until = metadata["until"] or _end(tables)
    described = {
        "population": metadata["population"],
        "until": until.isoformat(),
        "synthetic": metadata["synthetic"],
        "devices": len(devices),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        pq.write_table(devices, beside / "devices.parquet", compression="zstd")
        for name, rows in tables.items():
            place = device_places(rows["device_id"], devices["device_id"])
            time = rows["time"].cast(pa.int64()).to_numpy()
            ordered = rows.take(pa.array(np.lexsort((time, place))))
            pq.write_table(ordered, beside / f"{name}.parquet", compression="zstd", row_group_size=1 << 18)
        (beside / METADATA_FILE).write_text(json.dumps(described, indent=2) + "\n", "utf-8")
        if out.exists():
            out.rmdir()
        beside.chmod(0o755)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return {"devices": len(devices), **{name: len(rows) for name, rows in tables.items()}}


def _end(tables: dict[str, pa.Table]) -> datetime:
    """Return the end of the last recorded hour, or of this one where no row was recorded."""
    latest = [pc.max(rows["time"]).as_py() for rows in tables.values() if len(rows)]
    last = max(latest, default=datetime.now(UTC))
    return last.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
