"""A small fleet of made-up tables, a plan for it, and everything a run needs, in one temporary folder."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fa_core.tables import WAKE_EVENTS

UNTIL = datetime(2026, 11, 22, 3, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
ACCENTS = ("en-GB", "en-IN", "en-US")

PLAN = """\
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: small
  revision: 1
  owner: tests
  question: Does any accent miss the wake word more than the rest?
  expires: 2027-03-31
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US]}
group_by: [[], [accent]]
metrics:
  misses:
    kind: rate
    of: {outcome: false_reject}
    over: {outcome: [false_reject, true_accept]}
    expect: 0.05
  score:
    kind: histogram
    field: score
    edges: {from: 0, to: 1, bins: 5}
    group_by: [[]]
eligibility: {sample: SAMPLE}
privacy:
  epsilon: 1.0
  delta: 1e-8
  noise: NOISE
  max_events: 16
  min_cohort: COHORT
  secure_aggregation: SECURE
"""


def plan_text(noise: str = "central", secure: bool = True, cohort: int = 50, sample: str = "1") -> str:
    """Return a plan's YAML."""
    told = {"NOISE": noise, "SECURE": str(secure).lower(), "COHORT": str(cohort), "SAMPLE": sample}
    text = PLAN
    for word, value in told.items():
        text = text.replace(word, value)
    return text


def devices_table(devices: int) -> pa.Table:
    """Return the facts of some devices, accents in turn."""
    names = [f"device-{number:05d}" for number in range(devices)]
    accents = [ACCENTS[number % 3] for number in range(devices)]
    return pa.table(
        {
            "device_id": names,
            "accent": accents,
            "device_class": ["phone"] * devices,
            "app_version": ["1.0"] * devices,
        }
    )


def wake_table(devices: int, seed: int = 1) -> pa.Table:
    """Return about 20 wake events a device, so that `max_events: 16` draws."""
    random = np.random.default_rng(seed)
    counts = random.integers(10, 30, devices)
    rows = int(counts.sum())
    device = np.repeat(np.arange(devices), counts)
    missed = random.random(rows) < np.where(device % 3 == 1, 0.15, 0.05)
    age = random.integers(1, int(timedelta(days=7).total_seconds()), rows)
    columns = {
        "device_id": [f"device-{number:05d}" for number in device],
        "time": pa.array(int(UNTIL.timestamp()) - age, pa.int64()).cast(pa.timestamp("s", "UTC")),
        "wake_word": ["okay_nabu"] * rows,
        "model_version": ["2.1"] * rows,
        "score": random.random(rows),
        "accepted": ~missed,
        "outcome": np.where(missed, "false_reject", "true_accept"),
        "label_source": ["explicit"] * rows,
        "snr_db": random.normal(15, 5, rows),
        "playback": random.random(rows) < 0.2,
    }
    schema = WAKE_EVENTS.arrow_schema(device_id=True)
    return pa.table({name: pa.array(column) for name, column in columns.items()}).cast(schema)


def write_fleet(folder: Path, devices: int) -> Path:
    """Write a fleet directory and return it."""
    folder.mkdir(parents=True)
    pq.write_table(devices_table(devices), folder / "devices.parquet")
    pq.write_table(wake_table(devices), folder / "wake_events.parquet")
    facts = {"population": "small", "until": UNTIL.isoformat(), "synthetic": True, "devices": devices}
    (folder / "fleet.json").write_text(json.dumps(facts))
    return folder


def write_plan(folder: Path, **options: object) -> Path:
    """Write a plan's file and return it."""
    file = folder / "small.yaml"
    file.write_text(plan_text(**options))  # type: ignore[arg-type]
    return file


Clock = Callable[[], datetime]


def today() -> datetime:
    """Return the day on which the tests run."""
    return NOW
