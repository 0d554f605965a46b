"""Boxes open for their key and their `info` alone, and whatever else they are, nothing is raised."""

from secrets import token_bytes

import pytest

from fa_core.secagg.keys import KEY_SIZE
from fa_core.trust.hpke import OVERHEAD, PRIVATE_SIZE, PUBLIC_SIZE, SUITE, OpeningKey, open_box, public_key

KEY = OpeningKey.generate()
PRIVATE = KEY.private()
SECRET = token_bytes(64)
BOX = SUITE.encrypt(SECRET, public_key(KEY.public), b"info")


def test_a_box_opens_with_its_key_and_info_and_is_so_much_longer() -> None:
    assert open_box(PRIVATE, BOX, b"info") == SECRET
    assert len(BOX) == len(SECRET) + OVERHEAD
    assert (len(KEY.public), len(KEY.raw)) == (PUBLIC_SIZE, PRIVATE_SIZE)
    assert open_box(OpeningKey(KEY.raw).private(), BOX, b"info") == SECRET
    assert SUITE.encrypt(SECRET, public_key(KEY.public), b"info") != BOX


def test_nothing_else_opens() -> None:
    assert open_box(PRIVATE, BOX, b"other") is None
    assert open_box(OpeningKey.generate().private(), BOX, b"info") is None
    # The first byte of each part: ML-KEM's ciphertext, X25519's share, what is encrypted, the tag.
    for at in (0, 1088, 1120, len(BOX) - 1):
        assert open_box(PRIVATE, BOX[:at] + bytes([BOX[at] ^ 1]) + BOX[at + 1 :], b"info") is None
    for data in (b"", BOX[:-1], BOX[:1119], BOX + b"\0", bytes(len(BOX))):
        assert open_box(PRIVATE, data, b"info") is None


def test_half_of_a_private_key_opens_nothing() -> None:
    """Either half alone is worth nothing: the hybrid needs both."""
    other = OpeningKey.generate().raw
    for half in (KEY.raw[:64] + other[64:], other[:64] + KEY.raw[64:]):
        assert open_box(OpeningKey(half).private(), BOX, b"info") is None


@pytest.mark.parametrize(
    "raw", [b"", KEY.public[:-1], KEY.public + b"\0", KEY.public[:-KEY_SIZE] + bytes(KEY_SIZE)]
)
def test_bytes_that_are_no_public_key_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        public_key(raw)


def test_a_private_key_shows_nothing() -> None:
    assert KEY.raw.hex() not in repr(KEY)
    assert "raw" not in repr(KEY)
