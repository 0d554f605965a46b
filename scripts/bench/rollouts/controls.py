"""Gates that are wrong in a known way, beside the gate: what each rolls back, (looks, rollouts)."""

from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fa_core.rollout.gate import outcomes
from fa_core.rollout.sequential import Design, Sums, progress

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_NORMAL = NormalDist()


def gate(design: Design, sums: Sums) -> tuple[Bools, Bools]:
    """Return what the gate itself rolls back and ships."""
    return outcomes(progress(design, sums))


def naive(design: Design, sums: Sums) -> tuple[Bools, Bools]:
    """Return what a 95% interval of each accent rolls back, over all moments so far; it ships nothing."""
    n = np.cumsum(sums.moments, axis=0)
    variance = np.cumsum(sums.variance + sums.noise_difference, axis=0)
    z = (np.cumsum(sums.difference, axis=0) - design.rollback_above * n) / np.sqrt(variance)
    return _over(z, _NORMAL.inv_cdf(0.975))


def alone(design: Design, sums: Sums) -> tuple[Bools, Bools]:
    """Return what each release rolls back by itself, by 95% intervals that hold for all accents together; it
    ships nothing."""
    z = (sums.difference - design.rollback_above * sums.moments) / np.sqrt(
        sums.variance + sums.noise_difference
    )
    return _over(z, _NORMAL.inv_cdf(1.0 - 0.025 / len(design.groups)))


def added(design: Design, sums: Sums) -> tuple[Bools, Bools]:
    """Return what the gate would do if sampling were fresh in each look, as noise is: its variances added."""
    fresh = replace(
        sums,
        variance=np.zeros_like(sums.variance),
        variance_sd=np.zeros_like(sums.variance),
        noise_difference=sums.noise_difference + sums.variance,
    )
    return gate(design, fresh)


def labelled(design: Design, sums: Sums) -> tuple[Bools, Bools]:
    """Return what the gate would do if nobody counted the moments that only the candidate heard."""
    nothing = np.zeros_like(sums.unlabelled)
    return gate(
        design, replace(sums, unlabelled=nothing, noise_unlabelled=nothing, variance_unlabelled=nothing)
    )


def _over(z: Floats, quantile: float) -> tuple[Bools, Bools]:
    with np.errstate(invalid="ignore"):
        back = np.logical_or.accumulate((z[..., :-1] >= quantile).any(axis=-1), axis=0)
    return back, np.zeros_like(back)


GATES: Final[dict[str, Callable[[Design, Sums], tuple[Bools, Bools]]]] = {
    "gate": gate, "naive": naive, "alone": alone, "added": added, "labelled": labelled
}  # fmt: skip
"""The gate and the wrong ones, by name."""
