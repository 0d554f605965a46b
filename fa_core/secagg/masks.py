"""Masks: AES-256-CTR key streams, read as little-endian integers and added mod 2^32 or 2^64 in place.

A key is used for one mask only, so the counter starts at zero. The stream is made in pieces that stay in the
processor's cache, and each is added to the vector at once: nothing as long as the vector is ever copied.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

Vector = NDArray[np.uint32] | NDArray[np.uint64]

_PIECE = 1 << 16
_ZEROS = bytes(_PIECE)
_FROM_ZERO = CTR(bytes(16))


def keystream(key: bytes, size: int) -> bytes:
    """The first `size` bytes of AES-256-CTR under `key`, the counter block starting at zero."""
    return Cipher(AES256(key), _FROM_ZERO).encryptor().update(bytes(size))


class Masker:
    """Adds masks to one vector in place. Not safe for use from two threads: it owns a scratch buffer."""

    def __init__(self, vector: Vector) -> None:
        """`vector`: contiguous, little-endian uint32 or uint64 of shape (length,); changed in place."""
        step = _PIECE // vector.itemsize
        self._scratch = bytearray(min(_PIECE, vector.nbytes) + 15)
        stream = np.frombuffer(self._scratch, dtype=vector.dtype, count=min(step, len(vector)))
        pieces = [vector[start : start + step] for start in range(0, len(vector), step)]
        self._pieces = [(piece, memoryview(_ZEROS)[: piece.nbytes], stream[: len(piece)]) for piece in pieces]

    def apply(self, key: bytes, *, subtract: bool = False) -> None:
        """Add the mask of the 32-byte `key` to the vector, or take it away."""
        encryptor = Cipher(AES256(key), _FROM_ZERO).encryptor()
        combine = np.subtract if subtract else np.add
        for piece, zeros, stream in self._pieces:
            encryptor.update_into(zeros, self._scratch)
            combine(piece, stream, out=piece)


def lift(vector: NDArray[np.int64], bits: int) -> Vector:
    """A fresh copy of signed counts as elements of Z mod 2^bits."""
    return vector.astype("<i8").view("<u8") if bits == 64 else vector.astype("<u4")


def lower(vector: Vector) -> NDArray[np.int64]:
    """Elements of Z mod 2^bits as the signed numbers nearest to zero, int64."""
    signed = vector.view("<i8" if vector.itemsize == 8 else "<i4")
    return signed.astype(np.int64)
