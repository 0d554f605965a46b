"""The three keys of two devices: two that seal shares, one for each direction, and the one of their mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fa_core.secagg import keys
from fa_core.secagg.identity import Record


@dataclass(frozen=True, repr=False, slots=True)
class RoundKeys:
    """One device's two key pairs of this round. They stay apart: a server that recovers the mask key of a
    device that dropped out opens no box that was sealed for it."""

    record: Record
    share: X25519PrivateKey
    mask: X25519PrivateKey


@dataclass(frozen=True, repr=False, slots=True)
class PairKeys:
    """One device's keys with others, in their order, 32 bytes each: what seals shares for each of them, what
    opens theirs, and what masks with them."""

    sealing: tuple[bytes, ...]
    opening: tuple[bytes, ...]
    mask: tuple[bytes, ...]


Pairing = Callable[[RoundKeys, Sequence[Record], bytes], PairKeys]
"""Gives a device's keys with others in a session, as `pair_keys` does."""


def pair_keys(own: RoundKeys, others: Sequence[Record], session: bytes) -> PairKeys:
    """Agree with other devices on the keys of a session. Their records must be valid."""
    device = own.record.device
    sealing, opening, mask = [], [], []
    for other in others:
        secret = keys.agree(own.share, other.share_key)
        there, back = keys.share_keys(secret, session, device, other.device)
        sealing.append(there)
        opening.append(back)
        secret = keys.agree(own.mask, other.mask_key)
        mask.append(keys.pair_mask_key(secret, session, device, other.device))
    return PairKeys(tuple(sealing), tuple(opening), tuple(mask))
