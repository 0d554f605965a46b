"""Bytes that a device reads: canonical JSON, the log, the charge, the invitation. From docs/device-protocol.md."""

import base64
import hashlib
import json
import re
import zlib
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CENTURIES = 253_370_764_800
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """The device does not answer; the argument is the reason's code."""


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def label(name: str) -> bytes:
    return b"unheard/secagg/2 " + name.encode() + b"\x00"


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# Canonical JSON


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parsed(data: bytes) -> Any:
    """Return the value of canonical JSON. Raises ValueError for any other bytes."""
    value = json.loads(data.decode("ascii"))
    if canonical(value) != data:
        raise ValueError("not canonical")
    return value


def number(text: str) -> Fraction:
    """An exact number of a plan: a plain decimal or a/b."""
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+|/[0-9]+)?", text):
        raise ValueError("not a number")
    return Fraction(text)


def lowest(value: Fraction) -> str:
    return str(value)


def row_number(text: str) -> Fraction:
    """An exact number of a ledger row: lowest terms, not negative."""
    if not re.fullmatch(r"[0-9]{1,1000}(/[0-9]{1,1000})?", text) or lowest(Fraction(text)) != text:
        raise ValueError("not a number of a row")
    return Fraction(text)


def seconds(text: str) -> int:
    """A moment of a ledger row, in microseconds since 1970."""
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() != timedelta(0) or moment.isoformat(timespec="microseconds") != text:
        raise ValueError("not a moment")
    return (moment - EPOCH) // timedelta(microseconds=1)


# The Merkle tree (RFC 6962, RFC 9162)


def leaf_of(entry: bytes) -> bytes:
    return sha(b"\x00" + entry)


def node(left: bytes, right: bytes) -> bytes:
    return sha(b"\x01" + left + right)


def included(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """RFC 9162, section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node(p, r)
            if not fn & 1:
                while fn and not fn & 1:
                    fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def extends(first: int, second: int, old: bytes, new: bytes, proof: list[bytes]) -> bool:
    """RFC 9162, section 2.1.4.2."""
    if not 0 <= first <= second:
        return False
    if first == 0:
        return not proof and old == sha(b"")
    if first == second:
        return not proof and old == new
    path = ([old] if first & (first - 1) == 0 else []) + proof
    if not path:
        return False
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old and sr == new


# The checkpoint


def checkpoint(note: bytes, log: bytes, witness: bytes) -> tuple[int, bytes, int]:
    """Return size, root and the witness's time (seconds). Raises ValueError where anything is missing."""
    size, root, signed, witnessed = note_of(note, log, witness)
    if not signed or witnessed is None:
        raise ValueError("not signed")
    return size, root, witnessed


def note_of(note: bytes, log: bytes, witness: bytes) -> tuple[int, bytes, bool, int | None]:
    """Return size, root, whether the log signed them, and when the witness did (seconds), if it did.

    Raises ValueError for what is no checkpoint.
    """
    if len(note) > 4096:
        raise ValueError("too long")
    text, empty, rest = note.partition(b"\n\n")
    origin, digits, encoded = text.decode("ascii").split("\n")
    if not empty or origin != "unheard" or not re.fullmatch("0|[1-9][0-9]*", digits):
        raise ValueError("not a checkpoint")
    root = base64.b64decode(encoded, validate=True)
    if len(root) != 32 or base64.b64encode(root).decode() != encoded or not rest.endswith(b"\n"):
        raise ValueError("not a checkpoint")
    body, signed, witnessed = text + b"\n", False, None
    for line in rest.decode().removesuffix("\n").split("\n"):
        dash, name, blob = line.split(" ")
        data = base64.b64decode(blob, validate=True)
        if dash != "\u2014" or base64.b64encode(data).decode() != blob:
            raise ValueError("not a signature")
        if name == "unheard" and data[:4] == sha(b"unheard\n\x01" + log)[:4]:
            signed = signed or verifies(log, data[4:], body)
        if name == "unheard-witness" and data[:4] == sha(b"unheard-witness\n\x04" + witness)[:4]:
            at = int.from_bytes(data[4:12], "big")
            message = b"cosignature/v1\ntime %d\n" % at + body
            if witnessed is None and at < CENTURIES and verifies(witness, data[12:], message):
                witnessed = at
    return int(digits), root, signed, witnessed


# The charge

CHARGE = {
    "kind", "population", "family", "release", "plan_hash", "currency", "cost", "epsilon", "delta",
    "window_start", "window_end", "at",
}  # fmt: skip


def charge_of(entry: bytes) -> dict[str, Any]:
    """Return the row of a charge's entry, with exact numbers and times in microseconds. Raises ValueError."""
    head = b"unheard-log-1\nledger\n"
    if not entry.startswith(head):
        raise ValueError("not of the ledger")
    row = dict(parsed(entry[len(head) :])["row"])
    if set(row) - {"alpha"} != CHARGE or row["kind"] != "charge":
        raise ValueError("not a charge")
    for key in ("cost", "epsilon", "delta", "alpha"):
        row[key] = row_number(row[key]) if key in row else None
    for key in ("window_start", "window_end", "at"):
        row[key] = seconds(row[key])
    if row["cost"] <= 0 or row["window_start"] >= row["window_end"]:
        raise ValueError("not a charge")
    return row


def budgets_of(data: bytes, authority: bytes) -> dict[str, Any]:
    """Return the population's budgets that the authority signed. Raises ValueError."""
    body = parsed(data)
    signature = bytes.fromhex(body.pop("signature"))
    if body["kind"] != "declare" or not verifies(
        authority, signature, label("population budgets") + canonical(body)
    ):
        raise ValueError("not signed")
    seconds(body["at"])
    if set(body["policy"]) != {"release", "window", "week", "year", "family"}:
        raise ValueError("not a policy")
    if any(row_number(limit) <= 0 for limit in body["policy"].values()):
        raise ValueError("not a limit")
    return body  # type: ignore[no-any-return]


# The invitation

MOST = 16 * 1024 * 1024


class Invitation:
    """The fields of an invitation. Raises Refused where the bytes have another form."""

    def __init__(self, data: bytes) -> None:
        magic = b"unheard-invitation-3\n"
        if len(data) > MOST or not data.startswith(magic):
            raise Refused("MALFORMED")
        stream = zlib.decompressobj()
        try:
            self.rest = stream.decompress(data[len(magic) :], MOST)
        except zlib.error:
            raise Refused("MALFORMED") from None
        if not stream.eof or stream.unused_data:
            raise Refused("MALFORMED")
        self.plan, self.key, self.signature, self.release = (self._bytes() for _ in range(4))
        self.attempt, self.until, self.index = (self._integer(8) for _ in range(3))
        self.inclusion = self._hashes()
        self.checkpoint, self.charge = self._bytes(), self._bytes()
        self.charge_index, self.charge_inclusion = self._integer(8), self._hashes()
        self.budgets = self._bytes()
        count = self._integer(4)
        if count > 4096:
            raise Refused("MALFORMED")
        pairs = [(self._integer(8), self._hashes()) for _ in range(count)]
        self.consistency = dict(pairs)
        self.request = self._bytes()
        sizes = [size for size, _ in pairs]
        ordered = sizes == sorted(set(sizes))
        lengths = (len(self.key), len(self.signature), len(self.release)) == (32, 64, 16)
        if self.rest or not ordered or not lengths or self.until >= CENTURIES:
            raise Refused("MALFORMED")

    def _take(self, length: int) -> bytes:
        if len(self.rest) < length:
            raise Refused("MALFORMED")
        taken, self.rest = self.rest[:length], self.rest[length:]
        return taken

    def _integer(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _bytes(self) -> bytes:
        return self._take(self._integer(4))

    def _hashes(self) -> list[bytes]:
        count = self._integer(4)
        if count > 64:
            raise Refused("MALFORMED")
        return [self._take(32) for _ in range(count)]
