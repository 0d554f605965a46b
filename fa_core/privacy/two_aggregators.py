"""Noise of a sum that two aggregators form: each adds its own to its share, and either is enough alone.

The helper's noise has each block's variance σ², for which the block is charged ρ; the leader's has κσ².
Nothing depends on how many devices were counted or who they are, so neither dropouts nor puppets weaken it.
Who faces what, as zero-concentrated differential privacy (rho):

    a reader of the release, both aggregators honest    σ²(1 + κ)    ρ/(1 + κ)
    the leader, who knows its own noise                 σ²           ρ
    the helper, who knows its own noise                 κσ²          ρ/κ
    both together                                       every report

The charge is ρ.
"""

from fractions import Fraction
from typing import Literal

import numpy as np

from fa_core.privacy.mechanisms import discrete_gaussian, root_up
from fa_core.values import FloatArray, Int64Array, Layout

Role = Literal["leader", "helper"]


def noise_of(layout: Layout, role: Role) -> Int64Array:
    """Return one draw of an aggregator's noise, int64 (layout.length,), from the operating system."""
    factor = kappa_of(layout) if role == "leader" else Fraction(1)
    noise = np.empty(layout.length, np.int64)
    for block in layout.blocks:
        noise[block.slice] = discrete_gaussian(
            np.zeros(block.cells, np.int64), root_up(factor * block.variance)
        )
    return noise


def variance_in_release(layout: Layout) -> FloatArray:
    """Return each block's noise variance in a release, float64 (blocks,), in squared cells: σ²(1 + κ)."""
    whole = 1 + kappa_of(layout)
    return np.array([float(whole * block.variance) for block in layout.blocks])


def kappa_of(layout: Layout) -> Fraction:
    """Return a layout's kappa. Raises ValueError where two aggregators do not form its sum."""
    if layout.kappa is None:
        raise ValueError("two aggregators do not form this layout's sum")
    return layout.kappa
