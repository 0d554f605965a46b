"""Keys of one round: agreed by X25519, derived by HKDF-SHA256, each bound to the session and its parties.

HKDF is RFC 5869 with an empty salt and one block of output. The `info` names the use, the session (which
stands for plan hash, release and attempt) and both devices, so that no key serves twice.
"""

from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fa_core.secagg.task import label

KEY_SIZE = 32
TAG_SIZE = 16
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""What HMAC (RFC 2104) makes of each byte of a key, for the inner and the outer hash."""
_INNER_END, _OUTER_END = b"\x36" * KEY_SIZE, b"\x5c" * KEY_SIZE
"""What fills a key of 32 bytes up to a block of SHA-256."""
_INNER_EMPTY, _OUTER_EMPTY = sha256(_INNER_END * 2), sha256(_OUTER_END * 2)
"""The two hashes under the empty salt, to be copied and continued."""
_SHARE, _PAIR_MASK, _SELF_MASK = label("share"), label("pair mask"), label("self mask")
_ONCE = bytes(12)  # the GCM nonce: each share key encrypts one message
_PRIME = 2**255 - 19
# u coordinates of the points whose order divides 8 (RFC 7748, section 7): with them a shared secret is zero.
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)


def derive(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256(secret, no salt, info): 32 bytes."""
    return _expand(_extract(secret), info)


def _extract(secret: bytes) -> bytes:
    inner, outer = _INNER_EMPTY.copy(), _OUTER_EMPTY.copy()
    inner.update(secret)
    outer.update(inner.digest())
    return outer.digest()


def _expand(extracted: bytes, info: bytes) -> bytes:
    """HMAC-SHA256, in half the time of `hmac.digest`, which looks its hash up by name at each call."""
    inner = sha256(extracted.translate(_INNER) + _INNER_END + info + b"\x01").digest()
    return sha256(extracted.translate(_OUTER) + _OUTER_END + inner).digest()


def usable(public: bytes) -> bool:
    """Whether an X25519 public key contributes to the secret (it is not a point of small order)."""
    return (int.from_bytes(public, "little") & ((1 << 255) - 1)) % _PRIME not in _SMALL_ORDER


def agree(private: X25519PrivateKey, public: bytes) -> bytes:
    """The shared secret of two round keys. The public key must be `usable`."""
    return private.exchange(_parsed(public))


@lru_cache(maxsize=1 << 15)
def _parsed(public: bytes) -> X25519PublicKey:
    """Remembered, since all neighbours of a hub's device agree with it."""
    return X25519PublicKey.from_public_bytes(public)


def share_key(secret: bytes, session: bytes, sender: bytes, receiver: bytes) -> bytes:
    """The AES-256-GCM key under which `sender` encrypts the shares that it hands to `receiver`."""
    return derive(secret, _SHARE + session + sender + receiver)


def share_keys(secret: bytes, session: bytes, one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """The `share_key` from `one` to `other`, and the one back."""
    extracted, start = _extract(secret), _SHARE + session
    return _expand(extracted, start + one + other), _expand(extracted, start + other + one)


def pair_mask_key(secret: bytes, session: bytes, one: bytes, other: bytes) -> bytes:
    """The key of the mask between two devices; the same from both ends."""
    return derive(secret, _PAIR_MASK + session + min(one, other) + max(one, other))


def self_mask_key(seed: bytes, session: bytes, device: bytes) -> bytes:
    """The key of the mask that a device adds on its own, from its 32-byte seed b."""
    return derive(seed, _SELF_MASK + session + device)


def seal(key: bytes, plain: bytes) -> bytes:
    """AES-256-GCM under a key used for this one message: the ciphertext and its 16-byte tag."""
    return AESGCM(key).encrypt(_ONCE, plain, None)


def unseal(key: bytes, sealed: bytes) -> bytes:
    """The plain text. cryptography.exceptions.InvalidTag if it was made under another key or changed."""
    return AESGCM(key).decrypt(_ONCE, sealed, None)
