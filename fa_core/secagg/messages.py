"""The messages, byte by byte. docs/protocol.md is the same in words.

Every message is `"UH"`, a version byte, a kind byte, the 32-byte session and a body; integers are
little-endian, bitmaps have bit i of the list at bit i mod 8 of byte i div 8. Lengths follow from the task
and the roster, so a reader knows how long a message must be, and any other length is refused. Readers raise
`Malformed` (or `OtherSession`) and nothing else, and the text of neither says anything about the content.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fa_core.merkle import HASH_SIZE, Proof
from fa_core.secagg.identity import RECORD_SIZE, SIGNATURE_SIZE
from fa_core.secagg.keys import KEY_SIZE, TAG_SIZE
from fa_core.secagg.masks import Vector
from fa_core.secagg.opened_secret import OPENING_SIZE
from fa_core.secagg.shamir import LIMBS, MISSING, PRIME, SHARE_SIZE
from fa_core.secagg.task import TASK_SIZE, Task, label

SEALED_SIZE = 2 * SHARE_SIZE + TAG_SIZE
NONCE_SIZE = 32
NO_COMPLAINT = 0xFFFF_FFFF
"""Stands in the place of a slot where a device has nothing to complain about."""

Flags = NDArray[np.bool_]

_MAGIC = b"UH\x03"
_HEAD = len(_MAGIC) + 1 + 32
_U32 = struct.Struct("<I")


class Kind(IntEnum):
    """The fourth byte of a message."""

    JOIN_REQUEST = 1
    JOIN_REPLY = 2
    SHARES_REQUEST = 3
    SHARES_REPLY = 4
    MASKED_REQUEST = 5
    MASKED_REPLY = 6
    UNMASK_REQUEST = 7
    UNMASK_REPLY = 8
    ROSTER_REQUEST = 9
    ROSTER_REPLY = 10
    SURVIVORS_REQUEST = 11
    SURVIVORS_REPLY = 12
    PLAIN_JOIN_REPLY = 13
    PLAIN_VECTOR_REQUEST = 14
    PLAIN_VECTOR_REPLY = 15
    CONFIRM_REQUEST = 16
    CONFIRM_REPLY = 17
    DISPUTE_REQUEST = 18
    DISPUTE_REPLY = 19
    COMPLAINT_REQUEST = 20
    COMPLAINT_REPLY = 21


class Malformed(ValueError):
    """These bytes are not the message that was expected."""


class OtherSession(Malformed):
    """A message of another round."""


@dataclass(frozen=True)
class Roster:
    """What the witness signs after `join`: how many there are, the root over their records, and its nonce."""

    devices: int
    root: bytes
    nonce: bytes
    signature: bytes = bytes(SIGNATURE_SIZE)

    def encode(self) -> bytes:
        """132 bytes."""
        return _U32.pack(self.devices) + self.root + self.nonce + self.signature

    def message(self, task: Task) -> bytes:
        """The bytes under the witness's signature."""
        return label("roster") + task.encode() + _U32.pack(self.devices) + self.root + self.nonce

    def hash(self, task: Task) -> bytes:
        """32 bytes that stand for this roster of this task."""
        return sha256(self.message(task)).digest()


@dataclass(frozen=True)
class Member:
    """A record (256 bytes) with the proof that it is in the roster."""

    record: bytes
    proof: Proof


@dataclass(frozen=True)
class SharesRequest:
    """The signed roster, the receiver's place in it, and its neighbours in slot order."""

    roster: Roster
    index: int
    proof: Proof
    neighbours: tuple[Member, ...]


@dataclass(frozen=True)
class Dealt:
    """What a device sends at `shares`: commitment (32), signature (64), boxes by slot, uint8 (k, 88)."""

    commitment: bytes
    signature: bytes
    sealed: NDArray[np.uint8]

    def encode(self) -> bytes:
        """96 + 88·k bytes."""
        return self.commitment + self.signature + self.sealed.tobytes()


@dataclass(frozen=True)
class Complaint:
    """What shows who lied: accuser and accused with their roster indices, what was dealt, and the opening."""

    accuser: Member
    accuser_index: int
    accused: Member
    accused_index: int
    dealt: Dealt
    opening: bytes


class _Reader:
    """Takes a body apart from the front."""

    def __init__(self, body: bytes) -> None:
        self._rest = memoryview(body)

    def take(self, size: int) -> bytes:
        if len(self._rest) < size:
            raise Malformed("the message ends too early")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def proof(self) -> Proof:
        count = self.take(1)[0]
        return _hashes(self.take(HASH_SIZE * count))

    def member(self) -> Member:
        if len(self._rest) <= RECORD_SIZE:
            raise Malformed("the message ends too early")
        return _member(self.take(RECORD_SIZE + 1 + HASH_SIZE * self._rest[RECORD_SIZE]))

    def boxes(self) -> list[bytes]:
        """All that is left, cut into boxes."""
        rest = self.take(len(self._rest))
        if len(rest) % SEALED_SIZE:
            raise Malformed("the message ends too early")
        return [rest[i : i + SEALED_SIZE] for i in range(0, len(rest), SEALED_SIZE)]

    def roster(self) -> Roster:
        return Roster(self.u32(), self.take(HASH_SIZE), self.take(NONCE_SIZE), self.take(SIGNATURE_SIZE))

    def dealt(self, neighbours: int) -> Dealt:
        commitment, signature = self.take(HASH_SIZE), self.take(SIGNATURE_SIZE)
        sealed = np.frombuffer(self.take(SEALED_SIZE * neighbours), dtype=np.uint8)
        return Dealt(commitment, signature, sealed.reshape(neighbours, SEALED_SIZE))

    def flags(self, count: int) -> Flags:
        packed = np.frombuffer(self.take((count + 7) // 8), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")
        if bits[count:].any():
            raise Malformed("a bitmap has bits past its end")
        return bits[:count].astype(np.bool_)

    def left(self) -> int:
        return len(self._rest)

    def empty(self) -> bool:
        return not self._rest

    def end(self) -> None:
        if self._rest:
            raise Malformed("the message is too long")


@lru_cache(maxsize=1 << 14)
def _member(data: bytes) -> Member:
    """A member of 257 bytes and its hashes. Remembered, since all neighbours of a hub's device read it."""
    return Member(data[:RECORD_SIZE], _hashes(data[RECORD_SIZE + 1 :]))


def _hashes(path: bytes) -> Proof:
    return tuple(path[i : i + HASH_SIZE] for i in range(0, len(path), HASH_SIZE))


def wrap(kind: Kind, session: bytes, body: bytes) -> bytes:
    """A whole message."""
    return _MAGIC + bytes([kind]) + session + body


def _open(kind: Kind, session: bytes, data: bytes) -> _Reader:
    if data[:3] != _MAGIC or len(data) < _HEAD or data[3] != kind:
        raise Malformed("not a message of this kind")
    if data[4:_HEAD] != session:
        raise OtherSession("a message of another round")
    return _Reader(data[_HEAD:])


def _open_task(kind: Kind, data: bytes) -> tuple[Task, _Reader]:
    """For the messages that carry their task: it must be the one that the session names."""
    try:
        task = Task.decode(data[_HEAD : _HEAD + TASK_SIZE])
    except ValueError as error:
        raise Malformed("not a task") from error
    reader = _open(kind, task.session, data)
    reader.take(TASK_SIZE)
    return task, reader


def pack_flags(flags: Flags) -> bytes:
    """A bitmap."""
    return np.packbits(flags, bitorder="little").tobytes()


def member_bytes(record: bytes, proof: Proof) -> bytes:
    """A neighbour as it stands in a shares request."""
    return record + proof_bytes(proof)


def proof_bytes(proof: Proof) -> bytes:
    """A count byte and the hashes."""
    return bytes([len(proof)]) + b"".join(proof)


def join_request(task: Task) -> bytes:
    """`join`, to every device."""
    return wrap(Kind.JOIN_REQUEST, task.session, task.encode())


def read_join_request(data: bytes) -> Task:
    """The task that the server proposes."""
    task, reader = _open_task(Kind.JOIN_REQUEST, data)
    reader.end()
    return task


def join_reply(session: bytes, record: bytes) -> bytes:
    """A device's record."""
    return wrap(Kind.JOIN_REPLY, session, record)


def read_join_reply(session: bytes, data: bytes) -> bytes:
    """The 256 bytes of a record."""
    return read_fixed(Kind.JOIN_REPLY, session, data, RECORD_SIZE)


def shares_request(
    session: bytes, roster: Roster, index: int, proof: Proof, members: Sequence[bytes]
) -> bytes:
    """`shares`, to the device at `index`; `members`: its neighbours' `member_bytes` in slot order."""
    own = roster.encode() + _U32.pack(index) + proof_bytes(proof)
    return wrap(Kind.SHARES_REQUEST, session, own + b"".join(members))


def read_shares_request(session: bytes, data: bytes) -> SharesRequest:
    """The roster, the receiver's place in it and its neighbours, nothing of it checked."""
    reader = _open(Kind.SHARES_REQUEST, session, data)
    roster, index, proof = reader.roster(), reader.u32(), reader.proof()
    members = []
    while not reader.empty():
        members.append(reader.member())
    return SharesRequest(roster, index, proof, tuple(members))


def shares_reply(session: bytes, dealt: Dealt) -> bytes:
    """A commitment to the self mask's seed, sealed shares in slot order, the device's signature on both."""
    return wrap(Kind.SHARES_REPLY, session, dealt.encode())


def read_shares_reply(session: bytes, data: bytes, neighbours: int) -> Dealt:
    """What a device dealt, nothing of it checked."""
    reader = _open(Kind.SHARES_REPLY, session, data)
    dealt = reader.dealt(neighbours)
    reader.end()
    return dealt


def confirm_request(session: bytes, dealt: Flags, sealed: NDArray[np.uint8]) -> bytes:
    """`confirm`: who of the whole roster dealt shares; what the neighbours among them sealed, by slot."""
    return wrap(Kind.CONFIRM_REQUEST, session, pack_flags(dealt) + sealed.tobytes())


def read_confirm_request(session: bytes, data: bytes, devices: int) -> tuple[Flags, list[bytes]]:
    """(who dealt shares, by roster index; the sealed shares)."""
    reader = _open(Kind.CONFIRM_REQUEST, session, data)
    return reader.flags(devices), reader.boxes()


def dispute_request(session: bytes, dealt: Dealt) -> bytes:
    """`dispute`, to a device that complained: all that the accused dealt, with its signature."""
    return wrap(Kind.DISPUTE_REQUEST, session, dealt.encode())


def read_dispute_request(session: bytes, data: bytes, neighbours: int) -> Dealt:
    """What the accused is said to have dealt, nothing of it checked."""
    reader = _open(Kind.DISPUTE_REQUEST, session, data)
    dealt = reader.dealt(neighbours)
    reader.end()
    return dealt


def dispute_reply(session: bytes, opening: bytes) -> bytes:
    """The secret that the accuser shares with the accused, and the proof (`opened_secret`)."""
    return wrap(Kind.DISPUTE_REPLY, session, opening)


def read_dispute_reply(session: bytes, data: bytes) -> bytes:
    """The opening, 96 bytes."""
    return read_fixed(Kind.DISPUTE_REPLY, session, data, OPENING_SIZE)


def masked_request(session: bytes) -> bytes:
    """`masked`: nobody complained."""
    return wrap(Kind.MASKED_REQUEST, session, b"")


def read_masked_request(session: bytes, data: bytes) -> None:
    """Nothing but the request itself."""
    read_fixed(Kind.MASKED_REQUEST, session, data, 0)


def masked_reply(session: bytes, vector: Vector) -> bytes:
    """The masked vector; equally long for every device of a round."""
    return wrap(Kind.MASKED_REPLY, session, vector.tobytes())


def read_masked_reply(task: Task, data: bytes) -> Vector:
    """A masked vector, read-only, uint32 or uint64 of shape (length,)."""
    return read_vector(Kind.MASKED_REPLY, task, data)


def read_vector(kind: Kind, task: Task, data: bytes) -> Vector:
    """A message whose body is one vector of the task."""
    body = read_fixed(kind, task.session, data, task.vector_size)
    if task.bits == 64:
        return np.frombuffer(body, dtype="<u8")
    return np.frombuffer(body, dtype="<u4")


def count_message(kind: Kind, session: bytes, count: int) -> bytes:
    """A message whose body is one number."""
    return wrap(kind, session, _U32.pack(count))


def read_count(kind: Kind, session: bytes, data: bytes) -> int:
    """The number of `count_message`."""
    return int.from_bytes(read_fixed(kind, session, data, 4), "little")


def read_fixed(kind: Kind, session: bytes, data: bytes, size: int) -> bytes:
    """The body of a message, which has exactly `size` bytes."""
    reader = _open(kind, session, data)
    body = reader.take(size)
    reader.end()
    return body


def unmask_request(session: bytes, survivors: Flags, signature: bytes) -> bytes:
    """`unmask`: who of the whole roster sent a masked vector, and the witness's signature on it."""
    return wrap(Kind.UNMASK_REQUEST, session, pack_flags(survivors) + signature)


def read_unmask_request(session: bytes, data: bytes, devices: int) -> tuple[Flags, bytes]:
    """(survivors by roster index, signature)."""
    reader = _open(Kind.UNMASK_REQUEST, session, data)
    survivors, signature = reader.flags(devices), reader.take(SIGNATURE_SIZE)
    reader.end()
    return survivors, signature


def unmask_reply(session: bytes, shares: NDArray[np.uint32]) -> bytes:
    """One share a neighbour, shape (k, 9), `MISSING` where the device has none; equally long for all."""
    return wrap(Kind.UNMASK_REPLY, session, shares.astype("<u4").tobytes())


def read_unmask_reply(session: bytes, data: bytes, neighbours: int) -> NDArray[np.uint32]:
    """Shares of shape (k, 9); a share with any entry outside the field is `MISSING` whole."""
    reader = _open(Kind.UNMASK_REPLY, session, data)
    shares = (
        np.frombuffer(reader.take(SHARE_SIZE * neighbours), dtype="<u4").reshape(neighbours, LIMBS).copy()
    )
    reader.end()
    shares[(shares >= PRIME).any(axis=1)] = MISSING
    return shares


def roster_request(task: Task, charge: bytes, records: Sequence[bytes]) -> bytes:
    """For the witness: the task, the proof that it is charged, and the records in roster order.

    `charge` is opaque here (`fa_core/trust/charges.py`).
    """
    body = task.encode() + _U32.pack(len(charge)) + charge + _U32.pack(len(records)) + b"".join(records)
    return wrap(Kind.ROSTER_REQUEST, task.session, body)


def read_roster_request(data: bytes) -> tuple[Task, bytes, list[bytes]]:
    """(task, proof of the charge, records of 256 bytes in roster order)."""
    task, reader = _open_task(Kind.ROSTER_REQUEST, data)
    charge = reader.take(reader.u32())
    count = reader.u32()
    records = reader.take(RECORD_SIZE * count)
    reader.end()
    return task, charge, [records[i : i + RECORD_SIZE] for i in range(0, len(records), RECORD_SIZE)]


def roster_reply(session: bytes, roster: Roster) -> bytes:
    """From the witness: the signed roster."""
    return wrap(Kind.ROSTER_REPLY, session, roster.encode())


def read_roster_reply(session: bytes, data: bytes) -> Roster:
    """The signed roster."""
    reader = _open(Kind.ROSTER_REPLY, session, data)
    roster = reader.roster()
    reader.end()
    return roster


def survivors_message(roster_hash: bytes, dealt: Flags, survivors: Flags) -> bytes:
    """The bytes under the witness's signature on who dealt shares and who of them survived."""
    return label("survivors") + roster_hash + pack_flags(dealt) + pack_flags(survivors)


def survivors_request(task: Task, dealt: Flags, survivors: Flags) -> bytes:
    """To the witness: who dealt shares and who of them sent a masked vector, by roster index."""
    body = task.encode() + _U32.pack(len(dealt)) + pack_flags(dealt) + pack_flags(survivors)
    return wrap(Kind.SURVIVORS_REQUEST, task.session, body)


def read_survivors_request(data: bytes) -> tuple[Task, Flags, Flags]:
    """(task, who dealt shares, who survived), by roster index."""
    task, reader = _open_task(Kind.SURVIVORS_REQUEST, data)
    devices = reader.u32()
    dealt, survivors = reader.flags(devices), reader.flags(devices)
    reader.end()
    return task, dealt, survivors


def survivors_reply(session: bytes, signature: bytes) -> bytes:
    """From the witness: its signature on the bitmap."""
    return wrap(Kind.SURVIVORS_REPLY, session, signature)


def read_survivors_reply(session: bytes, data: bytes) -> bytes:
    """The signature."""
    return read_fixed(Kind.SURVIVORS_REPLY, session, data, SIGNATURE_SIZE)


def complaint_request(task: Task, complaint: Complaint) -> bytes:
    """To the witness: a complaint that was opened."""
    parts = [task.encode()]
    for index, member in (
        (complaint.accuser_index, complaint.accuser),
        (complaint.accused_index, complaint.accused),
    ):
        parts += [_U32.pack(index), member_bytes(member.record, member.proof)]
    parts += [complaint.opening, complaint.dealt.encode()]
    return wrap(Kind.COMPLAINT_REQUEST, task.session, b"".join(parts))


def read_complaint_request(data: bytes) -> tuple[Task, Complaint]:
    """(task, complaint), nothing of the complaint checked."""
    task, reader = _open_task(Kind.COMPLAINT_REQUEST, data)
    indices, members = [], []
    for _ in range(2):
        indices.append(reader.u32())
        members.append(reader.member())
    opening = reader.take(OPENING_SIZE)
    dealt = reader.dealt(max(reader.left() - HASH_SIZE - SIGNATURE_SIZE, 0) // SEALED_SIZE)
    reader.end()
    return task, Complaint(members[0], indices[0], members[1], indices[1], dealt, opening)


def complaint_reply(session: bytes, device: bytes) -> bytes:
    """From the witness: the device (32 bytes) that lied."""
    return wrap(Kind.COMPLAINT_REPLY, session, device)


def read_complaint_reply(session: bytes, data: bytes) -> bytes:
    """The device that lied."""
    return read_fixed(Kind.COMPLAINT_REPLY, session, data, KEY_SIZE)
