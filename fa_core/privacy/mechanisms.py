"""The noise itself: exact integer samplers of well-kept libraries, fed by the operating system.

Both from OpenDP, which samples them in exact rational arithmetic (Canonne, Kamath & Steinke 2020,
algorithms 1 to 3): the discrete Gaussian, and the two-sided geometric, which it calls discrete Laplace.
diffprivlib's `Geometric` is not used: it inverts a floating-point logarithm of a 53-bit uniform, so its
tails stop short and its probabilities are not those of the proof. There is no seed here.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Not opendp.prelude: it imports scikit-learn and pandas, for which every device process would wait.
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_gaussian, make_laplace
from opendp.metrics import l1_distance, l2_distance
from opendp.mod import enable_features

from fa_core.values import Block, Layout

Int64Array = NDArray[np.int64]

enable_features("contrib")


def root_up(variance: Fraction) -> float:
    """Return the least float whose exact square is at least `variance` (within one step)."""
    scale = math.sqrt(variance)
    while Fraction(scale) ** 2 < variance:
        scale = math.nextafter(scale, math.inf)
    return scale


def float_up(value: Fraction) -> float:
    """Return the least float that is at least `value`."""
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


def discrete_gaussian(values: Int64Array, scale: float) -> Int64Array:
    """Return integers with exact discrete Gaussian noise added.

    Args:
        values: int64 (n,).
        scale: sigma of the noise, above 0.
    """
    if len(values) == 0:
        return values
    return np.asarray(_gaussian(scale)(values.tolist()), dtype=np.int64)


def geometric(values: Int64Array, l1: int, epsilon: Fraction) -> Int64Array:
    """Return integers with two-sided geometric noise of scale l1/epsilon added, each cell apart.

    Args:
        values: int64 (n,).
        l1: bound on what one device adds to all of them together.
        epsilon: cost of all of them together, above 0.
    """
    if len(values) == 0:
        return values
    return np.asarray(_laplace(float_up(l1 / epsilon))(values.tolist()), dtype=np.int64)


def central_noise(layout: Layout, sums: Int64Array) -> Int64Array:
    """Return the sums of a layout with every block's noise added by the server.

    Args:
        layout: compiled plan with `noise == "central"`.
        sums: int64 (layout.length,), exact.

    Raises:
        ValueError: where the layout wants distributed noise, or the vector has another length.
    """
    if layout.noise != "central":
        raise ValueError("this layout's noise is added by the devices")
    if sums.shape != (layout.length,):
        raise ValueError(f"expected {layout.length} cells")
    noised = np.empty_like(sums)
    for block in layout.blocks:
        noised[block.slice] = _noised(layout, block, sums[block.slice])
    return noised


def _noised(layout: Layout, block: Block, sums: Int64Array) -> Int64Array:
    if layout.mechanism == "geometric":
        return geometric(sums, block.l1, block.cost)
    return discrete_gaussian(sums, root_up(block.variance))


@lru_cache(maxsize=256)
def _gaussian(scale: float) -> Any:
    space = vector_domain(atom_domain(T="i64")), l2_distance(T="f64")
    return make_gaussian(*space, scale=scale)


@lru_cache(maxsize=256)
def _laplace(scale: float) -> Any:
    space = vector_domain(atom_domain(T="i64")), l1_distance(T="i64")
    return make_laplace(*space, scale=scale)
