"""Hours of listening and the events that fell into them: the sample behind every rate per hour.

A device samples hours *with their events*. A cap on events without a cap on hours would hide an
incident: the capped events would be divided by all the hours.
"""

from typing import Final

from fa_core.arrays import np
from fa_core.metrics.filters import Filter
from fa_core.metrics.kind import Int64Array
from fa_core.metrics.rows import HOUR_US, Rows, View
from fa_core.tables import LISTENING, LISTENING_KEY

MINUTES: Final = 60
"""The longest that one listening row lasts; the public length of an hour of listening."""


def sample_hours(view: View, where: Filter, also: Filter, max_hours: int) -> tuple[Rows, Int64Array]:
    """Return the listening rows, and the indices (increasing) of at most `max_hours` of them a device."""
    rows = view.rows(LISTENING.name)
    candidates = np.flatnonzero(rows.mask(where) & rows.mask(also))
    return rows, candidates[view.sample("hours", rows.device[candidates], max_hours)]


def hour_of_events(
    view: View, hours: Rows, sampled: Int64Array, source: str, of: Filter
) -> tuple[Int64Array, Int64Array]:
    """Return the events of a source in `of` that fell into sampled hours, and which hour each fell into.

    Returns:
        (event index into the source's rows, position in `sampled`), both int64 (E,).
    """
    events = view.rows(source)
    found = np.flatnonzero(events.mask(of))
    if len(sampled) == 0 or len(found) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    hour_key, event_key = _keys(hours, sampled, events, found)
    order = np.argsort(hour_key, kind="stable")
    place = np.minimum(np.searchsorted(hour_key[order], event_key), len(order) - 1)
    position = order[place]
    joined = hour_key[position] == event_key
    return found[joined], position[joined]


def minutes_of(rows: Rows, index: Int64Array) -> Int64Array:
    """Return the minutes of listening rows, int64, bounded to [0, 60]."""
    minutes = np.nan_to_num(rows.numbers("minutes")[index], nan=0.0)
    return np.clip(minutes, 0, MINUTES).astype(np.int64)


def _keys(hours: Rows, sampled: Int64Array, events: Rows, found: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return one integer a listening row and one an event, equal where the event fell into the row."""
    start = min(int(hours.hour_start[sampled].min()), int(events.hour_start[found].min()))
    hour_key = (hours.hour_start[sampled] - start) // HOUR_US
    event_key = (events.hour_start[found] - start) // HOUR_US
    span = max(int(hour_key.max()), int(event_key.max())) + 1
    hour_key = hour_key + hours.device[sampled] * span
    event_key = event_key + events.device[found] * span
    for column in LISTENING_KEY[1:]:
        if LISTENING.columns[column].type == "label":
            names = hours.labels(column)[1]
            of_hours, of_events = hours.codes(column, names), events.codes(column, names)
            base = len(names) + 1
        else:
            of_hours = np.nan_to_num(hours.numbers(column), nan=2.0).astype(np.int64)
            of_events = np.nan_to_num(events.numbers(column), nan=2.0).astype(np.int64)
            base = 3
        hour_key = hour_key * base + of_hours[sampled]
        event_key = event_key * base + of_events[found]
    return hour_key, event_key
