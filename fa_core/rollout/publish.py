"""From a manifest to the devices: into the log, under a cosigned checkpoint, into the publication directory.

Each step finds what the one before left: whoever runs it again after a crash ends with the same bytes.
"""

from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.publication import directory
from fa_core.publication.proofs import Publication
from fa_core.publication.rollout import rollout_name
from fa_core.rollout.decision import manifest_of
from fa_core.rollout.models import publication
from fa_core.rollout.states import History
from fa_core.store import Cosigner, LogEntry, Store
from fa_core.trust.checkpoint import parse


class Granter(Cosigner, Protocol):
    """A witness that grants the stages of rollouts, too."""

    def grant(self, request: bytes) -> bytes:
        """Return the signature, 64 bytes, over a stage; Refused where no gate says so."""
        ...

    def begin(self, request: bytes) -> bytes:
        """Return when a stage began by the witness's clock, 8 bytes; `Witness.begin`."""
        ...

    def end(self, rollout: bytes) -> bytes:
        """Keep that a rollout has ended; `Witness.end`."""
        ...

    def opened(self, request: bytes) -> bytes:
        """Return those of some releases that were opened, in that order; `Witness.opened`."""
        ...


def log_manifest(store: Store, history: History) -> None:
    """Put the manifest of a decision that has none into the log."""
    decision = history.pending
    if decision is not None:
        manifest = manifest_of(history.document, decision)
        store.publish("manifest", history.document.hash.hex(), manifest.entry())


def deliver(
    store: Store, history: History, folder: Path | None, log_key: Ed25519PrivateKey, witness: Cosigner
) -> None:
    """Have the manifest in force cosigned, and write it where devices fetch it.

    Args:
        folder: the publication directory, None where there is none.

    Raises RoundFailed where the witness does not answer: the manifest is in the log, and devices learn of it
    from the next call.
    """
    entries = _in_force(store, history)
    note = store.note()
    if note is None or parse(note).size <= max(each.index for each in entries):
        store.checkpoint(log_key, witness)
    if folder is None:
        return
    name = rollout_name(*history.document.pair)
    written = directory.read(folder, name)
    if written is None or not _holds(written, entries):
        directory.write(folder, name, publication(store, entries, [written] if written else []).encode())


def _in_force(store: Store, history: History) -> list[LogEntry]:
    """Return the entries of a rollout's document and of its manifest in force."""
    manifest = history.manifest
    assert manifest is not None
    wanted = [history.signed.entry(), manifest.entry()]
    own = {each.entry: each for each in store.rollouts()}
    return [own[each] for each in wanted]


def _holds(written: bytes, entries: list[LogEntry]) -> bool:
    try:
        found = Publication.decode(written).entries
    except BadInput:
        return False  # it was damaged
    return [each.entry for each in found] == [each.entry for each in entries]
