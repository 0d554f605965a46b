"""Hubs for a lab: devices on disk as they are deployed, filled from a fleet's tables.

A hub is a folder with one folder a device, each with its own device.toml, key and encrypted store; `fa
device serve --hub` serves them. Every device makes its own key, and the authority certifies it.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa

from clients.device.config import CONFIG
from clients.device.consent import Purpose
from clients.device.owner import DeviceHome
from clients.device.records import Records
from clients.evaluate import Cohort
from fa_core.tables import MOMENTS, STORED
from fa_core.trust.enrolment import Enrolled, certify_all, load

CONSENT = timedelta(days=365)
AMPLE_BUDGET = "rho = 1000000\ntraining_rho = 1000000\n"
AMPLE_POLICY = """\
plans_a_day = 1000000
minutes_a_day = 1440
max_epsilon = 100
max_cells = 1000000
min_cohort = 2
central_noise = true
min_kappa = 0
single_vectors = true
training_epsilon = 100
training_rounds_a_week = 1000000
"""
"""Budget and policy of a device that answers whatever it is asked: rounds back to back, small cohorts."""
MEMORY = Path("/dev/shm")  # noqa: S108 - each hub is made in a private folder there
"""Where stores are made: a store waits for the disk at every step, and a lab's need not."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """The keys that a lab's devices trust: raw Ed25519 public keys in hexadecimal digits.

    Without a helper's, they take part in no collection.
    """

    plan: str
    log: str
    witness: str
    authority: str
    helper: str | None = None


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub to make.

    Attributes:
        folder, socket: where.
        start, stop: which devices of the fleet it has, from `start` to just before `stop`.
        ample: whether its devices have no limits of their own, in place of the default budget and policy.
    """

    folder: Path
    socket: Path
    start: int
    stop: int
    ample: bool = False


def make_hub(
    hub: Hub, cohort: Cohort, trusted: Trusted, authority: Path, population: str, now: datetime
) -> None:
    """Make the devices of a hub and have them enrolled. A hub that exists is left as it is."""
    if hub.folder.exists():
        return
    labels = _labels(cohort)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        enrolled = []
        admits = load(authority)
        for number in range(hub.start, hub.stop):
            slot = f"{number - hub.start:04d}"
            folder = Path(made) / "hub" / slot
            folder.mkdir(mode=0o700, parents=True)
            (folder / CONFIG).write_text(_config(f"{hub.folder.name}-{slot}", hub, trusted, labels))
            name = f"{hub.folder.name}-{slot}"
            certify = partial(admits.certify, population=population)
            public = _make(folder, cohort.part(number, number + 1), certify, now)
            enrolled.append(Enrolled(public, name, population, owner=name))
        certify_all(authority, enrolled)
        hub.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = hub.folder.with_name(hub.folder.name + ".new")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(Path(made) / "hub", making)
        making.chmod(0o700)
        making.rename(hub.folder)


def _make(folder: Path, one: Cohort, certify: Callable[[bytes], bytes], now: datetime) -> bytes:
    """Make one device, insert its facts and rows, enrol it; return its public key."""
    home = DeviceHome.make(folder, now)
    store, records = home.store, Records(home.store)
    facts = {name: labels[codes[0]] for name, (codes, labels) in one.facts.items() if codes[0] >= 0}
    store.set_facts(facts, now)
    store.grant("quality_metrics", now + CONSENT, now)
    if MOMENTS.name in one.tables:
        store.grant("personalisation", now + CONSENT, now)
    for name, table in one.tables.items():
        purpose: Purpose = "personalisation" if name == MOMENTS.name else "quality_metrics"
        store.record(name, table.to_pylist(), purpose, now)
    with store.transaction(now):
        public = records.key().public_key().public_bytes_raw()
        records.certify(certify(public))
    store.close()
    return public


def _config(name: str, hub: Hub, trusted: Trusted, labels: Mapping[str, Iterable[str]]) -> str:
    """Return a device.toml for a lab: tables of any age, conditions from the hub, nothing to settle, and no
    delay of replies: a hub's devices are asked one after the other."""
    kept = "\n".join(f"{source} = 3660" for source in STORED)
    allowed = "\n".join(f"{column} = {json.dumps(sorted(values))}" for column, values in labels.items())
    return f"""\
name = "{name}"
conditions = "../conditions.json"
[retention_days]
{kept}
[labels]
{allowed}
[budget]
settle_days = 0
{AMPLE_BUDGET if hub.ample else ""}[policy]
reply_seconds = 0
{AMPLE_POLICY if hub.ample else ""}[trust]
log = "{trusted.log}"
witness = "{trusted.witness}"
authority = "{trusted.authority}"
{"" if trusted.helper is None else f'helper = "{trusted.helper}"'}
[[trust.plan_keys]]
name = "lab"
key = "{trusted.plan}"
first = 2000-01-01
last = 2999-12-31
[serve]
socket = "{hub.socket}"
"""


def _labels(cohort: Cohort) -> dict[str, list[str]]:
    """Return for each open label column of device.toml the labels that the fleet has; hashes are not open."""
    found: dict[str, set[str]] = {}
    names = {"intent_predicted": "intent", "intent_actual": "intent"}
    for name, table in cohort.tables.items():
        for column, facts in STORED[name].columns.items():
            if facts.type == "label" and facts.domain is None and not facts.hashed:
                values = pa.chunked_array(table.column(column)).unique().cast(pa.string()).to_pylist()
                found.setdefault(names.get(column, column), set()).update(each for each in values if each)
    return {column: sorted(values) for column, values in found.items()}
