"""A reviewer's signed statement "I ask, open, release or read this sample", an entry of the log.

A read takes two persons and four statements, each in the log before the vault answers it:

    ask      one reviewer wants a sample; no byte of it is handed out
    open     the other fetches its own share, encrypted for it alone
    release  … and hands it over, encrypted for the one who asked, for this read alone
    read     the one who asked fetches the sample, its own share and the released one

A reviewer's program opens its own share only where the ask stands in the log under a checkpoint that the log
signed and the witness cosigned, and the sample only where the release does. So a vault, or a vault with one
reviewer, cannot have a sample read that the log does not name. An entry holds keys and random numbers alone.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core import merkle
from fa_core.canonical_json import canonical
from fa_core.donation.sealing import ID_SIZE, READ_SIZE
from fa_core.errors import BadInput, Refused
from fa_core.merkle import HASH_SIZE, Proof
from fa_core.trust import checkpoint
from fa_core.trust.strict import moment, text, whole

Action = Literal["ask", "open", "release", "read"]

NONCE_SIZE: Final = 8
_SIGNED: Final = b"unheard-vault-access-1\n"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Access:
    """What a reviewer says.

    Attributes:
        sample: 16 bytes. read: 8 random bytes that the one who asks draws. nonce: 8 random bytes.
        reviewer, vault: Ed25519 public keys, 32 bytes. at: by the reviewer's clock, UTC, whole seconds.
    """

    action: Action
    sample: bytes
    read: bytes
    reviewer: bytes
    vault: bytes
    at: datetime
    nonce: bytes

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "action": self.action,
            "sample": self.sample.hex(),
            "read": self.read.hex(),
            "reviewer": self.reviewer.hex(),
            "vault": self.vault.hex(),
            "at": int(self.at.timestamp()),
            "nonce": self.nonce.hex(),
        }

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Return the bytes of the log's entry, which are what the vault is asked with."""
        signature = key.sign(_SIGNED + canonical(self.document())).hex()
        return checkpoint.entry("access", canonical({**self.document(), "signature": signature}))


def read_entry(entry: bytes) -> Access:
    """Return the statement in a log's entry, whose signature holds. Raises BadInput for any other."""
    head = checkpoint.entry("access", b"")
    try:
        body: Any = json.loads(entry.removeprefix(head)) if entry.startswith(head) else None
        signature = bytes.fromhex(body.pop("signature"))
        if body["action"] not in get_args(Action):
            raise ValueError("not an action")
        names = ("sample", "read", "reviewer", "vault", "nonce")
        sample, read, reviewer, vault, nonce = (bytes.fromhex(text(body[name])) for name in names)
        found = Access(body["action"], sample, read, reviewer, vault, moment(body["at"]), nonce)
        sizes = tuple(map(len, (sample, read, reviewer, vault, nonce)))
        canonically = checkpoint.entry(
            "access", canonical({**found.document(), "signature": signature.hex()})
        )
        if sizes != (ID_SIZE, READ_SIZE, 32, 32, NONCE_SIZE) or canonically != entry:
            raise ValueError("not canonical")
        Ed25519PublicKey.from_public_bytes(reviewer).verify(signature, _SIGNED + canonical(found.document()))
    except (*_UNREADABLE, InvalidSignature):
        raise BadInput("this is no signed statement of a reviewer") from None
    return found


@dataclass(frozen=True, slots=True)
class LoggedAccess:
    """An entry of the log with its proof (RFC 6962) under a signed note."""

    index: int
    entry: bytes
    inclusion: Proof
    note: bytes

    def body(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {
            "index": self.index,
            "entry": self.entry.decode(),
            "inclusion": b"".join(self.inclusion).hex(),
            "note": self.note.decode(),
        }

    @classmethod
    def from_body(cls, body: Any) -> "LoggedAccess":
        """Return what `body` wrote. Raises BadInput for anything else."""
        try:
            path = bytes.fromhex(body["inclusion"])
            if len(path) % HASH_SIZE:
                raise ValueError("not an audit path")
            inclusion = tuple(path[at : at + HASH_SIZE] for at in range(0, len(path), HASH_SIZE))
            return cls(whole(body["index"]), body["entry"].encode(), inclusion, body["note"].encode())
        except _UNREADABLE:
            raise BadInput("the vault's answer holds no entry of the log with a proof") from None

    def verified(self, log: bytes, witness: bytes) -> Access:
        """Return the statement. Raises Refused unless it stands in the log under a cosigned checkpoint.

        Args:
            log, witness: raw Ed25519 public keys, 32 bytes.
        """
        try:
            note = checkpoint.parse(self.note)
            found = read_entry(self.entry)
            signed = checkpoint.signed_by_log(note, Ed25519PublicKey.from_public_bytes(log))
            cosigned = checkpoint.cosigned_at(note, Ed25519PublicKey.from_public_bytes(witness))
        except BadInput as error:
            raise Refused(f"nothing is opened: {error}") from None
        if not signed or cosigned is None:
            raise Refused("nothing is opened: the log's checkpoint is not signed by the log and its witness")
        leaf = merkle.leaf_hash(self.entry)
        if not merkle.verify_inclusion(leaf, self.index, note.size, self.inclusion, note.root):
            raise Refused("nothing is opened: the read does not stand in the transparency log")
        return found
