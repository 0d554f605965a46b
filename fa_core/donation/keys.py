"""A reviewer's keys: one opens shares (HPKE, ML-KEM-768 with X25519), one signs requests."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from fa_core.errors import BadInput
from fa_core.secagg.keys import usable

_MLKEM_SIZE, _SEED_SIZE, _X25519_SIZE = 1184, 64, 32
OPENING_SIZE: Final = _MLKEM_SIZE + _X25519_SIZE
"""Bytes of a public key for HPKE: ML-KEM-768's (FIPS 203), then X25519's."""


@dataclass(frozen=True, slots=True)
class ReviewerKeys:
    """The private halves. `seed` is ML-KEM-768's, 64 bytes."""

    signing: Ed25519PrivateKey = field(repr=False)
    seed: bytes = field(repr=False)
    agreement: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Return fresh keys from the operating system's randomness."""
        seed = MLKEM768PrivateKey.generate().private_bytes_raw()
        return cls(Ed25519PrivateKey.generate(), seed, X25519PrivateKey.generate())

    @property
    def opening(self) -> MLKEM768X25519PrivateKey:
        """The private key for HPKE."""
        return MLKEM768X25519PrivateKey(MLKEM768PrivateKey.from_seed_bytes(self.seed), self.agreement)

    @property
    def opening_public(self) -> bytes:
        """The public key for HPKE, 1,216 bytes."""
        encapsulation = MLKEM768PrivateKey.from_seed_bytes(self.seed).public_key().public_bytes_raw()
        return encapsulation + self.agreement.public_key().public_bytes_raw()

    @property
    def signing_public(self) -> bytes:
        """The public key of signatures, Ed25519, 32 bytes."""
        return self.signing.public_key().public_bytes_raw()

    def write(self, path: Path) -> None:
        """Write the private halves, readable by their owner only. Raises BadInput where a file is there."""
        parts = self.signing.private_bytes_raw() + self.seed + self.agreement.private_bytes_raw()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise BadInput(f"{path} exists already; a key is never overwritten") from None
        with os.fdopen(handle, "w") as file:
            file.write(parts.hex() + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` wrote. Raises BadInput for anything else."""
        try:
            parts = bytes.fromhex(path.read_text("ascii").strip())
            if len(parts) != 32 + _SEED_SIZE + _X25519_SIZE:
                raise ValueError("another length")
            return cls(
                Ed25519PrivateKey.from_private_bytes(parts[:32]),
                parts[32 : 32 + _SEED_SIZE],
                X25519PrivateKey.from_private_bytes(parts[32 + _SEED_SIZE :]),
            )
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise BadInput(
                f"{path}: a reviewer's keys are expected, as `fa vault reviewer` makes them"
            ) from None


def opening_key(public: bytes) -> MLKEM768X25519PublicKey:
    """Return the HPKE key of 1,216 public bytes. Raises ValueError for bytes that are none."""
    if not usable(public[_MLKEM_SIZE:]):
        raise ValueError("a key of small order")
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_SIZE]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_SIZE:]),
    )
