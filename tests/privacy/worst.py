"""The device that weighs most: the same event, a missed wake, over and over."""

import pyarrow as pa

from fa_core.tables import WAKE_EVENTS
from tests.metrics.samples import UNTIL


def misses(events: int) -> pa.Table:
    """Return `events` missed wakes of one hour, in a quiet place."""
    columns = {
        "time": [UNTIL.replace(hour=1)] * events,
        "wake_word": ["okay_nabu"] * events,
        "model_version": ["a"] * events,
        "score": [0.1] * events,
        "accepted": [False] * events,
        "outcome": ["false_reject"] * events,
        "label_source": ["retry"] * events,
        "snr_db": [25.0] * events,
        "playback": [False] * events,
    }
    return pa.table(columns).cast(WAKE_EVENTS.arrow_schema())
