"""The three keys of two devices: two that seal shares, one for each direction, and the one of their mask."""

from collections.abc import Callable
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
    """32 bytes each: what seals shares for the other, what opens the other's, and what masks with it."""

    sealing: bytes
    opening: bytes
    mask: bytes


Pairing = Callable[[RoundKeys, Record, bytes], PairKeys]
"""Gives a device's keys with another one in a session, as `pair_keys` does."""


def pair_keys(own: RoundKeys, other: Record, session: bytes) -> PairKeys:
    """Agree with another device on the keys of a session. Its record must be valid."""
    one, two = own.record.device, other.device
    sealing, opening = keys.share_keys(keys.agree(own.share, other.share_key), session, one, two)
    mask = keys.pair_mask_key(keys.agree(own.mask, other.mask_key), session, one, two)
    return PairKeys(sealing, opening, mask)
