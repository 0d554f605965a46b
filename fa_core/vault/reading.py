"""One statement of a reviewer, within the vault's transaction: checked, logged, and only then answered."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from fa_core.donation.access import Access, LoggedAccess
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.request import DonationRequest
from fa_core.errors import UnheardError
from fa_core.vault.access_log import AccessLog
from fa_core.vault.wraps import Wraps

RELEASED: Final = timedelta(hours=24)
"""How long a read may follow its release."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A read that was asked for: by whom (Ed25519 key), the places of its ask and release in the log, and
    until when it may be read (seconds since 1970)."""

    reviewer: bytes
    asked: int
    released: int | None
    over: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a statement is answered with. The caller holds the vault's lock."""

    connection: sqlite3.Connection
    wraps: Wraps
    served: Mapping[bytes, DonationRequest]
    log: AccessLog
    now: datetime

    def answer(self, access: Access, entry: bytes, share: bytes) -> dict[str, Any]:
        """Return the reply's JSON object. Raises RefusedByVault, and then hands out nothing.

        Args:
            access: what `entry` says. share: of a release, encrypted for the one who asked.
        """
        served = self._served(access.sample)
        signing = [] if served is None else [each.signing for each in served.reviewers]
        if served is None or access.reviewer not in signing:
            raise RefusedByVault(Refusal.NO_SAMPLE)
        statement = sha256(entry).digest()
        if self._one("SELECT 1 FROM access WHERE statement = ?", statement):
            raise RefusedByVault(Refusal.REPLAYED)
        read = self._read(access)
        # Before the entry is made: who comes before the checkpoint is handed nothing, and may come often.
        proof = self._proof(access, read)
        index = self._enter(access, entry)
        row = (statement, access.sample, access.read, access.action, access.reviewer)
        times = (int(access.at.timestamp()), index)
        self.connection.execute("INSERT INTO access VALUES (?, ?, ?, ?, ?, ?, ?)", row + times)
        if access.action == "ask":
            return self._asked(access, index)
        if access.action == "release":
            return self._released(access, share, index)
        place = signing.index(access.reviewer)
        shown = self._handed_out(access, place)
        return {"entry": index, "proof": None if proof is None else proof.body(), **shown}

    def _served(self, sample: bytes) -> DonationRequest | None:
        """Return the request of a sample that is here and whose last day is not over."""
        held = self._one("SELECT request, until FROM sample WHERE id = ?", sample)
        if held is not None and str(held[1]) < self.now.astimezone(UTC).date().isoformat():
            return None
        return None if held is None else self.served.get(bytes(held[0]))

    def _read(self, access: Access) -> _Read | None:
        """Return the read that a statement belongs to, None for an ask.

        Raises RefusedByVault unless the statement may come next in it, from this reviewer.
        """
        held = self._one(
            "SELECT reviewer, asked, released, over, sample FROM reading WHERE id = ?", access.read
        )
        if access.action == "ask" and held is None:
            return None
        if access.action == "ask" or held is None or bytes(held[4]) != access.sample:
            raise RefusedByVault(Refusal.NOT_THIS_READ)
        read = _Read(bytes(held[0]), *held[1:4])
        reads = access.action == "read"
        if reads != (read.reviewer == access.reviewer):
            raise RefusedByVault(Refusal.NOT_THIS_READ)
        if reads and (read.over is None or self.now.timestamp() >= read.over):
            raise RefusedByVault(Refusal.NOT_THIS_READ)
        return read

    def _proof(self, access: Access, read: _Read | None) -> LoggedAccess | None:
        """Return the proof that the step before stands in the log, where this step hands something out."""
        if read is None or access.action == "release":
            return None
        index = read.asked if access.action == "open" else read.released
        assert index is not None
        try:
            proof = self.log.prove(index)
        except UnheardError:
            raise RefusedByVault(Refusal.UNAVAILABLE) from None
        if proof is None:
            raise RefusedByVault(Refusal.NOT_LOGGED)
        return proof

    def _enter(self, access: Access, entry: bytes) -> int:
        try:
            return self.log.enter(access.sample.hex(), entry)
        except UnheardError:
            raise RefusedByVault(Refusal.UNAVAILABLE) from None

    def _asked(self, access: Access, index: int) -> dict[str, Any]:
        row = (access.read, access.sample, access.reviewer, index)
        self.connection.execute("INSERT INTO reading VALUES (?, ?, ?, ?, NULL, NULL)", row)
        return {"entry": index}

    def _released(self, access: Access, share: bytes, index: int) -> dict[str, Any]:
        over = int((self.now + RELEASED).timestamp())
        self.wraps.keep(access.sample, access.read.hex(), share)
        self.connection.execute(
            "UPDATE reading SET released = ?, over = ? WHERE id = ?", (index, over, access.read)
        )
        return {"entry": index, "over": over}

    def _handed_out(self, access: Access, place: int) -> dict[str, Any]:
        """Return a reviewer's own share, and of a read the released one and the sample."""
        own = self.wraps.read(access.sample, str(place))
        if own is None:
            raise RefusedByVault(Refusal.NO_SAMPLE)
        shown = {"wrap": own.hex()}
        if access.action == "open":
            return shown
        share = self.wraps.read(access.sample, access.read.hex())
        held = self._one("SELECT sealed FROM sample WHERE id = ?", access.sample)
        if share is None or held is None:
            raise RefusedByVault(Refusal.NO_SAMPLE)
        return {**shown, "share": share.hex(), "sealed": bytes(held[0]).hex()}

    def _one(self, query: str, value: bytes) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self.connection.execute(query, (value,)).fetchone()
        return found
