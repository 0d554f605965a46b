"""Shamir's sharing of 256-bit secrets, over the prime 2^31 − 1, for all secrets of a stage at once.

A secret is cut into nine limbs of 30 bits, each shared on its own: share x (x = 1 … k) is the value at x of a
polynomial of degree t − 1 whose constant term is the limb. Products of two residues fit a uint64, and the
remainder mod 2^31 − 1 is a shift and an addition, so numpy does the arithmetic and no bignum is needed.

Recovery uses *every* share that came back, not only t of them: the weights for all k points are binomials,
and each point that is missing changes them by one factor (Lagrange at zero over x = 1 … k), which is far
less work than t² products a secret. Shares that were changed are found as errors of the Reed–Solomon code
that Shamir's sharing is (McEliece and Sarwate, 1981).
"""

import secrets
from collections.abc import Callable
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

PRIME = 2**31 - 1
LIMBS = 9
LIMB_BITS = 30
SECRET_SIZE = 32
SHARE_SIZE = 4 * LIMBS
MISSING = 0xFFFF_FFFF  # no residue: stands in a share's place where there is none

Words = NDArray[np.uint64]
Halves = NDArray[np.float64]

_P = np.uint64(PRIME)
_BITS = np.uint64(31)
_HALF = np.uint64(16)
_LOWER = np.uint64(0xFFFF)
_CHUNK = 256


def split(secret: bytes) -> list[int]:
    """The nine 30-bit limbs of 32 bytes read as a little-endian number, lowest first."""
    number = int.from_bytes(secret, "little")
    return [(number >> (LIMB_BITS * i)) & ((1 << LIMB_BITS) - 1) for i in range(LIMBS)]


def share(
    values: tuple[bytes, ...],
    shares: int,
    threshold: int,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> NDArray[np.uint32]:
    """Shares of several 32-byte secrets: shape (shares, 9 · secrets), row x − 1 for the holder at x.

    Any `threshold` rows determine the secrets, fewer say nothing of them. `random(n)` gives n secret bytes.
    """
    constant = np.array([limb for value in values for limb in split(value)], dtype=np.uint64)
    coefficients = _residues((threshold - 1) * len(constant), random).reshape(threshold - 1, len(constant))
    values_at = _product(_powers(shares, threshold), coefficients)
    return _reduce(values_at + constant).astype(np.uint32)


def recover(points: NDArray[np.uint32]) -> list[bytes | None]:
    """Each secret from its shares. `points`: shape (secrets, k, 9), `MISSING` where none came back.

    None where the shares do not make a 256-bit number. What comes out of wrong or too few shares is a wrong
    secret: the caller counts them and checks each secret against its commitment or public key.
    """
    found: list[bytes | None] = []
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK]
        weight = _weights(chunk[:, :, 0] == MISSING)
        y = np.where(chunk == MISSING, 0, chunk).astype(np.uint64)
        limbs = _reduce(_fold(_fold(weight[:, :, None] * y)).sum(axis=1, dtype=np.uint64))
        found.extend(_join(row) for row in limbs.tolist())
    return found


def wrong_shares(points: NDArray[np.uint32], threshold: int) -> list[int] | None:
    """Which of one secret's shares are not on its polynomial. `points`: shape (k, 9), `MISSING` where none.

    Finds up to (present − threshold) / 2 changed shares, whatever they were changed to; None where there are
    more than that, or where the dealer used no polynomial at all. Looks at the first limb that does not fit;
    call again without the rows it names until it answers with an empty list.
    """
    rows = np.flatnonzero(points[:, 0] != MISSING)
    x = [int(row) + 1 for row in rows]
    spare = len(x) - threshold
    multipliers = _multipliers(x)
    for limb in range(LIMBS):
        terms = [m * int(y) % PRIME for m, y in zip(multipliers, points[rows, limb], strict=True)]
        syndromes = []
        for _ in range(spare):
            syndromes.append(sum(terms) % PRIME)
            terms = [term * xi % PRIME for term, xi in zip(terms, x, strict=True)]
        if any(syndromes):
            locator = _shortest_recurrence(syndromes)
            # ∏(1 − x_i z) over the wrong shares: its reversal is zero exactly at their x
            wrong = [row for row, xi in zip(rows.tolist(), x, strict=True) if _value(locator[::-1], xi) == 0]
            return wrong if len(wrong) == len(locator) - 1 <= spare // 2 else None
    return []


@lru_cache(maxsize=8)
def _powers(shares: int, threshold: int) -> tuple[Halves, Halves]:
    """x^(t−1), …, x², x for x = 1 … k: the upper and the lower 16 bits of each residue, shape (k, t − 1)."""
    x = np.arange(1, shares + 1, dtype=np.uint64)
    powers = np.empty((shares, threshold - 1), dtype=np.uint64)
    power = x
    for column in reversed(range(threshold - 1)):
        powers[:, column] = power
        power = _reduce(power * x)
    return _halves(powers)


def _halves(words: Words) -> tuple[Halves, Halves]:
    return (words >> _HALF).astype(np.float64), (words & _LOWER).astype(np.float64)


def _product(powers: tuple[Halves, Halves], coefficients: Words) -> Words:
    """The matrix product mod p, below 2^34, from halves of 16 bits.

    Every sum of products is below 2^33 · t, so exact in a float for any threshold t up to 2^20.
    """
    (a, b), (c, d) = powers, _halves(coefficients)
    upper, middle, lower = (each.astype(np.uint64) for each in (a @ c, a @ d + b @ c, b @ d))
    return 2 * _reduce(upper) + _fold(_reduce(middle) << _HALF) + _fold(lower)  # 2^32 ≡ 2


def _residues(count: int, random: Callable[[int], bytes]) -> Words:
    """`count` uniform residues: 31 bits each, drawn again where they are the prime itself."""
    words = np.frombuffer(random(4 * count), dtype="<u4").astype(np.uint64) & _P
    while (over := np.flatnonzero(words == _P)).size:
        words[over] = np.frombuffer(random(4 * over.size), dtype="<u4").astype(np.uint64) & _P
    return words


def _fold(words: Words) -> Words:
    """Congruent and at most 2^31 + words / 2^31, since 2^31 ≡ 1."""
    return (words & _P) + (words >> _BITS)


def _reduce(words: Words) -> Words:
    """The residue in [0, PRIME) of any uint64."""
    folded = _fold(_fold(words))
    return np.where(folded >= _P, folded - _P, folded)


def _weights(missing: NDArray[np.bool_]) -> Words:
    """Lagrange weights at zero of the points x = 1 … k that are there; zero for the others. Shape (d, k)."""
    full, factor = _tables(missing.shape[1])
    weight = np.repeat(full[None, :], len(missing), axis=0)
    for slot in np.flatnonzero(missing.any(axis=0)):
        rows = np.flatnonzero(missing[:, slot])
        weight[rows] = _reduce(weight[rows] * factor[slot])
    return weight


@lru_cache(maxsize=8)
def _tables(shares: int) -> tuple[Words, Words]:
    """The weights with nothing missing, (−1)^(x−1)·C(k, x), and the factors (d − x)/d when d is."""
    x = range(1, shares + 1)
    full = [(-1) ** (i - 1) * comb(shares, i) % PRIME for i in x]
    factor = [[(d - i) * inverse % PRIME for i in x] for d, inverse in ((d, pow(d, -1, PRIME)) for d in x)]
    return np.array(full, dtype=np.uint64), np.array(factor, dtype=np.uint64)


def _join(limbs: list[int]) -> bytes | None:
    """The 32 bytes that `split` cuts into these limbs, or None where there are none."""
    if any(limb >> LIMB_BITS for limb in limbs):
        return None
    number = sum(limb << (LIMB_BITS * i) for i, limb in enumerate(limbs))
    return number.to_bytes(SECRET_SIZE, "little") if number.bit_length() <= 8 * SECRET_SIZE else None


def _multipliers(x: list[int]) -> list[int]:
    """The dual code's column multipliers, 1 / ∏(x_i − x_j) over j ≠ i."""
    products = []
    for xi in x:
        product = 1
        for xj in x:
            if xi != xj:
                product = product * (xi - xj) % PRIME
        products.append(pow(product, -1, PRIME))
    return products


def _shortest_recurrence(sequence: list[int]) -> list[int]:
    """Coefficients, constant (1) first, of the shortest linear recurrence (Berlekamp and Massey)."""
    current, previous = [1], [1]
    length, gap, last = 0, 1, 1
    for n, value in enumerate(sequence):
        terms = zip(current[1 : length + 1], reversed(sequence[n - length : n]), strict=False)
        discrepancy = (value + sum(c * s for c, s in terms)) % PRIME
        if discrepancy == 0:
            gap += 1
            continue
        scale = discrepancy * pow(last, -1, PRIME) % PRIME
        longer = current + [0] * (len(previous) + gap - len(current))
        for i, c in enumerate(previous):
            longer[i + gap] = (longer[i + gap] - scale * c) % PRIME
        if 2 * length <= n:
            previous, length, last, gap = current, n + 1 - length, discrepancy, 1
        else:
            gap += 1
        current = longer
    return current + [0] * (length + 1 - len(current))


def _value(coefficients: list[int], x: int) -> int:
    """The polynomial with these coefficients, constant first, at x."""
    total = 0
    for c in reversed(coefficients):
        total = (total * x + c) % PRIME
    return total
