"""The keys of two simulated devices, computed once for both.

Each end of a pair would do the same X25519 and HKDF. One process, or several forks of it, play both ends, so
the end that asks first leaves the keys in memory that they share, and the other takes them from there. What a
device sends does not change by a bit. Real devices have nobody to share with: they use
`fa_core.secagg.pairs.pair_keys`.
"""

from collections.abc import Sequence
from mmap import mmap
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fa_core.secagg.identity import Record
from fa_core.secagg.pairs import PairKeys, RoundKeys, pair_keys

Words = NDArray[np.uint64]

_KEY: Final = 4
"""Words in a key of 32 bytes."""

_CHECK: Final = 4 * _KEY
"""An entry is a pair's name, its three keys in an order that both ends agree on, and a checksum of them all.
The name's first word, the head, also stands apart: most slots that are looked at hold another pair."""

_WEIGHTS: Final = np.arange(1, 2 * _CHECK, 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that any change of one word changes the checksum, and a mixture of two entries has a wrong one."""

SLOTS_A_DEVICE: Final = 64
"""Nearly twice as many as the pairs that wait at a time for their other end, k/4 a device."""

MOST_SLOTS: Final = 1 << 21
"""285 MB. Cohorts above 32,768 devices compute some keys at both ends."""

_WAYS: Final = 4
"""In so many neighbouring slots a pair may stand."""


class SimulatedPairs:
    """A `fa_core.secagg.pairs.Pairing`. Make it before forking; it holds 9 KB a device.

    A pair whose slots are all taken displaces another, and two processes may write one slot at once: then the
    name is not found or the checksum does not fit, and the keys are computed again.
    """

    def __init__(self, devices: int) -> None:
        places = min(SLOTS_A_DEVICE * max(devices, 1), MOST_SLOTS) // _WAYS
        words = np.frombuffer(mmap(-1, 8 * places * _WAYS * (1 + _CHECK + 1)), np.uint64)
        self._heads: Words = words[: places * _WAYS].reshape(places, _WAYS)
        self._entries: Words = words[places * _WAYS :].reshape(places, _WAYS, _CHECK + 1)

    def __call__(self, own: RoundKeys, others: Sequence[Record], session: bytes) -> PairKeys:
        """Return what `pair_keys` returns."""
        names = _names(own.record, others)
        head = names[:, 0]
        place = head % np.uint64(len(self._heads))
        heads = self._heads[place]
        way = (heads == head[:, None]).argmax(axis=1)
        entries = self._entries[place, way]
        found = (_checksum(entries) == entries[:, _CHECK]) & (entries[:, :_KEY] == names).all(axis=1)
        # Nobody needs the keys after the second end.
        self._heads[place[found], way[found]] = 0
        self._entries[place[found], way[found]] = 0
        first = np.array([own.record.device < other.device for other in others], np.bool_)
        if not found.all():
            new = np.flatnonzero(~found)
            made = _made(names[new], pair_keys(own, [others[i] for i in new.tolist()], session), first[new])
            place, free = place[new], (heads[new] == 0).argmax(axis=1)
            self._entries[place, free] = made
            self._heads[place, free] = head[new]
            entries[new] = made
        return _keys(entries, first)


def _names(own: Record, others: Sequence[Record]) -> Words:
    """The names of pairs, (k, 4), the same from both ends: public keys are random, and so is their XOR."""
    public = np.frombuffer(b"".join([other.share_key for other in others]), np.uint64)
    return public.reshape(-1, _KEY) ^ np.frombuffer(own.share_key, np.uint64)


def _checksum(entries: Words) -> Words:
    return np.asarray((entries[:, :_CHECK] * _WEIGHTS).sum(axis=1, dtype=np.uint64))


def _made(names: Words, keys: PairKeys, first: NDArray[np.bool_]) -> Words:
    """What to leave of pairs: (k, 17). `first`: whether this end's name is the lower one."""
    made = np.empty((len(names), _CHECK + 1), np.uint64)
    sealing, opening, mask = (
        np.frombuffer(b"".join(each), np.uint64).reshape(-1, _KEY)
        for each in (keys.sealing, keys.opening, keys.mask)
    )
    made[:, :_KEY] = names
    made[:, _KEY : 2 * _KEY] = np.where(first[:, None], sealing, opening)
    made[:, 2 * _KEY : 3 * _KEY] = np.where(first[:, None], opening, sealing)
    made[:, 3 * _KEY : _CHECK] = mask
    made[:, _CHECK] = _checksum(made)
    return made


def _keys(entries: Words, first: NDArray[np.bool_]) -> PairKeys:
    """This end's keys of entries."""
    one, two = entries[:, _KEY : 2 * _KEY], entries[:, 2 * _KEY : 3 * _KEY]
    return PairKeys(
        sealing=_cut(np.where(first[:, None], one, two)),
        opening=_cut(np.where(first[:, None], two, one)),
        mask=_cut(entries[:, 3 * _KEY : _CHECK]),
    )


def _cut(keys: Words) -> tuple[bytes, ...]:
    """Keys of four words as 32 bytes each."""
    joined = keys.tobytes()
    return tuple([joined[at : at + 32] for at in range(0, len(joined), 32)])
