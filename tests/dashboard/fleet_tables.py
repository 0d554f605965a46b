"""Tables of a synthetic fleet for the dashboard's tests: groups and models differ, weeks drift slightly.

The tables go through the real counting, noise and estimation, so that the pages show realistic numbers.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clients.evaluate import Cohort, cohort_of_fleet
from fa_core.tables import (
    COMMAND_EVENTS,
    DICTATION_EVENTS,
    ERROR_KINDS,
    LISTENING,
    WAKE_EVENTS,
    arrow_type,
)

START = datetime(2026, 9, 21, tzinfo=UTC)
WEEK = timedelta(days=7)
WAKE_WORD, BASELINE, CANDIDATE = "okay_nabu", "micro-1", "embed-1"
THRESHOLD = 0.5

ACCENTS: Mapping[str, tuple[float, float]] = {
    "en-US": (0.28, 0.09),
    "en-GB": (0.17, 0.10),
    "es-en": (0.14, 0.31),
    "hi-en": (0.11, 0.22),
    "de-en": (0.09, 0.14),
    "en-GB-scotland": (0.07, 0.19),
    "it-en": (0.05, 0.17),
    "nl-en": (0.05, 0.12),
    "en-029": (0.03, 0.26),
    "cy": (0.01, 0.20),
}
"""Share of the fleet and miss rate of the old model, by accent."""

CLASSES: Mapping[str, tuple[float, float]] = {
    "phone": (0.5, 0.9),
    "speaker": (0.35, 0.8),
    "watch": (0.15, 1.6),
}
"""Share of the fleet, and what the miss rate is multiplied by."""

INTENTS = (
    "turn_on", "turn_off", "set_timer", "cancel_timer", "get_time", "get_weather", "play_music", "stop_music",
    "volume_up", "volume_down", "lock_door", "add_item", "not_understood",
)  # fmt: skip
CONFUSED_WITH = {
    "turn_on": "turn_off",
    "set_timer": "cancel_timer",
    "volume_up": "volume_down",
    "play_music": "stop_music",
}


def cohort(devices: int, week: int, seed: int = 7) -> tuple[Cohort, datetime]:
    """Return a fleet's tables for one week, and the end of that week."""
    facts, tables, until = _tables(devices, week, seed)
    return cohort_of_fleet(facts, tables), until


def write_fleet(folder: Path, devices: int, until: datetime, population: str, seed: int = 7) -> Path:
    """Write a fleet directory whose last week ends at `until`."""
    folder.mkdir(parents=True)
    facts, tables, end = _tables(devices, 0, seed)
    facts_file = {"population": population, "until": until.isoformat(), "synthetic": True, "devices": devices}
    (folder / "fleet.json").write_text(json.dumps(facts_file))
    pq.write_table(facts, folder / "devices.parquet")
    for name, table in tables.items():
        moved = pc.add(table["time"], pa.scalar(until - end, pa.duration("us")))
        pq.write_table(
            table.set_column(table.schema.get_field_index("time"), "time", moved), folder / f"{name}.parquet"
        )
    return folder


def _tables(devices: int, week: int, seed: int) -> tuple[pa.Table, dict[str, pa.Table], datetime]:
    random = np.random.default_rng([seed, week])
    draws = np.random.default_rng([seed, devices])
    facts = _facts(devices, draws)
    start = START + week * WEEK
    tables = {
        "wake_events": _wake(devices, facts, start, week, random),
        "listening": _listening(devices, start, random),
        "command_events": _commands(devices, facts, start, random),
        "dictation_events": _dictation(devices, facts, start, random),
    }
    return _devices(facts), tables, start + WEEK


def _facts(devices: int, random: np.random.Generator) -> dict[str, NDArray[np.object_]]:
    def draw(choices: Mapping[str, tuple[float, float]]) -> NDArray[np.object_]:
        weights = np.array([share for share, _ in choices.values()])
        return random.choice(np.array(list(choices), object), devices, p=weights / weights.sum())

    return {"accent": draw(ACCENTS), "device_class": draw(CLASSES)}


def _devices(facts: Mapping[str, NDArray[np.object_]]) -> pa.Table:
    devices = len(facts["accent"])
    names = [_name(number) for number in range(devices)]
    columns = {name: pa.array(values.tolist(), pa.string()) for name, values in facts.items()}
    return pa.table({"device_id": names, **columns, "app_version": ["5.2"] * devices})


def _name(number: int) -> str:
    return f"device-{number:06d}"


def _ids(device: NDArray[np.int64]) -> pa.Array:
    return pa.array([_name(number) for number in device.tolist()]).dictionary_encode()


def _labels(values: NDArray[np.object_] | list[str]) -> pa.Array:
    return pa.array(list(values), pa.string()).dictionary_encode()


def _times(start: datetime, hours: NDArray[np.int64], inside: NDArray[np.int64]) -> pa.Array:
    micros = (int(start.timestamp()) + hours * 3600) * 1_000_000 + inside
    return pa.array(micros, pa.timestamp("us", tz="UTC"))


def _wake(
    devices: int,
    facts: Mapping[str, NDArray[np.object_]],
    start: datetime,
    week: int,
    random: np.random.Generator,
) -> pa.Table:
    """Return positive and negative utterances, each scored by both models."""
    positives, negatives = random.poisson(14, devices) + 1, random.poisson(40, devices)
    device = np.repeat(np.tile(np.arange(devices, dtype=np.int64), 2), np.concatenate((positives, negatives)))
    rows = len(device)
    positive = np.arange(rows) < positives.sum()
    snr = np.clip(random.normal(14, 6, rows), 0, 35)
    hard = np.array([ACCENTS[name][1] for name in facts["accent"]])[device]
    hard = hard * np.array([CLASSES[name][1] for name in facts["device_class"]])[device]
    hard = np.clip(hard * np.exp((12 - snr) / 18) * (1 + 0.02 * week), 0.01, 0.8)
    shared = random.random(rows)
    hours, inside = random.integers(0, 168, rows), random.permutation(rows) % 3_600_000_000
    playback = np.zeros(rows, bool)
    parts = []
    for model, better, sharp in ((BASELINE, 1.0, 5.0), (CANDIDATE, 0.62, 6.5)):
        luck = np.where(random.random(rows) < 0.25, random.random(rows), shared)
        worse = np.where((facts["accent"] == "en-029")[device], 1.25 / better, 1.0)
        miss = luck < np.clip(hard * better * worse, 0, 0.95)
        hit = THRESHOLD + random.beta(5, 2, rows) * (1 - THRESHOLD)
        score = np.where(
            positive, np.where(miss, random.beta(3, 2, rows) * THRESHOLD, hit), random.beta(1.6, sharp, rows)
        )
        fires = score >= THRESHOLD
        outcome = np.where(
            positive,
            np.where(miss, "false_reject", "true_accept"),
            np.where(fires, "false_accept", "true_reject"),
        )
        parts.append(
            {
                "device_id": device, "hours": hours, "inside": inside, "model": np.full(rows, model, object),
                "score": score, "outcome": outcome.astype(object), "snr": snr, "playback": playback,
            }
        )  # fmt: skip
    both = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort([both["inside"], both["hours"], both["device_id"]])
    both = {name: values[order] for name, values in both.items()}
    columns = {
        "device_id": _ids(both["device_id"]),
        "time": _times(start, both["hours"], both["inside"]),
        "wake_word": _labels([WAKE_WORD] * len(order)),
        "model_version": _labels(both["model"]),
        "score": pa.array(both["score"]),
        "accepted": pa.array(both["score"] >= THRESHOLD),
        "outcome": _labels(both["outcome"]),
        "label_source": _labels(["explicit"] * len(order)),
        "snr_db": pa.array(both["snr"]),
        "playback": pa.array(both["playback"]),
    }
    return pa.table(columns, schema=WAKE_EVENTS.arrow_schema(device_id=True))


def _listening(devices: int, start: datetime, random: np.random.Generator) -> pa.Table:
    """Return a listening row for every fourth hour of the week, for both models."""
    some = np.arange(0, 168, 4, dtype=np.int64)
    hours = np.tile(some, devices * 2)
    device = np.repeat(np.arange(devices, dtype=np.int64), len(some) * 2)
    rows = len(device)
    model = np.tile(np.repeat(np.array([BASELINE, CANDIDATE], object), len(some)), devices)
    columns = {
        "device_id": pa.DictionaryArray.from_arrays(
            pa.array(device, pa.int32()), [_name(number) for number in range(devices)]
        ),
        "time": _times(start, hours, np.zeros(rows, np.int64)),
        "wake_word": _labels([WAKE_WORD] * rows),
        "model_version": _labels(model),
        "snr_db": pa.array(np.full(rows, 14.0)),
        "playback": pa.array(np.zeros(rows, bool)),
        "minutes": pa.array(random.integers(10, 61, rows)),
    }
    return pa.table(columns, schema=LISTENING.arrow_schema(device_id=True))


def _commands(
    devices: int, facts: Mapping[str, NDArray[np.object_]], start: datetime, random: np.random.Generator
) -> pa.Table:
    device = np.repeat(np.arange(devices, dtype=np.int64), random.poisson(12, devices) + 1)
    rows = len(device)
    actual = random.choice(np.array(INTENTS[:-1], object), rows)
    wrong = (
        random.random(rows) < np.array([0.35 * ACCENTS[name][1] + 0.04 for name in facts["accent"]])[device]
    )
    partner = np.array([CONFUSED_WITH.get(name, "not_understood") for name in actual], object)
    anything = random.choice(np.array(INTENTS, object), rows)
    predicted = np.where(wrong, np.where(random.random(rows) < 0.7, partner, anything), actual)
    corrected = random.random(rows) < np.where(predicted != actual, 0.7, 0.02)
    slow = np.array([CLASSES[name][1] for name in facts["device_class"]])[device]
    columns = {
        "device_id": _ids(device),
        "time": _times(start, random.integers(0, 168, rows), np.arange(rows)),
        "model_version": _labels([BASELINE] * rows),
        "intent_predicted": _labels(predicted),
        "intent_actual": _labels(actual),
        "corrected": pa.array(corrected),
        "succeeded": pa.array((predicted == actual) & (random.random(rows) < 0.97)),
        "retries": pa.array(random.poisson(0.2, rows)),
        "cancelled": pa.array(random.random(rows) < 0.06 * slow),
        "latency_ms": pa.array(np.minimum(random.gamma(4, 180, rows) * slow, 9000)),
        "confirmation": pa.nulls(rows, arrow_type("label")),
    }
    return pa.table(columns, schema=COMMAND_EVENTS.arrow_schema(device_id=True))


def _dictation(
    devices: int, facts: Mapping[str, NDArray[np.object_]], start: datetime, random: np.random.Generator
) -> pa.Table:
    device = np.repeat(np.arange(devices, dtype=np.int64), random.poisson(6, devices) + 1)
    rows = len(device)
    words = random.integers(2, 13, rows)
    rate = np.array([0.15 + 0.8 * ACCENTS[name][1] for name in facts["accent"]])[device]
    errors = random.binomial(words, rate)
    columns = {
        "device_id": _ids(device),
        "time": _times(start, random.integers(0, 168, rows), np.arange(rows)),
        "model_version": _labels([BASELINE] * rows),
        "words": pa.array(words),
        "word_errors": pa.array(errors),
        "corrected": pa.array(random.random(rows) < np.minimum(errors / words * 1.2, 1.0)),
        **{name: pa.nulls(rows, pa.int64()) for name in ERROR_KINDS},
    }
    return pa.table(columns, schema=DICTATION_EVENTS.arrow_schema(device_id=True))
