"""Opening the sum: recover the secrets that the stage's shares open, check each, take the masks away.

Of a survivor the seed b of its self mask is opened, and checked against the commitment that the device
signed. Of a device that dealt shares and then dropped, the mask key is opened, checked against its
certified public key, and the masks that it shared with surviving neighbours are recomputed. Nothing wrong
can pass: a sum is exact, or there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fa_core.secagg import keys, shamir
from fa_core.secagg.device import commitment_to
from fa_core.secagg.identity import Record
from fa_core.secagg.masks import Masker, Vector
from fa_core.secagg.messages import Flags
from fa_core.secagg.parameters import Parameters
from fa_core.secagg.task import RoundFailure, Stage, Task

Held = Callable[[NDArray[np.int64]], NDArray[np.uint32]]
"""(roster indices of owners) -> what their neighbours sent back: shape (owners, k, 9)."""

_BATCH = 512


@dataclass(frozen=True)
class Opening:
    """What the server knows when the last replies are in; lists and arrays are by roster index."""

    task: Task
    parameters: Parameters
    records: Sequence[Record]
    commitments: Mapping[int, bytes]
    neighbours: NDArray[np.int64]
    dealt: Flags
    survivors: Flags


def unmask(vector: Vector, opening: Opening, held: Held) -> None:
    """Take every mask off the sum of the survivors' vectors, in place. RoundFailure if a secret is lost."""
    masker = Masker(vector)
    session, records = opening.task.session, opening.records
    for index, seed in _secrets(np.flatnonzero(opening.survivors), opening, held, _is_seed):
        masker.apply(keys.self_mask_key(seed, session, records[index].device), subtract=True)
    for index, secret in _secrets(np.flatnonzero(opening.dealt & ~opening.survivors), opening, held, _is_key):
        private, own = X25519PrivateKey.from_private_bytes(secret), records[index].device
        around = opening.neighbours[index]
        for other in around[opening.survivors[around]].tolist():
            record = records[other]
            key = keys.pair_mask_key(keys.agree(private, record.mask_key), session, own, record.device)
            # the survivor added this mask if its name is the lower one, else subtracted it: undo that
            masker.apply(key, subtract=record.device < own)


def _secrets(
    owners: NDArray[np.int64],
    opening: Opening,
    held: Held,
    right: Callable[[Opening, int, bytes | None], bool],
) -> list[tuple[int, bytes]]:
    """Each owner with its secret, every one of them checked."""
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(owners), _BATCH):
        batch = owners[start : start + _BATCH]
        points = held(batch)
        short = int(((points[:, :, 0] != shamir.MISSING).sum(axis=1) < opening.parameters.threshold).sum())
        if short:
            raise RoundFailure(Stage.UNMASK, short, f"too few shares came back to open {short} secrets")
        for row, (index, secret) in enumerate(zip(batch.tolist(), shamir.recover(points), strict=True)):
            if not right(opening, index, secret):
                secret = _repair(points[row], opening, index, right)
            assert secret is not None
            found.append((index, secret))
    return found


def _repair(
    points: NDArray[np.uint32],
    opening: Opening,
    index: int,
    right: Callable[[Opening, int, bytes | None], bool],
) -> bytes:
    """The secret without the shares that are not on its polynomial. RoundFailure where that is not enough."""
    points = points.copy()
    while wrong := shamir.wrong_shares(points, opening.parameters.threshold):
        points[wrong] = shamir.MISSING
        (secret,) = shamir.recover(points[None])
        if secret is not None and right(opening, index, secret):
            return secret
    raise RoundFailure(Stage.UNMASK, 1, "wrong shares came back and a secret could not be opened")


def _is_seed(opening: Opening, index: int, secret: bytes | None) -> bool:
    """Whether this is the self mask's seed that the device committed to."""
    if secret is None:
        return False
    return (
        commitment_to(secret, opening.task.release, opening.records[index].device)
        == opening.commitments[index]
    )


def _is_key(opening: Opening, index: int, secret: bytes | None) -> bool:
    """Whether this is the private half of the device's certified mask key."""
    if secret is None:
        return False
    public = X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return public == opening.records[index].mask_key
