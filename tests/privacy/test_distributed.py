"""Shares of noise: what they cost together, in exact rationals, for any block and any cohort."""

from dataclasses import replace
from fractions import Fraction
from typing import Literal

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.privacy.distributed import (
    LEAST_VARIANCE,
    TAIL,
    certain_shares,
    noise_share,
    scales_of,
    share_of,
    shares_of,
    spent,
    tau,
    variance_in_sum,
)
from fa_core.values import Block
from tests.metrics.samples import SAMPLES, plan_of

quick = settings(max_examples=40, deadline=None, derandomize=True)
small_shares = st.fractions(0, Fraction(2, 5), max_denominator=20)


def block(cells: int, l1: int, l2_squared: int, cost: Fraction) -> Block:
    variance = Fraction(l2_squared) / (2 * cost)
    return Block("metric", (), "part", 0, cells, l1, l2_squared, l1, cost, variance)


@quick
@given(
    cells=st.integers(1, 20_000),
    l1=st.integers(1, 10**5),
    cost=st.fractions(Fraction(1, 10**6), 4, max_denominator=10**6),
    joined=st.integers(2, 100_000),
    dropout=small_shares,
    corrupt=small_shares,
    share_of_square=st.fractions(0, 1, max_denominator=100),
)
def test_what_is_spent_is_never_more_than_what_was_charged(
    cells: int,
    l1: int,
    cost: Fraction,
    joined: int,
    dropout: Fraction,
    corrupt: Fraction,
    share_of_square: Fraction,
) -> None:
    l2_squared = max(l1, int(share_of_square * l1**2))
    assume(l2_squared <= l1**2)
    one = block(cells, l1, l2_squared, cost)
    try:
        h = certain_shares(joined, dropout, corrupt)
        share = share_of(one, h)
    except Refused:
        return
    assert spent(one, share, h) <= cost
    assert share.variance >= LEAST_VARIANCE
    # What is left over is what τ might have cost at most: the noise is not larger than it must be.
    most = tau(Fraction(LEAST_VARIANCE), h) * cells / 4
    assert spent(one, share, h) + most > cost * Fraction(999, 1000)


@quick
@given(joined=st.integers(1, 1000), dropout=small_shares, corrupt=small_shares)
def test_certain_shares_are_what_remains_of_the_worst_round(
    joined: int, dropout: Fraction, corrupt: Fraction
) -> None:
    fewest = min(k for k in range(joined + 1) if k >= (1 - dropout) * joined)
    liars = min(k for k in range(joined + 1) if k >= corrupt * joined)
    if fewest - liars < 1:
        with pytest.raises(Refused, match="too few"):
            certain_shares(joined, dropout, corrupt)
    else:
        assert certain_shares(joined, dropout, corrupt) == fewest - liars


@pytest.mark.parametrize("variance", ["0.3", "1", "4", "9.7", "80", "1000"])
@pytest.mark.parametrize("h", [1, 2, 3, 50, 2000])
def test_tau_is_above_the_exact_series(variance: str, h: int) -> None:
    with mpmath.workdps(60):
        v = mpmath.mpf(variance)
        exact = 10 * mpmath.fsum(
            mpmath.exp(-2 * mpmath.pi**2 * v * mpmath.mpf(k) / (k + 1)) for k in range(1, h)
        )
        bound = tau(Fraction(variance), h)
        assert mpmath.mpf(bound.numerator) / bound.denominator >= exact
    if h > 1:
        assert bound > 0


def test_the_cost_is_that_of_the_theorem() -> None:
    """Kairouz, Liu & Steinke 2021, Theorem 5, by hand: Δ² = 36, h = 9, σ_c² = 4·4, no scale, 7 cells."""
    one = block(7, 6, 36, Fraction(1, 2))
    share = share_of(one, 9)
    signal = Fraction(share.scale**2 * 36) / (9 * share.variance)
    assert spent(one, share, 9) == (signal + tau(share.variance, 9) * 7 / 2) / 2


@pytest.mark.parametrize("h", [10, 900, 10**5])
def test_a_share_with_a_factor_is_no_larger_than_it_has_to_be(h: int) -> None:
    one = block(7, 1, 1, Fraction(1, 2))
    share = share_of(one, h)
    assert share.scale > 1
    assert one.cost * (1 - Fraction(1, 10**9)) < spent(one, share, h) <= one.cost


def test_a_block_whose_tau_eats_its_cost_is_refused() -> None:
    with pytest.raises(Refused, match="too small"):
        share_of(block(20_000, 1, 1, Fraction(1, 10**14)), 10**5)


def test_a_round_that_would_not_fit_the_ring_is_refused() -> None:
    layout = compile_plan(plan_of("count", noise="distributed"))
    assert layout.modulus_bits == 32
    with pytest.raises(Refused, match="does not fit"):
        shares_of(layout, 50_000_000, Fraction(1, 10), Fraction(1, 10))


@pytest.mark.parametrize("bits", [32, 64])
def test_the_ring_is_signed_and_keeps_room_for_the_noise(bits: Literal[32, 64]) -> None:
    """A sum may reach 2^(bits−1) only where noise of more than `TAIL` standard deviations would be needed."""
    layout, joined = compile_plan(plan_of("count", noise="distributed")), 1000

    def asked(linf: int) -> None:
        blocks = tuple(replace(each, linf=linf) for each in layout.blocks)
        shares_of(replace(layout, blocks=blocks, modulus_bits=bits), joined, Fraction(1, 10), Fraction(1, 10))

    shares = shares_of(layout, joined, Fraction(1, 10), Fraction(1, 10))
    half, factor = 2 ** (bits - 1), joined * max(share.scale for share in shares)
    tail = max(int(TAIL * (joined * share.variance) ** 0.5) + 1 for share in shares)
    assert factor < tail
    asked((half - 2 * tail) // factor)
    for too_much in (half // factor + 1, (half - 1) // factor):
        assert too_much * factor < 2**bits
        with pytest.raises(Refused, match=f"does not fit {bits} bits"):
            asked(too_much)


def test_central_layouts_have_no_shares() -> None:
    with pytest.raises(ValueError, match="not added by the devices"):
        shares_of(compile_plan(plan_of("count")), 100, Fraction(0), Fraction(0))


@pytest.mark.parametrize("kind", SAMPLES)
def test_encoding_is_exact(kind: str) -> None:
    """Factored, wrapped into the ring, added there and read back: the very sums, however many devices."""
    layout = compile_plan(plan_of(kind, noise="distributed"))
    shares = shares_of(layout, 100_000, Fraction(1, 10), Fraction(1, 10))
    scales = np.repeat(scales_of(shares), [block.cells for block in layout.blocks])
    random = np.random.default_rng(3)
    bounds = np.repeat([block.linf for block in layout.blocks], [block.cells for block in layout.blocks])
    vectors = random.integers(-bounds, bounds + 1, (50, layout.length))
    ring = np.uint32 if layout.modulus_bits == 32 else np.uint64
    signed = np.int32 if layout.modulus_bits == 32 else np.int64
    total = np.zeros(layout.length, ring)
    for vector in vectors:
        total = total + (vector * scales).astype(ring)
    decoded = total.view(signed).astype(np.int64)
    np.testing.assert_array_equal(decoded % scales, 0)
    np.testing.assert_array_equal(decoded // scales, vectors.sum(axis=0))
    # The ring holds the largest cohort at its bound, and 40 standard deviations of noise on top.
    for block, share, variance in zip(layout.blocks, shares, variance_in_sum(shares, 100_000), strict=True):
        most = 100_000 * block.linf * share.scale + 40 * variance**0.5 * share.scale
        assert most < 2 ** (layout.modulus_bits - 1)


def test_a_share_leaves_its_signal_where_it_was() -> None:
    """A share is the factored counts and noise around zero: the mean of 400 is within 7 standard errors
    (false alarms under 1e-10)."""
    layout = compile_plan(plan_of("count", noise="distributed", epsilon=4))
    shares = shares_of(layout, 1000, Fraction(1, 10), Fraction(1, 10))
    vector = np.arange(layout.length, dtype=np.int64) % 5
    drawn = np.stack([noise_share(layout, vector, shares) for _ in range(400)])
    for one, share in zip(layout.blocks, shares, strict=True):
        error = drawn[:, one.slice].mean() - (vector[one.slice] * share.scale).mean()
        assert abs(error) < 7 * share.sigma / (400 * one.cells) ** 0.5
