"""The keys of two simulated devices, computed once for both.

Each end of a pair would do the same X25519 and HKDF. One process, or several forks of it, play both ends, so the
end that asks first leaves the keys in memory that they share, and the other takes them from there. What a device
sends does not change by a bit. Real devices have nobody to share with: they use `fa_core.secagg.pairs.pair_keys`.
"""

import zlib
from mmap import mmap
from typing import Final

from fa_core.secagg.identity import Record
from fa_core.secagg.pairs import PairKeys, RoundKeys, pair_keys

_KEY: Final = 32
_CHECK: Final = 4
_ENTRY: Final = 4 * _KEY + _CHECK
"""A pair's name, its three keys in an order that both ends agree on, and a checksum of them all."""

SLOTS_A_DEVICE: Final = 128
"""Twice as many as a device of a large cohort waits for at a time: few pairs take each other's slot."""


class SimulatedPairs:
    """A `fa_core.secagg.pairs.Pairing`. Make it before forking; it holds 17 KB a device.

    Two pairs may want the same slot, and two processes may write one at once: then the name or the checksum does
    not fit, and the keys are computed again.
    """

    def __init__(self, devices: int) -> None:
        self._slots = SLOTS_A_DEVICE * max(devices, 1)
        self._memory = mmap(-1, self._slots * _ENTRY)

    def __call__(self, own: RoundKeys, other: Record, session: bytes) -> PairKeys:
        """Return what `pair_keys` returns."""
        first = own.record.device < other.device
        name = _either(own.record.share_key, other.share_key)
        start = int.from_bytes(name[:8], "little") % self._slots * _ENTRY
        entry = self._memory[start : start + _ENTRY]
        if entry[:_KEY] == name and zlib.crc32(entry[:-_CHECK]) == int.from_bytes(entry[-_CHECK:], "little"):
            self._memory[start : start + _KEY] = bytes(_KEY)
            one, two, mask = (entry[at : at + _KEY] for at in range(_KEY, 4 * _KEY, _KEY))
            return PairKeys(one, two, mask) if first else PairKeys(two, one, mask)
        keys = pair_keys(own, other, session)
        one, two = (keys.sealing, keys.opening) if first else (keys.opening, keys.sealing)
        entry = name + one + two + keys.mask
        self._memory[start : start + _ENTRY] = entry + zlib.crc32(entry).to_bytes(_CHECK, "little")
        return keys


def _either(one: bytes, other: bytes) -> bytes:
    """The name of a pair, the same from both ends: keys of one round are random, so their sum names the two."""
    total = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return total.to_bytes(_KEY, "little")
