"""Who is whose neighbour: a ring in an order that nobody chose.

The order comes from the signed roster, that is from the witness's nonce and the Merkle root, so it is fixed
only once the roster is. AES-256 under that seed is a permutation of 128-bit blocks, so device i gets the
block AES(seed, i) and the ring is the order of the blocks; no two are equal. The graph is Harary's: each
position is joined to the nearest ones on both sides.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fa_core.secagg.masks import keystream
from fa_core.secagg.task import label


@lru_cache(maxsize=8)
def ring(roster_hash: bytes, devices: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of the roster: (index at each position, position of each index), both read-only.

    Block i is AES-256 of i as a 16-byte big-endian counter, compared as a big-endian number.
    """
    seed = sha256(label("order") + roster_hash).digest()
    blocks = np.frombuffer(keystream(seed, 16 * devices), dtype=">u8").reshape(devices, 2)
    at = np.lexsort((blocks[:, 1], blocks[:, 0]))
    position = np.empty_like(at)
    position[at] = np.arange(devices)
    at.setflags(write=False)
    position.setflags(write=False)
    return at, position


def offsets(neighbours: int) -> NDArray[np.int64]:
    """Ring offset of each neighbour slot: +1, +2, … on one side, then −1, −2, … on the other."""
    ahead = (neighbours + 1) // 2
    return np.concatenate([np.arange(1, ahead + 1), -np.arange(1, neighbours - ahead + 1)])


def mirror(neighbours: int) -> NDArray[np.int64]:
    """In which slot of my neighbour's list I stand, for each slot of mine (x of the share it holds, less 1).

    Where k is odd (a complete graph on an even number) the neighbour opposite stands in the same slot.
    """
    ahead = (neighbours + 1) // 2
    slot = np.arange(neighbours)
    back = np.where(slot < ahead, slot + ahead, slot - ahead)
    return np.where(back < neighbours, back, slot)


def neighbours_of(
    index: int | NDArray[np.int64], roster_hash: bytes, devices: int, neighbours: int
) -> NDArray[np.int64]:
    """Roster indices of the neighbours, in slot order: shape (k,) for one index, (d, k) for an array of d."""
    at, position = ring(roster_hash, devices)
    return np.asarray(at[(position[index][..., None] + offsets(neighbours)) % devices])
