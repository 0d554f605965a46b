"""Entries of the transparency log with the proofs that they stand in it: what a device fetches as one file.

A publication is the same for every device, so it may lie on any server. It brings a consistency proof from
each earlier checkpoint that a device may have seen, as an invitation does. Nothing in it is believed before
`verified` has returned it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.merkle import Proof
from fa_core.trust import checkpoint

MAX_BYTES = 4 << 20

MAX_INDEX = 2**63
"""Indices of entries and sizes of logs are below this: what a database holds."""


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One entry of the log, `checkpoint.entry`'s bytes, its index and its RFC 6962 audit path."""

    index: int
    entry: bytes
    inclusion: Proof


@dataclass(frozen=True, slots=True)
class Publication:
    """Some entries under one checkpoint.

    Attributes:
        note: the checkpoint, signed by the log, and cosigned by the witness. The end of a rollout may be
            published before it is: see `Uncosigned`.
        consistency: size of an earlier checkpoint -> proof that this one extends it.
        entries: in the order in which their reader expects them.
    """

    note: bytes
    consistency: Mapping[int, Proof]
    entries: tuple[LoggedEntry, ...]

    def encode(self) -> bytes:
        """Return the bytes of the file: canonical JSON, byte strings in hexadecimal."""
        return canonical(
            {
                "checkpoint": self.note.decode(),
                "consistency": {str(size): _hexes(proof) for size, proof in self.consistency.items()},
                "entries": [
                    {"index": each.index, "entry": each.entry.decode(), "inclusion": _hexes(each.inclusion)}
                    for each in self.entries
                ],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Publication":
        """Return what `encode` wrote. Raises BadInput for anything else, and for more than `MAX_BYTES`."""
        try:
            body: Any = json.loads(data) if len(data) <= MAX_BYTES else None
            found = cls(
                body["checkpoint"].encode(),
                {_index(int(size)): _hashes(proof) for size, proof in body["consistency"].items()},
                tuple(
                    LoggedEntry(_index(each["index"]), each["entry"].encode(), _hashes(each["inclusion"]))
                    for each in body["entries"]
                ),
            )
            ordered = found.encode() == data
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise BadInput("this is no publication of a transparency log's entries") from None
        if not ordered:
            raise BadInput("this is no publication: its fields are not in their one order")
        return found


@dataclass(frozen=True, slots=True)
class Seen:
    """The log as its reader knew it last: its size and root; nothing where it was never read."""

    size: int = 0
    root: bytes = b""


@dataclass(frozen=True, slots=True)
class Verified:
    """Entries that stand in the log, when the witness cosigned it (UTC), and what to remember of it."""

    entries: tuple[bytes, ...]
    witnessed: datetime
    seen: Seen


class Uncosigned(Refused):
    """A publication is right in everything, except that the witness did not cosign its checkpoint.

    Attributes:
        entries: those of the publication, which stand in the log that the log's key signed.
        size: of that log.
    """

    def __init__(self, entries: tuple[bytes, ...], size: int) -> None:
        super().__init__("the publication's checkpoint is not cosigned by the witness")
        self.entries = entries
        self.size = size


def verified(publication: Publication, log_key: bytes, witness_key: bytes, seen: Seen) -> Verified:
    """Return the entries of a publication. Raises Refused with the first check that fails.

    The cosignature is looked at last: where only that is missing, it is `Uncosigned`.

    Args:
        log_key, witness_key: pinned public keys, raw Ed25519, 32 bytes.
        seen: the log as it was known before; this one must extend it.
    """
    try:
        note = checkpoint.parse(publication.note)
    except BadInput as error:
        raise Refused(f"the publication's checkpoint cannot be read: {error}") from None
    if not checkpoint.signed_by_log(note, Ed25519PublicKey.from_public_bytes(log_key)):
        raise Refused("the publication's checkpoint is not signed by the log's key")
    if note.size >= MAX_INDEX:
        raise Refused("the publication's log is larger than any")
    if seen.size:
        proof = () if seen.size == note.size else publication.consistency.get(seen.size, ())
        if not merkle.verify_consistency(seen.size, note.size, seen.root, note.root, proof):
            raise Refused("the publication's log does not extend the one that was seen before")
    for each in publication.entries:
        leaf = merkle.leaf_hash(each.entry)
        if not merkle.verify_inclusion(leaf, each.index, note.size, each.inclusion, note.root):
            raise Refused("an entry of the publication is not in the log")
    entries = tuple(each.entry for each in publication.entries)
    witnessed = checkpoint.cosigned_at(note, Ed25519PublicKey.from_public_bytes(witness_key))
    if witnessed is None:
        raise Uncosigned(entries, note.size)
    return Verified(entries, witnessed, Seen(note.size, note.root))


def _index(value: object) -> int:
    if type(value) is not int or not 0 <= value < MAX_INDEX:
        raise ValueError("not an index")
    return value


def _hexes(proof: Proof) -> list[str]:
    return [each.hex() for each in proof]


def _hashes(values: list[str]) -> Proof:
    hashes = tuple(bytes.fromhex(each) for each in values)
    if any(len(each) != merkle.HASH_SIZE for each in hashes):
        raise ValueError("not a hash")
    return hashes
