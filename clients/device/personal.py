"""The store's records of personalisation: moments, deltas, which of them is in use, when was learned last.

The same encrypted file as the events. Rows of moments and deltas are never changed and are under the root
that a deletion leaves (`Store.root`); `personal_stage` names the one delta in use for a wake word. All of it
is kept under the consent to `personalisation` and goes with it. `clients.personal` knows what the bytes mean.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from cryptography.exceptions import InvalidSignature
from numpy.typing import NDArray

from clients.device.consent import allows
from clients.device.journal import Entry, Json
from clients.device.records import Records
from clients.device.rows import micros, moment
from clients.device.store import Store
from fa_core.tables import MOMENTS

Stage = Literal["candidate", "shadow", "active", "reset"]
"""Of a delta: learned, heard beside the model that acts, acting, or put aside after its time."""

Step = Literal["learn", "validate", "shadow", "activate", "revert", "reset", "retire", "forget"]
"""What the journal says of a delta."""

MOST_MOMENTS: Final = 60
ROOM: Final = 10
"""Where so many moments are kept, the oldest `ROOM` go: one deletion to prove in place of ten."""

_STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {"validate": "candidate", "shadow": "shadow", "activate": "active", "reset": "reset"}
)
"""The stage that a step of the journal puts a delta into."""

_SIGNED: Final = b"Unheard: delta of an adapter, version 1\n"
"""What the device's key signs before a delta, so that no signature of its is one of another thing."""


@dataclass(frozen=True, slots=True)
class KeptMoment:
    """One labelled moment: its time, the head (hex SHA-256) whose features it has, its label's source."""

    at: datetime
    wake_word: str
    base: str
    session: str
    source: str
    windows: bytes


@dataclass(frozen=True, slots=True)
class KeptDelta:
    """One delta. `intact`: its bytes have the checksum and the signature that are kept with them."""

    number: int
    at: datetime
    data: bytes
    intact: bool


@dataclass(frozen=True, slots=True)
class InUse:
    """The delta in use for a wake word. `heard`: a byte for each labelled moment, the oldest first."""

    wake_word: str
    number: int
    stage: Stage
    since: datetime
    heard: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt to learn: when, what came of it in words, and the time used on its day."""

    at: datetime
    why: str
    used: timedelta
    done: bool


class PersonalRecords:
    """Personalisation in a store. Writers run in its transactions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection = store.connection

    def allowed(self, now: datetime) -> bool:
        """Return whether the owner consents to personalisation at `now`."""
        return allows(self._store.grants(), "personalisation", now)

    # Moments.

    def moments(self, wake_word: str | None = None) -> list[KeptMoment]:
        """Return the moments that are kept, the oldest first."""
        rows = self._connection.execute(
            "SELECT time, wake_word, base, session, source, windows FROM personal_moment "
            "WHERE ?1 IS NULL OR wake_word = ?1 ORDER BY time, id",
            (wake_word,),
        ).fetchall()
        return [KeptMoment(moment(at), word, *rest) for at, word, *rest in rows]

    def keep_moment(self, kept: KeptMoment, now: datetime) -> None:
        """Write a moment; where `MOST_MOMENTS` are kept, delete the oldest first and prove it."""
        (count,) = self._connection.execute("SELECT count(*) FROM personal_moment").fetchone()
        if count >= MOST_MOMENTS:
            delete = (
                "DELETE FROM personal_moment WHERE id IN "
                "(SELECT id FROM personal_moment ORDER BY time, id LIMIT ?)"
            )
            gone = self._connection.execute(delete, (count - MOST_MOMENTS + ROOM,)).rowcount
            self._store.prove("expired", {}, {"personal_moment": gone}, now)
        self._connection.execute(
            "INSERT INTO personal_moment (time, wake_word, base, session, source, windows) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (micros(kept.at), kept.wake_word, kept.base, kept.session, kept.source, kept.windows),
        )

    def keep_features(
        self, at: datetime, wake_word: str, base: str, features: NDArray[np.float64], now: datetime
    ) -> None:
        """Write what a training plan reads of a moment (`fa_core.tables.MOMENTS`): float64 (97,)."""
        row = {"time": at, "wake_word": wake_word, "base": base, "features": features}
        self._store.insert(MOMENTS.name, [row], "personalisation", now)

    # Deltas.

    def next_number(self) -> int:
        """Return the number of the next delta; none is given twice."""
        read = "SELECT seq FROM sqlite_sequence WHERE name = 'personal_delta'"
        row = self._connection.execute(read).fetchone()
        return 1 + (int(row[0]) if row else 0)

    def keep_delta(self, number: int, data: bytes, at: datetime) -> None:
        """Write a delta with its checksum and this device's signature."""
        row = (
            number,
            micros(at),
            data,
            sha256(data).digest(),
            Records(self._store).key().sign(_SIGNED + data),
        )
        self._connection.execute("INSERT INTO personal_delta VALUES (?, ?, ?, ?, ?)", row)

    def deltas(self) -> list[KeptDelta]:
        """Return the deltas that are kept, each checked against its checksum and signature."""
        rows = self._connection.execute("SELECT * FROM personal_delta ORDER BY id").fetchall()
        return [
            KeptDelta(number, moment(at), data, self._intact(data, digest, signature))
            for number, at, data, digest, signature in rows
        ]

    def delta(self, number: int) -> KeptDelta | None:
        """Return one delta, checked as in `deltas`."""
        return next((each for each in self.deltas() if each.number == number), None)

    def _intact(self, data: bytes, digest: bytes, signature: bytes) -> bool:
        try:
            Records(self._store).key().public_key().verify(signature, _SIGNED + data)
        except InvalidSignature:
            return False
        return sha256(data).digest() == digest

    # Which delta is in use.

    def in_use(self, wake_word: str) -> InUse | None:
        """Return the delta in use for a wake word, None where the model is heard as it came."""
        return next((each for each in self.all_in_use() if each.wake_word == wake_word), None)

    def all_in_use(self) -> list[InUse]:
        """Return the deltas in use, by wake word."""
        rows = self._connection.execute("SELECT * FROM personal_stage ORDER BY wake_word").fetchall()
        return [
            InUse(word, number, stage, moment(since), heard) for word, number, stage, since, heard in rows
        ]

    def said_in_use(self, wake_word: str) -> tuple[int, Stage] | None:
        """Return the number and stage of the delta in use for a wake word as the journal has it."""
        read = (
            "SELECT kind, body FROM journal WHERE kind IN ('personal', 'revoked', 'forgotten') "
            "ORDER BY sequence"
        )
        rows = self._connection.execute(read).fetchall()
        return _folded((kind, json.loads(body)) for kind, body in rows).get(wake_word)

    def use(self, wake_word: str, number: int, stage: Stage, now: datetime) -> None:
        """Put a delta into a stage; nothing was heard in it yet."""
        row = (wake_word, number, stage, micros(now), b"")
        self._connection.execute("INSERT OR REPLACE INTO personal_stage VALUES (?, ?, ?, ?, ?)", row)

    def hear(self, wake_word: str, heard: bytes) -> None:
        """Write what was heard in the stage at hand."""
        write = "UPDATE personal_stage SET heard = ? WHERE wake_word = ?"
        self._connection.execute(write, (heard, wake_word))

    def say(self, step: Step, wake_word: str, number: int | None, why: str, now: datetime) -> None:
        """Write a step into the journal."""
        self._store.append(now, "personal", _body(step, wake_word, number, why))

    def drop(self, step: Step, used: InUse, why: str, now: datetime) -> None:
        """Take the delta in use out of use and delete it, whatever its bytes are, and prove that in the
        journal. With "retire" its wake word's moments go too: their features are of the base of before."""
        word, write = (used.wake_word,), self._connection.execute
        write("DELETE FROM personal_stage WHERE wake_word = ?", word)
        gone = {"personal_delta": write("DELETE FROM personal_delta WHERE id = ?", (used.number,)).rowcount}
        if step == "retire":
            delete = "DELETE FROM personal_moment WHERE wake_word = ?"
            gone["personal_moment"] = write(delete, word).rowcount
        self._store.prove("personal", _body(step, used.wake_word, used.number, why), gone, now)

    # Attempts to learn.

    def attempt(self, wake_word: str) -> Attempt | None:
        """Return the last attempt to learn a wake word."""
        read = "SELECT at, why, used, done FROM personal_attempt WHERE wake_word = ?"
        row = self._connection.execute(read, (wake_word,)).fetchone()
        return row and Attempt(moment(row[0]), row[1], timedelta(microseconds=row[2]), bool(row[3]))

    def note_attempt(self, wake_word: str, attempt: Attempt) -> None:
        """Write the last attempt to learn a wake word."""
        used = attempt.used // timedelta(microseconds=1)
        row = (wake_word, micros(attempt.at), attempt.why, used, attempt.done)
        self._connection.execute("INSERT OR REPLACE INTO personal_attempt VALUES (?, ?, ?, ?, ?)", row)


def _folded(said: Iterable[tuple[str, Mapping[str, Json]]]) -> dict[str, tuple[int, Stage]]:
    """Return the number and stage of the delta in use by wake word, from a journal's kinds and bodies."""
    found: dict[str, tuple[int, Stage]] = {}
    for kind, body in said:
        if kind == "personal":
            word, number = str(body["wake_word"]), body["number"]
            if (stage := _STAGES.get(str(body["step"]))) is not None and isinstance(number, int):
                found[word] = number, stage
            elif body["step"] in ("revert", "retire", "forget"):
                found.pop(word, None)
        elif isinstance(rows := body.get("rows"), dict) and "personal_delta" in rows:
            found.clear()
    return found


def problems(store: Store, entries: Iterable[Entry]) -> list[str]:
    """Return what does not hold of the deltas that are kept, as sentences; empty where all does."""
    records = PersonalRecords(store)
    held = {each.wake_word: (each.number, each.stage) for each in records.all_in_use()}
    said, deltas = _folded((each.kind, each.body) for each in entries), records.deltas()
    wrong = sorted(word for word in said.keys() | held.keys() if said.get(word) != held.get(word))
    found = [f"the adapter in use for {word} is not the one that the journal names" for word in wrong]
    used = {number for number, _ in held.values()}
    found += [f"adapter {each.number} is damaged or not this device's" for each in deltas if not each.intact]
    found += [f"adapter {each.number} is kept and not in use" for each in deltas if each.number not in used]
    missing = sorted(used - {each.number for each in deltas})
    return found + [f"adapter {number} is in use and not there" for number in missing]


def _body(step: Step, wake_word: str, number: int | None, why: str) -> dict[str, Json]:
    return {"step": step, "wake_word": wake_word, "number": number, "why": why}
