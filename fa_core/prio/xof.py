"""Extendable output functions: a seed, a domain separation tag and a binder to a stream of bytes.

`HmacAes` is the one in use. The other one of the draft, TurboSHAKE128, is in the tests only, where the
official vectors want it. Source: draft-irtf-cfrg-vdaf, section 6.2.
"""

import hmac
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fa_core.prio.field import Array, Field


class Xof(Protocol):
    @property
    def seed_size(self) -> int:
        """Bytes of a seed."""

    def stream(self, seed: bytes, tag: bytes, binder: bytes, length: int) -> bytes:
        """The first `length` bytes of the stream. Shorter streams are prefixes of longer ones."""


class HmacAes:
    """HMAC-SHA256 under the seed gives key and first counter of AES-128 in counter mode.

    As XofHmacSha256Aes128 of libprio-rs: the MAC is over one byte with the tag's length, tag and binder; its
    first half is the key, its second the first counter block, of which the last 8 bytes count, big-endian.
    """

    seed_size = 32

    def stream(self, seed: bytes, tag: bytes, binder: bytes, length: int) -> bytes:
        """ValueError if the tag has more than 255 bytes."""
        if len(tag) > 255:
            raise ValueError(f"a domain separation tag has at most 255 bytes, and this one has {len(tag)}")
        mac = hmac.digest(seed, bytes((len(tag),)) + tag + binder, "sha256")
        key, counter = mac[:16], mac[16:]
        # OpenSSL counts in all 16 bytes; where the last 8 pass their end, the stream goes on from 0 in those
        # 8.
        before_the_end = (2**64 - int.from_bytes(counter[8:], "big")) * 16
        head = _counter_mode(key, counter, min(length, before_the_end))
        if length <= before_the_end:
            return head
        return head + _counter_mode(key, counter[:8] + bytes(8), length - before_the_end)


def _counter_mode(key: bytes, counter: bytes, length: int) -> bytes:
    return Cipher(AES(key), CTR(counter)).encryptor().update(bytes(length))


def expand(
    xof: Xof, field: Field, seeds: Sequence[bytes], tag: bytes, binders: Sequence[bytes], count: int
) -> Array:
    """(n, count) field elements, a row from each seed and its binder, by rejection sampling.

    Candidates are the stream's next `field.size` bytes, little-endian, and those that are not below p are
    left out. One is left out with a probability of 2^-32 (Field64), so rows are first read as if none were.
    """
    size = field.size * count
    streams = [xof.stream(seed, tag, binder, size) for seed, binder in zip(seeds, binders, strict=True)]
    values, below = field.decode(b"".join(streams), (len(streams), count))
    if below.all():
        return values
    values = values.copy()
    for row in np.flatnonzero(~below.all(axis=1)).tolist():
        values[row] = _sampled(xof, field, seeds[row], tag, binders[row], count)
    return values


def _sampled(xof: Xof, field: Field, seed: bytes, tag: bytes, binder: bytes, count: int) -> Array:
    length = count
    while True:
        length += 1 + count // 16
        values, below = field.decode(xof.stream(seed, tag, binder, length * field.size), (length,))
        if below.sum() >= count:
            return values[below][:count]
