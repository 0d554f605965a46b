"""From a manifest to the devices: into the log, under a cosigned checkpoint, into the publication directory.

The end of a rollout is written twice: at once, under a checkpoint that the log alone signed, which is enough
for devices that follow the rollout, and again once the witness cosigned it. So a witness that is away, or
slow, does not delay a rollback.

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
from fa_core.trust import checkpoint


class Granter(Cosigner, Protocol):
    """A witness that grants the stages of rollouts, too."""

    def grant(self, request: bytes) -> bytes:
        """Return the grant of a stage; `Witness.grant`."""
        ...

    def begin(self, request: bytes) -> bytes:
        """Return when a stage began by the witness's clock, 8 bytes; `Witness.begin`."""
        ...

    def hold(self, request: bytes) -> bytes:
        """Keep that a rollout is held; `Witness.hold`."""
        ...

    def resume(self, request: bytes) -> bytes:
        """Keep that a rollout goes on after a hold; `Witness.resume`."""
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
    """Have the manifest in force cosigned, and write it where devices fetch it; an end also before that.

    Args:
        folder: the publication directory, None where there is none.

    Raises RoundFailed where the witness does not answer: the manifest is in the log, and devices learn of it
    from the next call, of an end from this one.
    """
    entries = _in_force(store, history)
    if not cosigned(store, history):
        if history.ended is not None and folder is not None:
            _write(store, history, entries, folder, store.uncosigned(log_key))
        store.checkpoint(log_key, witness)
    if folder is not None:
        _write(store, history, entries, folder)


def inform(witness: Granter, history: History) -> None:
    """Report to the witness that a rollout has ended, is held, or goes on after it was held.

    The witness then knows how it stands, whatever it missed. Raises RoundFailed where it does not answer.
    """
    rollout, holds, resumes = history.document.hash, len(history.of("hold")), len(history.of("resume"))
    if history.ended is not None:
        witness.end(rollout)
    elif history.held:
        witness.hold(rollout + holds.to_bytes(2, "little"))
    elif holds:
        witness.resume(rollout + resumes.to_bytes(2, "little"))


def cosigned(store: Store, history: History) -> bool:
    """Return whether the newest cosigned checkpoint covers a rollout's manifest in force."""
    note = store.note()
    return note is not None and checkpoint.parse(note).size > max(e.index for e in _in_force(store, history))


def _write(
    store: Store, history: History, entries: list[LogEntry], folder: Path, note: bytes | None = None
) -> None:
    """Write the file that devices fetch, unless it is there: under a checkpoint, by default the newest."""
    name = rollout_name(*history.document.pair)
    written = directory.read(folder, name)
    if written is None or not _holds(written, entries, witnessed=note is None):
        made = publication(store, entries, [written] if written else [], note)
        directory.write(folder, name, made.encode())


def _in_force(store: Store, history: History) -> list[LogEntry]:
    """Return the entries of a rollout's document and of its manifest in force."""
    manifest = history.manifest
    assert manifest is not None
    wanted = [history.signed.entry(), manifest.entry()]
    own = {each.entry: each for each in store.rollouts()}
    return [own[each] for each in wanted]


def _holds(written: bytes, entries: list[LogEntry], *, witnessed: bool) -> bool:
    """Return whether a file has these entries, and where that is asked for under a cosigned checkpoint."""
    try:
        found = Publication.decode(written)
        enough = not witnessed or checkpoint.cosigned(checkpoint.parse(found.note))
    except BadInput:
        return False  # it was damaged
    return enough and [each.entry for each in found.entries] == [each.entry for each in entries]
