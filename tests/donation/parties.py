"""The parties of a donation in one process: authority, log and witness, vault, two reviewers, a device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device import database as device_database
from clients.device.store import Store
from clients.donation.offering import offer
from clients.donation.records import Donation
from fa_core.donation.access import LoggedAccess
from fa_core.donation.keys import ReviewerKeys
from fa_core.donation.recording import Recording
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.request import DonationRequest, Reviewer
from fa_core.donation.sealing import SealedSample
from fa_core.merkle import Tree, leaf_hash
from fa_core.trust import checkpoint
from fa_core.vault import database
from fa_core.vault.keeper import Keeper
from fa_core.vault.reviewer import Review
from fa_core.vault.wraps import Wraps
from tests.device.setup import KEY, RULES

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
CANARY = b"\x5a\x13 the owner's voice, in clear \x77\x02"
SAID = "turn on the lamp by the aquarium"
RECORDING = Recording(CANARY * 500, SAID)
ONE, OTHER = ReviewerKeys.generate(), ReviewerKeys.generate()


def public(name: str, keys: ReviewerKeys) -> Reviewer:
    """Return a reviewer's public halves."""
    return Reviewer(name, keys.opening_public, keys.signing_public)


def request_of(vault_key: bytes, **changes: Any) -> DonationRequest:
    """Return a donation request that is open now."""
    reviewers = (public("Ada", ONE), public("Grace", OTHER))
    window = NOW - timedelta(days=1), NOW + timedelta(days=10)
    asked = DonationRequest("lamps", *window, 3, 30, "vault.example:8444", vault_key, reviewers, bytes(16))
    return replace(asked, **changes)


@dataclass
class Log:
    """A log in memory with a witness; `hidden` keeps entries from checkpoints, `broken` fails to write."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    witness: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    entries: list[bytes] = field(default_factory=list)
    covered: int | None = None
    broken: bool = False

    def enter(self, sample: str, entry: bytes) -> int:
        if self.broken:
            raise database.Unusable("the log cannot be written")
        if entry not in self.entries:
            self.entries.append(entry)
        return self.entries.index(entry)

    def prove(self, index: int) -> LoggedAccess | None:
        size = len(self.entries) if self.covered is None else self.covered
        if index >= size:
            return None
        tree = Tree([leaf_hash(each) for each in self.entries[:size]])
        note = checkpoint.sign(tree.size, tree.root, self.key)
        note += checkpoint.cosign(note, None, (), self.key.public_key(), self.witness, NOW)
        return LoggedAccess(index, self.entries[index], tree.inclusion(index), note)

    def actions(self) -> list[str]:
        """Return what the entries say was done, in their order."""
        return [entry.split(b'"action":"')[1].split(b'"')[0].decode() for entry in self.entries]


@dataclass
class World:
    """A vault in a folder, and everybody who talks to it without a network. `heard` is all that was sent."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log: Log = field(default_factory=Log)
    now: datetime = NOW
    most: int = 100
    heard: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.request = request_of(self.key.public_key().public_bytes_raw())
        if not (self.folder / "vault").exists():
            (self.folder / "vault").mkdir()
            database.create(self.file)
            Wraps.make(self.folder / "vault" / "wraps", self.request.vault_key)
            device_database.create(self.folder / "store.db", KEY)
        self.wraps = Wraps(self.folder / "vault" / "wraps")
        self.keeper = self.open()
        self.store = Store.open(self.folder / "store.db", KEY, RULES, NOW)

    @property
    def file(self) -> Path:
        """The vault's file."""
        return self.folder / "vault" / database.FILE

    def open(self) -> Keeper:
        """Open the vault, as its process does when it starts."""
        served = {self.request.hash: self.request}
        keeper = Keeper(database.connect(self.file), self.wraps, self.key, served, self.most)
        keeper.mend(self.now)
        return keeper

    def post(self, target: str, body: bytes) -> bytes:
        """Hand a body to the vault."""
        self.heard.append(body)
        answer = {
            "/v1/samples": lambda: self.keeper.keep(body, self.now),
            "/v1/withdrawals": lambda: self.keeper.withdraw(body, self.now),
            "/v1/access": lambda: self.keeper.answer(body, self.log, self.now),
        }[target]()
        self.heard.append(answer)
        return answer

    def review(self, keys: ReviewerKeys, post: Callable[[str, bytes], bytes] | None = None) -> Review:
        """Return a reviewer at work."""
        log, witness = (each.public_key().public_bytes_raw() for each in (self.log.key, self.log.witness))
        return Review(keys, self.request, log, witness, post or self.post, lambda: self.now)

    def donate(self, recording: Recording = RECORDING) -> Donation:
        """Consent and offer, as an owner who has seen the sample."""
        self.store.grant("debug", NOW + timedelta(days=30), NOW)
        return offer(self.store, self.request, recording, self.post, lambda: self.now)

    def read_together(self, sample: bytes) -> Recording:
        """Have both reviewers read a sample."""
        ada, grace = self.review(ONE), self.review(OTHER)
        read, _ = ada.ask(sample)
        _, wrap = grace.asked(read)
        grace.release(read, wrap)
        return ada.read(read)

    def sealed(self) -> SealedSample:
        """Return the first upload."""
        return SealedSample.decode(self.heard[0])

    def close(self) -> None:
        """Close both files."""
        self.keeper.close()
        self.store.close()


@contextmanager
def refused(refusal: Refusal) -> Iterator[None]:
    """Expect a refusal by its code."""
    with pytest.raises(RefusedByVault, match=f"^{refusal.value}$"):
        yield
