"""A plan for every metric kind, and hostile device tables to count with it.

Tables hold what a broken or lying device could hold: missing values, labels outside every domain, infinite
and negative numbers, hours twice over, events at the edge of the window, and far more of all than may count.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from clients.evaluate import Cohort, cohort_of_fleet
from fa_core.plan import Plan, parse
from fa_core.tables import SOURCES

UNTIL = datetime(2026, 11, 22, 3, tzinfo=UTC)
TODAY = date(2026, 11, 22)
ACCENTS = ("en-GB", "en-IN", "en-US")

SEGMENTS: dict[str, Any] = {
    "accent": {"device": "accent", "values": ["en-GB", "en-IN"]},
    "hour": {"event": "hour", "values": [0, 1, 2, 3]},
    "noise": {"event": "snr_db", "edges": [8, 18], "labels": ["noisy", "moderate", "quiet"]},
    "model": {"event": "model_version", "values": ["a"]},
}


@dataclass(frozen=True)
class Sample:
    """One metric: its source, its body in a plan, and the event-level segment that its source can answer."""

    source: str
    body: Mapping[str, Any]
    event: str = "hour"


SAMPLES: Mapping[str, Sample] = {
    "rate": Sample(
        "wake_events",
        {
            "kind": "rate",
            "of": {"outcome": "false_reject"},
            "over": {"outcome": ["false_reject", "true_accept"]},
            "expect": 0.05,
        },
        "noise",
    ),
    "rate_per_hour": Sample(
        "wake_events",
        {
            "kind": "rate_per_hour",
            "of": {"outcome": "false_accept"},
            "expect": 0.5,
            "max_hours": 5,
            "max_per_hour": 2,
        },
    ),
    "ratio": Sample(
        "dictation_events",
        {
            "kind": "ratio",
            "of": "word_errors",
            "over": "words",
            "expect": 0.3,
            "max_of": 9,
            "max_over": 7,
        },
    ),
    "mean": Sample(
        "command_events",
        {"kind": "mean", "field": "latency_ms", "clip": {"from": 100, "to": 900}, "expect": 300},
    ),
    "count": Sample("wake_events", {"kind": "count", "of": {"accepted": True}}),
    "paired_difference": Sample(
        "wake_events",
        {
            "kind": "paired_difference",
            "of": {"accepted": False},
            "over": {"outcome": ["false_reject", "true_accept"]},
            "compare": {"baseline": "a", "candidate": "b"},
        },
    ),
    "histogram": Sample(
        "wake_events",
        {"kind": "histogram", "field": "score", "edges": {"from": 0, "to": 1, "bins": 4}, "by": "outcome"},
    ),
    "confusion": Sample("command_events", {"kind": "confusion", "labels": ["on", "off"]}),
    "det": Sample(
        "wake_events",
        {
            "kind": "det",
            "edges": {"from": 0, "to": 1, "bins": 5},
            "max_hours": 5,
            "max_per_hour": 2,
        },
    ),
}


def plan_of(kind: str, **privacy: Any) -> Plan:
    """Return a plan with one metric of `kind` by everyone, accent, an event's column, and both."""
    sample = SAMPLES[kind]
    return plan_with({"metric": dict(sample.body)}, sample.source, sample.event, **privacy)


def plan_with(metrics: Mapping[str, Any], source: str, event: str = "hour", **privacy: Any) -> Plan:
    """Return a plan with these metrics; `privacy` overrides that section."""
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "sample",
            "revision": 1,
            "owner": "tests",
            "question": "Does it add up?",
            "expires": "2027-03-31",
        },
        "source": source,
        "window": "1d",
        "segments": {name: SEGMENTS[name] for name in ("accent", event)},
        "group_by": [[], ["accent"], [event], ["accent", event]],
        "metrics": metrics,
        "privacy": {
            "epsilon": 1,
            "delta": 1e-8,
            "noise": "central",
            "max_events": 6,
            "min_cohort": 20,
            **privacy,
        },
    }
    return parse(json.dumps(body).encode(), "sample", today=TODAY, policy=None)


def before(plan: Plan, max_excess: int | None = None) -> Plan:
    """Return a plan as it was before it carried rho and named its counters, clipped at `max_excess`."""
    changes = {"counters": None, "shares": None, "rho": None, "alpha": None, "max_excess": max_excess}
    return plan.model_copy(update={"privacy": plan.privacy.model_copy(update=changes)})


def cohort(seed: int, devices: int, most: int = 24) -> Cohort:
    """Return devices with up to `most` rows in each table, in no order, with everything wrong in them."""
    random = np.random.default_rng(seed)
    ids = [f"device-{index}" for index in range(devices)]
    facts = pa.table({"device_id": ids, "accent": _labels(random, (*ACCENTS, "zz"), devices)})
    tables = {name: _table(random, name, ids, most) for name in SOURCES}
    return cohort_of_fleet(facts, tables)


def emptied(cohort: Cohort, device: int) -> Cohort:
    """Return the cohort with one device's tables and facts emptied: the neighbour that the claim is about."""
    tables, offsets = {}, {}
    for name, table in cohort.tables.items():
        first, last = (int(cohort.offsets[name][device + step]) for step in (0, 1))
        tables[name] = pa.concat_tables([table.slice(0, first), table.slice(last)])
        offsets[name] = np.where(
            np.arange(len(cohort) + 1) > device, cohort.offsets[name] - (last - first), cohort.offsets[name]
        )
    facts = {}
    for name, (codes, labels) in cohort.facts.items():
        kept = codes.copy()
        kept[device] = -1
        facts[name] = (kept, labels)
    return Cohort(cohort.ids, facts, tables, offsets)


def _labels(random: np.random.Generator, labels: tuple[str, ...], rows: int) -> pa.Array:
    choice = random.integers(-1, len(labels), rows)
    return pa.array([None if index < 0 else labels[index] for index in choice], pa.string())


def _numbers(random: np.random.Generator, rows: int, low: float, high: float) -> pa.Array:
    wild = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, low, high, -1.0])
    values = random.uniform(low, high, rows)
    values = np.where(random.random(rows) < 0.2, random.choice(wild, rows), values)
    return pa.array(values, mask=random.random(rows) < 0.1)


def _integers(random: np.random.Generator, rows: int, high: int) -> pa.Array:
    wild = np.array([-(2**40), -1, 0, high, high + 1, 2**40])
    values = random.integers(0, high + 1, rows)
    values = np.where(random.random(rows) < 0.2, random.choice(wild, rows), values)
    return pa.array(values, pa.int64(), mask=random.random(rows) < 0.1)


def _table(random: np.random.Generator, source: str, ids: list[str], most: int) -> pa.Table:
    rows = int(random.integers(0, most * len(ids) + 1))
    heavy = random.dirichlet(np.full(len(ids), 0.5))
    owner = random.choice(len(ids), size=rows, p=heavy)
    hour = 3_600_000_000
    end = int(UNTIL.timestamp()) * 1_000_000
    time = end - random.integers(-1, 8, rows) * hour
    if source != "listening":  # few moments, so that pairs and hours meet
        time = time + random.integers(0, 3, rows) * (hour // 3)
    columns: dict[str, pa.Array] = {
        "device_id": pa.array([ids[index] for index in owner], pa.string()),
        "time": pa.array(time, pa.int64()).cast(pa.timestamp("us", "UTC")),
    }
    for name, column in SOURCES[source].columns.items():
        if name in columns:
            continue
        if column.type == "label":
            domain = column.domain or (("on", "off", "up") if "intent" in name else ("a", "b", "c"))
            columns[name] = _labels(random, domain, rows)
        elif column.type == "boolean":
            columns[name] = pa.array(random.random(rows) < 0.5, mask=random.random(rows) < 0.1)
        elif column.type == "integer":
            columns[name] = _integers(random, rows, 60 if name == "minutes" else 12)
        else:
            columns[name] = _numbers(random, rows, 0.0, {"score": 1.0, "snr_db": 30.0}.get(name, 1000.0))
    return pa.table(columns).cast(SOURCES[source].arrow_schema(device_id=True))
