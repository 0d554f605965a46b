"""Write a drawn fleet as a fleet directory, some thousand devices at a time.

`truth.parquet` says what the fleet was drawn from. It has one row for each listening hour of each model, and
one for each hour in which a device recorded commands or dictation:

* `device_id`, `source`, `time`, `wake_word`, `model_version`, `snr_db`, `playback`, `minutes`: the row;
* `events`: for wake_events how often the device was meant to wake in that hour, for the others how many
  commands or dictations there were. These counts are given, what follows is expected of them;
* `true_accept`, `false_reject`, `false_accept`, `true_reject`: expected numbers of recorded outcomes, the
  devices' wrong judgements included;
* `corrected`, `succeeded`, `words`, `word_errors`: expected sums over the hour's commands or dictations.

The estimand under a cap of N events a device is then sum_d c_d x_d / sum_d c_d n_d, with x_d and n_d the
device's expected numerator and denominator and c_d = min(1, N / n_d); likewise with hours for Q quanta.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.fleet import draw as d
from clients.fleet.audio import DEVICE_CLASSES
from clients.fleet.bank import SNR_LEVELS
from clients.fleet.check import DEVICES_SCHEMA
from clients.fleet.habits import APP_VERSIONS, CLASSES, POWER_SOURCES, WEEK_HOURS
from clients.fleet.moments import Takes
from clients.fleet.personal import BASE, with_adapters
from clients.fleet.phrases import WAKE_WORD
from clients.fleet.tables import DEVICES_FILE, METADATA_FILE, TRUTH_FILE
from clients.fleet.voices import ACCENTS
from fa_core.errors import BadInput
from fa_core.tables import (
    CONFIRMATIONS,
    DETECTIONS,
    ERROR_KINDS,
    LABEL_SOURCES,
    MOMENTS,
    OUTCOMES,
    SOURCES,
    arrow_type,
)

CHUNK = 2_000
COMMAND_MODEL, DICTATION_MODEL = "sphinx-commands-1", "sphinx-dictation-1"
MICROSECONDS_AN_HOUR = 3_600_000_000

TRUTH_SCHEMA = pa.schema(
    [(name, arrow_type("label")) for name in ("device_id", "source")]
    + [("time", arrow_type("time"))]
    + [(name, arrow_type("label")) for name in ("wake_word", "model_version")]
    + [("snr_db", pa.float64()), ("playback", pa.bool_()), ("minutes", pa.int64()), ("events", pa.int64())]
    + [(name, pa.float64()) for name in (*OUTCOMES, "corrected", "succeeded", "words", "word_errors")]
)

Progress = Callable[[int, int], None]
Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Some devices of a fleet and what was drawn for them."""

    bank: d.Bank
    drawn: d.Drawn
    device_ids: pa.Array
    since: datetime
    randomness: np.random.Generator

    def labels(self, codes: d.Ints, names: tuple[str, ...]) -> pa.Array:
        """Return a dictionary column."""
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))

    def constant(self, name: str, count: int) -> pa.Array:
        """Return a dictionary column of one label."""
        return self.labels(np.zeros(count, np.int64), (name,))

    def devices_at(self, row: d.Ints) -> pa.Array:
        """Return the device_id column of listening hours."""
        places = pa.array(self.drawn.hours.device[row], pa.int32())
        return pa.DictionaryArray.from_arrays(places, self.device_ids)

    def time_at(self, row: d.Ints, microsecond: d.Ints | int = 0) -> pa.Array:
        """Return the time column of moments in listening hours."""
        start = int(self.since.timestamp()) * 1_000_000
        since_epoch = start + self.drawn.hours.hour[row] * MICROSECONDS_AN_HOUR + microsecond
        return pa.array(since_epoch, pa.int64()).cast(arrow_type("time"))


def make_fleet(
    table: pa.Table,
    devices: int,
    out: Path,
    *,
    seed: int,
    until: datetime,
    progress: Progress,
    weeks: int = 1,
    television_weeks: int = 1,
    adapters: float = 0.0,
    judged: d.Judged | None = None,
    takes: Takes | None = None,
) -> None:
    """Draw `devices` devices from the bank `table` and write them to the directory `out`.

    `until` is midnight UTC, the end of the weeks drawn. The fleet is the same for the same bank, seed,
    numbers of devices and weeks, and `until`; a game show is on in the last `television_weeks`. A share
    `adapters` of the devices learned their owner (`clients.fleet.personal`; not in `truth.parquet`). `judged`
    are two other models in place of the bank's; with `takes` devices keep moments for training. Raises
    BadInput for no devices, or where `out` exists and is not empty; writes the directory whole or not at all.
    """
    require_devices(devices)
    require_empty(out)
    bank = d.Bank(table, judged)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write(bank, devices, (weeks, television_weeks), beside, seed, until, progress, adapters, takes)
        if out.exists():
            out.rmdir()
        beside.chmod(0o755)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def require_devices(devices: int) -> None:
    """Raise BadInput for a number of devices that no fleet has."""
    if devices <= 0:
        raise BadInput(f"--devices: a fleet has at least one device, not {devices}")


def require_empty(out: Path) -> None:
    """Raise BadInput where a fleet cannot be written to `out`, because something is there."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise BadInput(f"{out}: already exists and is not empty; name a new directory with --out")


def _write(
    bank: d.Bank,
    devices: int,
    weeks: tuple[int, int],
    out: Path,
    seed: int,
    until: datetime,
    progress: Progress,
    adapters: float,
    takes: Takes | None,
) -> None:
    made = [source for source in SOURCES.values() if source != DETECTIONS]  # every outcome is known here
    schemas = {source.name: source.arrow_schema(device_id=True) for source in made}
    schemas |= {"devices": DEVICES_SCHEMA, "truth": TRUTH_SCHEMA}
    if takes is not None:
        schemas[MOMENTS.name] = MOMENTS.arrow_schema(device_id=True)
    files = {"devices": DEVICES_FILE, "truth": TRUTH_FILE}
    writers = {
        name: pq.ParquetWriter(out / files.get(name, f"{name}.parquet"), schema, compression="zstd")
        for name, schema in schemas.items()
    }
    width = max(6, len(str(devices - 1)))
    try:
        for first in range(0, devices, CHUNK):
            count = min(CHUNK, devices - first)
            randomness = np.random.default_rng([seed, first])
            ids = pa.array([f"device-{number:0{width}d}" for number in range(first, first + count)])
            since = until - timedelta(hours=weeks[0] * WEEK_HOURS)
            drawn = d.draw(bank, count, weeks[0], randomness, weeks[1])
            chunk = Chunk(bank, drawn, ids, since, randomness)
            tables = _tables(chunk)
            if adapters:
                threshold = bank.thresholds[bank.versions.index(BASE)]
                own = np.random.default_rng([seed, first, 1])  # the rest of the fleet stays the same
                tables["wake_events"] = with_adapters(tables["wake_events"], threshold, adapters, own)
            if takes is not None:
                own = np.random.default_rng([seed, first, 2])
                tables[MOMENTS.name] = takes.table(drawn.devices, ids, (until, weeks[0]), own)
            for name, table in tables.items():
                writers[name].write_table(table.select(schemas[name].names).cast(schemas[name]))
            progress(first + count, devices)
    finally:
        for writer in writers.values():
            writer.close()
    (out / METADATA_FILE).write_text(
        json.dumps(_metadata(devices, seed, until, bank), indent=2) + "\n", "utf-8"
    )


def _metadata(devices: int, seed: int, until: datetime, bank: d.Bank) -> dict[str, object]:
    return {
        "population": "synthetic",
        "until": until.isoformat(),
        "synthetic": True,
        "devices": devices,
        "seed": seed,
        "accents": {accent.label: accent.description for accent in ACCENTS},
        "device_classes": list(DEVICE_CLASSES),
        "snr_db": dict(zip(("quiet", "moderate", "noisy"), SNR_LEVELS, strict=True)),
        "models": list(bank.versions),
    }


def _tables(chunk: Chunk) -> dict[str, pa.Table]:
    drawn = chunk.drawn
    devices = drawn.devices
    columns: dict[str, Columns] = {
        "devices": {
            "device_id": chunk.device_ids,
            "accent": pa.array([ACCENTS[code].label for code in devices.accent]),
            "device_class": pa.array([CLASSES[code] for code in devices.device_class]),
            "app_version": pa.array([APP_VERSIONS[code] for code in devices.app_version]),
            "power_source": pa.array([POWER_SOURCES[CLASSES[code]] for code in devices.device_class]),
        },
        "wake_events": _wake_events(chunk),
        "listening": _listening(chunk),
        "command_events": _command_events(chunk),
        "dictation_events": _dictation_events(chunk),
    }
    tables = {name: pa.table(dict(table)) for name, table in columns.items()}
    tables["truth"] = _truth(chunk)
    return tables


def _hours(chunk: Chunk, row: d.Ints) -> Columns:
    """The columns that say which listening hour it is, for both models."""
    hours = chunk.drawn.hours
    return {
        "device_id": chunk.devices_at(row),
        "time": chunk.time_at(row),
        "wake_word": chunk.constant(WAKE_WORD, row.size),
        "model_version": chunk.labels(np.arange(row.size) % 2, chunk.bank.versions),
        "snr_db": np.array(SNR_LEVELS)[hours.environment[row]],
        "playback": hours.playback[row],
    }


def _listening(chunk: Chunk) -> Columns:
    row = np.repeat(np.arange(chunk.drawn.hours.hour.size), 2)
    return {**_hours(chunk, row), "minutes": chunk.drawn.hours.minutes[row]}


def _wake_events(chunk: Chunk) -> Columns:
    bank, events = chunk.bank, chunk.drawn.events
    row = np.repeat(events.row, 2)
    model = np.arange(row.size) % 2
    picked = np.repeat(events.bank, 2)
    accent = chunk.drawn.devices.accent[chunk.drawn.hours.device[row]]
    accepted = bank.accepts[model, picked, accent]
    outcome = np.where(np.repeat(events.judged_meant, 2), np.where(accepted, 0, 1), np.where(accepted, 2, 3))
    return {
        **_hours(chunk, row),
        "time": chunk.time_at(row, np.repeat(events.microsecond, 2)),
        "score": bank.scores[model, picked, accent],
        "accepted": accepted,
        "outcome": chunk.labels(outcome, OUTCOMES),
        "label_source": chunk.labels(_label_sources(outcome, chunk.randomness), LABEL_SOURCES),
    }


def _label_sources(outcome: d.Ints, randomness: np.random.Generator) -> d.Ints:
    """Return what each label was concluded from: mostly what people did next, seldom what they said."""
    said = randomness.random(outcome.size)
    usual = np.array([LABEL_SOURCES.index(name) for name in ("follow_up", "retry", "cancel", "near_miss")])
    sources = usual[outcome]
    sources[(outcome == OUTCOMES.index("false_accept")) & (said < 0.5)] = LABEL_SOURCES.index("silence")
    sources[(outcome != OUTCOMES.index("true_reject")) & (said > 0.95)] = LABEL_SOURCES.index("explicit")
    return sources


def _by_success(right: d.Bools, chances: tuple[float, float]) -> d.Floats:
    """Return the chance of something after a wrong answer, or a right one."""
    return np.where(right, chances[1], chances[0])


def _command_events(chunk: Chunk) -> Columns:
    bank, events, randomness = chunk.bank, chunk.drawn.command_events, chunk.randomness
    right = bank.understood[events.bank]
    count = right.size
    slow = d.slowness(chunk.drawn.devices, chunk.drawn.hours.device[events.row])
    return {
        "device_id": chunk.devices_at(events.row),
        "time": chunk.time_at(events.row, events.microsecond),
        "model_version": chunk.constant(COMMAND_MODEL, count),
        "intent_predicted": chunk.labels(bank.intent_predicted[events.bank], bank.predicted),
        "intent_actual": chunk.labels(bank.intent_actual[events.bank], bank.intents),
        "corrected": randomness.random(count) < _by_success(right, d.CORRECTED),
        "succeeded": randomness.random(count) < _by_success(right, d.SUCCEEDED),
        "retries": randomness.poisson(_by_success(right, d.RETRIES)),
        "cancelled": randomness.random(count) < _by_success(right, d.CANCELLED),
        "latency_ms": bank.decode_ms[events.bank] * slow * randomness.lognormal(0.0, 0.2, count),
        "confirmation": chunk.labels(_confirmations(chunk, right), CONFIRMATIONS),
    }


def _confirmations(chunk: Chunk, right: d.Bools) -> d.Ints:
    """Return what came of asking whether a command was meant; nobody is asked about most of them."""
    bank, events = chunk.bank, chunk.drawn.command_events
    asked = np.isin(
        bank.intent_predicted[events.bank], np.flatnonzero(np.isin(bank.predicted, d.ASKED_INTENTS))
    )
    # A stream of its own: what is drawn after it stays as it is.
    (randomness,) = chunk.randomness.spawn(1)
    answered = randomness.random(right.size) >= d.UNANSWERED
    denied = randomness.random(right.size) < _by_success(right, d.DENIED)
    code = {name: number for number, name in enumerate(CONFIRMATIONS)}
    answer = np.where(denied, code["denied"], code["confirmed"])
    found: d.Ints = np.where(asked, np.where(answered, answer, code["unanswered"]), code["not_asked"])
    return found


def _dictation_events(chunk: Chunk) -> Columns:
    bank, events = chunk.bank, chunk.drawn.dictation_events
    errors = bank.word_errors[events.bank]
    chance = _by_success(errors == 0, d.DICTATION_CORRECTED)
    return {
        "device_id": chunk.devices_at(events.row),
        "time": chunk.time_at(events.row, events.microsecond),
        "model_version": chunk.constant(DICTATION_MODEL, errors.size),
        "words": bank.words[events.bank],
        "word_errors": errors,
        "corrected": chunk.randomness.random(errors.size) < chance,
        # The bank has how many words were wrong, not how.
        **{name: pa.nulls(errors.size, pa.int64()) for name in ERROR_KINDS},
    }


def _truth(chunk: Chunk) -> pa.Table:
    drawn = chunk.drawn
    row = np.repeat(np.arange(drawn.hours.hour.size), 2)
    outcomes = {
        name: np.stack([getattr(expected, name) for expected in drawn.expected], axis=1).reshape(-1)
        for name in OUTCOMES
    }
    wake = {
        **_hours(chunk, row),
        "source": chunk.constant("wake_events", row.size),
        "minutes": drawn.hours.minutes[row],
        "events": np.repeat(drawn.wakes, 2),
        **outcomes,
    }
    bank = chunk.bank
    understood = bank.commands.mean(bank.understood)
    faultless = bank.dictations.mean(bank.word_errors == 0)
    commands = _truth_rows(
        chunk,
        drawn.command_events,
        "command_events",
        COMMAND_MODEL,
        {
            "corrected": _mixed(understood, d.CORRECTED),
            "succeeded": _mixed(understood, d.SUCCEEDED),
        },
    )
    dictations = _truth_rows(
        chunk,
        drawn.dictation_events,
        "dictation_events",
        DICTATION_MODEL,
        {
            "words": bank.dictations.mean(bank.words.astype(np.float64)),
            "word_errors": bank.dictations.mean(bank.word_errors.astype(np.float64)),
            "corrected": _mixed(faultless, d.DICTATION_CORRECTED),
        },
    )
    parts = []
    for columns in (wake, commands, dictations):
        count = len(columns["events"])
        full = [columns.get(f.name, pa.nulls(count, f.type)) for f in TRUTH_SCHEMA]
        parts.append(pa.table(full, names=TRUTH_SCHEMA.names).cast(TRUTH_SCHEMA))
    return pa.concat_tables(parts)


def _mixed(right: d.Floats, chances: tuple[float, float]) -> d.Floats:
    return right * chances[1] + (1.0 - right) * chances[0]


def _truth_rows(
    chunk: Chunk, events: d.Events, source: str, model: str, means: Mapping[str, d.Floats]
) -> Columns:
    """Return a truth row for each hour with commands or dictations: their number times each cell's mean."""
    row, count = np.unique(events.row, return_counts=True)
    cell = d.place(chunk.drawn.devices, chunk.drawn.hours, row)
    hours = {name: column for name, column in _hours(chunk, row).items() if name != "wake_word"}
    return {
        **hours,
        "source": chunk.constant(source, row.size),
        "model_version": chunk.constant(model, row.size),
        "events": count,
        **{name: mean[cell] * count for name, mean in means.items()},
    }
