"""The transparency log as the vault uses it: a statement is entered before it is answered, and proved."""

from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.donation.access import LoggedAccess
from fa_core.errors import BadInput
from fa_core.store import Cosigner, Store


class AccessLog(Protocol):
    """Where accesses are entered."""

    def enter(self, sample: str, entry: bytes) -> int:
        """Write an entry about a sample (hex id), once, and return its place. Raises UnheardError."""
        ...

    def prove(self, index: int) -> LoggedAccess | None:
        """Return an entry with its proof, None while no checkpoint covers it. Raises UnheardError."""
        ...


@dataclass(frozen=True, slots=True)
class StoreLog:
    """The log of a store. With the log's key and the witness, a checkpoint is made at each entry; without,
    entries wait for the next one that the log's own operator makes."""

    store: Store
    key: Ed25519PrivateKey | None = None
    witness: Cosigner | None = None

    def enter(self, sample: str, entry: bytes) -> int:
        """See `AccessLog.enter`."""
        index = self.store.publish("access", sample, entry).index
        if self.key is not None and self.witness is not None:
            self.store.checkpoint(self.key, self.witness)
        return index

    def prove(self, index: int) -> LoggedAccess | None:
        """See `AccessLog.prove`."""
        try:
            found = self.store.prove(index)
        except BadInput:
            return None
        return LoggedAccess(index, found.entry.entry, found.proof, found.note)
