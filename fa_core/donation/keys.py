"""A reviewer's keys: one opens shares (HPKE, ML-KEM-768 with X25519), one signs requests."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from fa_core.errors import BadInput
from fa_core.trust.hpke import PRIVATE_SIZE, OpeningKey

_SIGNING_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class ReviewerKeys:
    """The private halves."""

    signing: Ed25519PrivateKey = field(repr=False)
    sealing: OpeningKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Return fresh keys from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate(), OpeningKey.generate())

    @property
    def opening(self) -> MLKEM768X25519PrivateKey:
        """The private key for HPKE."""
        return self.sealing.private()

    @property
    def opening_public(self) -> bytes:
        """The public key for HPKE, 1,216 bytes."""
        return self.sealing.public

    @property
    def signing_public(self) -> bytes:
        """The public key of signatures, Ed25519, 32 bytes."""
        return self.signing.public_key().public_bytes_raw()

    def write(self, path: Path) -> None:
        """Write the private halves, readable by their owner only. Raises BadInput where a file is there."""
        parts = self.signing.private_bytes_raw() + self.sealing.raw
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
            if len(parts) != _SIGNING_SIZE + PRIVATE_SIZE:
                raise ValueError("another length")
            signing, sealing = parts[:_SIGNING_SIZE], parts[_SIGNING_SIZE:]
            return cls(Ed25519PrivateKey.from_private_bytes(signing), OpeningKey(sealing))
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise BadInput(
                f"{path}: a reviewer's keys are expected, as `fa vault reviewer` makes them"
            ) from None
