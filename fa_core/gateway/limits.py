"""Rate limits: one token bucket a caller, held in the memory of one worker."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

REMEMBERED = 100_000
"""Buckets kept; the one unused for longest makes room, and would be nearly full again."""


class Limiter:
    """Lets each caller through `burst` times at once and `rate` times a second after that."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic, kept: int = REMEMBERED
    ) -> None:
        self._rate, self._burst, self._clock, self._kept = rate, burst, clock, kept
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def allows(self, who: Hashable) -> bool:
        """Return whether the caller may go on now, and count it."""
        now = self._clock()
        level, at = self._buckets.pop(who, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        allowed = level >= 1.0
        self._buckets[who] = (level - 1.0 if allowed else level, now)
        if len(self._buckets) > self._kept:
            self._buckets.popitem(last=False)
        return allowed
