"""A small fleet of made-up tables, a plan for it, and everything a run needs, in one temporary folder."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.app import relay
from clients.device.interface import Device
from clients.device.trust import Pins
from clients.evaluate import Cohort, cohort_of_fleet, device_vectors, seeded_randomness
from clients.party import SimulatedFleet, pins_of
from fa_core.flower.transport import PARTITION, LocalGrid
from fa_core.layout import compile_plan
from fa_core.plan import Plan, SignedPlan, parse
from fa_core.privacy.ledger import Policy
from fa_core.rounds.keys import Signers, give_budgets, local_keys, local_signers
from fa_core.rounds.round import Pace, Progress, Watch
from fa_core.rounds.run import Job, RunContext, run
from fa_core.store import Declaration, Store, open_store
from fa_core.tables import WAKE_EVENTS
from fa_core.trust import budgets
from fa_core.trust.enrolment import Authority
from fa_core.values import Estimates, Int64Array, Release

UNTIL = datetime(2026, 11, 22, 3, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
POPULATION = "small"
SEED = 11
ACCENTS = ("en-GB", "en-IN", "en-US")

PLAN = """\
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: small
  revision: 1
  owner: tests
  question: Does any accent miss the wake word more than the rest?
  expires: EXPIRES
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US]}
group_by: GROUPS
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
  max_events: EVENTS
  min_cohort: COHORT
  secure_aggregation: SECURE
  dropout: DROPOUT
  corrupt: BAD
"""

SEGMENTS = """\
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US]}
"""


SEGMENTS = """\
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US]}
"""
"""For plans that report by accent."""


def plan_text(
    noise: str = "central",
    secure: bool = True,
    cohort: int = 50,
    sample: str = "1",
    groups: str = "[[], [accent]]",
    expires: str = "2099-12-31",
    events: int = 16,
    dropout: str = "0.3",
    corrupt: str = "0",
) -> str:
    """Return a plan's YAML."""
    fields = {
        "NOISE": noise,
        "SECURE": str(secure).lower(),
        "COHORT": str(cohort),
        "SAMPLE": sample,
        "GROUPS": groups,
        "EXPIRES": expires,
        "EVENTS": str(events),
        "DROPOUT": dropout,
        "BAD": corrupt,
    }
    text = PLAN if "accent" in groups else PLAN.replace(SEGMENTS, "")
    for word, value in fields.items():
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


def today() -> datetime:
    """Return the day on which the tests run."""
    return NOW


class RealClock:
    """Deadlines by a clock that runs; no test waits for one."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


Spoil = Callable[[int, Device], Device]
"""Given a device's number and the device, the device to put in its place."""


@dataclass
class World:
    """A fleet, a store and the signers, in one folder; `run` runs a plan over it. `today` is the server's."""

    folder: Path
    devices: int
    store: Store
    fleet: SimulatedFleet
    cohort: Cohort
    signers: Signers
    plan_key: Ed25519PrivateKey
    pins: Pins
    authority: Authority
    seen: list[Progress] = field(default_factory=list)
    stopped: Callable[[], bool] = lambda: False
    today: Callable[[], datetime] = today

    @classmethod
    def make(cls, folder: Path, devices: int) -> "World":
        """Build it all."""
        keys = local_keys(folder / "local")
        authority = keys.authority
        public = [key.public_key().public_bytes_raw() for key in (keys.plan, keys.log, keys.witness)]
        pins = pins_of(*public, authority.public_key)
        cohort = cohort_of_fleet(devices_table(devices), {"wake_events": wake_table(devices)})
        fleet = SimulatedFleet(cohort, pins, authority, POPULATION, seeded_randomness(SEED), today)
        signers = local_signers(keys, today)
        store = open_store(folder / "store")
        give_budgets(store, authority, POPULATION, "zcdp", NOW)
        return cls(folder, devices, store, fleet, cohort, signers, keys.plan, pins, authority)

    def give(self, policy: Policy, at: datetime = NOW) -> None:
        """Declare budgets that the authority signed."""
        self.store.declare(budgets.sign(Declaration(POPULATION, "zcdp", policy, at), self.authority.key))

    def run(self, plan: Plan, spoil: Spoil = lambda number, device: device) -> tuple[Release, Estimates]:
        """Run a plan over the devices, some of them spoiled, on the local engine."""

        def behind(config: Mapping[str, Any]) -> dict[int, Device]:
            number = int(config[PARTITION])
            return {0: spoil(number, self.fleet.device(number))}

        return self.run_over(LocalGrid(relay(behind), self.devices), plan)

    def run_over(self, grid: LocalGrid, plan: Plan) -> tuple[Release, Estimates]:
        """Run a plan over the nodes of a Grid."""
        pace, watch = Pace(math.inf, 0.01), Watch(self.seen.append, lambda: self.stopped())
        context = RunContext(self.store, self.signers, pace, RealClock(), self.today, watch)
        job = Job(
            plan, SignedPlan.of(plan, self.plan_key), POPULATION, UNTIL, "local", True, True, 0, self.devices
        )
        return run(job, grid, context)

    def vectors(self, plan: Plan) -> Int64Array:
        """Return what every device adds before noise, int64 (devices, cells)."""
        return device_vectors(plan, compile_plan(plan), self.cohort, UNTIL, seeded_randomness(SEED))


def small_plan(**options: Any) -> Plan:
    """Return a plan that ten devices can answer; `plan_text`'s options."""
    text = plan_text(**({"cohort": 6} | options))
    return parse(text.encode(), "small.yaml", today=NOW.date(), policy=None)
