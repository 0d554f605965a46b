"""Made-up device tables of any size, for timing: the columns that plans read, in the types of the store."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa

from clients.evaluate import Cohort
from fa_core.tables import LISTENING, OUTCOMES, WAKE_EVENTS

UNTIL: Final = datetime(2026, 11, 22, tzinfo=UTC)
HOUR: Final = 3_600_000_000
WEEK: Final = 7 * 24
ACCENTS: Final = (
    "en-US",
    "en-GB",
    "en-IN",
    "es-en",
    "en-AU",
    "en-ZA",
    "de-en",
    "hi-en",
    "fr-en",
    "en-029",
    "en-NG",
)
CLASSES: Final = ("phone", "speaker", "watch")


def cohort(devices: int, events: int, hours: int, seed: int = 1) -> Cohort:
    """Return `devices` devices of `events` wake events and `hours` listening hours each, in a week."""
    random = np.random.default_rng(seed)
    facts = {
        "accent": (random.integers(0, len(ACCENTS), devices), ACCENTS),
        "device_class": (random.integers(0, len(CLASSES), devices), CLASSES),
    }
    wakes = np.sort(np.stack([random.permutation(WEEK)[:hours] for _ in range(min(devices, 997))]), axis=1)
    hour = wakes[np.arange(devices) % len(wakes)]
    tables = {
        "wake_events": _wake(random, hour, events),
        "listening": _listening(random, hour),
    }
    offsets = {
        "wake_events": np.arange(devices + 1, dtype=np.int64) * events,
        "listening": np.arange(devices + 1, dtype=np.int64) * hours,
    }
    return Cohort(tuple(map(str, range(devices))), facts, tables, offsets)


def _code(random: np.random.Generator, rows: int, labels: tuple[str, ...]) -> pa.Array:
    codes = random.integers(0, len(labels), rows, dtype=np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(labels))


def _wake(random: np.random.Generator, hour: np.ndarray, events: int) -> pa.Table:
    devices, hours = hour.shape
    rows = devices * events
    start = int(UNTIL.timestamp()) * 1_000_000 - WEEK * HOUR
    place = random.integers(0, hours, rows, dtype=np.int16)
    time = start + hour[np.repeat(np.arange(devices), events), place] * HOUR
    time += random.integers(0, HOUR, rows)
    outcome = random.choice(4, rows, p=(0.85, 0.06, 0.04, 0.05)).astype(np.int32)
    columns: Mapping[str, pa.Array] = {
        "time": pa.array(time).cast(pa.timestamp("us", "UTC")),
        "wake_word": _code(random, rows, ("okay_nabu",)),
        "model_version": _code(random, rows, ("micro-1",)),
        "score": pa.array(random.random(rows)),
        "accepted": pa.array((outcome == 0) | (outcome == 2)),
        "outcome": pa.DictionaryArray.from_arrays(pa.array(outcome), pa.array(OUTCOMES)),
        "label_source": _code(random, rows, ("retry", "cancel", "explicit")),
        "snr_db": pa.array(random.normal(14.0, 6.0, rows)),
        "playback": pa.array(np.zeros(rows, np.bool_)),
    }
    return pa.table(dict(columns)).select(list(WAKE_EVENTS.columns))


def _listening(random: np.random.Generator, hour: np.ndarray) -> pa.Table:
    rows = hour.size
    start = int(UNTIL.timestamp()) * 1_000_000 - WEEK * HOUR
    columns: Mapping[str, pa.Array] = {
        "time": pa.array(start + hour.ravel() * HOUR).cast(pa.timestamp("us", "UTC")),
        "wake_word": _code(random, rows, ("okay_nabu",)),
        "model_version": _code(random, rows, ("micro-1",)),
        "snr_db": pa.array(random.normal(14.0, 6.0, rows)),
        "playback": pa.array(np.zeros(rows, np.bool_)),
        "minutes": pa.array(np.full(rows, 60)),
    }
    return pa.table(dict(columns)).select(list(LISTENING.columns))
