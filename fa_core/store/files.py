"""Releases and estimates as Parquet, exactly: what is read back equals what was written.

Exact numbers are text ("1/20"); floats are stored as they are. A release has one row for each block, with
the cells' sums as a list; what belongs to the whole is JSON in the file's metadata under `unheard`. Estimates
have one row for each number, so that a reader takes the columns and rows it wants; the cells of a histogram,
a DET curve or a confusion follow the row of their group.
"""

import io
import json
from dataclasses import asdict
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fa_core.canonical_json import utc_text
from fa_core.errors import BadInput
from fa_core.values import Block, Cell, Estimate, Estimates, Judgement, Layout, Participation, Release

RELEASE_SCHEMA = pa.schema(
    [
        pa.field("metric", pa.string(), nullable=False),
        pa.field("grouping", pa.list_(pa.string()), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("cells", pa.int64(), nullable=False),
        pa.field("l1", pa.string(), nullable=False),
        pa.field("l2_squared", pa.string(), nullable=False),
        pa.field("linf", pa.string(), nullable=False),
        pa.field("cost", pa.string(), nullable=False),
        pa.field("variance", pa.string(), nullable=False),
        pa.field("scale", pa.int64(), nullable=False),
        pa.field("noise_variance", pa.float64(), nullable=False),
        pa.field("sums", pa.list_(pa.int64()), nullable=False),
    ]
)
_RELEASE_BEFORE = pa.schema([field for field in RELEASE_SCHEMA if field.name != "linf"])
"""Releases were written without `linf` while it was l1 in every block."""

_TEXTS = ("metric", "kind", "unit", "grouping", "group")
_NUMBERS = ("estimate", "low", "high", "simultaneous_low", "simultaneous_high", "noise_low", "noise_high")
ESTIMATES_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.dictionary(pa.int32(), pa.string()), nullable=False) for name in _TEXTS),
        pa.field("cell", pa.string()),
        *(pa.field(name, pa.float64()) for name in _NUMBERS),
        pa.field("level", pa.float64(), nullable=False),
        pa.field("suppressed", pa.bool_(), nullable=False),
        pa.field("reason", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("denominator", pa.float64()),
        pa.field("noise_sd", pa.float64()),
        pa.field("devices", pa.float64()),
        pa.field("devices_sd", pa.float64()),
        pa.field("variance_source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    ]
)
"""`grouping` is the segments' names with a comma between, "" for everyone; `group` is a JSON object of label
by segment; `cell` is a JSON object of label by axis in the rows of cells, and null in the others."""

_KEY = b"unheard"


def release_bytes(release: Release) -> bytes:
    """Return a release as a Parquet file."""
    layout, rows = release.layout, []
    for number, block in enumerate(layout.blocks):
        rows.append(
            {
                "metric": block.metric,
                "grouping": list(block.grouping),
                "part": block.part,
                "start": block.start,
                "cells": block.cells,
                "l1": str(block.l1),
                "l2_squared": str(block.l2_squared),
                "linf": str(block.linf),
                "cost": str(block.cost),
                "variance": str(block.variance),
                "scale": int(release.scales[number]),
                "noise_variance": float(release.noise_variance[number]),
                "sums": release.sums[block.slice].tolist(),
            }
        )
    facts = {
        "id": release.id,
        "plan": release.plan.decode(),
        "population": release.population,
        "engine": release.engine,
        "simulated": release.simulated,
        "created": utc_text(release.created),
        "window_start": utc_text(release.window_start),
        "window_end": utc_text(release.window_end),
        "participation": asdict(release.participation),
        "secure_aggregation": release.secure_aggregation,
        "layout": {
            "plan_hash": layout.plan_hash,
            "accounting": layout.accounting,
            "mechanism": layout.mechanism,
            "noise": layout.noise,
            "cost": str(layout.cost),
            "epsilon": str(layout.epsilon),
            "delta": str(layout.delta),
            "modulus_bits": layout.modulus_bits,
            "reason": layout.reason,
            **({} if layout.kappa is None else {"kappa": str(layout.kappa)}),
        },
    }
    return _write(pa.Table.from_pylist(rows, schema=RELEASE_SCHEMA), facts)


def read_release(data: bytes, name: str) -> Release:
    """Return the release in a Parquet file. Raises BadInput, naming `name`, for any other bytes."""
    table, facts = _read(data, name, RELEASE_SCHEMA, _RELEASE_BEFORE)
    try:
        return _release(table, facts)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise BadInput(f"{name} is not a release of this version of Unheard") from None


def _release(table: pa.Table, facts: dict[str, Any]) -> Release:
    rows = table.to_pylist()
    blocks = tuple(
        Block(
            metric=row["metric"],
            grouping=tuple(row["grouping"]),
            part=row["part"],
            start=row["start"],
            cells=row["cells"],
            l1=int(row["l1"]),
            l2_squared=int(row["l2_squared"]),
            linf=int(row.get("linf", row["l1"])),
            cost=Fraction(row["cost"]),
            variance=Fraction(row["variance"]),
        )
        for row in rows
    )
    stored = facts["layout"]
    exact = {key: Fraction(stored[key]) for key in ("cost", "epsilon", "delta", "kappa") if key in stored}
    times = {key: datetime.fromisoformat(facts[key]) for key in ("created", "window_start", "window_end")}
    sums = [np.asarray(row["sums"], dtype=np.int64) for row in rows]
    return Release(
        id=facts["id"],
        plan=facts["plan"].encode(),
        layout=Layout(**(stored | exact | {"blocks": blocks})),
        population=facts["population"],
        engine=facts["engine"],
        simulated=facts["simulated"],
        participation=Participation(**facts["participation"]),
        sums=np.concatenate([np.zeros(0, dtype=np.int64), *sums]),
        scales=np.asarray([row["scale"] for row in rows], dtype=np.int64),
        noise_variance=np.asarray([row["noise_variance"] for row in rows], dtype=np.float64),
        secure_aggregation=facts["secure_aggregation"],
        **times,
    )


def estimates_bytes(estimates: Estimates) -> bytes:
    """Return estimates as a Parquet file with the columns of `ESTIMATES_SCHEMA`."""
    columns: dict[str, list[Any]] = {name: [] for name in ESTIMATES_SCHEMA.names}
    for result in estimates.results:
        shared = {
            "metric": result.metric,
            "kind": result.kind,
            "unit": result.unit,
            "grouping": ",".join(segment for segment, _ in result.group),
            "group": _labels_text(result.group),
            "level": result.level,
        }
        own = {name: getattr(result, name) for name in _OWN}
        _add(columns, shared | own | {name: getattr(result, name) for name in _PARENT})
        for cell in result.cells:
            _add(columns, shared | {name: getattr(cell, name) for name in _OWN} | _cell(cell))
    facts = {
        "release": estimates.release,
        "level": estimates.level,
        "judgements": [asdict(judgement) for judgement in estimates.judgements],
    }
    return _write(pa.table(columns, schema=ESTIMATES_SCHEMA), facts)


_OWN = (
    "estimate",
    "low",
    "high",
    "simultaneous_low",
    "simultaneous_high",
    "suppressed",
    "reason",
    "denominator",
    "noise_sd",
)
_PARENT = ("noise_low", "noise_high", "devices", "devices_sd", "variance_source")


def _cell(cell: Cell) -> dict[str, Any]:
    return {"cell": _labels_text(cell.labels), "variance_source": ""}


def _add(columns: dict[str, list[Any]], row: dict[str, Any]) -> None:
    for name, column in columns.items():
        column.append(row.get(name))


def estimates_table(data: bytes, name: str, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of an estimates file, only some of `ESTIMATES_SCHEMA`'s columns where asked.

    Raises BadInput, naming `name`, for any other bytes.
    """
    return _read(data, name, ESTIMATES_SCHEMA, columns=columns)[0]


def read_estimates(data: bytes, name: str, *, cells: bool = True) -> Estimates:
    """Return the estimates in a Parquet file, without the cells of tables where they are not wanted.

    Raises BadInput, naming `name`, for any other bytes.
    """
    table, facts = _read(data, name, ESTIMATES_SCHEMA)
    if not cells:
        table = table.filter(pc.is_null(table["cell"]))
    try:
        return Estimates(
            facts["release"],
            facts["level"],
            _results(table.to_pylist()),
            tuple(_judgement(each) for each in facts["judgements"]),
        )
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{name} does not hold estimates of this version of Unheard") from None


def _results(rows: list[dict[str, Any]]) -> tuple[Estimate, ...]:
    results: list[Estimate] = []
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and rows[stop]["cell"] is not None:
            stop += 1
        results.append(_estimate(rows[start], rows[start + 1 : stop]))
        start = stop
    return tuple(results)


def _estimate(row: dict[str, Any], cells: list[dict[str, Any]]) -> Estimate:
    return Estimate(
        metric=row["metric"],
        kind=row["kind"],
        unit=row["unit"],
        group=labels(row["group"]),
        level=row["level"],
        **{name: row[name] for name in (*_OWN, *_PARENT)},
        cells=tuple(
            Cell(labels=labels(cell["cell"]), **{name: cell[name] for name in _OWN}) for cell in cells
        ),
    )


def _judgement(stored: dict[str, Any]) -> Judgement:
    worst = None if stored["worst"] is None else tuple((segment, label) for segment, label in stored["worst"])
    return Judgement(**(stored | {"by": tuple(stored["by"]), "worst": worst}))


def _labels_text(pairs: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(pairs), ensure_ascii=False)


def labels(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of a `group` or `cell` column's text, in their order."""
    return tuple(json.loads(text).items())


def _write(table: pa.Table, facts: dict[str, Any]) -> bytes:
    table = table.replace_schema_metadata({_KEY: json.dumps(facts).encode()})
    sink = io.BytesIO()
    texts = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    # Numbers hardly repeat: a dictionary of them would only make the file larger and slower to read.
    pq.write_table(table, sink, compression="snappy", use_dictionary=texts or True)
    return sink.getvalue()


def _read(
    data: bytes, name: str, *schemas: pa.Schema, columns: list[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows and the facts of a file that has the columns of one of `schemas`."""
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)
        facts = json.loads((table.schema.metadata or {})[_KEY])
        for schema in schemas:
            expected = schema if columns is None else pa.schema([schema.field(name) for name in columns])
            if table.schema.equals(expected, check_metadata=False):
                return table, facts
    except (pa.ArrowException, OSError, KeyError, ValueError):
        pass
    raise BadInput(f"{name} is not a file of this store: it was cut off, or is Parquet of something else")
