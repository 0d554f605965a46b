"""The parties beside server and devices, as the local engine and the simulation play them by themselves.

In a deployment the plan's signer, the log, the witness and the enrolment authority are other people's
processes. Here they are objects of this process, with keys in a folder of the store: the log and its witness
must be the same from run to run, or the log could not be checked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core import checkpoint
from fa_core.enrolment import Authority, read_key, write_key
from fa_core.merkle import Proof
from fa_core.secagg import Witness
from fa_core.store import Cosigner
from fa_core.witness import Witness as LocalWitness


@dataclass(frozen=True, slots=True)
class Parties:
    """Who signs what in a round.

    Attributes:
        plan_key: signs plans. log_key: signs the transparency log's checkpoints.
        authority: public key of the enrolment authority, raw Ed25519, 32 bytes.
        witness: signs one roster and one survivor bitmap a release. cosigner: signs checkpoints.
    """

    plan_key: Ed25519PrivateKey
    log_key: Ed25519PrivateKey
    authority: bytes
    witness: Witness
    cosigner: Cosigner


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """The keys of a store's local parties, and where their witness keeps its journal."""

    plan: Ed25519PrivateKey
    log: Ed25519PrivateKey
    witness: Ed25519PrivateKey
    journal: Path


def local_keys(folder: Path) -> LocalKeys:
    """Return the keys in a folder, made at the first call. Raises BadInput for a file that is no key."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    plan, log, witness = (_key(folder / f"{name}.key") for name in ("plan", "log", "witness"))
    return LocalKeys(plan, log, witness, folder / "witness")


def local_parties(keys: LocalKeys, authority: Authority, clock: Callable[[], datetime]) -> Parties:
    """Return the parties that this process plays itself. `clock` gives the witness's time, UTC."""
    witness = LocalWitness(keys.witness, authority.public_key, keys.journal)
    cosigner = LocalCosigner(keys.witness, keys.log.public_key(), keys.journal / "checkpoint", clock)
    return Parties(keys.plan, keys.log, authority.public_key, witness, cosigner)


class LocalCosigner:
    """The witness of the log in this process: signs a checkpoint if it extends the last one it signed."""

    def __init__(
        self, key: Ed25519PrivateKey, log_key: Ed25519PublicKey, file: Path, clock: Callable[[], datetime]
    ) -> None:
        self._key = key
        self._log_key = log_key
        self._file = file
        self._clock = clock

    def seen(self) -> int:
        """Return the size of the last checkpoint that was signed, 0 for none."""
        last = self._last()
        return 0 if last is None else last.size

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        """Return the signature line for `note`. Raises Refused where it does not extend the last."""
        line = checkpoint.cosign(note, self._last(), proof, self._log_key, self._key, self._clock())
        draft = self._file.with_suffix(".new")
        draft.write_bytes(note)
        draft.replace(self._file)
        return line

    def _last(self) -> checkpoint.Checkpoint | None:
        return checkpoint.parse(self._file.read_bytes()) if self._file.exists() else None


def _key(file: Path) -> Ed25519PrivateKey:
    if not file.exists():
        write_key(file, Ed25519PrivateKey.generate())
    return read_key(file)
