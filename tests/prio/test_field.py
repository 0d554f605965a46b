"""Arithmetic of both fields, polynomials and the XOF against Python's integers and plain formulas."""

import hashlib
import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from fa_core.prio import xof as xof_module
from fa_core.prio.field import FIELD64, FIELD128, MATMUL_TERMS, Field, centred
from fa_core.prio.polynomial import between, evaluations, interpolate, lagrange, lagrange_of_low_degree
from fa_core.prio.xof import HmacAes, expand

P = FIELD64.modulus
EDGES = [
    0,
    1,
    2,
    P - 1,
    P - 2,
    2**32 - 1,
    2**32,
    2**32 + 1,
    2**63,
    P - 2**32,
    P >> 1,
    0xFFFF,
    0xFFFF0000FFFF,
    P - 0xFFFF,
]
BOTH = pytest.mark.parametrize("field", [FIELD64, FIELD128], ids=["Field64", "Field128"])


def drawn(field: Field, count: int, seed: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(field.modulus) for _ in range(count)]


@BOTH
def test_elementwise_arithmetic_is_that_of_integers(field: Field) -> None:
    p = field.modulus
    edges = [*EDGES, p - 1, p - 2, p >> 1]
    many = 20_000 if field is FIELD64 else 50  # more than one block of `multiply`
    left = [a for a in edges for _ in edges] + drawn(field, many, 1)
    right = [b for _ in edges for b in edges] + drawn(field, many, 2)
    a, b = field.array(left), field.array(right)
    for got, exact in (
        (field.add(a, b), [x + y for x, y in zip(left, right, strict=True)]),
        (field.subtract(a, b), [x - y for x, y in zip(left, right, strict=True)]),
        (field.multiply(a, b), [x * y for x, y in zip(left, right, strict=True)]),
        (field.negate(a), [-x for x in left]),
    ):
        assert got.tolist() == [value % p for value in exact]
    assert int(field.sum(a, axis=0)) == sum(left) % p
    assert int(field.dot(a, b)) == sum(x * y for x, y in zip(left, right, strict=True)) % p
    assert field.powers(a[:20], 7).tolist() == [[pow(x, k, p) for k in range(1, 8)] for x in left[:20]]
    decoded, below = field.decode(field.encode(a), a.shape)
    assert below.all()
    assert decoded.tolist() == left


def test_elements_are_taken_modulo_p_and_centred() -> None:
    signed = np.array([-1, 0, 5, -(2**63), 2**63 - 1])
    assert FIELD64.array(signed).tolist() == [int(value) % P for value in signed]
    assert FIELD64.array(np.array([2**64 - 1], dtype=np.uint64)).tolist() == [(2**64 - 1) % P]
    assert centred(FIELD64, FIELD64.array([-7, 7, P - 1, 0])).tolist() == [-7, 7, -1, 0]
    _, below = FIELD64.decode(b"".join(value.to_bytes(8, "little") for value in (P - 1, P, 2**64 - 1)), (3,))
    assert below.tolist() == [True, False, False]


@BOTH
def test_matrix_products_are_exact(field: Field) -> None:
    source = random.Random(3)
    left = [[[source.choice(EDGES) for _ in range(30)] for _ in range(6)] for _ in range(2)]
    right = [[[source.choice(EDGES) for _ in range(5)] for _ in range(30)] for _ in range(2)]
    expected = np.array(left, dtype=object) @ np.array(right, dtype=object) % field.modulus
    assert field.matmul(field.array(left), field.array(right)).tolist() == expected.tolist()


@pytest.mark.parametrize("value", [P - 1, 0xFFFF0000FFFF, 0xFFFFFFFF])
def test_matrix_products_are_exact_up_to_the_stated_terms_and_refused_beyond(value: int) -> None:
    assert MATMUL_TERMS * 4 * 2**16 * 2**17 <= 2**53  # four products of a limb and an entry for each term
    row = np.full((1, MATMUL_TERMS), value, dtype=np.uint64)
    column = np.full((MATMUL_TERMS, 1), P - 1, dtype=np.uint64)
    assert int(FIELD64.matmul(row, column)[0, 0]) == value * (P - 1) * MATMUL_TERMS % P
    with pytest.raises(ValueError, match="not be exact"):
        FIELD64.matmul(np.zeros((1, MATMUL_TERMS + 1), np.uint64), np.zeros((MATMUL_TERMS + 1, 1), np.uint64))


@BOTH
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_transforms_evaluate_at_roots_of_unity(field: Field, n: int) -> None:
    p, coefficients = field.modulus, drawn(field, n, n)

    def at(x: int) -> int:
        return sum(c * pow(x, k, p) for k, c in enumerate(coefficients)) % p

    assert pow(field.root(n), n, p) == 1
    assert n == 1 or pow(field.root(n), n // 2, p) == p - 1
    values = evaluations(field, field.array([coefficients]))
    assert values[0].tolist() == [at(pow(field.root(n), k, p)) for k in range(n)]
    assert interpolate(field, values)[0].tolist() == coefficients
    odd = [pow(field.root(2 * n), 2 * k + 1, p) for k in range(n)]
    assert between(field, values)[0].tolist() == [at(x) for x in odd]
    for t in (0, 1, 12345, field.root(n)):
        assert int(field.dot(lagrange(field, field.array(t), n), values[0])) == at(t)
        doubled = evaluations(field, field.array([*coefficients[: n - 1], *[0] * (n + 1)]))
        half, given = lagrange_of_low_degree(field, field.array(t), 2 * n)
        assert int(field.dot(half, values[0])) == at(t)
        expected = (at(t) - coefficients[-1] * pow(t, n - 1, p)) % p
        assert int(field.dot(given, doubled[:-1])) == expected


def test_there_is_no_root_of_another_order() -> None:
    for n in (0, 3, 2**33):
        with pytest.raises(ValueError, match="no principal root"):
            FIELD64.root(n)


def plain_stream(seed: bytes, tag: bytes, binder: bytes, blocks: int) -> bytes:
    """HMAC by its definition (RFC 2104), then AES of each counter block by itself."""
    key = seed.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + bytes((len(tag),)) + tag + binder).digest()
    mac = hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()
    return plain_counter_mode(mac, blocks)


def plain_counter_mode(mac: bytes, blocks: int) -> bytes:
    start = int.from_bytes(mac[24:], "big")
    counters = b"".join(mac[16:24] + ((start + k) % 2**64).to_bytes(8, "big") for k in range(blocks))
    return Cipher(AES(mac[:16]), ECB()).encryptor().update(counters)


def test_the_xof_is_that_of_libprio() -> None:
    seed, tag, binder = bytes(range(32)), b"domain separation tag", b"binder string"
    stream = HmacAes().stream(seed, tag, binder, 200)
    # The known answer of libprio-rs (XofHmacSha256Aes128, its derived seed).
    assert stream[:32].hex() == "e826c9564c620fb63357fbee88dc9bb3de2c41764adb44bea344024e1da124c6"
    assert stream == plain_stream(seed, tag, binder, 13)[:200]
    assert HmacAes().stream(seed, tag, binder, 7) == stream[:7]
    with pytest.raises(ValueError, match="at most 255 bytes"):
        HmacAes().stream(seed, bytes(256), binder, 1)


@pytest.mark.parametrize("left", [1, 2, 5])
def test_the_counter_returns_to_0_in_8_bytes(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mac = bytes(range(24)) + (2**64 - left).to_bytes(8, "big")
    monkeypatch.setattr(xof_module.hmac, "digest", lambda *_: mac)
    assert HmacAes().stream(b"", b"", b"", 64) == plain_counter_mode(mac, 4)


class Listed:
    """A stream that is given, then zeros."""

    seed_size = 32

    def stream(self, seed: bytes, tag: bytes, binder: bytes, length: int) -> bytes:
        return seed.ljust(length, b"\0")[:length]


def test_candidates_that_are_no_elements_are_left_out() -> None:
    streams = [[P, 1, 2**64 - 1, P - 1, 2, 3], [4, 5, 6, 7, 8, 9], [P] * 40 + [1, 2, 3]]
    seeds = [b"".join(value.to_bytes(8, "little") for value in stream) for stream in streams]
    assert expand(Listed(), FIELD64, seeds, b"", [b""] * 3, 3).tolist() == [
        [1, P - 1, 2],
        [4, 5, 6],
        [1, 2, 3],
    ]
