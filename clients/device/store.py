"""A device's store: insertion of events, the owner's consent, and deletion that leaves a proof.

Every method that writes is one transaction, so a crash leaves a store as it was before or after. Each
first enforces retention (`tidy`): rows older than their table's retention and rows of a consent that ran
out are deleted before anything else happens.

A deletion is journaled with how many rows went, the highest row number given out so far, and the Merkle
root (RFC 6962) over the rows that were left. `clients.device.proof` checks that against the file.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import pyarrow as pa

from clients.device import database, reports
from clients.device.consent import PURPOSES, Grant, Purpose, allows, lapsed
from clients.device.database import PERSONAL_ROWS, Connection
from clients.device.journal import Entry, Json, Kind, extend
from clients.device.keys import StoreKey
from clients.device.redaction import Redactor
from clients.device.rows import EPOCH, Cell, micros, moment, to_arrow, to_row
from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.labels import normal, wrong
from fa_core.tables import FACTS, STORED, Source

DEFAULT_RETENTION = timedelta(days=30)
AHEAD = timedelta(days=1)
"""A row whose time lies further ahead than this when it is written is wrong, and is not taken."""

MOST_ROWS = 20_000
"""Rows that a table holds at most, and that counting reads of it: in a month some 600 a day."""

MOMENT_KEPT = timedelta(days=30)
DELTA_KEPT = timedelta(days=120)
"""How long a moment of personalisation is kept, and what was learned from such moments."""

_HOUR = timedelta(hours=1)
# A store of before may hold more rows than a table may have now.
_WINDOW = "(SELECT * FROM $table WHERE purpose = ? AND time >= ? AND time < ? ORDER BY id LIMIT ?)"
_ROWS = "SELECT $columns FROM $window ORDER BY id"
_LISTENING = (
    "SELECT time, wake_word, model_version, sum(snr_db * minutes) / sum(iif(snr_db IS NULL, 0, minutes)), "
    "playback, min(60, sum(minutes)) FROM $window "
    "GROUP BY time, wake_word, model_version, playback ORDER BY min(id)"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What to delete: rows of a purpose, of a table, or of both; by default every row and every fact."""

    purpose: Purpose | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.source is not None and self.source not in {**STORED, **PERSONAL_ROWS}:
            raise BadInput(
                f"{self.source!r} is not a table; there are {', '.join([*STORED, *PERSONAL_ROWS])}"
            )

    def __str__(self) -> str:
        parts = [part for part in (self.source, self.purpose and f"what was kept for {self.purpose}") if part]
        return " of ".join(parts) or "everything"


@dataclass(frozen=True, slots=True)
class Rules:
    """How a store treats what it is given: retention by table, allow-list by open label column, redaction."""

    retention: Mapping[str, timedelta]
    labels: Mapping[str, Collection[str]]
    redactor: Redactor = field(default=Redactor(), repr=False)

    def allowing(self, column: str, label: str) -> "Rules":
        """Return rules that let one more label into an open label column."""
        return replace(self, labels={**self.labels, column: {*self.labels.get(column, ()), label}})

    def kept_for(self, source: str) -> timedelta:
        """Return how long the rows of a table are kept."""
        return self.retention.get(source, DEFAULT_RETENTION)

    def kept_since(self, source: str, now: datetime) -> datetime:
        """Return the time before which rows of a table are deleted at `now`; it moves once an hour."""
        return _next_hour(now) - self.kept_for(source)


class Store:
    """One device's store. `database.create` makes the file; this opens, reads and writes it."""

    def __init__(self, connection: Connection, rules: Rules) -> None:
        self.connection = connection
        self.rules = rules
        self._tidied: datetime | None = None

    @classmethod
    def open(cls, path: Path, key: StoreKey, rules: Rules, now: datetime) -> Self:
        """Open the store at `path` and enforce retention up to `now`. Refusals as `database.connect`."""
        store = cls(database.connect(path, key), rules)
        with store.transaction(now):
            if store.last_entry() is None:
                store.append(now, "created", {"tables": list(STORED)})
        return store

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self, now: datetime) -> Iterator[None]:
        """Run a block as one transaction, with retention enforced first."""
        try:
            with database.transaction(self.connection):
                self._tidy(now)
                yield
        except BaseException:
            self._tidied = None
            raise

    # Insertion.

    def record(
        self, source: str, events: Iterable[Mapping[str, object]], purpose: Purpose, now: datetime
    ) -> int:
        """Write events of one table, taken in for `purpose`, and return how many were written.

        None is written without consent to the purpose; one that is already past its retention, or that
        lies more than a day ahead, is not written either, nor is one into a table that holds `MOST_ROWS`.
        Raises BadInput, and writes none, where an event does not fit its columns.
        """
        with self.transaction(now):
            return self.insert(source, events, purpose, now)

    def insert(
        self, source: str, events: Iterable[Mapping[str, object]], purpose: Purpose, now: datetime
    ) -> int:
        """Write events as `record` does, within a transaction that is open."""
        table = STORED[source]
        rows = [to_row(table, event, self.rules.labels, self.rules.redactor) for event in events]
        oldest, newest = micros(self.rules.kept_since(source, now)), micros(now + AHEAD)
        at = list(table.columns).index("time")
        rows = [row for row in rows if oldest <= _integer(row[at]) <= newest]
        if not allows(self.grants(), purpose, now):
            return 0
        (held,) = self.connection.execute(_sql("SELECT count(*) FROM $table", table)).fetchone()
        rows = rows[: max(0, MOST_ROWS - held)]
        places = ", ".join("?" * (len(table.columns) + 1))
        statement = _sql("INSERT INTO $table (purpose, $columns) VALUES ($places)", table)
        self.connection.executemany(statement.replace("$places", places), [(purpose, *row) for row in rows])
        return len(rows)

    def set_facts(self, facts: Mapping[str, str], now: datetime) -> None:
        """Replace the device's facts. Raises BadInput for one that no plan could ask about, and for a value
        that is no text, too long, not Unicode, or none that the fact can have."""
        unknown = set(facts) - set(FACTS)
        if unknown:
            raise BadInput(f"a device has the facts {', '.join(FACTS)} and no others")
        if not all(isinstance(value, str) for value in facts.values()):
            raise BadInput("a fact of a device is text")
        normalised = {name: normal(value) for name, value in facts.items()}
        for name, value in normalised.items():
            if (what := wrong(value)) is not None:
                raise BadInput(f"{name} {what}")
            if (domain := FACTS[name].domain) is not None and value not in domain:
                raise BadInput(f"{name} must be one of {', '.join(domain)}")
        with self.transaction(now):
            self.connection.execute("DELETE FROM fact")
            self.connection.executemany("INSERT INTO fact VALUES (?, ?)", list(normalised.items()))

    # Reading.

    def facts(self) -> dict[str, str]:
        """Return the device's facts."""
        return dict(self.connection.execute("SELECT name, value FROM fact ORDER BY name").fetchall())

    def table(self, source: str, purpose: Purpose, start: datetime, end: datetime) -> pa.Table:
        """Return the rows of one table and purpose with start <= time < end, in the order they came.

        Rows are never changed once written, so an hour of listening that was written in parts (a device
        restarts) is put together here.
        """
        table = STORED[source]
        select = (_LISTENING if source == "listening" else _ROWS).replace("$window", _WINDOW)
        within = (purpose, micros(start), micros(end), MOST_ROWS)
        rows = self.connection.execute(_sql(select, table), within).fetchall()
        return to_arrow(table, rows)

    def rows(self, source: str) -> Iterator[Sequence[Cell]]:
        """Yield the rows of one table as they were written: the purpose, then the cells."""
        yield from self.connection.execute(
            _sql("SELECT purpose, $columns FROM $table ORDER BY id", STORED[source])
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many rows each table holds, by purpose."""
        found = {}
        for source in STORED.values():
            select = _sql("SELECT purpose, count(*) FROM $table GROUP BY purpose ORDER BY purpose", source)
            found[source.name] = dict(self.connection.execute(select).fetchall())
        for name in PERSONAL_ROWS:
            (count,) = self.connection.execute(_named("SELECT count(*) FROM $table", name)).fetchone()
            found[name] = {"personalisation": count} if count else {}
        return found

    # Consent.

    def grants(self) -> list[Grant]:
        """Return the consents that were given and not yet revoked or found to have run out."""
        rows = self.connection.execute("SELECT purpose, granted, until FROM consent").fetchall()
        held = {purpose: (moment(granted), moment(until)) for purpose, granted, until in rows}
        return [Grant(purpose, *held[purpose]) for purpose in PURPOSES if purpose in held]

    def grant(self, purpose: Purpose, until: datetime, now: datetime) -> None:
        """Consent to a purpose until a time, in place of any earlier consent to it."""
        grant = Grant(purpose, now, until)
        with self.transaction(now):
            row = (purpose, micros(grant.granted), micros(grant.until))
            self.connection.execute("INSERT OR REPLACE INTO consent VALUES (?, ?, ?)", row)
            self.append(now, "granted", {"purpose": purpose, "until": until.isoformat()})

    def revoke(self, purpose: Purpose, now: datetime) -> Entry:
        """End the consent to a purpose, delete what it had stored, and return the journal's entry of it."""
        with self.transaction(now):
            return self._end_consent(purpose, "you revoked it", now)

    # Deletion.

    def forget(self, scope: Scope, now: datetime) -> Entry:
        """Delete rows, and with them the replies kept for a resend; return the journal's entry, the proof.

        What was charged stays: it was sent and cannot be called back, and it must keep counting.
        """
        with self.transaction(now):
            if scope == Scope():
                self.connection.execute("DELETE FROM fact")
            return self._delete("forgotten", {"scope": str(scope)}, scope, now)

    def root(self, upto: Mapping[str, int]) -> str:
        """Return the Merkle root, in hex, over the rows numbered at most `upto[table]`, table by table."""
        leaves = []
        for source in STORED.values():
            select = _sql("SELECT id, purpose, $columns FROM $table WHERE id <= ? ORDER BY id", source)
            rows = self.connection.execute(select, (upto.get(source.name, 0),)).fetchall()
            leaves += [merkle.leaf_hash(_leaf(source.name, row)) for row in rows]
        for name, columns in PERSONAL_ROWS.items():
            select = _named("SELECT $columns FROM $table WHERE id <= ? ORDER BY id", name, columns)
            rows = self.connection.execute(select, (upto.get(name, 0),)).fetchall()
            leaves += [merkle.leaf_hash(_leaf(name, row)) for row in rows]
        return merkle.root(leaves).hex()

    def numbered(self) -> dict[str, int]:
        """Return the highest row number that each table ever gave out."""
        given = dict(self.connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
        return {name: given.get(name, 0) for name in [*STORED, *PERSONAL_ROWS]}

    # The journal.

    def entries(self) -> list[Entry]:
        """Return the whole journal, oldest first."""
        rows = self.connection.execute("SELECT * FROM journal ORDER BY sequence").fetchall()
        return [_entry(row) for row in rows]

    def last_entry(self) -> Entry | None:
        """Return the journal's newest entry."""
        row = self.connection.execute("SELECT * FROM journal ORDER BY sequence DESC LIMIT 1").fetchone()
        return _entry(row) if row else None

    def append(self, at: datetime, kind: Kind, body: Mapping[str, Json]) -> Entry:
        """Add an entry; to be called inside the transaction that does what the entry says."""
        entry = extend(self.last_entry(), at, kind, body)
        text = json.dumps(dict(body), sort_keys=True)
        row = (entry.sequence, at.isoformat(), kind, text, entry.previous, entry.hash)
        self.connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", row)
        return entry

    def last_deletion(self) -> int:
        """Return the number of the journal's last entry about rows that were deleted at the owner's wish."""
        (last,) = self.connection.execute(
            "SELECT coalesce(max(sequence), 0) FROM journal WHERE kind IN ('revoked', 'forgotten')"
        ).fetchone()
        return _integer(last)

    # Retention.

    def _tidy(self, now: datetime) -> None:
        reports.delete_over(self.connection, now)
        for purpose in sorted(lapsed(self.grants(), now)):
            self._end_consent(purpose, "its time ran out", now)
        hour = now.replace(minute=0, second=0, microsecond=0)
        if hour == self._tidied or now < self._past():
            return
        gone = {}
        for source in STORED.values():
            bounds = _bounds(self.rules.kept_for(source.name), now)
            gone[source.name] = self.connection.execute(
                _sql("DELETE FROM $table WHERE time < ? OR time > ?", source), bounds
            ).rowcount
        bounds = _bounds(MOMENT_KEPT, now)
        delete = "DELETE FROM personal_moment WHERE time < ? OR time > ?"
        gone["personal_moment"] = self.connection.execute(delete, bounds).rowcount
        if any(gone.values()):
            self.prove("expired", {}, gone, now)
        self._expire_deltas(now)
        self._tidied = hour

    def _expire_deltas(self, now: datetime) -> None:
        """Delete what was learned too long ago, each with an entry that names it."""
        bounds = _bounds(DELTA_KEPT, now)
        select = (
            "SELECT wake_word, number FROM personal_stage JOIN personal_delta ON id = number "
            "WHERE time < ? OR time > ? ORDER BY wake_word"
        )
        for wake_word, number in self.connection.execute(select, bounds).fetchall():
            self.connection.execute("DELETE FROM personal_stage WHERE wake_word = ?", (wake_word,))
            self.connection.execute("DELETE FROM personal_delta WHERE id = ?", (number,))
            body = {"step": "forget", "wake_word": wake_word, "number": number, "why": "its time ran out"}
            self.prove("personal", body, {"personal_delta": 1}, now)

    def _past(self) -> datetime:
        """Return a time that has passed for certain: the latest witnessed, or when the store was made.

        A clock that is before it (a device that just booted) is wrong, and deletes nothing.
        """
        row = self.connection.execute("SELECT value FROM state WHERE name = 'latest'").fetchone()
        if row is not None:
            return moment(int.from_bytes(row[0], "big"))
        made = self.connection.execute("SELECT at FROM journal WHERE sequence = 1").fetchone()
        return datetime.fromisoformat(made[0]) if made else EPOCH

    def _end_consent(self, purpose: Purpose, why: str, now: datetime) -> Entry:
        self.connection.execute("DELETE FROM consent WHERE purpose = ?", (purpose,))
        return self._delete("revoked", {"purpose": purpose, "why": why}, Scope(purpose), now)

    def _delete(self, kind: Kind, body: Mapping[str, Json], scope: Scope, now: datetime) -> Entry:
        self.connection.execute("DELETE FROM reply")
        gone = {}
        for source in STORED.values():
            if scope.source in (None, source.name):
                delete = _sql("DELETE FROM $table WHERE ?1 IS NULL OR purpose = ?1", source)
                gone[source.name] = self.connection.execute(delete, (scope.purpose,)).rowcount
        if scope.purpose in (None, "personalisation"):
            gone |= self._delete_personal(scope.source)
        return self.prove(kind, {**body, **self._take_back(scope, now)}, gone, now)

    def _take_back(self, scope: Scope, now: datetime) -> dict[str, Json]:
        """Take back the reports that counted what is deleted; return what the journal says of it."""
        taken = [
            each
            for each in reports.still_open(self.connection, now)
            if each.report is not None
            and scope.purpose in (None, each.purpose)
            and (scope.source is None or scope.source in each.tables)
        ]
        reports.take_back(self.connection, [each.task for each in taken])
        return {"reports": {each.release.hex(): each.family for each in taken}} if taken else {}

    def _delete_personal(self, table: str | None) -> dict[str, int]:
        """Delete what is kept for personalisation beside events, of one table or of all; return how many."""
        gone = {
            name: self.connection.execute(_named("DELETE FROM $table", name)).rowcount
            for name in PERSONAL_ROWS
            if table in (None, name)
        }
        if table is None:
            self.connection.execute("DELETE FROM personal_attempt")
        unused = "DELETE FROM personal_stage WHERE number NOT IN (SELECT id FROM personal_delta)"
        self.connection.execute(unused)
        return gone

    def prove(self, kind: Kind, body: Mapping[str, Json], gone: Mapping[str, int], now: datetime) -> Entry:
        """Add the entry of a deletion: how many rows went, and the root over those that were left. To be
        called inside the transaction that deleted them."""
        upto = self.numbered()
        proof: dict[str, Json] = {"rows": dict(gone), "upto": dict(upto), "root": self.root(upto)}
        return self.append(now, kind, {**body, **proof})


def _next_hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0) + _HOUR


def _bounds(kept: timedelta, now: datetime) -> tuple[int, int]:
    """Return the times, in microseconds, outside which rows that are kept for so long are deleted at `now`.

    A clock that was set back leaves rows of the future, which are right if the clock was: they stay, unless
    they are further away than a row can be kept, so none is there for more than twice its time.
    """
    return micros(_next_hour(now) - kept), micros(now + kept)


def _sql(words: str, source: Source) -> str:
    """Return a statement with a source's own names filled in; they come from `fa_core.tables` alone."""
    return _named(words, source.name, source.columns)


def _named(words: str, table: str, columns: Iterable[str] = ()) -> str:
    return words.replace("$table", table).replace("$columns", ", ".join(columns))


def _leaf(table: str, row: Sequence[Cell | bytes]) -> bytes:
    cells = [cell.hex() if isinstance(cell, float | bytes) else cell for cell in row]
    while cells[-1] is None:  # so that a column which came with an update changes no root of before
        cells.pop()
    return canonical([table, *cells])


def _entry(row: Sequence[object]) -> Entry:
    sequence, at, kind, body, previous, digest = row
    return Entry(
        _integer(sequence),
        datetime.fromisoformat(str(at)),
        str(kind),  # type: ignore[arg-type]
        json.loads(str(body)),
        str(previous),
        str(digest),
    )


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value
