"""What a vault signs for a device: that it keeps a sample, and that it destroyed one. The latter is no proof.

{"document": <canonical JSON>, "signature": <128 hexadecimal digits>}
"""

import json
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, Self, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.trust.strict import text, whole

Said = Literal["kept", "destroyed"]

WORDS: Final[dict[Said, str]] = {
    "kept": "The vault keeps this sample, sealed, up to the day `until`.",
    "destroyed": "The vault says that it holds nothing of this sample: it has destroyed both shares of "
    "the sample's key, and the sample. This is a statement and no proof: what reviewers read or exported "
    "before, and copies of the vault's key store that somebody made against its rules, are outside it.",
}
LARGEST: Final = 4096
_SIGNED: Final = b"unheard-vault-statement-1\n"


@dataclass(frozen=True, slots=True)
class Statement:
    """One signed statement.

    Attributes:
        sample: 16 bytes. request: hash of the donation request, 32 bytes. vault: Ed25519 key, 32 bytes.
        day: UTC, on which it was kept or destroyed. until: the last day of a kept one, else None.
        reads: how often reviewers had been handed the sample, as the vault's own record has it.
    """

    said: Said
    sample: bytes
    request: bytes
    vault: bytes
    day: date
    until: date | None
    reads: int

    def document(self) -> bytes:
        """Return the canonical bytes, which hold the words."""
        return canonical(
            {
                "said": self.said,
                "sample": self.sample.hex(),
                "request": self.request.hex(),
                "vault": self.vault.hex(),
                "day": self.day.isoformat(),
                "until": self.until.isoformat() if self.until else None,
                "reads": self.reads,
                "words": WORDS[self.said],
            }
        )

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Return the signed form; the same bytes for the same statement."""
        document = self.document()
        signature = key.sign(_SIGNED + document).hex()
        return canonical({"document": document.decode(), "signature": signature})

    @classmethod
    def read(cls, data: bytes, vault: bytes) -> Self:
        """Return a statement that `vault` (Ed25519 public key) signed. Raises BadInput for anything else."""
        try:
            if len(data) > LARGEST:
                raise ValueError("too long")
            signed: Any = json.loads(data)
            document = signed["document"].encode()
            Ed25519PublicKey.from_public_bytes(vault).verify(
                bytes.fromhex(signed["signature"]), _SIGNED + document
            )
            body: Any = json.loads(document)
            if body["said"] not in get_args(Said):
                raise ValueError("not said by a vault")
            found = cls(
                body["said"],
                bytes.fromhex(body["sample"]),
                bytes.fromhex(body["request"]),
                bytes.fromhex(body["vault"]),
                date.fromisoformat(text(body["day"])),
                None if body["until"] is None else date.fromisoformat(text(body["until"])),
                whole(body["reads"]),
            )
            if found.document() != document or found.vault != vault:
                raise ValueError("not canonical")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidSignature):
            raise BadInput("the vault's answer is no statement that its key signed") from None
        return found
