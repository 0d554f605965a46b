"""The witness's grant: its signature that a rollout may be in a stage, and what it is handed to decide that.

A stage in which a candidate model acts on more devices than before follows from a gate, computed from logged
releases alone. So the witness is handed the log's entries with their proofs and the releases' bytes,
has the gate computed again (by a function that it is given: this room knows no numbers), and signs where the
answer is the one that the aggregator claims.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.merkle import HASH_SIZE, Proof
from fa_core.privacy.ledger import Charge
from fa_core.trust import checkpoint
from fa_core.trust.strict import fraction, moment, text, whole

_PURPOSE = b"unheard-rollout-stage-1\n"

MOST_STAGES = 1 << 16
"""A stage's index is below it: two bytes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A stage of a rollout, as manifests name it.

    Attributes:
        rollout: SHA-256 of its document, 32 bytes. state: "live" or "complete".
        stage: index into the document's stages. share: of the devices on which the candidate acts.
    """

    rollout: bytes
    state: str
    stage: int
    share: Fraction

    @property
    def possible(self) -> bool:
        """Whether there can be such a stage, and one that needs a grant."""
        live = self.state == "live" and 0 < self.share <= 1
        whole = type(self.stage) is int and 0 < self.stage < MOST_STAGES and len(self.rollout) == 32
        return whole and (live or (self.state == "complete" and self.share == 1))

    @property
    def before(self) -> "tuple[str, int] | None":
        """State and stage that must have been granted before, None for the first live stage."""
        if self.state == "complete":
            return "live", self.stage
        return ("live", self.stage - 1) if self.stage > 1 else None

    def message(self) -> bytes:
        """Return what the witness signs."""
        return _PURPOSE + canonical(self.body())

    def body(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "rollout": self.rollout.hex(),
            "state": self.state,
            "stage": self.stage,
            "share": str(self.share),
        }


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """One entry of the log, its index and its RFC 6962 audit path."""

    index: int
    entry: bytes
    inclusion: Proof


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What the aggregator hands to the witness.

    Attributes:
        asked: the stage.
        claim: canonical JSON of the decision that the aggregator computed.
        note: a checkpoint that log and witness signed.
        entries: the rollout's, the decision's that began the stage before, those of the releases and failures
            of the plan that decides; each after the one before it in the log.
        bodies: the releases' bytes, in the order of their entries.
    """

    asked: Asked
    claim: bytes
    note: bytes
    entries: tuple[ProvenEntry, ...]
    bodies: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the bytes of the request: canonical JSON."""
        entries = [
            {"index": e.index, "entry": e.entry.decode(), "inclusion": b"".join(e.inclusion).hex()}
            for e in self.entries
        ]
        return canonical(
            {
                "asked": self.asked.body(),
                "claim": self.claim.decode(),
                "checkpoint": self.note.decode(),
                "entries": entries,
                "bodies": [base64.b64encode(body).decode() for body in self.bodies],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "GrantRequest":
        """Return what `encode` wrote. Raises BadInput for anything else."""
        try:
            body: Any = json.loads(data)
            asked = body["asked"]
            found = cls(
                Asked(
                    bytes.fromhex(asked["rollout"]),
                    text(asked["state"]),
                    whole(asked["stage"]),
                    fraction(asked["share"]),
                ),
                body["claim"].encode(),
                body["checkpoint"].encode(),
                tuple(
                    ProvenEntry(whole(e["index"]), e["entry"].encode(), _path(bytes.fromhex(e["inclusion"])))
                    for e in body["entries"]
                ),
                tuple(base64.b64decode(each, validate=True) for each in body["bodies"]),
            )
            sound = found.encode() == data and found.asked.possible
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            binascii.Error,
        ):
            raise BadInput("the witness cannot read what is asked for a rollout's stage") from None
        if not sound:
            raise BadInput("the witness cannot read what is asked for a rollout's stage")
        return found


@dataclass(frozen=True, slots=True)
class KnownRound:
    """A round for which this witness signed a roster.

    Attributes:
        charge: under which it did. opened: the place of its release among all whose survivors this witness
            signed, None where it signed none: then nobody has seen the round's sum.
    """

    charge: Charge
    opened: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A request whose entries stand in the log, and what the witness knows itself.

    Attributes:
        asked, claim, bodies: as in the request. entries: their bytes, in the request's order.
        earlier: the claim that the stage before was granted for, b"" before the first grant.
        began: when the stage before began, by the witness's clock: it registered the start, or granted it.
        used: the releases on which earlier grants of the rollout rest.
        rounds: every round for which this witness signed a roster, oldest first.
        now: by the witness's clock, UTC.
    """

    asked: Asked
    claim: bytes
    entries: tuple[bytes, ...]
    bodies: tuple[bytes, ...]
    earlier: bytes
    began: datetime
    used: frozenset[str]
    rounds: Sequence[KnownRound]
    now: datetime


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant as the witness's journal keeps it.

    Attributes:
        message: SHA-256 of what was signed. signature: 64 bytes. claim: that it was granted for.
        at: when, by the witness's clock, UTC, a whole second: the stage began then.
    """

    message: bytes
    signature: bytes
    claim: bytes
    at: datetime

    @property
    def releases(self) -> frozenset[str]:
        """The releases on which it rests."""
        return frozenset(each for each in json.loads(self.claim)["releases"] if each is not None)

    def encode(self) -> bytes:
        """Return the bytes of the entry: canonical JSON."""
        return canonical(
            {
                "message": self.message.hex(),
                "signature": self.signature.hex(),
                "claim": self.claim.decode(),
                "at": int(self.at.timestamp()),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Granted":
        """Return what `encode` wrote, from a journal that only the witness writes."""
        body = json.loads(data)
        return cls(
            bytes.fromhex(body["message"]),
            bytes.fromhex(body["signature"]),
            body["claim"].encode(),
            moment(body["at"]),
        )


Recompute = Callable[[Evidence], None]
"""Computes a gate again from evidence. Raises Refused where the stage does not follow from it."""


def no_gate(evidence: Evidence) -> None:
    """Refuse: this witness was given no way to compute a gate."""
    raise Refused("the witness was not given the means to compute a gate, so it grants no stage of a rollout")


def proven(request: GrantRequest, log_key: bytes, witness_key: bytes) -> tuple[bytes, ...]:
    """Return the entries of a request. Raises Refused unless all stand under a checkpoint signed by both.

    Args:
        log_key, witness_key: raw Ed25519 public keys, 32 bytes.
    """
    try:
        note = checkpoint.parse(request.note)
    except BadInput as error:
        raise Refused(f"the witness grants nothing: {error}") from None
    if not checkpoint.signed_by_log(note, Ed25519PublicKey.from_public_bytes(log_key)):
        raise Refused("the witness grants nothing under a checkpoint that the log did not sign")
    if checkpoint.cosigned_at(note, Ed25519PublicKey.from_public_bytes(witness_key)) is None:
        raise Refused("the witness grants nothing under a checkpoint that it did not cosign")
    places = [each.index for each in request.entries]
    if places != sorted(set(places)):
        raise Refused("the witness grants nothing: the entries that it was handed are not in the log's order")
    for each in request.entries:
        leaf = merkle.leaf_hash(each.entry)
        if not merkle.verify_inclusion(leaf, each.index, note.size, each.inclusion, note.root):
            raise Refused("the witness grants nothing: an entry that it was handed is not in the log")
    return tuple(each.entry for each in request.entries)


def _path(data: bytes) -> Proof:
    if len(data) % HASH_SIZE:
        raise ValueError("not an audit path")
    return tuple(data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE))
