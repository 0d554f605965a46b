"""Public-key encryption of single messages: HPKE (RFC 9180, base mode), ML-KEM-768 with X25519.

HKDF-SHA256 and AES-256-GCM. What is encrypted today stays closed to one who records it and has a quantum
computer later; if ML-KEM should fall, X25519 still stands.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from fa_core.secagg.keys import usable

SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

_MLKEM_SIZE, _SEED_SIZE, _X25519_SIZE = 1184, 64, 32
PUBLIC_SIZE: Final = _MLKEM_SIZE + _X25519_SIZE
"""Bytes of a public key: ML-KEM-768's (FIPS 203), then X25519's."""

PRIVATE_SIZE: Final = _SEED_SIZE + _X25519_SIZE
"""Bytes of a private key: ML-KEM-768's seed, then X25519's."""

OVERHEAD: Final = 1120 + 16
"""Bytes by which a box is longer than what is in it: the encapsulated key and the tag."""


def public_key(raw: bytes) -> MLKEM768X25519PublicKey:
    """Return the key of 1,216 public bytes. Raises ValueError for bytes that are none."""
    if not usable(raw[_MLKEM_SIZE:]):
        raise ValueError("a key of small order")
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_SIZE]),
        X25519PublicKey.from_public_bytes(raw[_MLKEM_SIZE:]),
    )


@dataclass(frozen=True, slots=True)
class OpeningKey:
    """A private key. `raw` is ML-KEM-768's seed, 64 bytes, then X25519's private key, 32 bytes."""

    raw: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh key from the operating system's randomness."""
        seed = MLKEM768PrivateKey.generate().private_bytes_raw()
        return cls(seed + X25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> bytes:
        """The public half, 1,216 bytes."""
        encapsulation = self._mlkem.public_key().public_bytes_raw()
        return encapsulation + self._x25519.public_key().public_bytes_raw()

    def private(self) -> MLKEM768X25519PrivateKey:
        """Return the key as `open_box` takes it. Making it takes longer than opening a box."""
        return MLKEM768X25519PrivateKey(self._mlkem, self._x25519)

    @property
    def _mlkem(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.from_seed_bytes(self.raw[:_SEED_SIZE])

    @property
    def _x25519(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.raw[_SEED_SIZE:])


def open_box(key: MLKEM768X25519PrivateKey, box: bytes, info: bytes) -> bytes | None:
    """Return what is in a box, None where it was not sealed for this key with this `info`."""
    try:
        return SUITE.decrypt(box, key, info)
    except (InvalidTag, ValueError):
        return None
