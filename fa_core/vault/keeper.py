"""What a vault does: it keeps sealed samples, lets two reviewers read one together, and destroys.

Every method is one transaction under the write lock of the vault's file, which also guards the key store.
Wherever it is killed, one of these holds: nothing happened; a sample's shares lie in the key store without
the sample (the next start removes them); a sample lies there without shares (nobody can open it, and the
next start removes it); all of it happened.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.donation.access import read_entry
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.request import DonationRequest
from fa_core.donation.sealing import TOKEN_SIZE, WRAP_SIZE, SealedSample, sample_id
from fa_core.donation.statement import Statement
from fa_core.errors import BadInput
from fa_core.vault import database
from fa_core.vault.access_log import AccessLog
from fa_core.vault.reading import Reading
from fa_core.vault.wraps import Wraps

SKEW: Final = timedelta(minutes=5)
"""How far a reviewer's clock may be from the vault's."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample as the operator sees it: nothing of what is in it.

    Attributes:
        area: of its request, "" where that is no longer served. size: bytes, sealed.
        reads: statements "read" that were answered.
    """

    sample: str
    area: str
    day: str
    until: str
    size: int
    reads: int


class Keeper:
    """One vault, opened."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        wraps: Wraps,
        key: Ed25519PrivateKey,
        served: Mapping[bytes, DonationRequest],
        most_samples: int,
    ) -> None:
        self._connection = connection
        self._wraps = wraps
        self._key = key
        self._served = served
        self._most_samples = most_samples
        self._lock = threading.Lock()
        self.public_key = key.public_key().public_bytes_raw()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, database.transaction(self._connection):
            yield

    # From devices.

    def keep(self, data: bytes, now: datetime) -> bytes:
        """Keep an upload and return the signed statement of it; the same for the same bytes again.

        Raises RefusedByVault, and keeps nothing.
        """
        try:
            sealed = SealedSample.decode(data)
        except ValueError:
            raise RefusedByVault(Refusal.MALFORMED) from None
        request = self._request(sealed.request)
        if not request.open_at(now):
            raise RefusedByVault(Refusal.CLOSED)
        digest = sha256(data).digest()
        with self._writing():
            there = self._one("SELECT digest, day, until FROM sample WHERE id = ?", sealed.sample)
            if there is not None:
                if bytes(there[0]) != digest:
                    raise RefusedByVault(Refusal.CONFLICT)
                return self._kept(sealed, str(there[1]), str(there[2]))
            if self._one("SELECT 1 FROM gone WHERE id = ?", sealed.sample):
                raise RefusedByVault(Refusal.GONE)
            (held,) = self._connection.execute("SELECT count(*) FROM sample").fetchone()
            if held >= self._most_samples:
                raise RefusedByVault(Refusal.FULL)
            day = _day(now)
            until = (day + timedelta(days=request.retention_days)).isoformat()
            for place, wrap in enumerate(sealed.wraps):
                self._wraps.keep(sealed.sample, str(place), wrap)
            row = (sealed.sample, sealed.request, digest, day.isoformat(), until, sealed.sealed)
            self._connection.execute("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?)", row)
        return self._kept(sealed, day.isoformat(), until)

    def withdraw(self, data: bytes, now: datetime) -> bytes:
        """Destroy the sample that a token withdraws, and return the signed statement of it.

        Args:
            data: hash of the donation request, then the token; 32 bytes each.
        Raises RefusedByVault. Whether there was a sample makes no difference: none can be put under its id
        from then on.
        """
        if len(data) != 32 + TOKEN_SIZE:
            raise RefusedByVault(Refusal.MALFORMED)
        name, sample = data[:32], sample_id(data[32:])
        with self._writing():
            held = self._one("SELECT request FROM sample WHERE id = ?", sample) or self._one(
                "SELECT request FROM gone WHERE id = ?", sample
            )
            if held is not None and bytes(held[0]) != name:
                raise RefusedByVault(Refusal.UNKNOWN_REQUEST)
            # Who has a token may always withdraw. Of a request that is not served no upload is taken, so
            # that there is nothing to remember.
            known = held is not None or name in self._served
            day = self._destroy(sample, name, "withdrawn", now) if known else _day(now)
            (reads,) = self._connection.execute(
                "SELECT count(*) FROM access WHERE sample = ? AND action = 'read'", (sample,)
            ).fetchone()
        return Statement("destroyed", sample, name, self.public_key, day, None, reads).sign(self._key)

    # From reviewers.

    def answer(self, data: bytes, log: AccessLog, now: datetime) -> bytes:
        """Answer a reviewer's statement with JSON, after entering it in the log.

        Args:
            data: JSON `{"entry": …, "share": …}`; `share`, in hex, with a release alone.
        Raises RefusedByVault, and hands out nothing; also where the log cannot be written.
        """
        try:
            body: Any = json.loads(data)
            entry, share = body["entry"].encode(), bytes.fromhex(body.get("share", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RefusedByVault(Refusal.MALFORMED) from None
        try:
            access = read_entry(entry)
        except BadInput:
            raise RefusedByVault(Refusal.NOT_SIGNED) from None
        if access.vault != self.public_key:
            raise RefusedByVault(Refusal.NOT_SIGNED)
        if abs(access.at - now) > SKEW:
            raise RefusedByVault(Refusal.CLOCK)
        if (access.action == "release") != (len(share) == WRAP_SIZE):
            raise RefusedByVault(Refusal.MALFORMED)
        with self._writing():
            reply = Reading(self._connection, self._wraps, self._served, log, now).answer(
                access, entry, share
            )
        return json.dumps(reply).encode()

    # For the operator.

    def samples(self) -> list[Kept]:
        """Return what is kept, oldest first."""
        query = (
            "SELECT id, request, day, until, length(sealed), (SELECT count(*) FROM access "
            "WHERE access.sample = sample.id AND action = 'read') FROM sample ORDER BY rowid"
        )
        with self._writing():
            rows = self._connection.execute(query).fetchall()
        return [
            Kept(
                bytes(sample).hex(),
                self._served[bytes(request)].area if bytes(request) in self._served else "",
                day,
                until,
                size,
                reads,
            )
            for sample, request, day, until, size, reads in rows
        ]

    def expire(self, now: datetime) -> int:
        """Destroy every sample whose last day is over; return how many."""
        with self._writing():
            rows = self._connection.execute(
                "SELECT id, request FROM sample WHERE until < ?", (_day(now).isoformat(),)
            ).fetchall()
            for sample, request in rows:
                self._destroy(bytes(sample), bytes(request), "expired", now)
            self._forget_requests_that_are_over(now)
        return len(rows)

    def mend(self, now: datetime) -> None:
        """Remove shares without a sample and samples without both shares, as a crash or a restored backup
        leaves them."""
        with self._writing():
            rows = self._connection.execute("SELECT id, request FROM sample").fetchall()
            held = {bytes(sample): bytes(request) for sample, request in rows}
            for sample in list(self._wraps.samples()):
                if sample not in held:
                    self._wraps.destroy(sample)
            for sample, request in held.items():
                if any(self._wraps.read(sample, name) is None for name in ("0", "1")):
                    self._destroy(sample, request, "lost", now)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _request(self, name: bytes) -> DonationRequest:
        found = self._served.get(name)
        if found is None:
            raise RefusedByVault(Refusal.UNKNOWN_REQUEST)
        return found

    def _one(self, query: str, value: bytes) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._connection.execute(query, (value,)).fetchone()
        return found

    def _kept(self, sealed: SealedSample, day: str, until: str) -> bytes:
        days = date.fromisoformat(day), date.fromisoformat(until)
        return Statement("kept", sealed.sample, sealed.request, self.public_key, *days, 0).sign(self._key)

    def _destroy(self, sample: bytes, request: bytes, why: str, now: datetime) -> date:
        """Destroy the shares first: from there on nobody can open the sample, whatever comes next."""
        self._wraps.destroy(sample)
        self._connection.execute("DELETE FROM sample WHERE id = ?", (sample,))
        self._connection.execute("DELETE FROM reading WHERE sample = ?", (sample,))
        row = (sample, request, _day(now).isoformat(), why)
        self._connection.execute("INSERT OR IGNORE INTO gone VALUES (?, ?, ?, ?)", row)
        found = self._one("SELECT day FROM gone WHERE id = ?", sample)
        assert found is not None
        return date.fromisoformat(str(found[0]))

    def _forget_requests_that_are_over(self, now: datetime) -> None:
        """Drop the ids of samples that are gone once no upload under their request is taken any more."""
        for name, request in self._served.items():
            if now >= request.end:
                self._connection.execute("DELETE FROM gone WHERE request = ?", (name,))


def _day(now: datetime) -> date:
    return now.astimezone(UTC).date()
