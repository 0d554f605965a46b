"""The files that hold somebody's own tables: which there are, and their rows in pieces.

A table is one file, or a directory of files as Spark writes it (`listening/date=2026-11-20/part-….parquet`; a
part of the path that reads `name=value` is a column). Files are Parquet, JSON Lines, CSV or TSV. Rows of CSV
and TSV are numbered as a spreadsheet does it, the header being row 1; line n of JSON Lines is row n.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from clients.fleet.check import check_names, expected_columns
from clients.fleet.problems import Problems
from clients.fleet.tables import METADATA_FILE, TRUTH_FILE
from fa_core.errors import BadInput
from fa_core.plan.problems import suggestion
from fa_core.tables import SOURCES, Source

BATCH = 1 << 16
TABLES = ("devices", *SOURCES)
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_BESIDE = (METADATA_FILE, TRUTH_FILE)
_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Accepting:
    """What the person who imports says of their columns.

    Attributes:
        rename: (table, their name) to ours.
        assume_utc: whether a time without a zone is in UTC.
        drop_extra: whether columns that no table has are left out, rather than refused.
    """

    rename: Mapping[tuple[str, str], str] = field(default_factory=dict)
    assume_utc: bool = False
    drop_extra: bool = False

    def __post_init__(self) -> None:
        for (table, old), new in self.rename.items():
            if table not in TABLES:
                raise BadInput(f"--rename {table}.{old}={new}: no table {table}; {suggestion(table, TABLES)}")
            if new not in (columns := expected_columns(SOURCES.get(table))):
                raise BadInput(
                    f"--rename {table}.{old}={new}: no column {new}; {suggestion(new, list(columns))}"
                )


@dataclass(frozen=True)
class File:
    """One file of a table: what it is called in messages, and the columns that its path gives."""

    path: Path
    name: str
    partition: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def first_row(self) -> int:
        """The place of its first row of data: in CSV and TSV the header stands above it."""
        return 1 if self.path.suffix in (".csv", ".tsv") else 0


def find_tables(folder: Path, problems: Problems) -> dict[str, tuple[File, ...]]:
    """Return the files of each table in a directory; note every entry that is no table."""
    found: dict[str, tuple[File, ...]] = {}
    names: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        stem = entry.name.removesuffix(entry.suffix) if entry.suffix in SUFFIXES else entry.name
        if entry.name in _BESIDE or _is_ignored(entry.name) or entry.stem.upper() == "README":
            continue
        if stem not in TABLES or (entry.is_file() and entry.suffix not in SUFFIXES):
            problems.add(entry.name, "", f"is no table: {_meant(stem, entry)}")
        elif stem in found:
            problems.add(names[stem], "", f"is there, and {entry.name} too; keep one of the two")
        else:
            names[stem] = entry.name
            found[stem] = _files(entry, problems) if entry.is_dir() else (File(entry, entry.name),)
    return {name: found[name] for name in TABLES if name in found}


def _meant(stem: str, entry: Path) -> str:
    if entry.stem in TABLES:
        return f"write {', '.join(f'{entry.stem}{suffix}' for suffix in SUFFIXES)}, or a directory"
    nearest = suggestion(stem, TABLES)
    if nearest.startswith("did you mean"):
        return nearest.replace("`?", f"{entry.suffix if entry.suffix in SUFFIXES else ''}`?")
    return f"the tables are {', '.join(TABLES)}; move everything else out of this directory"


def _is_ignored(name: str) -> bool:
    """Whether an entry is a system's own: hidden, a checksum, or Spark's `_SUCCESS`."""
    return name.startswith((".", "_"))


def _files(folder: Path, problems: Problems) -> tuple[File, ...]:
    files = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(_is_ignored(part) for part in parts):
            continue
        name = f"{folder.name}/{'/'.join(parts)}"
        if path.suffix not in SUFFIXES:
            problems.add(name, "", f"is none of {', '.join(SUFFIXES)}; move it out of this directory")
            continue
        keys = [part.partition("=") for part in parts[:-1] if "=" in part]
        partition = {key: None if value == _DEFAULT_PARTITION else unquote(value) for key, _, value in keys}
        files.append(File(path, name, partition))
    if not files:
        problems.add(folder.name, "", "holds no file of the table")
    return tuple(files)


@dataclass
class Reader:
    """Reads the files of one table in pieces, with the columns that the table has."""

    table: str
    accepting: Accepting
    problems: Problems
    seen: set[str] = field(default_factory=set)
    """The names of all columns that were met, as they are written."""

    @property
    def source(self) -> Source | None:
        """The table's source, None for the devices."""
        return SOURCES.get(self.table)

    def read(self, file: File) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file. Problems are noted; the rows then mean nothing."""
        suffix = file.path.suffix
        try:
            if suffix == ".parquet":
                yield from self._parquet(file)
            elif suffix in (".csv", ".tsv"):
                yield from self._separated(file, "," if suffix == ".csv" else "\t")
            else:
                yield from self._json_lines(file)
        except (pa.ArrowException, OSError) as error:
            kind = {".parquet": "Parquet", ".csv": "CSV", ".tsv": "TSV"}.get(suffix, "JSON Lines")
            reason = str(error).splitlines()[0]
            self.problems.add(file.name, "", f"cannot be read as {kind} ({reason}); is it cut short?")
        except UnicodeDecodeError:
            self.problems.add(file.name, "", "holds text that is not UTF-8; save it as UTF-8")

    def unmet_renames(self, file: str) -> None:
        """Note every --rename of a column that no file of the table has."""
        for (table, old), new in self.accepting.rename.items():
            if table == self.table and old not in self.seen:
                right = suggestion(old, sorted(self.seen)) if self.seen else "the table has none"
                self.problems.add(file, old, f"--rename {table}.{old}={new}: no such column; {right}")

    def _columns(self, names: Sequence[str], file: File) -> dict[str, str] | None:
        """Return the columns to keep, by the name that is written; None after noting which are wrong."""
        self.seen.update(names)
        ours = {name: self.accepting.rename.get((self.table, name), name) for name in names}
        extra = [name for name in names if ours[name] not in expected_columns(self.source)]
        if self.accepting.drop_extra:
            for name in extra:
                self.problems.notes.setdefault(
                    f"{file.name}: {name}: no column of the table, and left out", 1
                )
                del ours[name]
        kept = [ours[name] for name in names if name in ours]
        advice = f"; --rename {self.table}.THEIRS=OURS renames a column, --drop-extra leaves unknown ones out"
        if not check_names(kept, self.source, file.name, self.problems, advice):
            return None
        return ours

    def _parquet(self, file: File) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(file.path) as parquet:
            names = parquet.schema_arrow.names
            columns = self._columns([*names, *file.partition], file)
            if columns is None:
                return
            own = [name for name in names if name in columns]
            for batch in parquet.iter_batches(batch_size=BATCH, columns=own):
                batch.validate(full=True)  # or text that is no UTF-8 goes on, until something reads it
                arrays = {columns[name]: batch.column(name) for name in own}
                yield pa.record_batch(arrays | _partition(file, columns, batch.num_rows))

    def _separated(self, file: File, separator: str) -> Iterator[pa.RecordBatch]:
        with file.path.open(encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text, delimiter=separator, strict=True)
            try:
                header = [name.strip() for name in next(lines, [])]
                if len(header) == 1 and (other := next((c for c in ";\t," if c in header[0]), None)):
                    what = f"has its columns separated by {other!r}; .csv has commas, .tsv has tabs"
                    self.problems.add(file.name, "", what)
                    return
                columns = self._columns([*header, *file.partition], file)
                if columns is not None:
                    yield from self._cells(lines, header, columns, file)
            except csv.Error as error:
                self.problems.add(file.name, "", f"is not CSV ({error})", [lines.line_num - 1])

    def _cells(
        self, lines: Iterator[list[str]], header: list[str], columns: dict[str, str], file: File
    ) -> Iterator[pa.RecordBatch]:
        rows: list[list[str]] = []
        blank = False
        for row, cells in enumerate(lines, start=1):
            if blank or (cells and len(cells) != len(header)):
                what = "is blank" if blank else f"does not have the {len(header)} cells of the header"
                self.problems.add(file.name, "", what, [row - 1 if blank else row])
                return
            blank = not cells
            if not blank:
                rows.append(cells)
            if len(rows) == BATCH:
                yield self._text_batch(rows, header, columns, file)
                rows = []
        yield self._text_batch(rows, header, columns, file)

    def _text_batch(
        self, rows: list[list[str]], header: list[str], columns: dict[str, str], file: File
    ) -> pa.RecordBatch:
        arrays = {
            columns[name]: pa.array([cells[place].strip() or None for cells in rows], pa.string())
            for place, name in enumerate(header)
            if name in columns
        }
        return pa.record_batch(arrays | _partition(file, columns, len(rows)))

    def _json_lines(self, file: File) -> Iterator[pa.RecordBatch]:
        """Yield the lines of a file as batches; a blank line is no object and is refused."""
        columns: dict[str, str] | None = None
        names: tuple[str, ...] | None = None
        records: list[dict[str, Any]] = []
        first_row = 0
        with file.path.open("rb") as lines:
            for row, line in enumerate(lines):
                record = _object(line)
                if record is None:
                    self.problems.add(file.name, "", "is not one JSON object in UTF-8", [row])
                    return
                if tuple(record) != names:
                    names = tuple(record)
                    columns = self._columns([*names, *file.partition], file)
                    if columns is None:
                        self.problems.add(file.name, "", "does not have the right columns", [row])
                        return
                assert columns is not None
                records.append({columns[name]: value for name, value in record.items() if name in columns})
                if len(records) == BATCH:
                    yield from self._json_batch(records, columns, file, first_row)
                    first_row, records = row + 1, []
        yield from self._json_batch(records, columns or {}, file, first_row)

    def _json_batch(
        self, records: list[dict[str, Any]], columns: dict[str, str], file: File, first_row: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield records as a batch of text, or nothing after noting values that no column holds."""
        arrays = {}
        sound = True
        for name, column in expected_columns(self.source).items():
            if name in file.partition:
                continue
            values = [record.get(name) for record in records]
            refused = (list, dict, bool, float) if column.type == "label" else (list, dict)
            wrong = [row for row, value in enumerate(values) if isinstance(value, refused)]
            if wrong:
                what = "must be text" if column.type == "label" else "must be one value"
                found = [values[row] for row in wrong[:3]]
                self.problems.add(file.name, name, what, [row + first_row for row in wrong], found)
                sound = False
                continue
            texts = [value if value is None or isinstance(value, str) else _text(value) for value in values]
            try:
                arrays[name] = pa.array(texts, pa.string())
            except UnicodeEncodeError:  # half a surrogate pair, which JSON can write
                self.problems.add(file.name, name, "holds text that is not Unicode")
                sound = False
        if sound:
            yield pa.record_batch(arrays | _partition(file, columns, len(records)))


def _text(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _partition(file: File, columns: Mapping[str, str], rows: int) -> dict[str, pa.Array]:
    """Return the columns that a file's path gives, the same in every row."""
    return {
        columns[key]: pa.array([value] * rows, pa.string())
        for key, value in file.partition.items()
        if key in columns
    }
