"""The witness's grant: its signature that a rollout may be in a stage, and what it is handed to decide that.

A stage in which a candidate model acts on more devices than before follows from a gate, computed from logged
releases alone. So the witness is handed the log's entries with their proofs and the releases' bytes,
has the gate computed again (by a function that it is given: this room knows no numbers), and signs where the
answer is the one that the aggregator claims.

A grant says from when and until when a device may enter the stage: a lease for a live one, the rollout's end
for completion. So whoever has the log's key alone cannot bring a stage of long ago to a device that never saw
the rollout. A stage that was granted is signed again, for another time, as long as the rollout goes on.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.merkle import HASH_SIZE, Proof
from fa_core.privacy.ledger import Charge
from fa_core.trust import checkpoint
from fa_core.trust.strict import fraction, moment, text, whole

_PURPOSE: Final = b"unheard-rollout-stage-2\n"
_WITHOUT_TIME: Final = b"unheard-rollout-stage-1\n"
_VERSION: Final = b"\x02"
_SIGNATURE: Final = 64

GRANT_SIZE: Final = 1 + 8 + 8 + _SIGNATURE
"""Bytes of a grant: version, issued and expires (seconds since 1970, little-endian), signature. Those of
before had no time: the signature alone, 64 bytes."""

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

    @property
    def name(self) -> bytes:
        """SHA-256 by which the witness's journal names the stage, 32 bytes."""
        return sha256(self.message(None)).digest()

    def message(self, time: "tuple[datetime, datetime] | None") -> bytes:
        """Return what the witness signs, for a grant of this time; None for one of before, without any."""
        if time is None:
            return _WITHOUT_TIME + canonical(self.body())
        issued, expires = (int(each.timestamp()) for each in time)
        return _PURPOSE + canonical(self.body() | {"issued": issued, "expires": expires})

    def body(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "rollout": self.rollout.hex(),
            "state": self.state,
            "stage": self.stage,
            "share": str(self.share),
        }


@dataclass(frozen=True, slots=True)
class Grant:
    """The witness's signature that a rollout may be in a stage.

    Attributes:
        time: issued and expires, by the witness's clock, UTC, whole seconds: a device may enter the stage
            from the first on and before the second. None in grants of before.
        signature: over the stage and the time, 64 bytes.
    """

    time: tuple[datetime, datetime] | None
    signature: bytes

    @classmethod
    def sign(cls, asked: Asked, issued: datetime, expires: datetime, witness: Ed25519PrivateKey) -> "Grant":
        """Grant a stage."""
        return cls((issued, expires), witness.sign(asked.message((issued, expires))))

    def holds(self, asked: Asked, witness: bytes) -> bool:
        """Whether the witness with this public key (raw Ed25519, 32 bytes) granted this stage."""
        try:
            Ed25519PublicKey.from_public_bytes(witness).verify(self.signature, asked.message(self.time))
        except (InvalidSignature, ValueError):
            return False
        return True

    def encode(self) -> bytes:
        """Return the bytes in manifests and decisions."""
        if self.time is None:
            return self.signature
        times = (int(each.timestamp()).to_bytes(8, "little") for each in self.time)
        return _VERSION + b"".join(times) + self.signature

    @classmethod
    def decode(cls, data: bytes) -> "Grant":
        """Return what `encode` wrote. Raises BadInput for anything else; no signature is checked."""
        if len(data) == _SIGNATURE:
            return cls(None, data)
        seconds = [int.from_bytes(data[at : at + 8], "little") for at in (1, 9)]
        if len(data) != GRANT_SIZE or data[:1] != _VERSION or max(seconds) >= checkpoint.NO_CALENDAR:
            raise BadInput("these bytes are no grant of a witness")
        issued, expires = (datetime.fromtimestamp(each, UTC) for each in seconds)
        return cls((issued, expires), data[17:])


@dataclass(frozen=True, slots=True)
class Term:
    """How long the grants of a rollout may last, as its document says.

    Attributes:
        lease: of a stage. end: when the document's last day is over, UTC.
    """

    lease: timedelta
    end: datetime

    def until(self, state: str, issued: datetime) -> datetime:
        """Return when a grant expires: a lease after it was issued, or with the rollout; then if complete."""
        return self.end if state == "complete" else min(issued + self.lease, self.end)


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
    """A stage that was granted, as the witness's journal keeps it.

    Attributes:
        name: the stage's, `Asked.name`. claim: that it was granted for.
        at: when, by the witness's clock, UTC, a whole second: the stage began then.
        term: how long its grants may last; None in a journal of before.
    """

    name: bytes
    claim: bytes
    at: datetime
    term: Term | None

    @property
    def releases(self) -> frozenset[str]:
        """The releases on which it rests."""
        return frozenset(each for each in json.loads(self.claim)["releases"] if each is not None)

    def encode(self) -> bytes:
        """Return the bytes of the entry: canonical JSON."""
        body: dict[str, Any] = {
            "message": self.name.hex(),
            "claim": self.claim.decode(),
            "at": int(self.at.timestamp()),
        }
        if self.term is not None:
            body["lease"] = int(self.term.lease.total_seconds())
            body["end"] = int(self.term.end.timestamp())
        return canonical(body)

    @classmethod
    def decode(cls, data: bytes) -> "Granted":
        """Return what `encode` wrote, from a journal that only the witness writes."""
        body = json.loads(data)
        term = None
        if "lease" in body:
            term = Term(timedelta(seconds=body["lease"]), datetime.fromtimestamp(body["end"], UTC))
        return cls(bytes.fromhex(body["message"]), body["claim"].encode(), moment(body["at"]), term)


Recompute = Callable[[Evidence], Term]
"""Computes a gate again from evidence, and returns how long the rollout's grants may last. Raises Refused
where the stage does not follow from it."""


def no_gate(evidence: Evidence) -> Term:
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
