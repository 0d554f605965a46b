"""An opened secret is X25519's own, and no other is believed."""

import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fa_core.secagg import opened_secret
from fa_core.secagg.opened_secret import OPENING_SIZE, on_curve, open_secret, opened
from tests.secagg import reference

CONTEXT = bytes(range(32))


def pair() -> tuple[X25519PrivateKey, bytes]:
    private = X25519PrivateKey.generate()
    return private, private.public_key().public_bytes_raw()


def test_it_is_the_secret_that_x25519_agrees_on() -> None:
    for _ in range(8):  # both signs of either point come up; each of these may fail for one of them only
        (one, own), (other, public) = pair(), pair()
        opening = open_secret(one, public, CONTEXT)
        assert len(opening) == OPENING_SIZE
        assert opened(own, public, CONTEXT, opening) == other.exchange(one.public_key())
        assert reference.opened(own, public, CONTEXT, opening) == other.exchange(one.public_key())


def test_it_proves_nothing_elsewhere() -> None:
    (one, own), (_, public), (_, third) = pair(), pair(), pair()
    opening = open_secret(one, public, CONTEXT)
    assert opened(own, public, bytes(32), opening) is None
    assert opened(own, third, CONTEXT, opening) is None
    assert opened(public, own, CONTEXT, opening) is None


@pytest.mark.parametrize("at", range(0, OPENING_SIZE, 11))
def test_a_changed_byte_is_noticed(at: int) -> None:
    (one, own), (_, public) = pair(), pair()
    opening = open_secret(one, public, CONTEXT)
    changed = opening[:at] + bytes([opening[at] ^ 1]) + opening[at + 1 :]
    for verify in (opened, reference.opened):
        assert verify(own, public, CONTEXT, changed) is None
        assert verify(own, public, CONTEXT, opening[:-1]) is None
        assert verify(own, public, CONTEXT, opening + b"\x00") is None


def test_a_response_past_the_order_is_refused() -> None:
    (one, own), (_, public) = pair(), pair()
    opening = open_secret(one, public, CONTEXT)
    response = int.from_bytes(opening[64:], "little") + opened_secret._ORDER
    assert opened(own, public, CONTEXT, opening[:64] + response.to_bytes(32, "little")) is None


def shifted(one: X25519PrivateKey, own: bytes, public: bytes) -> bytes:
    """The opening of another secret, one plus a point of order two: proven by trying for an even challenge.

    X25519 is blind to that point, so both equations hold; only the check of the order stops it.
    """
    small: opened_secret.Point = (0, opened_secret._P - 1, 1, 0)
    peer = opened_secret._lift(public)
    assert peer is not None
    base, other = opened_secret._eightfold(opened_secret._BASE), opened_secret._eightfold(peer)
    honest = open_secret(one, public, CONTEXT)
    true = opened_secret._decompress(honest[:32])
    assert true is not None
    secret = opened_secret._add(true, small)
    exponent = (int.from_bytes(one.private_bytes_raw(), "little") & (2**254 - 8) | 2**254) >> 3
    if not opened_secret._equal(opened_secret._times(exponent, base), opened_secret._own(own)):
        exponent = opened_secret._ORDER - exponent % opened_secret._ORDER
    while True:
        nonce = secrets.randbelow(opened_secret._ORDER)
        commitments = opened_secret._times(nonce, base), opened_secret._times(nonce, other)
        challenge = opened_secret._challenge(CONTEXT, own, public, secret, commitments)
        # what the verifier multiplies `secret` with: an even number leaves the small point out
        if (opened_secret._ORDER - int.from_bytes(challenge, "little") % opened_secret._ORDER) % 2 == 0:
            break
    response = (nonce + int.from_bytes(challenge, "little") * exponent) % opened_secret._ORDER
    return opened_secret._compress(secret) + challenge + response.to_bytes(32, "little")


def test_a_secret_shifted_by_a_small_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (one, own), (other, public) = pair(), pair()
    opening = shifted(one, own, public)
    for verify in (opened, reference.opened):
        assert verify(own, public, CONTEXT, opening) is None
    # the control: where the order is not looked at, the proof holds, for a secret that is none
    equal = opened_secret._equal
    monkeypatch.setattr(opened_secret, "_equal", lambda p, q: q == (0, 1, 1, 0) or equal(p, q))
    found = opened(own, public, CONTEXT, opening)
    assert found is not None
    assert found != other.exchange(one.public_key())


def test_a_key_of_the_twist_is_told_from_one_of_the_curve() -> None:
    assert all(on_curve(pair()[1]) for _ in range(20))
    off = next(u for u in range(2, 50) if not on_curve(u.to_bytes(32, "little")))
    public = off.to_bytes(32, "little")
    one, own = pair()
    one.exchange(X25519PublicKey.from_public_bytes(public))  # X25519 takes it
    with pytest.raises(ValueError, match="no point"):
        open_secret(one, public, CONTEXT)
    assert opened(own, public, CONTEXT, bytes(OPENING_SIZE)) is None
