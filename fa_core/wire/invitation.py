"""The bytes that invite a device to a round: the signed plan, the proofs that it is logged and charged.

The server writes one and sends it, unchanged, to every device at the `join` stage; a device believes
nothing in it before `clients.device.trust` has checked it. It is the same for every device: which
checkpoint a device saw last is the device's own business, so the invitation brings a consistency proof
from each earlier checkpoint that a device may have seen.

Layout: the magic, then one zlib stream (RFC 1950) of the fields: much of an invitation is text in which
names, digits and hashes repeat, and all of it is public. In it, big-endian, each field in the order of the
dataclass; bytes with a u32 length before them, integers as u64, times as u64 seconds since 1970, lists with a
u32 count before them.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fa_core.errors import BadInput
from fa_core.trust.charges import ChargeProof
from fa_core.trust.checkpoint import NO_CALENDAR

MAGIC = b"unheard-invitation-3\n"
MAX_BYTES = 16 * 1024 * 1024
HASH_BYTES = 32
MAX_PROOF = 64
MAX_CHECKPOINTS = 4096


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a device is asked, and the proofs with it.

    Attributes:
        plan: canonical bytes of the plan.
        key: raw Ed25519 public key that signed them, 32 bytes.
        signature: its signature, 64 bytes, as `fa_core.plan.sign` makes it.
        release: id of the release, 16 bytes.
        attempt: 0 for the first; a later one is only answered where no vector went out before.
        until: end of the plan's window, a whole hour, UTC.
        index: the plan's index in the transparency log.
        inclusion: RFC 6962 audit path of its leaf in the checkpoint's tree.
        checkpoint: the log's checkpoint, with its own and the witness's signature.
        charge: the ledger's row that pays for the release, as the log repeats it.
        charge_index: its index in the log.
        charge_inclusion: audit path of its leaf in the same checkpoint's tree.
        budgets: the population's budgets, as the enrolment authority signed them.
        consistency: size of an earlier checkpoint -> RFC 6962 proof that this one extends it.
        request: the secure aggregation's own first message.
    """

    plan: bytes
    key: bytes
    signature: bytes
    release: bytes
    attempt: int
    until: datetime
    index: int
    inclusion: tuple[bytes, ...]
    checkpoint: bytes
    charge: bytes
    charge_index: int
    charge_inclusion: tuple[bytes, ...]
    budgets: bytes
    consistency: Mapping[int, tuple[bytes, ...]]
    request: bytes

    @property
    def charge_proof(self) -> ChargeProof:
        """Why the round may be believed to be charged."""
        return ChargeProof(
            self.charge, self.charge_index, self.charge_inclusion, self.checkpoint, self.budgets
        )


def encode(invitation: Invitation) -> bytes:
    """Return the bytes of an invitation. `until` is cut to whole seconds."""
    return pack(fields_of(invitation))


def pack(fields: bytes) -> bytes:
    """Return an invitation's bytes from those of its fields."""
    return MAGIC + zlib.compress(fields, level=9)


def unpack(data: bytes) -> bytes:
    """Return the bytes of the fields in an invitation, at most `MAX_BYTES`. Raises BadInput for any others.

    How well they were compressed is the writer's choice; nothing may follow the stream.
    """
    if not data.startswith(MAGIC):
        raise BadInput("not an invitation of version 3")
    stream = zlib.decompressobj()
    try:
        fields = stream.decompress(data[len(MAGIC) :], MAX_BYTES)
    except zlib.error:
        raise BadInput("an invitation's fields are no zlib stream") from None
    if not stream.eof or stream.unused_data:
        raise BadInput(f"an invitation is one zlib stream of at most {MAX_BYTES} bytes; this one is not")
    return fields


def fields_of(invitation: Invitation) -> bytes:
    """Return the bytes of an invitation's fields, before they are compressed."""
    parts = [
        _bytes(invitation.plan),
        _bytes(invitation.key),
        _bytes(invitation.signature),
        _bytes(invitation.release),
        struct.pack(">QQQ", invitation.attempt, int(invitation.until.timestamp()), invitation.index),
        _hashes(invitation.inclusion),
        _bytes(invitation.checkpoint),
        _bytes(invitation.charge),
        struct.pack(">Q", invitation.charge_index),
        _hashes(invitation.charge_inclusion),
        _bytes(invitation.budgets),
        struct.pack(">I", len(invitation.consistency)),
    ]
    for size, proof in sorted(invitation.consistency.items()):
        parts += [struct.pack(">Q", size), _hashes(proof)]
    parts.append(_bytes(invitation.request))
    return b"".join(parts)


def decode(data: bytes) -> Invitation:
    """Return the invitation in `data`. Raises BadInput unless its fields are as `encode` would write them."""
    if len(data) > MAX_BYTES:
        raise BadInput(f"an invitation has at most {MAX_BYTES} bytes; this one has {len(data)}")
    fields = unpack(data)
    reader = _Reader(fields)
    plan, key, signature, release = (reader.blob() for _ in range(4))
    attempt, seconds, index = struct.unpack(">QQQ", reader.take(24))
    inclusion = reader.hashes()
    checkpoint = reader.blob()
    charge, charge_index, charge_inclusion = reader.blob(), reader.integer(), reader.hashes()
    budgets = reader.blob()
    sizes = reader.count(MAX_CHECKPOINTS)
    consistency = {reader.integer(): reader.hashes() for _ in range(sizes)}
    request = reader.blob()
    if seconds >= NO_CALENDAR:
        raise BadInput("an invitation's window ends beyond every calendar")
    invitation = Invitation(
        plan, key, signature, release, attempt, datetime.fromtimestamp(seconds, UTC), index, inclusion,
        checkpoint, charge, charge_index, charge_inclusion, budgets, consistency, request,
    )  # fmt: skip
    if fields_of(invitation) != fields or (len(key), len(signature), len(release)) != (32, 64, 16):
        raise BadInput("an invitation is longer, shorter or in another order than version 3 says")
    return invitation


def _bytes(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _hashes(values: tuple[bytes, ...]) -> bytes:
    return struct.pack(">I", len(values)) + b"".join(values)


class _Reader:
    """Reads fields off the front of a byte string and refuses to read past its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        end = self._at + length
        if end > len(self._data):
            raise BadInput("an invitation ends in the middle of a field")
        value = self._data[self._at : end]
        self._at = end
        return value

    def integer(self) -> int:
        """Return the next u64."""
        return int.from_bytes(self.take(8), "big")

    def count(self, most: int) -> int:
        """Return the next u32, which may be no more than `most`."""
        value = int.from_bytes(self.take(4), "big")
        if value > most:
            raise BadInput(f"an invitation lists {value} things where at most {most} may stand")
        return value

    def blob(self) -> bytes:
        """Return the next byte string."""
        return self.take(self.count(MAX_BYTES))

    def hashes(self) -> tuple[bytes, ...]:
        """Return the next list of 32-byte hashes."""
        return tuple(self.take(HASH_BYTES) for _ in range(self.count(MAX_PROOF)))
