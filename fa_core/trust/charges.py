"""That a round is paid for: the proof that travels with it, checked alike by every device and the witness.

The aggregator writes the charge into its ledger before it asks anybody; the transparency log repeats the row;
log and witness sign a checkpoint over it. Invitation and roster request carry the row with its proof, and the
budgets of the population as the enrolment authority signed them. One charge serves one release.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.privacy.ledger import Charge, claim_holds
from fa_core.privacy.ledger_rows import Declaration, decode
from fa_core.secagg.identity import population_id
from fa_core.trust import budgets, checkpoint

MAX_BYTES = 1 << 20
_LENGTH = struct.Struct(">I")
_PLACE = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class ChargeProof:
    """Why a round may be believed to be charged.

    Attributes:
        row: the ledger's row as the log repeats it, the bytes of the log's entry.
        index: its place in the log.
        inclusion: RFC 6962 audit path to the root of the checkpoint.
        checkpoint: the note, signed by the log and cosigned by the witness.
        budgets: the population's budgets, the bytes of a signed `Declaration`.
    """

    row: bytes
    index: int
    inclusion: tuple[bytes, ...]
    checkpoint: bytes
    budgets: bytes

    def encode(self) -> bytes:
        """Return the bytes for the witness: each field with a u32 length before it, big-endian."""
        place, path = _PLACE.pack(self.index), b"".join(self.inclusion)
        fields = (self.row, place, path, self.checkpoint, self.budgets)
        return b"".join(_LENGTH.pack(len(each)) + each for each in fields)

    @classmethod
    def decode(cls, data: bytes) -> "ChargeProof":
        """Return the proof in `data`. Raises BadInput for anything that `encode` would not have written."""
        fields, rest = [], data
        while rest and len(data) <= MAX_BYTES:
            (length,) = _LENGTH.unpack(rest[:4].ljust(4, b"\xff"))
            fields.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        if len(fields) != 5 or len(fields[1]) != 8 or len(fields[2]) % merkle.HASH_SIZE:
            raise BadInput("not the proof of a charge")
        row, place, path, note, declared = fields
        size = merkle.HASH_SIZE
        hashes = tuple(path[at : at + size] for at in range(0, len(path), size))
        found = cls(row, int.from_bytes(place, "big"), hashes, note, declared)
        if found.encode() != data:
            raise BadInput("not the proof of a charge")
        return found


@dataclass(frozen=True, slots=True)
class Round:
    """What a round says of itself, and a charge must agree with.

    Attributes:
        release: id, 16 bytes. plan_hash: SHA-256 of the plan's canonical bytes.
        population: as certificates name it, 32 bytes.
    """

    release: bytes
    plan_hash: bytes
    population: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """Public keys (raw Ed25519, 32 bytes): the enrolment authority's, the log's and the witness's."""

    authority: bytes
    log: bytes
    witness: bytes


def paid(proof: ChargeProof, about: Round, keys: Keys) -> tuple[Charge, Declaration]:
    """Return the charge of a round and the budgets that it was made against.

    Raises BadInput with the first thing that does not hold: the row is a charge of this release, plan and
    population; it is in the log, under a checkpoint that log and witness signed; the authority signed the
    population's budgets, they are in the same currency, and one release may cost as much; and the cost in rho
    implies the epsilon and delta that it states.
    """
    charge = read_row(proof.row)
    if (charge.release, charge.plan_hash) != (about.release.hex(), about.plan_hash.hex()):
        raise BadInput("the charge is of another release or another plan")
    if population_id(charge.population) != about.population:
        raise BadInput("the charge is of another population than the certificates name")
    note = checkpoint.parse(proof.checkpoint)
    if not checkpoint.signed_by_log(note, Ed25519PublicKey.from_public_bytes(keys.log)):
        raise BadInput("the checkpoint over the charge is not signed by the log")
    if checkpoint.cosigned_at(note, Ed25519PublicKey.from_public_bytes(keys.witness)) is None:
        raise BadInput("the checkpoint over the charge is not cosigned by the witness")
    leaf = merkle.leaf_hash(proof.row)
    if not merkle.verify_inclusion(leaf, proof.index, note.size, proof.inclusion, note.root):
        raise BadInput("the charge is not in the log")
    declared = budgets.read(proof.budgets, keys.authority)
    if (declared.population, declared.currency) != (charge.population, charge.currency):
        raise BadInput("the budgets are of another population or another kind of ledger")
    if not claim_holds(charge):
        raise BadInput("the charge is not what its epsilon and delta cost")
    if charge.cost > declared.policy.release:
        raise BadInput("the charge is more than one release of this population may cost")
    return charge, declared


def read_row(row: bytes) -> Charge:
    """Return the charge in a log entry. Raises BadInput for an entry of anything else."""
    head = checkpoint.entry("ledger", b"")
    try:
        logged = json.loads(row.removeprefix(head)) if row.startswith(head) else None
        charge = decode(canonical(logged["row"])) if isinstance(logged, dict) else None
    except (ValueError, KeyError, RecursionError):
        charge = None
    if not isinstance(charge, Charge) or checkpoint.entry("ledger", canonical(logged)) != row:
        raise BadInput("the log's entry is no charge")
    return charge


def context_of(until: datetime, proofs: Sequence[bytes]) -> bytes:
    """Return the 32 bytes by which a round's task names what every device must be sent alike.

    Args:
        until: end of the window, a whole second, with time zone.
        proofs: the checkpoint's note and the charge's row.
    """
    fixed = b"".join(sha256(each).digest() for each in proofs)
    return sha256(int(until.timestamp()).to_bytes(8, "big") + fixed).digest()
