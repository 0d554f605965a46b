"""The naive build: noise for every counter by itself, and intervals that forget it."""

import numpy as np
from diffprivlib.mechanisms import Geometric

from fa_core.metrics.intervals import normal_quantile
from fa_core.values import FloatArray, Int64Array


def naive(values: Int64Array, sensitivity: int, epsilon: float) -> FloatArray:
    """Return counters with diffprivlib's geometric noise, each with an equal share of epsilon."""
    mechanism = Geometric(epsilon=epsilon / values.size, sensitivity=sensitivity)
    noised = [mechanism.randomise(int(value)) for value in values.ravel()]
    return np.array(noised, dtype=np.float64).reshape(values.shape)


def wilson(hits: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Wilson's interval as if the counts were exact."""
    z, n = normal_quantile(0.95), np.maximum(n, 1.0)
    p = np.clip(hits / n, 0.0, 1.0)
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half
