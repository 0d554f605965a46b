"""What a device may record: the columns of each table, their types and their closed domains.

There is no free text anywhere. A plan is checked against these tables, a device's store is created
from them, and a fleet directory is validated against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import pyarrow as pa

ColumnType = Literal["time", "label", "number", "integer", "boolean"]

ARROW_TYPES: Mapping[ColumnType, pa.DataType] = MappingProxyType(
    {
        "time": pa.timestamp("us", tz="UTC"),
        "label": pa.dictionary(pa.int32(), pa.string()),
        "number": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
    }
)


@dataclass(frozen=True)
class Column:
    """One column: its type, and where it has them its closed domain or its inclusive bounds and unit."""

    type: ColumnType
    domain: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Source:
    """One device table. `columns` excludes `device_id`, which a fleet directory adds as its first column."""

    name: str
    columns: Mapping[str, Column]

    def arrow_schema(self, *, device_id: bool = False) -> pa.Schema:
        """Return the Arrow schema, with a leading string column `device_id` where asked."""
        fields = [pa.field("device_id", ARROW_TYPES["label"])] if device_id else []
        fields += [pa.field(name, ARROW_TYPES[column.type]) for name, column in self.columns.items()]
        return pa.schema(fields)


OUTCOMES = ("true_accept", "false_reject", "false_accept", "true_reject")
LABEL_SOURCES = ("retry", "cancel", "silence", "follow_up", "explicit", "near_miss")

WAKE_EVENTS = Source(
    "wake_events",
    {
        "time": Column("time"),
        "wake_word": Column("label"),
        "model_version": Column("label"),
        "score": Column("number", low=0.0, high=1.0),
        "accepted": Column("boolean"),
        "outcome": Column("label", domain=OUTCOMES),
        "label_source": Column("label", domain=LABEL_SOURCES),
        "snr_db": Column("number", unit="dB"),
        "playback": Column("boolean"),
    },
)
LISTENING = Source(
    "listening",
    {
        "time": Column("time"),
        "wake_word": Column("label"),
        "model_version": Column("label"),
        "snr_db": Column("number", unit="dB"),
        "playback": Column("boolean"),
        "minutes": Column("integer", low=0, high=60, unit="minutes"),
    },
)
COMMAND_EVENTS = Source(
    "command_events",
    {
        "time": Column("time"),
        "model_version": Column("label"),
        "intent_predicted": Column("label"),
        "intent_actual": Column("label"),
        "corrected": Column("boolean"),
        "succeeded": Column("boolean"),
        "retries": Column("integer", low=0),
        "cancelled": Column("boolean"),
        "latency_ms": Column("number", low=0.0, unit="ms"),
    },
)
DICTATION_EVENTS = Source(
    "dictation_events",
    {
        "time": Column("time"),
        "model_version": Column("label"),
        "words": Column("integer", low=0, unit="words"),
        "word_errors": Column("integer", low=0, unit="words"),
        "corrected": Column("boolean"),
    },
)

SOURCES: Mapping[str, Source] = MappingProxyType(
    {source.name: source for source in (WAKE_EVENTS, LISTENING, COMMAND_EVENTS, DICTATION_EVENTS)}
)

DEVICE_FACTS: tuple[str, ...] = ("accent", "device_class", "app_version")
"""Facts of a device, one value each, that a plan may group by. They are private and part of the unit."""

HOUR = "hour"
"""Derived event field: the hour of the day of `time`, in UTC, an integer from 0 to 23."""

LISTENING_KEY: tuple[str, ...] = ("time", "wake_word", "model_version", "playback")
"""A device has at most one listening row per key; `time` is the start of the hour. An event belongs to
the row whose hour it falls in and whose other key columns it shares."""


def event_columns(source: str) -> Mapping[str, Column]:
    """Return the columns of a source that a filter or an event-level segment may use.

    Every column but `time`, plus the derived `hour`. Raises KeyError for an unknown source.
    """
    columns = {name: column for name, column in SOURCES[source].columns.items() if name != "time"}
    columns[HOUR] = Column("integer", low=0, high=23, unit="hour of day")
    return columns
