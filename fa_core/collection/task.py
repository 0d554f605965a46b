"""The task of a collection: what leader, helper and every device agree on before the first report.

The helper makes it, with a sealing key of its own for this task alone, and the witness binds the charged
release to it. All three sign it, and the transparency log has it before any device is asked. Its id, the hash
of its bytes, is the context of every proof (a proof of Prio3 binds no parameters by itself), of every sealed
share and of every signature: nothing of one task can be used in another.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.secagg.identity import signed
from fa_core.trust import checkpoint, hpke, strict
from fa_core.trust.charges import Round
from fa_core.trust.collection_request import CollectionRequest

ID_SIZE: Final = 32
MAX_BYTES: Final = 1 << 16
KEPT: Final = timedelta(days=14)
"""How long after its window either aggregator keeps what it has of a task that nobody closed."""

_SIGNATURE_SIZE: Final = 64


def label(name: str) -> bytes:
    """Return the domain-separation prefix of one use of a hash, a signature or an encryption."""
    return b"unheard/collection/1 " + name.encode() + b"\x00"


@dataclass(frozen=True)
class Task:
    """The public facts of one collection, equal for everybody. Times are whole seconds, UTC.

    Attributes:
        plan: SHA-256 of the plan's canonical bytes. layout: `layout_hash` of what it compiles to.
        release: id of the release, 16 bytes; there is one task a release.
        population: whose budget is charged, as certificates name it, 32 bytes.
        charge: SHA-256 of the ledger's row that pays for it, as the log repeats it.
        start, until: events in [start, until) count.
        opens, closes: reports are taken in [opens, closes).
        leader, helper: their public keys, raw Ed25519, 32 bytes.
        sealing: the helper's public key for the shares of this task, HPKE, 1,216 bytes.
        least: fewest devices in a sum that may be released.
        kappa: the leader's noise has kappa times the variance of the helper's.
    """

    plan: bytes
    layout: bytes
    release: bytes
    population: bytes
    charge: bytes
    start: datetime
    until: datetime
    opens: datetime
    closes: datetime
    leader: bytes
    helper: bytes
    sealing: bytes
    least: int
    kappa: Fraction

    def encode(self) -> bytes:
        """Return the task's bytes, canonical JSON; equal tasks have equal bytes."""
        body = {name: getattr(self, name).hex() for name in _BYTES}
        body |= {name: int(getattr(self, name).timestamp()) for name in _MOMENTS}
        return canonical(body | {"version": 1, "least": self.least, "kappa": str(self.kappa)})

    @classmethod
    def parse(cls, data: bytes) -> "Task":
        """Return the task of `data`. Raises BadInput unless they are exactly what `encode` would write."""
        try:
            body = _object(data)
            fields: dict[str, Any] = {name: _raw(body[name], size) for name, size in _BYTES.items()}
            fields |= {name: strict.moment(body[name]) for name in _MOMENTS}
            task = cls(**fields, least=strict.whole(body["least"]), kappa=strict.fraction(body["kappa"]))
            hpke.public_key(task.sealing)
        except (ValueError, KeyError):
            raise BadInput("not a task of a collection") from None
        if task.encode() != data or not 0 < task.kappa <= 1 or not task.opens < task.closes or task.least < 2:
            raise BadInput("not a task of a collection")
        return task

    @cached_property
    def id(self) -> bytes:
        """32 bytes that name this task in every proof, sealed share, report and signature."""
        return sha256(label("task") + self.encode()).digest()


@dataclass(frozen=True, slots=True)
class SignedTask:
    """A task with the signatures of both aggregators and of the witness, 64 bytes each."""

    task: Task
    leader: bytes
    helper: bytes
    witness: bytes

    def entry(self) -> bytes:
        """Return the entry of the transparency log."""
        return checkpoint.entry("task", canonical(self._document()))

    def encode(self) -> bytes:
        """Return the bytes."""
        return canonical(self._document())

    @classmethod
    def parse(cls, data: bytes) -> "SignedTask":
        """Return the signed task of `data`, the aggregators' signatures checked. Raises BadInput.

        `verify` checks the witness's, whose key a task does not name.
        """
        try:
            body = _object(data)
            task = Task.parse(strict.text(body["task"]).encode())
            found = cls(task, *(_raw(body[name], _SIGNATURE_SIZE) for name in _SIGNERS))
        except (ValueError, KeyError):
            raise BadInput("not a signed task of a collection") from None
        if found.encode() != data:
            raise BadInput("not a signed task of a collection")
        if not all(signed(getattr(found, each), to_sign(task), getattr(task, each)) for each in AGGREGATORS):
            raise BadInput("leader and helper have not both signed this task")
        return found

    def verify(self, witness: bytes) -> None:
        """Raise BadInput unless the witness (public key, 32 bytes) bound the release to this task."""
        if not signed(self.witness, asked(self.task).message(), witness):
            raise BadInput("the witness has not bound this release to this task")

    def _document(self) -> dict[str, str]:
        return {
            "task": self.task.encode().decode(),
            "release": self.task.release.hex(),
        } | {each: getattr(self, each).hex() for each in _SIGNERS}


def to_sign(task: Task) -> bytes:
    """Return what leader and helper sign."""
    return label("task signature") + task.encode()


def asked(task: Task, charge: bytes = b"") -> CollectionRequest:
    """Return what the witness is asked to sign; `charge` is the encoded proof of the charge."""
    return CollectionRequest(Round(task.release, task.plan, task.population), task.id, charge)


@dataclass(frozen=True, slots=True)
class Trusted:
    """The public keys of helper and witness, raw Ed25519, 32 bytes, that a device pins."""

    helper: bytes
    witness: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """What a device is asked with, beside plan and charge: the task, and the proof that the log has it.

    It is the `request` of an invitation (`fa_core.wire.invitation`), whose checkpoint covers the task.

    Attributes:
        signed: the task. index: its place in the log.
        inclusion: RFC 6962 audit path to the root of the invitation's checkpoint.
    """

    signed: SignedTask
    index: int
    inclusion: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the bytes, canonical JSON."""
        return canonical(
            {
                "signed": self.signed.encode().decode(),
                "index": self.index,
                "inclusion": [each.hex() for each in self.inclusion],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Offer":
        """Return the offer of `data`. Raises BadInput for anything that `encode` would not have written."""
        try:
            body = _object(data)
            path = body["inclusion"]
            if not isinstance(path, list) or len(path) > 64:
                raise ValueError("no audit path")
            inclusion = tuple(_raw(each, merkle.HASH_SIZE) for each in path)
            signed = SignedTask.parse(strict.text(body["signed"]).encode())
            found = cls(signed, strict.whole(body["index"]), inclusion)
        except (ValueError, KeyError):
            raise BadInput("not an offer of a collection") from None
        if found.encode() != data:
            raise BadInput("not an offer of a collection")
        return found


_BYTES: Final = {
    "plan": 32, "layout": 32, "release": 16, "population": 32, "charge": 32,
    "leader": 32, "helper": 32, "sealing": hpke.PUBLIC_SIZE,
}  # fmt: skip
AGGREGATORS: Final = ("leader", "helper")
_SIGNERS: Final = (*AGGREGATORS, "witness")
_MOMENTS: Final[Sequence[str]] = ("start", "until", "opens", "closes")


def _object(data: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError for anything else."""
    if len(data) > MAX_BYTES:
        raise ValueError("too long")
    try:
        body = json.loads(data)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(body, dict):
        raise ValueError("not an object")
    return body


def _raw(value: Any, size: int) -> bytes:
    """Return so many bytes from hexadecimal digits. Raises ValueError for anything else."""
    raw = bytes.fromhex(strict.text(value))
    if len(raw) != size:
        raise ValueError("another length")
    return raw
