"""A collection that is open, and distinct reports for it in files: what scripts/bench/million.py uploads.

A folder has it all: a store with the charge, the keys, the databases of leader and helper with the task and
nothing else, and the reports, each of the same size, in one file for each process that makes them. What a
folder has is gone on with. The task takes reports for 30 days.
"""

import json
import multiprocessing
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.collection.helper import Helper
from fa_core.collection.leader import Leader
from fa_core.collection.migrations import LINEAGE
from fa_core.collection.report import report_size, seal_all
from fa_core.collection.schema import CLOSED, helper_tasks, leader_tasks
from fa_core.collection.task import SignedTask
from fa_core.database.connection import Database, connect_file
from fa_core.helper_service.settings import KEY, Home, read_home
from fa_core.helper_service.setup import init
from fa_core.layout import compile_plan
from fa_core.plan import Plan, SignedPlan, canonical, parse
from fa_core.prio import blocks
from fa_core.prio.mapping import shared
from fa_core.rounds.keys import LocalKeys, give_budgets, key_in, local_keys, local_signers
from fa_core.rounds.round import MonotonicClock, Pace, Watch
from fa_core.rounds.run import Job, RunContext, charge_of, invitation_of, require_budgets
from fa_core.store import open_store
from fa_core.trust.enrolment import read_key
from fa_core.values import Int64Array

ROOT: Final = Path(__file__).parents[2]
PLAN: Final = "wake-word-weekly"
POPULATION: Final = "bench"
DAYS: Final = 30
ALONE: Final = 32
"""Reports of each maker that are made one by one, as devices do, and measured."""

TOGETHER: Final = 64
"""The others are made so many at a time, which is five times cheaper."""

FEW: Final = 10_000
"""Up to so many reports are made in this process."""


def now() -> datetime:
    """Return the time, whole seconds, UTC."""
    return datetime.now(UTC).replace(microsecond=0)


def plan_of_bench() -> Plan:
    """Return wake-word-weekly, its sum formed by two aggregators."""
    text = (ROOT / f"eval_plans/{PLAN}.yaml").read_text("utf-8")
    text = text.replace("\nprivacy:\n", "\nprivacy:\n  sum: two_aggregators\n")
    return parse(text.encode(), PLAN, today=now().date(), policy=None)


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder with an open collection. `home` is the helper's folder within it."""

    folder: Path
    keys: LocalKeys
    leader_key: Ed25519PrivateKey
    home: Home
    signed: SignedTask
    plan: Plan

    @property
    def report_size(self) -> int:
        """Bytes of a report."""
        return report_size(blocks.prio(self.plan))

    def part(self, number: int) -> Path:
        """Return the file of the reports of one maker."""
        return self.folder / f"reports-{number}.bin"

    def made(self) -> int:
        """Return how many reports there are."""
        files = self.folder.glob("reports-*.bin")
        return sum(file.stat().st_size // self.report_size for file in files)

    def share(self, worker: int, workers: int, devices: int, group: int) -> Iterator[list[bytes]]:
        """Yield the reports that a worker takes, of the first so many, in groups."""
        size, seen = self.report_size, 0
        for file in sorted(self.folder.glob("reports-*.bin")):
            with file.open("rb") as reports:
                while seen < devices:
                    data = reports.read(size * min(group, devices - seen))
                    found = [data[at : at + size] for at in range(0, len(data) - size + 1, size)]
                    if not found:
                        break
                    if seen // group % workers == worker:
                        yield found
                    seen += len(found)


def databases_of(folder: Path, home: Home) -> dict[str, Database]:
    """Return the databases of leader and helper in a folder, which hold the task alone."""
    found = {"leader": connect_file(folder / "leader.db", LINEAGE), "helper": home.database()}
    for database in found.values():
        database.prepare()
    return found


def open_collection(folder: Path) -> Opened:
    """Return the open collection of a folder; charge it and open its task where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    keys, plan = local_keys(folder / "local"), plan_of_bench()
    leader_key = key_in(folder / "local" / "leader.key")
    home = _home(folder, keys)
    databases = databases_of(folder, home)
    witness = local_signers(keys, now).witness
    helper = Helper(databases["helper"], read_key(home.folder / KEY), home.pinned(), witness, now)
    leader = Leader(databases["leader"], leader_key, keys.authority.public_key, now)
    with databases["leader"].reading() as connection:
        row = connection.execute(leader_tasks.select()).mappings().first()
    if row is None:
        signed = _open(folder, keys, plan, leader, helper)
    else:
        signed = SignedTask.parse(bytes(row["signed"]))
        if signed.task.closes <= now() or signed.task.plan.hex() != plan.hash:
            raise SystemExit(
                f"{folder} has the collection of another plan, or one that is over; take another"
            )
    for database in databases.values():
        database.close()
    return Opened(folder, keys, leader_key, home, signed, plan)


def _home(folder: Path, keys: LocalKeys) -> Home:
    where = folder / "helper"
    if not (where / "helper.toml").exists():
        trusted = {
            name: folder / "local" / f"{name}.pub" for name in ("authority", "log", "witness", "leader")
        }
        init(where, "localhost:1", trusted, folder / "witness.sock")
    return read_home(where)


def _open(folder: Path, keys: LocalKeys, plan: Plan, leader: Leader, helper: Helper) -> SignedTask:
    """Charge a release and have leader and helper open its task."""
    until = now().replace(minute=0, second=0)
    with open_store(folder / "store") as store:
        give_budgets(store, keys.authority, POPULATION, plan.privacy.accounting, now())
        watch = Watch(lambda progress: None, lambda: False)
        context = RunContext(store, local_signers(keys, now), Pace(60, 0.1), MonotonicClock(), now, watch)
        signed = SignedPlan.of(plan, keys.plan)
        job = Job(plan, signed, POPULATION, until, "local", True, True, 0, 0)
        budgets = require_budgets(job, context)
        entry = store.announce(canonical(plan), signed.key, signed.signature)
        paid = store.charge(charge_of(job, compile_plan(plan), job.release.hex(), now()))
        proof = invitation_of(job, entry.index, paid.log_index, budgets, context).charge_proof
    window = now(), now() + timedelta(days=DAYS)
    return leader.open(canonical(plan), job.release, proof, window, helper)


def copy_task(opened: Opened, into: dict[str, Database]) -> None:
    """Write the task of a folder into empty databases of a leader and a helper."""
    source = databases_of(opened.folder, opened.home)
    for role, table in (("leader", leader_tasks), ("helper", helper_tasks)):
        into[role].prepare()
        with source[role].reading() as connection:
            rows = [dict(row) for row in connection.execute(table.select()).mappings()]
        assert len(rows) == 1
        assert rows[0]["stage"] != CLOSED
        with into[role].writing() as connection:
            connection.execute(table.insert(), rows)
        source[role].close()


def counted(plan: Plan, devices: int) -> Int64Array:
    """Return what so many devices share, int64 (devices, elements): each counted something in one group of
    every set."""
    tallies: dict[tuple[str, tuple[str, ...]], dict[str, Int64Array]] = {}
    rows = np.arange(devices)
    for each in shared(plan).sets:
        n, r = (np.zeros((devices, each.shape.cells), np.int64) for _ in range(2))
        groups = [secrets.randbelow(each.shape.cells) for _ in rows]
        n[rows, groups] = [1 + secrets.randbelow(plan.privacy.max_events) for _ in rows]
        r[rows, groups] = [secrets.randbelow(int(most) + 1) for most in n[rows, groups]]
        tallies[each.metric, each.grouping] = {"n": n, "r": r}
    return np.asarray(blocks.encode(plan, tallies))


def make_reports(folder: Path, number: int, total: int) -> None:
    """Make reports until this maker's file has so many, each of a device that is enrolled for it.

    The first are made one by one, and `made-N.json` has their number and the CPU seconds that it took.
    """
    opened = open_collection(folder)
    size, costs = opened.report_size, folder / f"made-{number}.json"
    with opened.part(number).open("ab") as file:
        have = file.tell() // size
        file.truncate(have * size)
        if not costs.exists():
            many = min(ALONE, total - have)
            began = time.process_time()
            for _ in range(many):
                file.write(_reports(opened, 1))
            cost = {"reports": many, "seconds": time.process_time() - began}
            costs.write_text(json.dumps(cost), "utf-8")
            have += many
        while have < total:
            many = min(TOGETHER, total - have)
            file.write(_reports(opened, many))
            have += many


def _reports(opened: Opened, many: int) -> bytes:
    """Return the reports of so many fresh devices, one after another."""
    measurements = counted(opened.plan, many)
    identities = [opened.keys.authority.enrol(POPULATION) for _ in range(many)]
    made = seal_all(opened.signed.task, blocks.prio(opened.plan), list(measurements), identities)
    return b"".join(each.encode() for each in made)


def make_all(opened: Opened, devices: int) -> None:
    """Have so many distinct reports in a folder: many of them are made by a process on each core."""
    if devices <= FEW:
        make_reports(opened.folder, 0, devices)
        return
    makers = os.cpu_count() or 1
    shares = [devices // makers + (number < devices % makers) for number in range(makers)]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=make_reports, args=(opened.folder, number, share), daemon=True)
        for number, share in enumerate(shares)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process that makes reports has failed")


def device_ms(folder: Path) -> float:
    """Return a device's CPU milliseconds for its report, as its maker measured it, enrolment included."""
    costs = [json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("made-*.json"))]
    reports = sum(cost["reports"] for cost in costs)
    return float(1000 * sum(cost["seconds"] for cost in costs) / reports)
