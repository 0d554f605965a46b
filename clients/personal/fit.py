"""Fitting an adapter: logistic regression beside the base's logit, drawn towards the base.

    minimise  Σᵢ wᵢ·log(1 + exp(−yᵢ(bᵢ + xᵢ·v + c))) + λ/2·(|v|² + c²),   Σᵢ wᵢ = 2

yᵢ = ±1, bᵢ is the base's logit and xᵢ the window's 96 numbers. Moments to wake for have a weight of 1 in all,
and those not to as well, so one moment among n has 1/n of its kind's say. The function is strictly convex:
Newton's method with step halving finds its one minimum, and nothing is drawn at random.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from clients.personal.adapter import Floats, Step, Windows

PENALTY: Final = 0.05
"""λ; chosen on development voices (`scripts/bench/personal.py --choose`)."""

_STEPS: Final = 50
_TOLERANCE: Final = 1e-9


def fit(wanted: Sequence[Windows], unwanted: Sequence[Windows], penalty: float = PENALTY) -> Step:
    """Return the step learned from moments to wake for, and from those not to; neither may be empty."""
    sides = [np.full(len(each), value) for each, value in ((wanted, 1.0), (unwanted, -1.0))]
    moments = [*wanted, *unwanted]
    sizes = np.array([len(each.base) for each in moments])
    share = np.concatenate([np.full(len(side), 1.0 / len(side)) for side in sides]) / sizes
    y, weights = np.repeat(np.concatenate(sides), sizes), np.repeat(share, sizes)
    base = np.concatenate([each.base for each in moments])
    features = np.concatenate([each.features for each in moments])
    found = _newton(np.hstack([features, np.ones((len(base), 1))]), y, weights, base, penalty)
    return Step(found[:-1], float(found[-1]))


def _newton(x: Floats, y: Floats, weights: Floats, base: Floats, penalty: float) -> Floats:
    found = np.zeros(x.shape[1])
    loss = _loss(found, x, y, weights, base, penalty)
    for _ in range(_STEPS):
        wrong = 0.5 * (1.0 - np.tanh(0.5 * y * (base + x @ found)))
        gradient = penalty * found - x.T @ (weights * y * wrong)
        if np.abs(gradient).max() < _TOLERANCE:
            break
        curvature = (x.T * (weights * wrong * (1.0 - wrong))) @ x + penalty * np.eye(len(found))
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (after := _loss(found - size * step, x, y, weights, base, penalty)) > loss and size > 1e-9:
            size /= 2.0
        if after > loss:
            break
        found, loss = found - size * step, after
    return found


def _loss(at: Floats, x: Floats, y: Floats, weights: Floats, base: Floats, penalty: float) -> float:
    return float(weights @ np.logaddexp(0.0, -y * (base + x @ at)) + penalty / 2.0 * at @ at)
