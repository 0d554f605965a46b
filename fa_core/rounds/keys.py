"""The keys and signers of a round, and local ones for the local engine and the simulation.

In a deployment the plan's signer, the log, the witness and the enrolment authority are processes of different
organisations. Local ones are objects of this process, with keys in a folder of the store: the log and its
witness must be the same from run to run, or the log could not be checked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core import secagg, store
from fa_core.errors import BadInput
from fa_core.plan import Plan, SignedPlan
from fa_core.trust.enrolment import Authority, read_key, write_key
from fa_core.trust.witness import Witness as LocalWitness


class Witness(secagg.Witness, store.Cosigner, Protocol):
    """Signs one roster and one survivor bitmap a release, and the checkpoints of the log."""


@dataclass(frozen=True, slots=True)
class Signers:
    """Who signs what in a round.

    Attributes:
        log_key: signs the transparency log's checkpoints.
        authority: public key of the enrolment authority, raw Ed25519, 32 bytes.
    """

    log_key: Ed25519PrivateKey
    authority: bytes
    witness: Witness


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """The keys of a store's local signers, and the folder of the local witness's journal."""

    plan: Ed25519PrivateKey
    log: Ed25519PrivateKey
    witness: Ed25519PrivateKey
    journal: Path


def local_keys(folder: Path) -> LocalKeys:
    """Return the keys in a folder, made at the first call. Raises BadInput where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}") from None
    plan, log, witness = (_key(folder / f"{name}.key") for name in ("plan", "log", "witness"))
    return LocalKeys(plan, log, witness, folder / "witness")


def local_signers(keys: LocalKeys, authority: Authority, clock: Callable[[], datetime]) -> Signers:
    """Return the signers within this process. `clock` gives the witness's time, UTC."""
    log = keys.log.public_key().public_bytes_raw()
    witness = LocalWitness(keys.witness, authority.public_key, keys.journal, log, clock)
    return Signers(keys.log, authority.public_key, witness)


def signature_beside(file: Path, plan: Plan) -> SignedPlan | None:
    """Return the signature that `fa plan sign` wrote beside a plan, or None. BadInput if it is another's."""
    beside = file.with_name(file.name + ".sig")
    if not beside.is_file():
        return None
    signed = SignedPlan.from_text(beside.read_text(encoding="utf-8", errors="replace"), str(beside))
    if not signed.signs(plan):
        raise BadInput(f"{beside}: it signs another version of this plan; sign it again with `fa plan sign`")
    return signed


def _key(file: Path) -> Ed25519PrivateKey:
    if not file.exists():
        write_key(file, Ed25519PrivateKey.generate())
    return read_key(file)
