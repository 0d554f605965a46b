"""What a device may record: the columns of each table, their types and their closed domains.

There is no free text anywhere. A plan is checked against these tables, a device's store is created
from them, and a fleet directory is validated against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Every time that a table holds lies from the first (inclusive) to the second (exclusive)."""

LARGEST = 10**15
"""No count or measure is further from 0; whole numbers up to here are exact in a float64 column."""

ColumnType = Literal["time", "label", "number", "integer", "boolean", "vector"]

VECTOR = 97
"""Numbers in a column of type vector (`MOMENTS.features`)."""


def arrow_type(column: ColumnType) -> "pa.DataType":
    """Return a column's Arrow type: UTC microseconds, dictionary-encoded text, float64, int64, bool, or
    `VECTOR` float32 in a list of that length."""
    # Imported here: a plan is checked against these tables, and a check should not wait for Arrow.
    import pyarrow as pa

    types: dict[ColumnType, pa.DataType] = {
        "time": pa.timestamp("us", tz="UTC"),
        "label": pa.dictionary(pa.int32(), pa.string()),
        "number": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "vector": pa.list_(pa.float32(), VECTOR),
    }
    return types[column]


@dataclass(frozen=True)
class Column:
    """One column: its type, where it has them its closed domain or its inclusive bounds and unit, and for a
    person why it is there and an example of it. An `optional` column may be empty: it was not measured. A
    `hashed` label is a SHA-256 in hexadecimal digits, which no list of allowed labels has to name."""

    type: ColumnType
    domain: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    optional: bool = False
    why: str = ""
    example: str = ""
    hashed: bool = False


@dataclass(frozen=True)
class Source:
    """One device table, and for a person what a row of it is. `columns` excludes `device_id`, which a fleet
    directory adds as its first column."""

    name: str
    row: str
    columns: Mapping[str, Column]

    def arrow_schema(self, *, device_id: bool = False) -> "pa.Schema":
        """Return the Arrow schema, with a leading string column `device_id` where asked."""
        import pyarrow as pa

        fields = [pa.field("device_id", arrow_type("label"))] if device_id else []
        fields += [pa.field(name, arrow_type(column.type)) for name, column in self.columns.items()]
        return pa.schema(fields)


OUTCOMES = ("true_accept", "false_reject", "false_accept", "true_reject")
CONFIRMATIONS = ("not_asked", "confirmed", "denied", "unanswered")
LABEL_SOURCES = ("retry", "cancel", "silence", "follow_up", "explicit", "near_miss")

MODEL_VERSION = Column(
    "label", why="The model that decided; releases of it are compared.", example="okay-nabu-2.1"
)
WAKE_WORD = Column("label", why="The wake word that the model listens for.", example="okay_nabu")
PLAYBACK = Column("boolean", why="Whether the device itself was playing sound.", example="false")
SNR_DB = Column(
    "number",
    unit="dB",
    optional=True,
    why="How far speech stood above the noise. Empty where that is unknown: the row then meets no condition "
    "on it, and is `other` in a segment by it.",
    example="18.5",
)

WAKE_EVENTS = Source(
    "wake_events",
    "One time that the detector woke, or nearly did, and what it should have done.",
    {
        "time": Column(
            "time", why="When it was; a plan counts a window of time.", example="2026-11-20T07:31:04.250Z"
        ),
        "wake_word": WAKE_WORD,
        "model_version": MODEL_VERSION,
        "score": Column("number", low=0.0, high=1.0, why="The detector's score.", example="0.93"),
        "accepted": Column("boolean", why="Whether the device woke.", example="true"),
        "outcome": Column(
            "label",
            domain=OUTCOMES,
            why="What the decision was; rates and DET curves count it.",
            example="true_accept",
        ),
        "label_source": Column(
            "label", domain=LABEL_SOURCES, why="What the outcome was concluded from.", example="follow_up"
        ),
        "snr_db": SNR_DB,
        "playback": PLAYBACK,
    },
)
LISTENING = Source(
    "listening",
    "One hour in which the detector listened. Without this table there is no rate per hour.",
    {
        "time": Column("time", why="The start of the hour.", example="2026-11-20T07:00:00Z"),
        "wake_word": WAKE_WORD,
        "model_version": MODEL_VERSION,
        "snr_db": SNR_DB,
        "playback": PLAYBACK,
        "minutes": Column(
            "integer", low=0, high=60, unit="minutes", why="How long it listened in that hour.", example="60"
        ),
    },
)
COMMAND_EVENTS = Source(
    "command_events",
    "One voice command.",
    {
        "time": Column("time", why="When it was.", example="2026-11-20T07:31:09Z"),
        "model_version": MODEL_VERSION,
        "intent_predicted": Column("label", why="What was understood.", example="turn_on"),
        "intent_actual": Column(
            "label", why="What was meant, as far as it became known.", example="turn_off"
        ),
        "corrected": Column("boolean", why="Whether the person corrected it.", example="true"),
        "succeeded": Column("boolean", why="Whether it did what was asked.", example="false"),
        "retries": Column("integer", low=0, why="How often it was said again.", example="1"),
        "cancelled": Column("boolean", why="Whether the person cancelled it.", example="false"),
        "latency_ms": Column(
            "number",
            low=0.0,
            unit="ms",
            why="From the end of speech to the answer.",
            example="412.5",
        ),
        "confirmation": Column(
            "label",
            domain=CONFIRMATIONS,
            optional=True,
            why="What came of asking whether the command was meant, as a policy has the device do. Empty "
            "where no policy was followed.",
            example="denied",
        ),
    },
)


def _errors(why: str, example: str) -> Column:
    return Column("integer", low=0, unit="words", optional=True, why=why, example=example)


ERROR_KINDS = ("insertions", "deletions", "substitutions")
"""Columns that say which word errors there were: a row has all three or none, and they add up to them."""

DICTATION_EVENTS = Source(
    "dictation_events",
    "One dictated utterance, or one recording in which nobody spoke, with 0 words. No text is ever recorded.",
    {
        "time": Column("time", why="When it was.", example="2026-11-20T08:02:51Z"),
        "model_version": MODEL_VERSION,
        "words": Column(
            "integer",
            low=0,
            unit="words",
            why="How many words were said; 0 where nobody spoke.",
            example="12",
        ),
        "word_errors": Column(
            "integer",
            low=0,
            unit="words",
            why="Words inserted, deleted or replaced, as far as it became known. Where nobody spoke: the "
            "words that were recognised.",
            example="2",
        ),
        "corrected": Column("boolean", why="Whether the person corrected it.", example="true"),
        "insertions": _errors("Words recognised that nobody said.", "0"),
        "deletions": _errors("Words said that were not recognised.", "1"),
        "substitutions": _errors("Words recognised as others.", "1"),
    },
)

DETECTIONS = Source(
    "detections",
    "One time that the device woke, where nobody knows whether it should have: wakes per hour and the "
    "distribution of scores need no more.",
    {
        "time": Column("time", why="When it was.", example="2026-11-20T07:31:04.250Z"),
        "wake_word": WAKE_WORD,
        "model_version": MODEL_VERSION,
        "score": Column(
            "number",
            low=0.0,
            high=1.0,
            optional=True,
            why="The detector's score. Empty where it is unknown: the row is in no histogram of scores.",
            example="0.97",
        ),
        "snr_db": SNR_DB,
        "playback": PLAYBACK,
    },
)

SOURCES: Mapping[str, Source] = MappingProxyType(
    {source.name: source for source in (WAKE_EVENTS, LISTENING, COMMAND_EVENTS, DICTATION_EVENTS, DETECTIONS)}
)

MOMENTS = Source(
    "moments",
    "One time that somebody said the wake word, as the numbers that a base head is adapted with "
    "(docs/training.md). They name their speaker: only training plans read them, and no fleet imports them.",
    {
        "time": Column("time", why="When it was.", example="2026-11-20T07:31:04.250Z"),
        "wake_word": WAKE_WORD,
        "base": Column(
            "label", why="The head whose logit and temporal shape these are, by its artefact.", hashed=True
        ),
        "features": Column(
            "vector",
            why="Of the base's highest window: 96 numbers of its embeddings, and a tenth of its logit.",
        ),
    },
)

STORED: Mapping[str, Source] = MappingProxyType({**SOURCES, MOMENTS.name: MOMENTS})
"""Every table of a device's store. `SOURCES` are those that evaluation plans and imports know."""

FACTS: Mapping[str, Column] = MappingProxyType(
    {
        "accent": Column(
            "label", why="How the household speaks, from a public list of yours.", example="en-GB"
        ),
        "device_class": Column("label", why="What kind of device it is.", example="speaker"),
        "app_version": Column("label", why="Which program it runs.", example="3.4"),
        "power_source": Column(
            "label",
            domain=("mains", "battery"),
            optional=True,
            why="What it runs on: on a battery it scores a rollout's candidate in shadow only as it charges. "
            "Empty where that is unknown, which is `other` in a segment.",
            example="mains",
        ),
    }
)
"""The columns of a fleet's devices, beside `device_id`."""

DEVICE_FACTS: tuple[str, ...] = tuple(FACTS)
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
    columns = {name: column for name, column in STORED[source].columns.items() if name != "time"}
    columns[HOUR] = Column("integer", low=0, high=23, unit="hour of day")
    return columns
