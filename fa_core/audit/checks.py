"""The checks of one pipeline, from what it releases of two fleets that differ in the worst device.

Every run makes two releases, of two windows. The worst device has as many events as may count; in the second
window all of them are of the other kind, so that noise used twice would cancel and leave the device bare.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from fa_core.audit.pipelines import Pipeline, Window
from fa_core.privacy.accounting import epsilon_for
from fa_core.privacy.audit import epsilon_found, fit, fresh, geometric_ratio, mu_found, spread
from fa_core.values import FloatArray, Int64Array

FALSE_ALARM: Final = 1e-9
"""Chance that one check fails for nothing. With fewer than 40 of them, the audit's is below 1e-6 even where
the approximations in a check's tail are off by a factor of ten."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one pipeline: whether it found nothing wrong, and what it found, for a person."""

    name: str
    passed: bool
    found: str
    claim: str


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Noise and scores of many pairs of releases; noise float64 (runs, cells), scores float64 (runs,)."""

    noise: tuple[FloatArray, FloatArray]
    single: FloatArray
    joint: FloatArray


def checks(pipeline: Pipeline, pairs: int, batches: int) -> tuple[Check, ...]:
    """Return every check of a pipeline but that of its intervals.

    Args:
        pairs: pairs of releases of each fleet in a batch.
        batches: each counts anew.
    """
    worst = [_worst(pipeline, window) for window in (0, 1)]
    without = _draw(pipeline, False, worst, pairs, batches)
    present = _draw(pipeline, True, worst, pairs, batches)
    first = np.concatenate((without.noise[0], present.noise[0]))
    second = np.concatenate((without.noise[1], present.noise[1]))
    noise = np.concatenate((first, second))
    whole = bool((noise == np.rint(noise)).all())
    return (
        _bounds(pipeline, worst),
        Check("whole numbers", whole, "all whole" if whole else "fractions", "whole numbers only"),
        _loss("loss", pipeline, without.single, present.single, 1),
        _loss("loss over two releases", pipeline, without.joint, present.joint, 2),
        *_shape(pipeline, np.rint(noise).astype(np.int64)),
        _fresh(pipeline, first, second),
    )


def _shape(pipeline: Pipeline, noise: Int64Array) -> tuple[Check, Check]:
    """Return the checks of the noise's variance and of its distribution, block by block, the worst shown.

    `noise` is int64 (releases, cells).
    """
    layout = pipeline.layout
    each = FALSE_ALARM / len(layout.blocks)
    blocks = [
        (f"{block.metric}.{block.part}", noise[:, block.slice], variance)
        for block, variance in zip(layout.blocks, pipeline.stated, strict=True)
    ]
    spreads = [spread(part, stated, layout.mechanism, each, name) for name, part, stated in blocks]
    fits = [fit(part, stated, layout.mechanism, each, name) for name, part, stated in blocks]
    furthest = max(spreads, key=lambda check: abs(check.found - 1) / (check.high - check.low))
    worst = max(fits, key=lambda check: check.found / check.high)
    return (
        Check(
            "variance",
            all(check.passes for check in spreads),
            f"{furthest.found:.4f} of what is stated ({furthest.name})",
            f"{furthest.low:.4f} to {furthest.high:.4f}",
        ),
        Check(
            "fit",
            all(check.passes for check in fits),
            f"chi-square {worst.found:.1f} ({worst.name})",
            f"{layout.mechanism.replace('_', ' ')}, under {worst.high:.1f}",
        ),
    )


def _fresh(pipeline: Pipeline, first: FloatArray, second: FloatArray) -> Check:
    """Return the check that each release's noise is its own, the two of a run one after the other."""
    in_turn = np.stack((first, second), axis=1).reshape(-1, pipeline.layout.length)
    found = fresh(in_turn / np.sqrt(pipeline.variance), FALSE_ALARM)
    return Check(
        "independence", found.passes, f"correlation {found.found:.1f} sd from 0", f"under {found.high:.1f}"
    )


def _worst(pipeline: Pipeline, window: Window) -> FloatArray:
    """Return what the worst device adds to the sum, in released units, float64 (cells,)."""
    there = pipeline.count(True, window).sum(axis=0) - pipeline.count(False, window).sum(axis=0)
    added: FloatArray = (there * pipeline.scales).astype(np.float64)
    return added


def _draw(pipeline: Pipeline, there: bool, worst: Sequence[FloatArray], pairs: int, batches: int) -> _Drawn:
    """Draw pairs of releases with or without the worst device, counting anew for each batch."""
    noise: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    single, joint = [], []
    for _ in range(batches):
        exact = [pipeline.count(False, window).sum(axis=0) * pipeline.scales for window in (0, 1)]
        counts = [pipeline.count(there, window) for window in (0, 1)]
        values = pipeline.release(counts[0], counts[1], pairs)
        errors = [values[window] - counts[window].sum(axis=0) * pipeline.scales for window in (0, 1)]
        seen = [values[window] - exact[window] for window in (0, 1)]
        noise[0].append(errors[0])
        noise[1].append(errors[1])
        single += [_score(pipeline, seen[window], worst[window], pipeline.variance) for window in (0, 1)]
        joint.append(
            ((seen[0] - seen[1]) @ ((worst[0] - worst[1]) / (2 * pipeline.variance)))
            - float(((worst[0] - worst[1]) ** 2 / (4 * pipeline.variance)).sum())
        )
    return _Drawn(
        (np.concatenate(noise[0]), np.concatenate(noise[1])), np.concatenate(single), np.concatenate(joint)
    )


def _score(pipeline: Pipeline, seen: FloatArray, worst: FloatArray, variance: FloatArray) -> FloatArray:
    """Return the log-likelihood ratio, by the claimed noise, of the device having been there, (runs,)."""
    if pipeline.layout.mechanism == "geometric":
        rate = np.array([-math.log(geometric_ratio(Fraction(each))) for each in variance])
        ratio: FloatArray = (np.abs(seen) - np.abs(seen - worst)) @ rate
        return ratio
    linear: FloatArray = (seen - worst / 2) @ (worst / variance)
    return linear


def _loss(name: str, pipeline: Pipeline, without: FloatArray, present: FloatArray, releases: int) -> Check:
    """Return the check that a threshold on the scores distinguishes the two fleets no better than claimed."""
    layout = pipeline.layout
    delta, half = float(layout.delta), FALSE_ALARM / 2
    least, mu = epsilon_found(without, present, delta, half), mu_found(without, present, half)
    if layout.accounting == "pure":
        claim = releases * float(layout.epsilon)
        most = 2 * float(norm.isf(1 / (1 + math.exp(claim))))  # where the two trade-off curves touch
        shown = least
    else:
        claim, most = epsilon_for(releases * layout.cost, layout.delta), math.sqrt(2 * releases * layout.cost)
        shown = max(least, epsilon_of_mu(mu, delta))
    found = f"epsilon at least {max(shown, 0.0):.2f} (mu {max(mu, 0.0):.3f})"
    return Check(name, least <= claim and mu <= most, found, f"{claim:.2f} (mu {most:.3f})")


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Return the epsilon that mu-GDP comes to at `delta` (Dong, Roth & Su 2022, corollary 2.13)."""

    def excess(epsilon: float) -> float:
        far = math.exp(epsilon + float(norm.logcdf(-epsilon / mu - mu / 2)))
        return float(norm.cdf(-epsilon / mu + mu / 2)) - far - delta

    if mu <= 0 or excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, mu * mu / 2 + 12 * mu))


def _bounds(pipeline: Pipeline, worst: Sequence[FloatArray]) -> Check:
    """Check that what the worst device adds keeps every block's norms."""
    over = []
    for added in worst:
        counts = added / pipeline.scales
        for block in pipeline.layout.blocks:
            part = counts[block.slice]
            if np.abs(part).sum() > block.l1 or (part**2).sum() > block.l2_squared:
                over.append(f"{block.metric}.{block.part}")
    found = "kept" if not over else f"over in {', '.join(sorted(set(over)))}"
    return Check("bounds", not over, found, "kept")
