"""The tables and columns of device data, for people: docs/data.md, and a sample to start from."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from clients.fleet.check import expected_columns
from clients.fleet.make import require_empty
from fa_core.labels import LONGEST
from fa_core.tables import EARLIEST, LARGEST, LATEST, LISTENING_KEY, SOURCES, Column

DEVICES_ROW = "One device. Every other table names devices of this one."
DEVICE_ID = Column("label", why="The device's name. It never leaves the directory.", example="device-1")
SAMPLE_DEVICES = ("device-1", "device-2")

_TYPES = {
    "time": "time, UTC",
    "label": "label",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
}

_INTRODUCTION = f"""\
# Your own data

<!-- Written by `fa fleet columns --markdown` from fa_core/tables.py and clients/fleet/columns.py. -->

A fleet's data is a directory with a table `devices` and each table below that you have. Nothing else may be
in it: there is no free text, and no column beyond these.

```
fa fleet template mine                           # a small sample of every table, to write over
fa fleet import mine --out fleet                 # check all of it, then write a fleet directory
fa run PLAN --fleet fleet                        # ask
```

**Files.** A table is one file (`wake_events.csv`, `.tsv`, `.jsonl`, `.parquet`) or a directory of files as
Spark writes them (`wake_events/date=2026-11-20/part-0.parquet`; `name=value` in a path is a column). CSV
has commas and a header; JSON Lines has one object a line. `fleet.json` may say `{{"population": …, "until":
…, "synthetic": …}}`.

**Columns.** `--rename wake_events.ts=time` reads your column `ts` as `time`, and `--drop-extra` leaves out
what no table has. Text, whole numbers and fractions of nothing (`60.0`) mean the same, and so do `true`,
`yes` and `1`.

**Times** are ISO 8601 with a zone, or whole milliseconds since 1970. Without a zone they are refused,
unless `--assume-utc` says that all are in UTC. They are kept to the microsecond, lie from
{EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}, and at most a day ahead of the clock of the computer that imports:
the newest row decides the window of a run.

**Labels** are text of 1 to {LONGEST} characters without controls or invisible marks. Spaces around
them are taken off, and they are compared in Unicode's composed form (NFC). Two labels of a
column that differ only by case, width or the kind of a space are refused. The same rule holds for
`device.toml` and for plans (`fa_core/labels.py`). A plan's segment counts other spellings as its label
with `aliases: {{en-GB-scotland: [scottish english, "Scots, broad"]}}`.

**Numbers** are at most {LARGEST:.0e}. Only `snr_db`, the `score` of a detection and the three kinds of
word errors may be empty or missing altogether: they are unknown then. A row without `snr_db` meets no
condition on it, not even `not`. In a segment by it the row is `other`, and nothing else is.

**Dictation.** `insertions`, `deletions` and `substitutions` are all given in a row or all empty; they add up
to `word_errors`, and no more words are deleted and substituted than were said. A recording in which nobody
spoke is a row with `words` 0, and its `word_errors` are the words that were recognised all the same. Such
rows count in `word_error_rate` as insertions do; `hallucinated_words` (words a silent recording) and
`hallucination_rate` (the share of silent recordings with any word) read nothing else. A plan leaves them out
with `where: {{words: {{ge: 1}}}}`.

**Logs.** `fa fleet import-log LOGS --out mine --zone Europe/Berlin --date 2026-11-20` reads when devices
woke from logs of ESPHome, also as Home Assistant passes them on, into `detections` and `listening`.
Nobody knows of these whether they were right, so they are no `wake_events`: the metrics `wakes_per_hour`
and `detection_scores` read them.

**Quality.** The import ends with what is worth knowing: clocks, labels that no plan names, and with
`--plan` what the plan's caps leave out and which groups are too small. `fa plan preview --fleet DIR` says
it later, and `fa run` warns before it charges.

**What is wrong** is named by file, column and row, all at once, and nothing is written. Rows of CSV are
numbered as a spreadsheet does it, with the header as row 1. The values themselves are shown on a terminal
alone.
"""


def markdown() -> str:
    """Return the text of docs/data.md."""
    parts = [_INTRODUCTION, *(_section(*each) for each in _tables())]
    return "\n".join(parts)


def rows() -> list[dict[str, object]]:
    """Return every column of every table, for programs."""
    return [
        {
            "table": table,
            "column": name,
            "type": _TYPES[column.type],
            "unit": column.unit,
            "allowed": _allowed(column),
            "required": not column.optional,
            "example": column.example,
            "why": column.why,
        }
        for table, _, columns in _tables()
        for name, column in columns.items()
    ]


def write_template(out: Path) -> None:
    """Write a small, valid sample of every table as CSV. Raises BadInput where `out` is not empty."""
    require_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    for table, _, columns in _tables():
        (out / f"{table}.csv").write_text(_sample(columns), "utf-8")
    text = (
        f"A sample of every table: write your rows over it, then `fa fleet import {out.name} --out fleet`.\n"
    )
    (out / "README.md").write_text(
        text + "Tables that you do not have: delete them. Columns: docs/data.md.\n", "utf-8"
    )


def _tables() -> Iterator[tuple[str, str, dict[str, Column]]]:
    """Yield the name of each table, what a row of it is, and its columns."""
    for name in ("devices", *SOURCES):
        source = SOURCES.get(name)
        row = DEVICES_ROW if source is None else source.row
        yield name, row, expected_columns(source) | {"device_id": DEVICE_ID}


def _section(table: str, row: str, columns: dict[str, Column]) -> str:
    lines = [f"## {table}", "", row, ""]
    if table == "listening":
        key = ", ".join(f"`{name}`" for name in LISTENING_KEY)
        lines += [f"A device has one row for each {key}; every wake event falls into one.", ""]
    lines += ["| column | type | unit | allowed | example | why |", "|---|---|---|---|---|---|"]
    for name, column in columns.items():
        empty = ", may be empty" if column.optional else ""
        cells = (
            f"`{name}`",
            _TYPES[column.type] + empty,
            column.unit,
            _allowed(column),
            f"`{column.example}`",
        )
        lines.append(f"| {' | '.join((*cells, column.why))} |")
    lines += ["", "```", _sample(columns, 1).rstrip("\n"), "```", ""]
    return "\n".join(lines)


def _allowed(column: Column) -> str:
    if column.domain is not None:
        return ", ".join(column.domain)
    if column.low is not None and column.high is not None:
        return f"{column.low:g} to {column.high:g}"
    return "" if column.low is None else f"at least {column.low:g}"


def _sample(columns: dict[str, Column], devices: int = len(SAMPLE_DEVICES)) -> str:
    """Return the header and a row for each of the sample devices; the second's leaves empty what may be."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for device in SAMPLE_DEVICES[:devices]:
        known = device == SAMPLE_DEVICES[0]
        own = {"device_id": device} | {
            name: "" for name, column in columns.items() if column.optional and not known
        }
        writer.writerow([own.get(name, column.example) for name, column in columns.items()])
    return text.getvalue()
