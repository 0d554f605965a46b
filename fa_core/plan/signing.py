"""Signatures over canonical plan bytes: Ed25519 (RFC 8032).

What is signed begins with the name of its purpose, so that a plan's signature can never be taken for
anything else that the same key may sign.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fa_core.errors import BadInput
from fa_core.plan.schema import Plan, canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PURPOSE = b"unheard-plan-1\n"
KEY_BYTES = 32
SIGNATURE_BYTES = 64


def sign(plan: bytes, key: "Ed25519PrivateKey") -> bytes:
    """Return the signature, 64 bytes, of a plan's canonical bytes. It is deterministic."""
    return key.sign(PURPOSE + plan)


def verify(plan: bytes, signature: bytes, key: bytes) -> bool:
    """Say whether a signature over canonical plan bytes was made by a raw public key of 32 bytes.

    Anything that is no key or no signature is False, never an error.

    >>> from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    >>> key = Ed25519PrivateKey.generate()
    >>> public, signature = key.public_key().public_bytes_raw(), sign(b"a plan", key)
    >>> verify(b"a plan", signature, public), verify(b"another plan", signature, public)
    (True, False)
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    # Imported here: whoever only checks a plan should not wait for OpenSSL.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, PURPOSE + plan)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class SignedPlan:
    """Who signed which plan. Kept beside the plan as PLAN.sig, in JSON.

    Attributes:
        plan: hex SHA-256 of the canonical bytes, `Plan.hash`.
        key: raw public key, 32 bytes.
        signature: 64 bytes.
    """

    plan: str
    key: bytes
    signature: bytes

    @classmethod
    def of(cls, plan: Plan, key: "Ed25519PrivateKey") -> "SignedPlan":
        """Sign a plan."""
        return cls(plan.hash, key.public_key().public_bytes_raw(), sign(canonical(plan), key))

    def signs(self, plan: Plan) -> bool:
        """Say whether this is a sound signature over exactly this plan; whom to trust is another question."""
        return self.plan == plan.hash and verify(canonical(plan), self.signature, self.key)

    def text(self) -> str:
        """Return the text of PLAN.sig."""
        body = {"plan": self.plan, "key": self.key.hex(), "signature": self.signature.hex()}
        return json.dumps(body, indent=2) + "\n"

    @classmethod
    def from_text(cls, text: str, name: str) -> "SignedPlan":
        """Read the text of PLAN.sig, called `name` in messages. Raises BadInput where it is anything else."""
        try:
            body = json.loads(text)
            signed = cls(str(body["plan"]), bytes.fromhex(body["key"]), bytes.fromhex(body["signature"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput(f"{name}: this is no signature of a plan; make one with `fa plan sign`") from None
        return signed
