"""The keys of two simulated devices, computed once for both.

Each end of a pair would do the same X25519 and HKDF. One process, or several forks of it, play both ends, so
the end that asks first leaves the keys in memory that they share, and the other takes them from there. What a
device sends does not change by a bit. Real devices have nobody to share with: they use
`fa_core.secagg.pairs.pair_keys`.
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

_EMPTY: Final = bytes(_KEY)

SLOTS_A_DEVICE: Final = 64
"""Nearly twice as many as the pairs that wait at a time for their other end, k/4 a device."""

MOST_SLOTS: Final = 1 << 21
"""277 MB. Cohorts above 32,768 devices compute some keys at both ends."""

_WAYS: Final = 4
"""In so many neighbouring slots a pair may stand."""


class SimulatedPairs:
    """A `fa_core.secagg.pairs.Pairing`. Make it before forking; it holds 8 KB a device.

    A pair whose slots are all taken displaces another, and two processes may write one slot at once: then the
    name is not found or the checksum does not fit, and the keys are computed again.
    """

    def __init__(self, devices: int) -> None:
        self._places = min(SLOTS_A_DEVICE * max(devices, 1), MOST_SLOTS) // _WAYS
        self._memory = mmap(-1, self._places * _WAYS * _ENTRY)

    def __call__(self, own: RoundKeys, other: Record, session: bytes) -> PairKeys:
        """Return what `pair_keys` returns."""
        first = own.record.device < other.device
        name = _either(own.record.share_key, other.share_key)
        start = int.from_bytes(name[:8], "little") % self._places * _WAYS * _ENTRY
        found = self._take(name, start)
        if found is not None:
            one, two, mask = found
            return PairKeys(one, two, mask) if first else PairKeys(two, one, mask)
        keys = pair_keys(own, other, session)
        one, two = (keys.sealing, keys.opening) if first else (keys.opening, keys.sealing)
        self._leave(name + one + two + keys.mask, start)
        return keys

    def _take(self, name: bytes, start: int) -> tuple[bytes, bytes, bytes] | None:
        """The three keys of a pair whose slots begin at `start`; nobody needs them after the second end."""
        at = self._memory.find(name, start, start + _WAYS * _ENTRY)
        if at < 0:
            return None
        entry = self._memory[at : at + _ENTRY]
        if zlib.crc32(entry[:-_CHECK]).to_bytes(_CHECK, "little") != entry[-_CHECK:]:
            return None
        self._memory[at : at + _ENTRY] = bytes(_ENTRY)
        return entry[_KEY : 2 * _KEY], entry[2 * _KEY : 3 * _KEY], entry[3 * _KEY : 4 * _KEY]

    def _leave(self, pair: bytes, start: int) -> None:
        """Put a pair's name and keys into its first free slot, or its first of all."""
        slots = range(start, start + _WAYS * _ENTRY, _ENTRY)
        at = next((at for at in slots if self._memory[at : at + _KEY] == _EMPTY), start)
        self._memory[at : at + _ENTRY] = pair + zlib.crc32(pair).to_bytes(_CHECK, "little")


def _either(one: bytes, other: bytes) -> bytes:
    """The name of a pair, the same from both ends: public keys are random, and so is their XOR."""
    total = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return total.to_bytes(_KEY, "little")
