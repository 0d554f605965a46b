"""The keys and signers of a round, and local ones for the local engine and the simulation.

In a deployment the plan's signer, the log, the witness and the enrolment authority are processes of different
organisations. Local ones are objects of this process, with keys in a folder of the store: the log and its
witness must be the same from run to run, or the log could not be checked.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core import secagg
from fa_core.collection.helper import CollectionWitness
from fa_core.errors import BadInput
from fa_core.plan import Plan, SignedPlan
from fa_core.privacy.ledger import DEFAULT_POLICIES, Currency
from fa_core.rollout import recompute_simulated_gate
from fa_core.store import DEFAULT, Cosigner, Declaration, Store
from fa_core.trust import budgets
from fa_core.trust.enrolment import Authority, read_key, write_key
from fa_core.trust.witness import Witness as LocalWitness

_NAMES = ("plan", "log", "witness", "authority")


class Witness(secagg.Witness, CollectionWitness, Cosigner, Protocol):
    """Signs one roster and one survivor bitmap a release, or one collection, and the log's checkpoints."""


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
    authority: Authority
    journal: Path


def keys_folder(store: str) -> Path:
    """Return where the keys of a store's own engines are: in its folder, or in the default one."""
    return Path(DEFAULT if "://" in store else store) / "local"


def local_keys(folder: Path) -> LocalKeys:
    """Return the keys in a folder, made at the first call. Raises BadInput where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}") from None
    plan, log, witness, authority = (key_in(folder / f"{name}.key") for name in _NAMES)
    return LocalKeys(plan, log, witness, Authority(authority), folder / "witness")


def local_signers(keys: LocalKeys, clock: Callable[[], datetime]) -> Signers:
    """Return the signers within this process. `clock` gives the witness's time, UTC."""
    return Signers(keys.log, keys.authority.public_key, local_witness(keys, clock))


def local_witness(keys: LocalKeys, clock: Callable[[], datetime]) -> LocalWitness:
    """Return the witness within this process. `clock` gives its time, UTC.

    It grants stages on simulated releases, and on those of engine `tables`, which have no roster: whoever
    holds this store's keys holds the witness's as well. `fa witness serve` does not.
    """
    log = keys.log.public_key().public_bytes_raw()
    authority = keys.authority.public_key
    return LocalWitness(keys.witness, authority, keys.journal, log, clock, recompute=recompute_simulated_gate)


def give_budgets(
    store: Store, authority: Authority, population: str, currency: Currency, now: datetime
) -> None:
    """Have the authority sign a population's budgets where it has not: those declared before, else the
    defaults. For engines whose authority is here."""
    declared = store.declaration(population)
    if declared is None:
        declared = Declaration(population, currency, DEFAULT_POLICIES[currency], now)
    if not budgets.is_signed(declared, authority.public_key):
        store.declare(budgets.sign(replace(declared, at=now), authority.key))


def signature_beside(file: Path, plan: Plan) -> SignedPlan | None:
    """Return the signature that `fa plan sign` wrote beside a plan, or None. BadInput if it is another's."""
    beside = file.with_name(file.name + ".sig")
    if not beside.is_file():
        return None
    signed = SignedPlan.from_text(beside.read_text(encoding="utf-8", errors="replace"), str(beside))
    if not signed.signs(plan):
        raise BadInput(f"{beside}: it signs another version of this plan; sign it again with `fa plan sign`")
    return signed


def key_in(file: Path) -> Ed25519PrivateKey:
    """Return the key in a file, made at the first call, with its public half beside it (.pub)."""
    if not file.exists():
        write_key(file, Ed25519PrivateKey.generate())
    key, beside = read_key(file), file.with_suffix(".pub")
    if not beside.exists():
        beside.write_text(key.public_key().public_bytes_raw().hex() + "\n", encoding="ascii")
    return key
