"""The running sum of one aggregator: what it has of a collection once reports are counted and forgotten."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fa_core.collection.task import label
from fa_core.prio.field import FIELD64

CHECKSUM_SIZE = 32
_MODULUS = 1 << 8 * CHECKSUM_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """An aggregator's share of the sum, and which reports are in it.

    Attributes:
        total: uint64 (elements,), mod p.
        count: reports in it.
        checksum: sum mod 2^256 of a hash of each of them, 32 bytes. It shows that a store was restored or
            a reply lost; an aggregator that lies falsifies the sum anyway.
    """

    total: NDArray[np.uint64] = field(repr=False)
    count: int
    checksum: bytes

    @classmethod
    def nothing(cls, elements: int) -> "Running":
        """Return a sum of no reports."""
        return cls(np.zeros(elements, np.uint64), 0, bytes(CHECKSUM_SIZE))

    @classmethod
    def load(cls, total: bytes, count: int, checksum: bytes) -> "Running":
        """Return what `stored` was made of."""
        values, _ = FIELD64.decode(total, (len(total) // FIELD64.size,))
        return cls(values, count, checksum)

    def stored(self) -> dict[str, bytes | int]:
        """Return the values of a row, by column."""
        return {"total": FIELD64.encode(self.total), "count": self.count, "checksum": self.checksum}

    def plus(
        self, total: NDArray[np.uint64], task: bytes, reports: Iterable[tuple[bytes, bytes]]
    ) -> "Running":
        """Return the sum with more reports in it: their total, and (device, id) of each."""
        digests = [sha256(label("counted") + task + device + report).digest() for device, report in reports]
        whole = int.from_bytes(self.checksum, "big") + sum(int.from_bytes(each, "big") for each in digests)
        return Running(
            FIELD64.add(self.total, total),
            self.count + len(digests),
            (whole % _MODULUS).to_bytes(CHECKSUM_SIZE, "big"),
        )
