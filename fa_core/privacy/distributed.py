"""Noise that no single party adds: each device adds a share, and the sum carries enough.

Of n devices that joined, at least ⌈(1−f)n⌉ must be counted, and at most ⌈γn⌉ may work with the server
and leave their noise out, so h = ⌈(1−f)n⌉ − ⌈γn⌉ honest shares are certain. A sum of h discrete
Gaussians of variance σ_c² is close to one of variance h·σ_c²: it is ½ε²-concentrated DP with

    ε² = Δ₂²/(h·σ_c²) + τ·d/2,    τ = 10·Σ_{k=1}^{h−1} exp(−2π²·σ_c²·k/(k+1))

for d cells (Kairouz, Liu & Steinke 2021, "The Distributed Discrete Gaussian Mechanism", Theorem 5).
Counts are small next to σ_c ≥ 2, so every block is first multiplied by a public power of two.
"""

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fa_core.errors import Refused
from fa_core.privacy.mechanisms import discrete_gaussian, root_up
from fa_core.values import Block, Layout

Int64Array = NDArray[np.int64]

LEAST_VARIANCE: Final = 4
"""σ_c² of a device's share is never under this (σ_c ≥ 2), which makes τ vanish next to the rest."""

TAIL: Final = 40
"""Headroom kept for the noise of a sum, in standard deviations: exceeded with probability below e^−800."""


@dataclass(frozen=True, slots=True)
class Share:
    """One device's share of a block's noise: the public factor, and sigma in factored units."""

    scale: int
    sigma: float

    @property
    def variance(self) -> Fraction:
        """Exact variance of one share, in factored units."""
        return Fraction(self.sigma) ** 2


def certain_shares(joined: int, dropout: Fraction, corrupt: Fraction) -> int:
    """Return h = ⌈(1−f)n⌉ − ⌈γn⌉, how many honest shares are in every sum that may be released.

    Raises Refused where that is none.

    >>> certain_shares(1000, dropout=Fraction(1, 10), corrupt=Fraction(1, 10))   # honest devices that stay
    800
    """
    h = math.ceil((1 - dropout) * joined) - math.ceil(corrupt * joined)
    if h < 1:
        raise Refused(
            f"{joined} devices are too few: with dropout {float(dropout)} and corrupt {float(corrupt)} "
            "no honest share of the noise is certain; invite more devices or lower the two shares"
        )
    return h


def tau(variance: Fraction, h: int) -> Fraction:
    """Return an upper bound on τ = 10·Σ_{k=1}^{h−1} exp(−2π²·variance·k/(k+1)), exact and rounded up.

    Every term is at most the first, exp(−π²·variance).
    """
    # 3.14159 < π makes the exponential larger; 1e-12 covers the rounding of exp.
    first = math.exp(-(3.14159**2) * float(variance) * (1 - 1e-12)) * (1 + 1e-12)
    # Where it would underflow, the smallest normal float is still above it.
    return 10 * (h - 1) * Fraction(max(first, sys.float_info.min))


def spent(block: Block, share: Share, h: int) -> Fraction:
    """Return the rho that a block costs with these shares: ½[(s·Δ₂)²/(h·σ_c²) + τ·d/2], exact."""
    signal = Fraction(share.scale**2 * block.l2_squared) / (h * share.variance)
    return (signal + tau(share.variance, h) * block.cells / 2) / 2


def share_of(block: Block, h: int) -> Share:
    """Return the smallest share for which the block costs no more than it was charged.

    Raises Refused where no factor up to 2^20 reaches σ_c ≥ 2.
    """
    for power in range(21):
        scale = 2**power
        left = 2 * block.cost - tau(Fraction(LEAST_VARIANCE), h) * block.cells / 2
        if left <= 0:
            break
        variance = Fraction(scale**2 * block.l2_squared) / (h * left)
        if variance >= LEAST_VARIANCE:
            share = Share(scale, root_up(variance))
            if spent(block, share, h) > block.cost:
                raise AssertionError("a share costs more than its block was charged")
            return share
    raise Refused("the noise of a device's share would be too small to add up safely")


def shares_of(layout: Layout, joined: int, dropout: Fraction, corrupt: Fraction) -> tuple[Share, ...]:
    """Return every block's share for a roster of `joined` devices; the same on every device and server.

    Raises Refused where the sum of so many would not fit the layout's ring.
    """
    shares = shares_outside_a_ring(layout, joined, dropout, corrupt)
    for block, share in zip(layout.blocks, shares, strict=True):
        tail = TAIL * math.sqrt(joined * share.variance)
        if joined * block.linf * share.scale + tail >= 2 ** (layout.modulus_bits - 1):
            raise Refused(
                f"the sum of {joined} devices does not fit {layout.modulus_bits} bits; invite fewer"
            )
    return shares


def shares_outside_a_ring(
    layout: Layout, joined: int, dropout: Fraction, corrupt: Fraction
) -> tuple[Share, ...]:
    """Return every block's share where the sum is formed in whole numbers, without masks: in a simulation."""
    if layout.noise != "distributed" or layout.kappa is not None:
        raise ValueError("this layout's noise is not added by the devices")
    h = certain_shares(joined, dropout, corrupt)
    return tuple(share_of(block, h) for block in layout.blocks)


def noise_share(layout: Layout, vector: Int64Array, shares: tuple[Share, ...]) -> Int64Array:
    """Return a device's bounded counts, factored, with its share of the noise added.

    Args:
        layout: compiled plan with distributed noise.
        vector: int64 (layout.length,), bounded counts; or (devices, layout.length), those of several.
        shares: from `shares_of` for the signed roster's size.
    """
    result = np.empty(vector.shape, np.int64)
    for block, share in zip(layout.blocks, shares, strict=True):
        cells = vector[..., block.slice] * share.scale
        result[..., block.slice] = discrete_gaussian(cells.ravel(), share.sigma).reshape(cells.shape)
    return result


def simulated_noise(layout: Layout, total: Int64Array, shares: tuple[Share, ...], counted: int) -> Int64Array:
    """Return a sum, factored, with noise as large as that of `counted` devices' shares: for simulations.

    One discrete Gaussian of their variance in place of so many draws: their sum has nearly its distribution
    (Kairouz, Liu & Steinke 2021, Theorem 5, bound the difference), and a real release never comes this way.

    Args:
        total: int64 (layout.length,), exact.
    """
    result = np.empty(layout.length, np.int64)
    for block, share in zip(layout.blocks, shares, strict=True):
        result[block.slice] = discrete_gaussian(
            total[block.slice] * share.scale, root_up(counted * share.variance)
        )
    return result


def scales_of(shares: tuple[Share, ...]) -> Int64Array:
    """Return each block's public factor, int64 (blocks,)."""
    return np.array([share.scale for share in shares], np.int64)


def variance_in_sum(shares: tuple[Share, ...], counted: int) -> NDArray[np.float64]:
    """Return each block's noise variance in a sum of `counted` devices, in unfactored squared cells."""
    return np.array([float(counted * share.variance / share.scale**2) for share in shares])
