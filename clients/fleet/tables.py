"""Read a fleet directory: the tables of many devices, as a simulation or a lab holds them.

A fleet directory holds `fleet.json`, `devices.parquet` and one Parquet file for each source that was
recorded. `fa fleet make` and `fa fleet import` write them; rows are in the order of `devices.parquet`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.evaluate import places_in
from clients.fleet.check import check_names, normalise
from clients.fleet.problems import Problems
from fa_core.errors import BadInput
from fa_core.tables import STORED, Source

METADATA_FILE = "fleet.json"
DEVICES_FILE = "devices.parquet"
TRUTH_FILE = "truth.parquet"


@dataclass(frozen=True)
class Fleet:
    """The tables of a fleet. A source that was not recorded is absent from `tables`."""

    population: str
    until: datetime
    """End of the window that was recorded, a whole hour, UTC."""
    synthetic: bool
    devices: pa.Table
    """Columns device_id, accent, device_class, app_version (strings), sorted by device_id, unique."""
    tables: Mapping[str, pa.Table]
    """By source name, in the source's Arrow schema with a leading device_id, in the order of `devices`."""


def read_fleet(path: Path) -> Fleet:
    """Read and check a fleet directory.

    Raises BadInput, naming file, column and row, for a directory that is no fleet, a file that is not
    Parquet or is cut short, wrong columns or types, values outside their domain, and rows of unknown devices.
    """
    path = Path(path)
    metadata = read_metadata(path)
    problems = Problems()
    devices = _read(path / DEVICES_FILE, None, problems)
    problems.raise_any()
    check_devices(devices["device_id"].to_numpy(zero_copy_only=False), DEVICES_FILE, problems)
    problems.raise_any()
    tables = {}
    for source in STORED.values():
        file = path / f"{source.name}.parquet"
        if file.exists():
            tables[source.name] = _read(file, source, problems)
    problems.raise_any()
    for name, table in tables.items():
        _check_order(table, devices, f"{name}.parquet", problems)
    problems.raise_any()
    return Fleet(
        population=metadata["population"],
        until=metadata["until"],
        synthetic=metadata["synthetic"],
        devices=devices,
        tables=MappingProxyType(tables),
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """Read fleet.json, its `until` as an aware datetime. Raises BadInput for anything but a fleet's."""
    if not path.is_dir():
        raise BadInput(f"{path}: no such directory; `fa fleet make` or `fa fleet import` builds a fleet")
    for name in (METADATA_FILE, DEVICES_FILE):
        if not (path / name).is_file():
            raise BadInput(
                f"{path}: not a fleet directory: it has no {name}; tables of your own become one with "
                f"`fa fleet import {path} --out DIR`"
            )
    try:
        metadata = json.loads((path / METADATA_FILE).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path / METADATA_FILE}: not a JSON file: {error}") from None
    if not isinstance(metadata, dict):
        raise BadInput(f"{path / METADATA_FILE}: must hold one JSON object")
    population, synthetic = metadata.get("population"), metadata.get("synthetic")
    if not isinstance(population, str) or not population:
        raise BadInput(f"{path / METADATA_FILE}: population: must be a name, in text")
    if not isinstance(synthetic, bool):
        raise BadInput(f"{path / METADATA_FILE}: synthetic: must be true or false")
    until = parse_until(metadata.get("until"), f"{path / METADATA_FILE}: until")
    return {**metadata, "until": until}


def parse_until(value: object, where: str) -> datetime:
    """Return the end of a window, a whole hour in UTC. Raises BadInput, naming the place, for another."""
    right = "must be a whole hour in UTC, such as 2026-11-22T07:00:00Z"
    try:
        until = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        until = None
    if (
        until is None
        or until.utcoffset() != timedelta(0)
        or until.minute
        or until.second
        or until.microsecond
    ):
        raise BadInput(f"{where}: {right}")
    return until.astimezone(UTC)


def check_devices(device_ids: np.ndarray[Any, Any], file: str, problems: Problems) -> None:
    """Note device names that repeat or are out of order, and a fleet without devices."""
    if not len(device_ids):
        problems.add(file, "", "holds no device")
    repeated = np.flatnonzero(device_ids[1:] == device_ids[:-1]) + 1
    if repeated.size:
        problems.add(file, "device_id", "repeats the device of the row above", repeated)
    elif (disorder := np.flatnonzero(device_ids[1:] < device_ids[:-1]) + 1).size:
        problems.add(file, "device_id", "must be sorted; `fa fleet import` sorts", disorder)


def _read(file: Path, source: Source | None, problems: Problems) -> pa.Table:
    """Read one file in the source's own types. Problems are noted; then the table returned means nothing."""
    batches = []
    first_row = 0
    try:
        with pq.ParquetFile(file) as parquet:
            if not check_names(parquet.schema_arrow.names, source, file.name, problems):
                return None
            for batch in parquet.iter_batches(batch_size=1 << 18):
                batch.validate(full=True)  # or text that is no UTF-8 goes on, until something reads it
                rows = normalise(batch, source, file.name, first_row, problems)
                first_row += batch.num_rows
                if rows is not None:
                    batches.append(rows)
            if not batches and not problems.rows:
                empty = pa.RecordBatch.from_pylist([], schema=parquet.schema_arrow)
                batches.append(normalise(empty, source, file.name, 0, problems))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problems.add(
            file.name, "", f"cannot be read as Parquet ({str(error).splitlines()[0]}); is it cut short?"
        )
        return None
    return None if problems.rows else pa.Table.from_batches(batches).unify_dictionaries()


def _check_order(table: pa.Table, devices: pa.Table, file: str, problems: Problems) -> None:
    """Note rows whose device has no row in devices.parquet, and rows that are not in its order."""
    place = places_in(table["device_id"], devices["device_id"])
    unknown = np.flatnonzero(place < 0)
    if unknown.size:
        problems.add(file, "device_id", f"has no row in {DEVICES_FILE}", unknown)
    elif (disorder := np.flatnonzero(np.diff(place) < 0) + 1).size:
        problems.add(
            file, "device_id", f"must be in the order of {DEVICES_FILE}; `fa fleet import` sorts", disorder
        )
