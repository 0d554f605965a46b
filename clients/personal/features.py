"""A moment as training plans count it (`fa_core.tables.MOMENTS`): 97 numbers of the base's highest window."""

from typing import Final

import numpy as np

from clients.personal.adapter import Floats, Windows

LOGIT_SCALE: Final = 10.0
"""The base's logit is divided by this, so that it is as large as the other features."""


def vector_of(windows: Windows) -> Floats:
    """Return the window of the base's highest logit as float64 (97,): its features, then its logit."""
    at = int(np.argmax(windows.base))
    return np.append(windows.features[at], windows.base[at] / LOGIT_SCALE)
