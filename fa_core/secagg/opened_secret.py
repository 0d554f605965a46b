"""One shared secret of X25519, opened to everybody with a proof that it is the right one.

The proof is Chaum and Pedersen's (*Wallet databases with observers*, CRYPTO 1992) that two discrete
logarithms are equal, log_B(own) = log_P(secret), made non-interactive by Fiat and Shamir. It opens the secret
of this one pair of keys and says nothing else of the private key. X25519 knows only u coordinates, so the
points are taken to the birationally equivalent curve edwards25519 (RFC 7748, section 4.1), where they can be
added (RFC 8032, section 5.1.4).

An opening is 96 bytes: the secret as a point (compressed, RFC 8032) ‖ challenge ‖ response. The integers of
Python do not take constant time: a key is forgotten as soon as it has opened a secret.
"""

import secrets
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fa_core.secagg.task import label

OPENING_SIZE = 96

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)

Point = tuple[int, int, int, int]
"""X, Y, Z, T in extended coordinates: x = X/Z, y = Y/Z, x·y = T/Z."""

_NEUTRAL: Point = (0, 1, 1, 0)


def open_secret(private: X25519PrivateKey, public: bytes, context: bytes) -> bytes:
    """Return the opening, 96 bytes, of the secret that `private` shares with `public` (usable, 32 bytes).

    `context` is bound into the proof. Raises ValueError where `public` is no point of the curve: no honest
    device has such a key, and `opened` is not needed to see it (`on_curve`).
    """
    own, scalar = private.public_key().public_bytes_raw(), private.private_bytes_raw()
    # clamped as X25519 does, less its factor 8, which `_eightfold` has
    exponent = (int.from_bytes(scalar, "little") & (2**254 - 8) | 2**254) >> 3
    peer = _lift(public)
    if peer is None:
        raise ValueError("this public key is no point of the curve")
    base, other = _eightfold(_BASE), _eightfold(peer)
    if not _equal(_times(exponent, base), _own(own)):
        exponent = _ORDER - exponent % _ORDER  # `_lift` chose the other sign of the own key
    secret = _times(exponent, other)
    nonce = secrets.randbelow(_ORDER - 1) + 1
    commitments = _times(nonce, base), _times(nonce, other)
    challenge = _challenge(context, own, public, secret, commitments)
    response = (nonce + int.from_bytes(challenge, "little") * exponent) % _ORDER
    return _compress(secret) + challenge + response.to_bytes(32, "little")


def opened(own: bytes, public: bytes, context: bytes, opening: bytes) -> bytes | None:
    """Return the X25519 secret (32 bytes) of two public keys, of which the holder of `own` opened it.

    None unless the proof holds for this `context`.
    """
    first, peer = _lift(own), _lift(public)
    secret = _decompress(opening[:32])
    challenge, response = opening[32:64], int.from_bytes(opening[64:], "little")
    if len(opening) != OPENING_SIZE or first is None or peer is None or secret is None or response >= _ORDER:
        return None
    if not _equal(_times(_ORDER, secret), _NEUTRAL):
        return None  # a part of small order would pass the proof by trying challenges, and change the secret
    against = _ORDER - int.from_bytes(challenge, "little") % _ORDER
    commitments = (
        _add(_times(response, _eightfold(_BASE)), _times(against, first)),
        _add(_times(response, _eightfold(peer)), _times(against, secret)),
    )
    if _challenge(context, own, public, secret, commitments) != challenge:
        return None
    _, y, z, _ = secret
    return ((z + y) * pow(z - y, -1, _P) % _P).to_bytes(32, "little") if z != y else None


def on_curve(public: bytes) -> bool:
    """Whether an X25519 public key is a point of the curve, and not of its twist, which X25519 takes too."""
    return _lift(public) is not None


def _challenge(
    context: bytes, own: bytes, public: bytes, secret: Point, commitments: tuple[Point, Point]
) -> bytes:
    points = b"".join(map(_compress, (secret, *commitments)))
    return sha256(label("opened secret") + context + own + public + points).digest()


def _own(own: bytes) -> Point:
    point = _lift(own)
    assert point is not None
    return point


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: Point) -> Point:
    total = _NEUTRAL
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _eightfold(point: Point) -> Point:
    """The part of prime order: X25519's scalars have the factor 8 too."""
    return _times(8, point)


def _equal(p: Point, q: Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % _P == 0 and (p[1] * q[2] - q[1] * p[2]) % _P == 0


def _lift(public: bytes) -> Point | None:
    """The point with this u coordinate (top bit ignored) whose x is even; None where there is none."""
    u = (int.from_bytes(public, "little") & (2**255 - 1)) % _P
    return None if u == _P - 1 else _at((u - 1) * pow(u + 1, -1, _P) % _P, 0)


def _decompress(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    y = number & (2**255 - 1)
    return _at(y, number >> 255) if y < _P else None


def _at(y: int, odd: int) -> Point | None:
    """The point with this y and this parity of x, if there is one."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT % _P
    if x * x % _P != square or (x == 0 and odd):
        return None
    if x % 2 != odd:
        x = _P - x
    return x, y, 1, x * y % _P


def _compress(point: Point) -> bytes:
    scale = pow(point[2], -1, _P)
    x, y = point[0] * scale % _P, point[1] * scale % _P
    return (y | (x % 2) << 255).to_bytes(32, "little")


_BASE = _own((9).to_bytes(32, "little"))
