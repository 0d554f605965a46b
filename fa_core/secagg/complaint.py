"""Who lied, where a device complains of the shares that a neighbour sealed for it: anybody can decide.

The accused signed everything that it dealt, and the accuser opened the one secret that the two share. With
that secret its box either opens to shares, then the accuser lied, or it does not, then the accused did.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from cryptography.exceptions import InvalidTag
from numpy.typing import NDArray

from fa_core.merkle import leaf_hash, verify_inclusion
from fa_core.secagg import keys
from fa_core.secagg.graph import neighbours_of
from fa_core.secagg.identity import Record, signed
from fa_core.secagg.messages import Complaint, Dealt, Roster
from fa_core.secagg.opened_secret import on_curve, opened
from fa_core.secagg.parameters import choose
from fa_core.secagg.shamir import LIMBS, MISSING, PRIME, SHARE_SIZE
from fa_core.secagg.task import Task, label

_SPOILED = MISSING.to_bytes(4, "little") * (2 * SHARE_SIZE // 4)


def dealt_message(roster_hash: bytes, commitment: bytes, sealed: bytes) -> bytes:
    """The bytes under a device's signature on what it deals: `sealed` is all of its boxes, in slot order."""
    return label("dealt") + roster_hash + commitment + sha256(sealed).digest()


def dealt_by(dealt: Dealt, roster_hash: bytes, device: bytes) -> bool:
    """Whether `device` (32 bytes) signed that it dealt this to this roster."""
    return signed(
        dealt.signature, dealt_message(roster_hash, dealt.commitment, dealt.sealed.tobytes()), device
    )


def shares_in(key: bytes, box: bytes) -> NDArray[np.uint32] | None:
    """The two shares in a box, shape (2, 9): of the dealer's seed b and of its mask key.

    None where it does not open under `key`, or holds a number that is no residue.
    """
    (shares,) = shares_in_all([key], [box])
    return None if shares[0, 0] == MISSING else shares


def shares_in_all(opening: Sequence[bytes], boxes: Sequence[bytes]) -> NDArray[np.uint32]:
    """What `shares_in` finds in each box under its key, uint32 (boxes, 2, 9): `MISSING` for None."""
    plain = b"".join([_plain(key, box) for key, box in zip(opening, boxes, strict=True)])
    shares = np.frombuffer(plain, dtype="<u4").reshape(-1, 2, LIMBS).copy()
    shares[(shares >= PRIME).any(axis=(1, 2))] = MISSING
    return shares


def _plain(key: bytes, box: bytes) -> bytes:
    try:
        return keys.unseal(key, box)
    except InvalidTag:
        return _SPOILED


def accused_lied(
    session: bytes, roster_hash: bytes, accuser: Record, accused: Record, box: bytes, opening: bytes
) -> bool | None:
    """Whether a box that the accused signed was garbage; None where the opening proves nothing.

    The records are valid and `box` is the accuser's among what the accused dealt. An accused whose share key
    is no point of the curve lied in any case: no honest device draws such a key, and nobody could open it.
    """
    if not on_curve(accused.share_key):
        return True
    secret = opened(accuser.share_key, accused.share_key, roster_hash, opening)
    if secret is None:
        return None
    return shares_in(keys.share_key(secret, session, accused.device, accuser.device), box) is None


def liar(task: Task, roster: Roster, complaint: Complaint) -> bytes | None:
    """The device (32 bytes) that a complaint shows to have lied; None where it shows nothing of anybody.

    `roster` is signed by the witness, so its records are valid; everything else is checked.
    """
    parameters = choose(roster.devices, task.dropout, task.corrupt)
    members = (
        (complaint.accuser, complaint.accuser_index),
        (complaint.accused, complaint.accused_index),
    )
    if parameters is None or any(index >= roster.devices for _, index in members):
        return None
    for member, index in members:
        leaf = leaf_hash(member.record)
        if not verify_inclusion(leaf, index, roster.devices, member.proof, roster.root):
            return None
    roster_hash = roster.hash(task)
    around = neighbours_of(complaint.accused_index, roster_hash, roster.devices, parameters.neighbours)
    slot = np.flatnonzero(around == complaint.accuser_index)
    accuser, accused = (Record.decode(member.record) for member, _ in members)
    dealt = complaint.dealt
    if len(slot) != 1 or len(dealt.sealed) != len(around) or not dealt_by(dealt, roster_hash, accused.device):
        return None
    box = dealt.sealed[slot[0]].tobytes()
    verdict = accused_lied(task.session, roster_hash, accuser, accused, box, complaint.opening)
    return None if verdict is None else accused.device if verdict else accuser.device
