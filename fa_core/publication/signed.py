"""A document that somebody signed and the transparency log holds: an artefact's manifest, a rollout.

The entry's body is `{document, key, signature}`. What is signed begins with the name of its purpose, so that
a signature over one kind can never be taken for one over another.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.trust import checkpoint

Kind = Literal["model", "rollout"]


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A document with its signature.

    Attributes:
        kind: what it is. document: its canonical JSON bytes.
        key: raw Ed25519 public key that signed it, 32 bytes. signature: 64 bytes.
    """

    kind: Kind
    document: bytes
    key: bytes
    signature: bytes

    @classmethod
    def sign(cls, kind: Kind, document: bytes, key: Ed25519PrivateKey) -> "SignedDocument":
        """Sign a document's canonical bytes."""
        public = key.public_key().public_bytes_raw()
        return cls(kind, document, public, key.sign(_message(kind, document)))

    @property
    def hash(self) -> bytes:
        """SHA-256 of the document, 32 bytes: its name everywhere."""
        return sha256(self.document).digest()

    @property
    def holds(self) -> bool:
        """Whether the signature is the key's; whom to trust is another question."""
        try:
            public = Ed25519PublicKey.from_public_bytes(self.key)
            public.verify(self.signature, _message(self.kind, self.document))
        except (InvalidSignature, ValueError):
            return False
        return True

    def entry(self) -> bytes:
        """Return the bytes of the log's entry."""
        body = {"document": self.document.decode(), "key": self.key.hex(), "signature": self.signature.hex()}
        return checkpoint.entry(self.kind, canonical(body))

    @classmethod
    def from_entry(cls, kind: Kind, entry: bytes) -> "SignedDocument":
        """Return the document in a log's entry. Raises BadInput for any other; no signature is checked."""
        head = checkpoint.entry(kind, b"")
        try:
            body: Any = json.loads(entry.removeprefix(head)) if entry.startswith(head) else None
            found = cls(
                kind,
                body["document"].encode(),
                bytes.fromhex(body["key"]),
                bytes.fromhex(body["signature"]),
            )
            sound = found.entry() == entry
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(f"the log's entry is no signed {kind}") from None
        if not sound:
            raise BadInput(f"the log's entry is no signed {kind}")
        return found


def _message(kind: Kind, document: bytes) -> bytes:
    return b"unheard-%s-1\n" % kind.encode() + document
