"""What leader and helper say to each other: a task is opened, batches are verified, the collection is closed.

Every request is answered the same however often it is repeated; another one in its place is refused. Integers
are big-endian; sizes of the parts of a batch follow from the task's proof system.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from fa_core.canonical_json import canonical
from fa_core.collection.refusal import Refusal
from fa_core.collection.report import DEVICE_SIZE, REPORT_ID_SIZE
from fa_core.collection.sums import CHECKSUM_SIZE
from fa_core.collection.task import ID_SIZE, Task
from fa_core.errors import BadInput
from fa_core.prio.prio3 import Prio3
from fa_core.secagg.identity import CERTIFICATE_SIZE, SIGNATURE_SIZE
from fa_core.trust import hpke, strict

MAX_BATCH: Final = 512
"""Reports in one batch."""

MAX_OPENING: Final = 1 << 22
_HEX: Final = ("release", "charge", "leader")
_NUMBER, _COUNT = 4, 2
_HEAD: Final = ID_SIZE + _NUMBER + _COUNT
_HASH: Final = 32


class Aggregator(Protocol):
    """The helper, as its leader asks it: here or at the other end of a connection.

    Each raises Refused for what the helper refuses, and HelperAway where it does not answer.
    """

    def open(self, request: bytes) -> bytes:
        """Return an `Opened` for an `Opening`."""
        ...

    def verify(self, batch: bytes) -> bytes:
        """Return `encode_decisions` of a `Batch`."""
        ...

    def close(self, request: bytes) -> bytes:
        """Return the helper's noised share of the sum for a `Closing`, 8 bytes a cell, mod p."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """A request for a task.

    Attributes:
        plan: canonical bytes. release: 16 bytes.
        charge: a `ChargeProof`, encoded.
        leader: its public key, 32 bytes.
        opens, closes: reports are taken in [opens, closes), whole seconds, UTC.
    """

    plan: bytes
    release: bytes
    charge: bytes
    leader: bytes
    opens: datetime
    closes: datetime

    def encode(self) -> bytes:
        """Return the bytes, canonical JSON."""
        body: dict[str, Any] = {name: getattr(self, name).hex() for name in _HEX}
        body |= {name: int(getattr(self, name).timestamp()) for name in ("opens", "closes")}
        return canonical(body | {"plan": self.plan.decode()})

    @classmethod
    def decode(cls, data: bytes) -> "Opening":
        """Return the request in `data`. Raises BadInput for anything that `encode` would not have written."""
        if len(data) > MAX_OPENING:
            raise BadInput("not a request for a task")
        try:
            body = json.loads(data)
            release, charge, leader = (bytes.fromhex(strict.text(body[name])) for name in _HEX)
            opens, closes = (strict.moment(body[name]) for name in ("opens", "closes"))
            found = cls(strict.text(body["plan"]).encode(), release, charge, leader, opens, closes)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput("not a request for a task") from None
        if found.encode() != data or (len(found.release), len(found.leader)) != (16, 32):
            raise BadInput("not a request for a task")
        return found


@dataclass(frozen=True, slots=True)
class Opened:
    """A task, as the helper made it: with its own signature and the witness's, and the key for verifying.

    `verify_key` is for the two aggregators alone, 32 bytes: a device that had it could prove what is not so.
    """

    task: Task
    helper: bytes
    witness: bytes
    verify_key: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the bytes."""
        return self.helper + self.witness + self.verify_key + self.task.encode()

    @classmethod
    def decode(cls, data: bytes) -> "Opened":
        """Return the answer in `data`. Raises BadInput; no signature is checked."""
        helper, witness, key = cut(data, (SIGNATURE_SIZE, SIGNATURE_SIZE, _HASH))
        return cls(Task.parse(data[2 * SIGNATURE_SIZE + _HASH :]), helper, witness, key)


@dataclass(frozen=True, slots=True)
class Entry:
    """One report of a batch, without the leader's share: its hash, and what the leader found with it."""

    id: bytes
    device: bytes
    public: bytes
    box: bytes
    leader_hash: bytes
    certificate: bytes
    signature: bytes
    verifier: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Reports of a task that are verified together; its number is given once."""

    task: bytes
    number: int
    entries: tuple[Entry, ...]

    def encode(self) -> bytes:
        """Return the bytes."""
        head = self.task + self.number.to_bytes(_NUMBER, "big") + len(self.entries).to_bytes(_COUNT, "big")
        return head + b"".join(
            each.id + each.device + each.public + each.box + each.leader_hash + each.certificate
            + each.signature + each.verifier
            for each in self.entries
        )  # fmt: skip

    @classmethod
    def decode(cls, data: bytes, prio: Prio3) -> "Batch":
        """Return the batch in `data`. Raises BadInput for bytes of another length."""
        task, number, count = cut(data, (ID_SIZE, _NUMBER, _COUNT))
        sizes, entries = _entry_sizes(prio), int.from_bytes(count, "big")
        size = sum(sizes)
        if not 0 < entries <= MAX_BATCH or len(data) != _HEAD + entries * size:
            raise BadInput("not a batch of this task's reports")
        return cls(
            task,
            int.from_bytes(number, "big"),
            tuple(Entry(*cut(data[at : at + size], sizes)) for at in range(_HEAD, len(data), size)),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one report: `message` for who finishes, or why it is refused."""

    refusal: Refusal | None
    message: bytes = b""


def encode_decisions(decisions: Sequence[Decision], prio: Prio3) -> bytes:
    """Return the answer to a batch: a code (0: counted) and `message_size` bytes for each report."""
    return b"".join(
        bytes([each.refusal.number if each.refusal else 0]) + each.message.ljust(prio.message_size, b"\x00")
        for each in decisions
    )


def decode_decisions(data: bytes, count: int, prio: Prio3) -> tuple[Decision, ...]:
    """Return the decisions on `count` reports. Raises BadInput for bytes that are not so many."""
    size = 1 + prio.message_size
    if len(data) != count * size:
        raise BadInput("the helper's answer is not of this batch")
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    try:
        return tuple(
            Decision(Refusal.of_number(part[0])) if part[0] else Decision(None, part[1:]) for part in parts
        )
    except ValueError:
        raise BadInput("the helper's answer has a code that is none") from None


@dataclass(frozen=True, slots=True)
class Closing:
    """A request to close a collection: what the leader counted, which the helper must have counted too."""

    task: bytes
    count: int
    checksum: bytes

    def encode(self) -> bytes:
        """Return the bytes."""
        return self.task + self.count.to_bytes(_NUMBER, "big") + self.checksum

    @classmethod
    def decode(cls, data: bytes) -> "Closing":
        """Return the request in `data`. Raises BadInput for another length."""
        task, count, checksum = cut(data, (ID_SIZE, _NUMBER, CHECKSUM_SIZE))
        found = cls(task, int.from_bytes(count, "big"), checksum)
        if found.encode() != data:
            raise BadInput("not a request to close a collection")
        return found


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Return the first parts of `data`, of these sizes. Raises BadInput where it is too short."""
    if len(data) < sum(sizes):
        raise BadInput("a message between the aggregators is too short")
    at, parts = 0, []
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return iter(parts)


def _entry_sizes(prio: Prio3) -> tuple[int, ...]:
    return (
        REPORT_ID_SIZE,
        DEVICE_SIZE,
        prio.public_size,
        prio.helper_size + hpke.OVERHEAD,
        _HASH,
        CERTIFICATE_SIZE,
        SIGNATURE_SIZE,
        prio.verifier_size,
    )
