"""The protocol between a relay and a gateway over a Unix socket: the requests of one stage, and the replies.

A frame is a length (u32) and so many bytes. A request's bytes are: version (u8, 2), stage (u8, 0 to 6),
release (16 bytes), node (u64), milliseconds to answer in (u32), then parts: a length (u32) and the request
for everyone, a count (u32) and for each part its slot (u32), length (u32) and bytes. A reply's bytes are
parts with an empty request for everyone. All big-endian.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

STAGES = ("join", "shares", "confirm", "masked", "unmask", "dispute", "report")
"""The stages of a sum, and `report`: what devices uploaded to a collection, which belongs to no round."""

VERSION = 2
FOLLOWS = {
    "join": ("shares", "confirm", "dispute"),
    "shares": ("join",),
    "confirm": ("shares",),
    "masked": ("confirm",),
    "unmask": ("masked",),
    "dispute": ("confirm",),
}
"""After which stages one may come. `join` comes again, for single devices, where an attempt was given up."""

MAX_BYTES = 1 << 31
MAX_PARTS = 1 << 20

_HEAD = struct.Struct(">BB16sQI")
_PAIR = struct.Struct(">II")
_COUNT = struct.Struct(">I")


REFUSED = b""
"""Sent in place of a reply's bytes to a request that is out of order; a retry would not help."""


class Unreadable(Exception):
    """The other end sent something that is not of this form."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The requests of one stage to the devices behind a node, and how long these may take.

    Attributes:
        release: hex id of the release. node: Flower's id of the node. stage: one of STAGES.
        seconds: until the replies are due, whether or not every slot has replied.
        parts: slot -> request. everyone: the request for all, b"" where `parts` says it for each.
    """

    release: str
    node: int
    stage: str
    seconds: float
    parts: Mapping[int, bytes]
    everyone: bytes


def encode(bundle: Bundle) -> bytes:
    """Return a bundle's bytes."""
    head = _HEAD.pack(
        VERSION,
        STAGES.index(bundle.stage),
        bytes.fromhex(bundle.release),
        bundle.node,
        round(bundle.seconds * 1000),
    )
    return head + encode_parts(bundle.parts, bundle.everyone)


def decode(data: bytes) -> Bundle:
    """Return the bundle in bytes. Raises Unreadable."""
    try:
        version, stage, release, node, milliseconds = _HEAD.unpack_from(data)
    except struct.error:
        raise Unreadable from None
    if version != VERSION or stage >= len(STAGES):
        raise Unreadable
    parts, everyone = decode_parts(data[_HEAD.size :])
    return Bundle(release.hex(), node, STAGES[stage], milliseconds / 1000, parts, everyone)


def encode_parts(parts: Mapping[int, bytes], everyone: bytes = b"") -> bytes:
    """Return the bytes of parts."""
    pieces = [_COUNT.pack(len(everyone)), everyone, _COUNT.pack(len(parts))]
    for slot, part in parts.items():
        pieces += (_PAIR.pack(slot, len(part)), part)
    return b"".join(pieces)


def decode_parts(data: bytes) -> tuple[dict[int, bytes], bytes]:
    """Return (parts, the request for everyone) from bytes. Raises Unreadable."""
    try:
        (length,) = _COUNT.unpack_from(data)
        at = _COUNT.size + length
        everyone = data[_COUNT.size : at]
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        parts: dict[int, bytes] = {}
        for _ in range(min(count, MAX_PARTS + 1)):
            slot, length = _PAIR.unpack_from(data, at)
            at += _PAIR.size + length
            parts[slot] = data[at - length : at]
    except struct.error:
        raise Unreadable from None
    if at != len(data) or len(parts) != count:
        raise Unreadable
    return parts, everyone


def send(connection: socket.socket, data: bytes) -> None:
    """Send a frame. Raises OSError."""
    connection.sendall(_COUNT.pack(len(data)))
    connection.sendall(data)


def receive(connection: socket.socket) -> bytes:
    """Return the next frame. Raises OSError, also where the other end stopped early; or Unreadable."""
    (length,) = _COUNT.unpack(_exactly(connection, _COUNT.size))
    if length > MAX_BYTES:
        raise Unreadable
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionResetError
        view = view[count:]
    return bytes(data)
