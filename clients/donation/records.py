"""The store's table of donations: tokens and dates, never audio. Writers run in the store's transactions."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from clients.device.rows import micros, moment
from clients.device.store import Store
from fa_core.donation.request import DonationRequest
from fa_core.errors import BadInput

State = Literal["sent", "kept", "refused", "withdrawn"]
"""`sent`: it left, or may have left, and no statement of the vault came back."""


@dataclass(frozen=True, slots=True)
class Donation:
    """One sample.

    Attributes:
        sample: its id, 16 bytes. token: withdraws it, 32 bytes; it never leaves but to withdraw.
        request: hash of the donation request, 32 bytes. vault: HOST:PORT; vault_key: Ed25519, 32 bytes.
        at: when the owner agreed. until: the last day on which the vault keeps it, None before it said so.
    """

    sample: bytes
    token: bytes = field(repr=False)
    request: bytes
    area: str
    vault: str
    vault_key: bytes
    at: datetime
    until: date | None
    state: State


class Donations:
    """The table, in a store."""

    def __init__(self, store: Store) -> None:
        self._connection = store.connection

    def all(self) -> list[Donation]:
        """Return every donation, oldest first."""
        rows = self._connection.execute(
            "SELECT sample, token, request, area, vault, vault_key, at, until, state FROM donation "
            "ORDER BY rowid"
        ).fetchall()
        return [
            Donation(
                sample, token, request, area, vault, vault_key, moment(at),
                date.fromisoformat(until) if until else None, state,
            )
            for sample, token, request, area, vault, vault_key, at, until, state in rows
        ]  # fmt: skip

    def under(self, request: DonationRequest) -> int:
        """Return how many samples were ever sent for a request, the withdrawn ones among them."""
        return sum(each.request == request.hash for each in self.all())

    def find(self, start: str) -> Donation:
        """Return the donation whose id begins with these digits. Raises BadInput for none or several."""
        found = [each for each in self.all() if start and each.sample.hex().startswith(start.lower())]
        if len(found) != 1:
            what = "several samples'" if found else "no sample's"
            raise BadInput(f"{start}: {what} id begins so; `fa device donate status` lists them")
        return found[0]

    def add(self, donation: Donation) -> None:
        """Write a donation."""
        row = (
            donation.sample, donation.token, donation.request, donation.area, donation.vault,
            donation.vault_key, micros(donation.at), None, donation.state,
        )  # fmt: skip
        self._connection.execute("INSERT INTO donation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def set(self, sample: bytes, state: State, until: date | None) -> None:
        """Write what became of a donation."""
        row = (state, until.isoformat() if until else None, sample)
        self._connection.execute("UPDATE donation SET state = ?, until = ? WHERE sample = ?", row)
