"""Shares: any t of them open a secret, fewer say nothing, and changed ones are found."""

import os
import random
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from fa_core.secagg import shamir
from fa_core.secagg.shamir import LIMBS, MISSING, PRIME


def deal(secrets: list[bytes], k: int, t: int) -> NDArray[np.uint32]:
    """Shares of shape (secrets, k, 9)."""
    rows = shamir.share(tuple(secrets), k, t).reshape(k, len(secrets), LIMBS)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


@pytest.mark.parametrize("seed", range(60))
def test_any_enough_shares_open_every_secret_and_changed_ones_are_named(seed: int) -> None:
    choice = random.Random(seed)
    k = choice.randint(1, 60)
    t = choice.randint(1, k)
    secrets = [os.urandom(32) for _ in range(3)]
    points = deal(secrets, k, t)
    gone = choice.sample(range(k), choice.randint(0, k - t))
    points[:, gone] = MISSING
    assert shamir.recover(points) == secrets
    there = [x for x in range(k) if x not in gone]
    liars = sorted(choice.sample(there, choice.randint(0, (len(there) - t) // 2)))
    changed = points[0].copy()
    for liar in liars:
        changed[liar] = (changed[liar] + choice.randint(1, PRIME - 1)) % PRIME
    assert shamir.wrong_shares(changed, t) == liars
    changed[liars] = MISSING
    assert shamir.recover(changed[None]) == [secrets[0]]


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\x80", b"\x01" + bytes(31)])
def test_extreme_secrets(secret: bytes) -> None:
    assert shamir.recover(deal([secret], 5, 3)) == [secret]


def test_more_wrong_shares_than_can_be_identified_are_not_guessed() -> None:
    points = deal([os.urandom(32)], 12, 6)[0]
    for liar in (0, 3, 7, 9):
        points[liar] = (points[liar] + liar + 1) % PRIME
    assert shamir.wrong_shares(points, 6) is None


def test_a_dealer_without_a_polynomial_is_not_repaired() -> None:
    noise = np.random.default_rng(1).integers(0, PRIME, size=(12, LIMBS), dtype=np.uint32)
    assert shamir.wrong_shares(noise, 6) is None


def test_shares_that_make_no_256_bit_number() -> None:
    top = np.zeros((1, 3, LIMBS), dtype=np.uint32)
    top[:, :, LIMBS - 1] = 1 << 16
    assert shamir.recover(top) == [None]
    top[:, :, LIMBS - 1] = 0
    top[:, :, 0] = 1 << 30
    assert shamir.recover(top) == [None]


def test_recovery_agrees_with_lagrange_in_plain_integers() -> None:
    k, t = 17, 9
    points = deal([os.urandom(32)], k, t)
    points[:, [0, 4, 11]] = MISSING
    rows = [x for x in range(k) if x not in (0, 4, 11)][:t]
    number = 0
    for limb in range(LIMBS):
        total = 0
        for i in rows:
            weight = 1
            for j in rows:
                if i != j:
                    weight = weight * (j + 1) * pow(j - i, -1, PRIME) % PRIME
            total += weight * int(points[0, i, limb])
        number |= (total % PRIME) << (30 * limb)
    assert shamir.recover(points) == [number.to_bytes(32, "little")]


def test_coefficients_are_uniform_residues() -> None:
    """The prime itself is drawn again; the rest is 31 bits as they come."""
    stream = iter([b"\xff\xff\xff\xff" * 3 + b"\x01\x00\x00\x80", b"\x05\x00\x00\x00" * 3])
    asked = []

    def random(size: int) -> bytes:
        asked.append(size)
        return next(stream)

    assert shamir._residues(4, random).tolist() == [5, 5, 5, 1]
    assert asked == [16, 12]


def test_shares_of_a_fixed_secret_spread_over_the_field() -> None:
    """Chi-square of 4,000 shares in 16 bins; a false alarm has probability 1e-8 (15 degrees: 68.1)."""
    bins = Counter(int(shamir.share((bytes(32),), 1, 2)[0, 0]) >> 27 for _ in range(4000))
    assert sum((bins[b] - 250) ** 2 / 250 for b in range(16)) < 68.1
