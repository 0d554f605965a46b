"""The adapter: 97 numbers beside a frozen head.

The head's weights W (frames × 96) change by u·vᵀ. The temporal shape u is frozen to the first left singular
vector of W; the direction v (96) and a bias b are learned. So a window X of embeddings changes its logit by
uᵀX·v + b, which is linear in what is learned: fits are convex, sums make sense, and 96 numbers a window are
all that has to be kept of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.models.adapters import Adapters
from clients.models.head import EMBEDDING_SIZE, Head

Floats = NDArray[np.float64]

SCALE = 100.0
"""Features are divided by this, which brings them near 1 (their standard deviation is about 35)."""


@dataclass(frozen=True)
class Windows:
    """Consecutive windows of one stretch of audio, oldest first, as an adapter sees them.

    Attributes:
        base: the frozen head's logits, (k,).
        features: uᵀX / SCALE of each window, (k, 96).
    """

    base: Floats
    features: Floats

    def peak(self, around: int) -> "Windows":
        """Return the window of the base's highest logit and up to `around` on each side; none of none."""
        if not self.base.size:
            return self
        at = int(np.argmax(self.base))
        near = slice(max(0, at - around), at + around + 1)
        return Windows(self.base[near], self.features[near])


@dataclass(frozen=True)
class Step:
    """What is added to a logit: direction v, (96,), of scaled features, and bias b. All 0: the base."""

    direction: Floats
    bias: float

    def logits(self, windows: Windows) -> Floats:
        """Return the adapted logits, (k,)."""
        return windows.base + windows.features @ self.direction + self.bias

    @property
    def norm(self) -> float:
        """The length of the whole step, bias included."""
        return float(np.sqrt(self.direction @ self.direction + self.bias**2))


def temporal_shape(head: Head) -> Floats:
    """Return u, (frames,): of unit length, and of the sign that makes its sum positive.

    A head with a group's adapter in it keeps the u of the head below, so the features of both are the same.
    """
    if head.shape is not None:
        return head.shape.astype(np.float64)
    left, _, _ = np.linalg.svd(head.weights.astype(np.float64), full_matrices=False)
    shape = left[:, 0]
    return shape if shape.sum() >= 0 else -shape


def windows_of(head: Head, embeddings: NDArray[np.float32], shape: Floats | None = None) -> Windows:
    """Return every full window of embeddings (n, 96): k = max(0, n − frames + 1).

    `shape` is the head's temporal shape, for who asks 12 times a second.
    """
    frames = len(head.weights)
    if len(embeddings) < frames:
        return Windows(np.empty(0), np.empty((0, EMBEDDING_SIZE)))
    view = np.lib.stride_tricks.sliding_window_view(embeddings, (frames, EMBEDDING_SIZE))[:, 0]
    logits = np.einsum("kfe,fe->k", view, head.weights, dtype=np.float64) + head.bias
    shape = temporal_shape(head) if shape is None else shape
    return Windows(logits, np.einsum("kfe,f->ke", view, shape, dtype=np.float64) / SCALE)


def group_step(adapters: Adapters, value: str | None) -> Step:
    """Return the step that a group's adapter is, for devices whose fact has this value."""
    at = adapters.at(value)
    return Step(adapters.directions[at].astype(np.float64) * SCALE, float(adapters.biases[at]))


def adapted(head: Head, step: Step, threshold: float, version: str) -> Head:
    """Return the head with a step added: it has `Step.logits`, and wakes over the logit `threshold`."""
    weights = head.weights + np.outer(temporal_shape(head), step.direction / SCALE).astype(np.float32)
    score = float(0.5 * (1.0 + np.tanh(0.5 * threshold)))
    return Head(head.wake_word, version, score, weights, head.bias + step.bias)
