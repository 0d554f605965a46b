"""How a sample is sealed: a fresh key, in two shares, one a reviewer. One share says nothing of the key.

The padded recording is encrypted by AES-256-GCM with a key that is used once (so the nonce is fixed, zeros).
The key is the exclusive or of two shares of 32 bytes, the first of them random. Each is encrypted for one
reviewer by HPKE (RFC 9180, base mode: ML-KEM-768 with X25519, HKDF-SHA256, AES-256-GCM), whose `info` binds
the purpose, the request (and so its scope), the sample, the vault and the reviewer. Additional data of the
sample's own encryption binds the first four.

Beside the sample the device draws a token, 32 random bytes, whose hash is the sample's id: only who holds the
token can withdraw the sample, and nobody can offer another under its id.
"""

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fa_core.canonical_json import canonical
from fa_core.donation.keys import ReviewerKeys
from fa_core.donation.recording import LENGTHS, Recording
from fa_core.donation.request import PURPOSE, DonationRequest
from fa_core.errors import BadInput
from fa_core.trust import hpke

TOKEN_SIZE, ID_SIZE, READ_SIZE, _KEY_SIZE, _TAG_SIZE = 32, 16, 8, 32, 16
WRAP_SIZE: Final = hpke.OVERHEAD + _KEY_SIZE
"""Bytes of a share that is encrypted for a reviewer: the encapsulated key, the share, the tag."""

_MAGIC: Final = b"unheard-donation-1\n"
_HEAD_SIZE: Final = len(_MAGIC) + 32 + ID_SIZE + 2 * WRAP_SIZE
LARGEST: Final = _HEAD_SIZE + LENGTHS[-1] + _TAG_SIZE
"""Bytes of the largest sealed sample."""

_ONCE: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class SealedSample:
    """What leaves a device.

    Attributes:
        request: hash of the donation request, 32 bytes. sample: its id, 16 bytes.
        wraps: the shares for the request's reviewers, in their order, 1,168 bytes each.
        sealed: the encrypted recording, one of four lengths.
    """

    request: bytes
    sample: bytes
    wraps: tuple[bytes, bytes]
    sealed: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the bytes of an upload."""
        return _MAGIC + self.request + self.sample + self.wraps[0] + self.wraps[1] + self.sealed

    @classmethod
    def decode(cls, data: bytes) -> "SealedSample":
        """Return what `encode` wrote. Raises ValueError for bytes of another form."""
        if not data.startswith(_MAGIC) or len(data) - _HEAD_SIZE - _TAG_SIZE not in LENGTHS:
            raise ValueError("not a sealed sample")
        at = len(_MAGIC)
        parts = []
        for size in (32, ID_SIZE, WRAP_SIZE, WRAP_SIZE):
            parts.append(data[at : at + size])
            at += size
        return cls(parts[0], parts[1], (parts[2], parts[3]), data[at:])


def sample_id(token: bytes) -> bytes:
    """Return the id, 16 bytes, of the sample that a token withdraws."""
    return sha256(b"unheard-donation-token-1\n" + token).digest()[:ID_SIZE]


def seal(recording: Recording, request: DonationRequest, token: bytes) -> SealedSample:
    """Encrypt a recording for the two reviewers of a request. The key is forgotten here."""
    sample = sample_id(token)
    key, first = secrets.token_bytes(_KEY_SIZE), secrets.token_bytes(_KEY_SIZE)
    shares = (first, _xor(key, first))
    wraps = [
        hpke.SUITE.encrypt(
            share, hpke.public_key(reviewer.opening), _info(b"share", request, sample, reviewer=place)
        )
        for place, (share, reviewer) in enumerate(zip(shares, request.reviewers, strict=True))
    ]
    sealed = AESGCM(key).encrypt(_ONCE, recording.padded(), _info(b"sample", request, sample))
    return SealedSample(request.hash, sample, (wraps[0], wraps[1]), sealed)


def own_share(wrap: bytes, request: DonationRequest, sample: bytes, place: int, keys: ReviewerKeys) -> bytes:
    """Return the share, 32 bytes, encrypted for the reviewer at `place` (0 or 1). Raises BadInput."""
    return _opened(wrap, keys, _info(b"share", request, sample, reviewer=place))


def hand_over(share: bytes, request: DonationRequest, sample: bytes, read: bytes, place: int) -> bytes:
    """Encrypt a share for the other reviewer, the one at `place`, for one read (8 bytes)."""
    key = hpke.public_key(request.reviewers[place].opening)
    return hpke.SUITE.encrypt(share, key, _info(b"release", request, sample, reviewer=place, read=read.hex()))


def handed_over(
    data: bytes, request: DonationRequest, sample: bytes, read: bytes, place: int, keys: ReviewerKeys
) -> bytes:
    """Return the share that `hand_over` encrypted for the reviewer at `place`. Raises BadInput."""
    return _opened(data, keys, _info(b"release", request, sample, reviewer=place, read=read.hex()))


def open_sample(
    sealed: bytes, request: DonationRequest, sample: bytes, shares: tuple[bytes, bytes]
) -> Recording:
    """Return the recording, given both shares. Raises BadInput where they are not this sample's."""
    try:
        plain = AESGCM(_xor(*shares)).decrypt(_ONCE, sealed, _info(b"sample", request, sample))
    except InvalidTag:
        raise BadInput("the sample does not open: a share is another's, or the sample was changed") from None
    return Recording.unpadded(plain)


def _info(use: bytes, request: DonationRequest, sample: bytes, **more: Any) -> bytes:
    bound = {
        "purpose": PURPOSE,
        "request": request.hash.hex(),
        "sample": sample.hex(),
        "vault": request.vault_key.hex(),
    }
    return b"unheard-donation-%s-1\n" % use + canonical(bound | more)


def _opened(data: bytes, keys: ReviewerKeys, info: bytes) -> bytes:
    share = hpke.open_box(keys.opening, data, info)
    if share is None:
        raise BadInput("this share is not for this reviewer, or of another sample, request or read")
    if len(share) != _KEY_SIZE:
        raise BadInput("this share has another length")
    return share


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
