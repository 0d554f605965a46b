"""Bring somebody's own device tables into a fleet directory, checked whole before anything is written.

The source directory holds `devices`, and each table that was recorded, by the names and columns of
`fa_core.tables`, each with `device_id` (docs/data.md). A `fleet.json` may give `population`, `until` and
`synthetic`; left out, they are the directory's name, the end of the last recorded hour, and false. Files are
read and checked in pieces; only rows in their final, compact types are kept.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clients.evaluate import places_in
from clients.fleet.check import DEVICES_SCHEMA, MICROSECONDS_AN_HOUR, normalise
from clients.fleet.make import require_empty
from clients.fleet.problems import ROWS_NAMED, Problems, Rows
from clients.fleet.sources import SUFFIXES, Accepting, File, Reader, find_tables
from clients.fleet.tables import METADATA_FILE, Fleet, parse_until
from fa_core.errors import BadInput
from fa_core.labels import lookalikes
from fa_core.tables import LISTENING_KEY, SOURCES

AHEAD = timedelta(days=1)
"""Device clocks may be this far ahead of ours; a row that lies further ahead is wrong."""

_HOUR = timedelta(hours=1)
_WAKES = ("wake_events", "detections")
"""The tables whose rows fall into hours of listening."""

_SAME_LABELS = {"intent_predicted": "intent", "intent_actual": "intent"}
"""Columns that share their labels; every other column's are its own."""


@dataclass(frozen=True)
class Imported:
    """What was written: the fleet, and what was changed on the way in, a sentence each."""

    fleet: Fleet
    notes: tuple[str, ...]

    @property
    def rows(self) -> dict[str, int]:
        """The rows of each table, the devices first."""
        tables = {name: len(table) for name, table in self.fleet.tables.items()}
        return {"devices": len(self.fleet.devices), **tables}


@dataclass(frozen=True)
class _Read:
    """A table as it was read, and the rows that each of its files has."""

    table: pa.Table
    pieces: tuple[tuple[File, int], ...]

    def add(self, problems: Problems, column: str, what: str, rows: Rows) -> None:
        """Note a problem of rows of the table at their places in the files."""
        start = 0
        places = np.asarray(rows)
        for file, count in self.pieces:
            here = places[(places >= start) & (places < start + count)]
            if here.size:
                values = self.table[column].take(pa.array(here[:ROWS_NAMED])).to_pylist()
                problems.add(file.name, column, what, here - start + file.first_row, values)
            start += count


def import_fleet(source: Path, out: Path, accepting: Accepting, now: datetime) -> Imported:
    """Check the tables in `source` and write them as a fleet directory.

    Args:
        source: a directory of tables.
        out: the fleet directory to write.
        accepting: what is said of the columns.
        now: the time, UTC; rows more than a day ahead of it are refused, unless the fleet is synthetic.

    Raises BadInput (BadTables) with everything wrong that was found, by file, column and row, and writes
    nothing then.
    """
    if not source.is_dir():
        raise BadInput(f"{source}: no such directory")
    require_empty(out)
    metadata = _read_metadata(source, now)
    problems = Problems()
    files = find_tables(source, problems)
    _check_files(source, files, accepting, problems)
    problems.raise_any()
    tables = {name: _read(name, each, accepting, problems) for name, each in files.items()}
    problems.raise_any()
    devices = tables.pop("devices")
    _check_devices(devices, problems)
    for each in tables.values():
        unknown = np.flatnonzero(places_in(each.table["device_id"], devices.table["device_id"]) < 0)
        each.add(problems, "device_id", "is no device of the devices table", unknown)
        if not metadata["synthetic"]:
            _check_clock(each, now, problems)
    _check_lookalikes({"devices": devices, **tables}, problems)
    problems.raise_any()
    sorted_devices = devices.table.sort_by("device_id")
    if "listening" in tables:
        _check_listening(tables, sorted_devices, problems)
    problems.raise_any()
    fleet = _fleet(metadata, sorted_devices, tables, now)
    _write(out, fleet)
    counted = (f"{note} ({count:,})" if count > 1 else note for note, count in problems.notes.items())
    return Imported(fleet, tuple(counted))


def _read_metadata(source: Path, now: datetime) -> dict[str, Any]:
    defaults: dict[str, Any] = {"population": source.resolve().name, "synthetic": False, "until": None}
    file = source / METADATA_FILE
    if not file.exists():
        return defaults
    try:
        given = json.loads(file.read_text("utf-8-sig"))
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
        metadata["until"] = parse_until(metadata["until"], f"{file}: until")
        if metadata["until"] > _hour_after(now) and not metadata["synthetic"]:
            raise BadInput(f"{file}: until: lies ahead of this computer's clock, {now:%Y-%m-%d %H:%M} UTC")
    return metadata


def _check_files(
    source: Path, files: Mapping[str, tuple[File, ...]], accepting: Accepting, problems: Problems
) -> None:
    """Note what is missing: the devices, every table, or the table of a --rename."""
    if "devices" not in files:
        problems.add("devices" + SUFFIXES[0], "", f"is not in {source}, nor devices in any other format")
    if not files.keys() & SOURCES.keys() and not problems.rows:
        problems.add(str(source), "", f"holds none of the tables {', '.join(SOURCES)}")
    for table, old in accepting.rename:
        if table not in files:
            problems.add(f"--rename {table}.{old}", "", f"{source} holds no table {table}")


def _read(name: str, files: tuple[File, ...], accepting: Accepting, problems: Problems) -> _Read:
    """Read and normalise the files of a table. Problems are noted; the table returned then means nothing."""
    source = SOURCES.get(name)
    schema = DEVICES_SCHEMA if source is None else source.arrow_schema(device_id=True)
    reader = Reader(name, accepting, problems)
    batches, pieces = [], []
    for file in files:
        count = 0
        for batch in reader.read(file):
            rows = normalise(
                batch, source, file.name, count + file.first_row, problems, assume_utc=accepting.assume_utc
            )
            count += batch.num_rows
            if rows is not None and not problems.rows:
                batches.append(rows)
        pieces.append((file, count))
    if not problems.rows or reader.seen:
        reader.unmet_renames(files[0].name)
    return _Read(pa.Table.from_batches(batches, schema).unify_dictionaries(), tuple(pieces))


def _check_devices(devices: _Read, problems: Problems) -> None:
    ids = devices.table["device_id"].to_numpy()
    if not len(ids):
        problems.add(devices.pieces[0][0].name, "", "holds no device")
    devices.add(problems, "device_id", "repeats the device of an earlier row", _repeated(ids))


def _repeated(keys: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the rows whose key an earlier row has, ascending."""
    order = np.argsort(keys, kind="stable")
    return np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])


def _check_clock(read: _Read, now: datetime, problems: Problems) -> None:
    latest = pa.scalar(now + AHEAD, read.table["time"].type)
    ahead = np.flatnonzero(pc.greater(read.table["time"], latest).to_numpy())
    what = f"lies more than a day ahead of this computer's clock, {now:%Y-%m-%d %H:%M} UTC"
    read.add(problems, "time", what, ahead)


def _check_lookalikes(tables: Mapping[str, _Read], problems: Problems) -> None:
    """Note labels of a column that a person cannot keep apart, wherever the column stands."""
    met: dict[str, dict[str, None]] = {}
    for read in tables.values():
        for name in read.table.column_names:
            column = read.table[name]
            if name == "device_id" or not (
                pa.types.is_dictionary(column.type) or pa.types.is_string(column.type)
            ):
                continue
            labels = _labels(column)
            together = met.setdefault(_SAME_LABELS.get(name, name), {})
            for earlier, label in lookalikes([*together, *labels]):
                if label not in together:
                    what = "looks like another label: only case, width or spaces differ; write one of them"
                    both = pc.is_in(column.cast(pa.string()), pa.array([earlier, label]))
                    rows = np.flatnonzero(both.to_numpy())
                    first = {column[int(row)].as_py(): int(row) for row in rows[::-1]}
                    read.add(problems, name, what, sorted(first.values()))
            together.update(dict.fromkeys(labels))


def _check_listening(tables: Mapping[str, _Read], devices: pa.Table, problems: Problems) -> None:
    """Note listening rows with the same key, and wakes that fall into no listening row."""
    listening = tables["listening"]
    keyed = [tables[name].table for name in ("listening", *_WAKES) if name in tables]
    names = {
        name: sorted({label for table in keyed for label in _labels(table[name])})
        for name in ("wake_word", "model_version")
    }
    if len(devices) * math.prod(map(len, names.values())) >= 1 << 38:
        raise BadInput(
            "listening: too many devices, wake words and model versions to check against each other"
        )
    keys = _keys(listening.table, devices, names)
    what = f"repeat the device and {', '.join(LISTENING_KEY)} of an earlier row; there is one row an hour"
    listening.add(problems, "time", what, _repeated(keys))
    for wakes in (tables[name] for name in _WAKES if name in tables):
        lost = np.flatnonzero(~np.isin(_keys(wakes.table, devices, names), keys))
        what = f"falls into no row of listening of the same device, hour, {', '.join(LISTENING_KEY[1:])}"
        wakes.add(problems, "time", what, lost)


def _labels(column: pa.ChunkedArray) -> list[str]:
    """Return the labels of a column, in the order met: its dictionaries hold what it does and no more."""
    if pa.types.is_string(column.type):
        return list(pc.unique(column).drop_null().to_pylist())
    return list(dict.fromkeys(label for chunk in column.chunks for label in chunk.dictionary.to_pylist()))


def _keys(
    table: pa.Table, devices: pa.Table, names: dict[str, list[str]]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return one int64 for each row, its device and listening key: 24 bits of hours, then the rest."""
    key = places_in(table["device_id"], devices["device_id"])
    for name, labels in names.items():
        key = key * len(labels) + places_in(table[name], pa.chunked_array([pa.array(labels)]))
    key = key * 2 + table["playback"].to_numpy().astype(np.int64)
    hour = table["time"].cast(pa.int64()).to_numpy() // MICROSECONDS_AN_HOUR
    whole: np.ndarray[Any, np.dtype[np.int64]] = (key << 24) + (hour & 0xFFFFFF)
    return whole


def _fleet(metadata: Mapping[str, Any], devices: pa.Table, tables: dict[str, _Read], now: datetime) -> Fleet:
    """Return the fleet, its rows in the order of its devices and of time; `tables` is emptied on the way."""
    until = metadata["until"] or _end(tables, None if metadata["synthetic"] else now)
    ordered = {}
    for name in list(tables):
        rows = tables.pop(name).table
        place = places_in(rows["device_id"], devices["device_id"])
        time = rows["time"].cast(pa.int64()).to_numpy()
        ordered[name] = rows.take(pa.array(np.lexsort((time, place))))
    return Fleet(metadata["population"], until, metadata["synthetic"], devices, MappingProxyType(ordered))


def _end(tables: Mapping[str, _Read], now: datetime | None) -> datetime:
    """Return the end of the last recorded hour, of this one at the latest where there is a clock to go by."""
    latest = [pc.max(read.table["time"]).as_py() for read in tables.values() if len(read.table)]
    last = max(latest, default=now or datetime.now(UTC))
    return min(_hour_after(last), _hour_after(now or last))


def _hour_after(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + _HOUR


def _write(out: Path, fleet: Fleet) -> None:
    """Write the fleet beside `out` and rename it, so that it is there whole or not at all."""
    described = {
        "population": fleet.population,
        "until": fleet.until.isoformat(),
        "synthetic": fleet.synthetic,
        "devices": len(fleet.devices),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        pq.write_table(fleet.devices, beside / "devices.parquet", compression="zstd")
        for name, rows in fleet.tables.items():
            pq.write_table(rows, beside / f"{name}.parquet", compression="zstd", row_group_size=1 << 18)
        (beside / METADATA_FILE).write_text(json.dumps(described, indent=2) + "\n", "utf-8")
        if out.exists():
            out.rmdir()
        beside.chmod(0o755)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
