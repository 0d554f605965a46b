"""What the device may learn from: moments with a weak label, as windows, few and not for long.

A label says what happened next (`clients.runtime.labels`). Such labels are sometimes wrong, or made to be:
somebody can say a near miss again and again. So what counts of a session, a day and a source is capped.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from clients.models.head import EMBEDDING_SIZE
from clients.personal.adapter import Windows
from fa_core.errors import BadInput

A_SESSION: Final = 2
A_DAY: Final = 5
A_SOURCE: Final = 12
"""How many moments count of one listening session, of one day (UTC), and of one source of labels."""

KEPT: Final = 60
TIME_TO_LIVE: Final = timedelta(days=30)
WINDOWS: Final = 3

WANTED: Final = frozenset({"follow_up", "retry", "explicit_yes"})
UNWANTED: Final = frozenset({"cancel", "explicit_no"})
"""Sources of labels that are learned from. Silence is none of them: nobody may have been asked."""


@dataclass(frozen=True)
class Moment:
    """One moment: when it was, in which session, what it was concluded from, and its windows (at most 3)."""

    at: datetime
    session: str
    source: str
    windows: Windows

    @property
    def wanted(self) -> bool:
        """Whether the device should have woken."""
        return self.source in WANTED


def countable(moments: Iterable[Moment], now: datetime) -> tuple[Moment, ...]:
    """Return the moments that count, oldest first: in their time to live, and within each cap the newest."""
    sessions: Counter[str] = Counter()
    days: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    kept = []
    for each in sorted(moments, key=lambda found: found.at, reverse=True):
        day = each.at.date().isoformat()
        known = each.source in WANTED | UNWANTED and now - TIME_TO_LIVE < each.at <= now
        room = sessions[each.session] < A_SESSION and days[day] < A_DAY and sources[each.source] < A_SOURCE
        if known and room:
            sessions[each.session] += 1
            days[day] += 1
            sources[each.source] += 1
            kept.append(each)
    return tuple(reversed(kept))


def encode(windows: Windows) -> bytes:
    """Return the bytes of up to three windows: rows of 97 numbers, logit first; float16, little-endian."""
    rows = np.column_stack([windows.base, windows.features])[:WINDOWS]
    return rows.astype("<f2").tobytes()


def decode(data: bytes) -> Windows:
    """Return the windows in `encode`'s bytes. Raises BadInput for others."""
    row = 2 * (EMBEDDING_SIZE + 1)
    if not data or len(data) % row or len(data) > WINDOWS * row:
        raise BadInput("these bytes are no windows of a moment")
    rows = np.frombuffer(data, "<f2").reshape(-1, EMBEDDING_SIZE + 1).astype(np.float64)
    if not np.isfinite(rows).all():
        raise BadInput("these bytes are no windows of a moment")
    return Windows(rows[:, 0], rows[:, 1:])
