"""A collection of a million devices: CPU a report of each side, in one run with the four stages.

    python -m scripts.bench.million --postgres --folder F             # 1,000,000 devices: 4 GB in F
    python -m scripts.bench.million --devices 100000 --workers 1 2 --postgres

Distinct reports of wake-word-weekly, whose sum two aggregators form, each of a device of its own, are made
beforehand (`million_reports.py`); with `--folder` they stay, and a run that was stopped goes on. Then:

- `--uploads` of them are sent over HTTPS to a front: the gateway's HTTP and TLS settings (uvicorn, FastAPI,
  TLS 1.3) around a handler that reads the body and answers. Half of them over one connection that stays, half
  with a connection each. What a gateway does beside, its queue and its checks, is not in it.
- All are handed to the leader in groups of 512, as a drain hands them, and verified with the helper: `fa
  helper serve` as it is, over HTTPS, with its own database. For each number of workers once, from empty
  databases: so many processes of the leader, so many of the helper. The sum is closed; everybody must
  have been counted.
- `--four-stages` devices do a round in four stages through a gateway (`scripts/bench/gateway.py`), to
  compare.

CPU seconds are of whole processes, children included, from when they are ready. The exit code is 1 where
leader, helper, front (a connection each) and database server together spend more than 3 ms a report.
"""

import argparse
import json
import multiprocessing
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import create_engine, text

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fa_core.collection.exchange import HelperAddress, HelperClient, read_address
from fa_core.collection.leader import Leader, Tally
from fa_core.collection.measured import measured
from fa_core.collection.migrations import LINEAGE
from fa_core.database.connection import Database, connect_file, connect_server
from fa_core.gateway.settings import FILE
from fa_core.helper_service.settings import ADDRESS, CONFIG, read_home
from fa_core.plan import canonical
from fa_core.rounds.keys import local_witness
from fa_core.trust.witness_service import WitnessServer
from scripts.bench.gateway import cpu, free_port, one_round
from scripts.bench.million_front import front
from scripts.bench.million_reports import PLAN, Opened, copy_task, device_ms, make_all, now, open_collection
from tests.store import postgres

GROUP: Final = 512
"""Reports that a drain hands over together: two batches."""

BOUND_MS: Final = 3.0
PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Transport:
    """CPU milliseconds an upload of device and front, on a connection that stays and on a new one."""

    uploads: int
    device_kept: float
    front_kept: float
    device_new: float
    front_new: float


@dataclass(frozen=True, slots=True)
class Collected:
    """One collection. CPU milliseconds a report, reports a second, peak megabytes of the largest process."""

    workers: int
    devices: int
    take: float
    verify: float
    helper: float
    database: float
    a_second: float
    leader_mb: float
    helper_mb: float


@dataclass(frozen=True, slots=True)
class FourStages:
    """CPU milliseconds a device of a round in four stages."""

    devices: int
    device: float
    server: float
    gateway: float
    database: float


@dataclass(frozen=True, slots=True)
class Databases:
    """Where databases are made: in a folder, or at a PostgreSQL server with this process id."""

    folder: Path
    server: str = ""
    process: int = 0

    def make(self, name: str) -> str:
        """Make an empty database; return its address, or its file."""
        if not self.server:
            return str(self.folder / f"{name}.db")
        engine = create_engine(self.server.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.server.replace("/postgres?", f"/{name}?")

    def cpu(self) -> float:
        """Return the server's CPU seconds, 0 where there is none."""
        return cpu(self.process) if self.process else 0.0


def connect(where: str) -> Database:
    """Return a database of a leader or a helper."""
    return connect_server(where, LINEAGE) if "://" in where else connect_file(Path(where), LINEAGE)


# Transport.


def transport(opened: Opened, uploads: int) -> Transport:
    """Upload reports to a front over HTTPS; return what it cost both ends."""
    (sent,) = opened.share(0, 1, uploads, uploads)
    port, tls = free_port(), opened.home.folder
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=front, args=(port, tls), daemon=True)
    process.start()
    assert process.pid is not None
    trust = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    try:
        until(lambda: _answers(port, trust), f"the front ended with {process.exitcode}")
        spent = []
        for reports, kept in ((sent[::2], True), (sent[1::2], False)):
            before = time.process_time(), cpu(process.pid)
            upload(port, trust, reports, kept)
            after = time.process_time(), cpu(process.pid)
            spent += [1000 * (b - a) / len(reports) for a, b in zip(before, after, strict=True)]
    finally:
        process.terminate()
        process.join()
    return Transport(len(sent), *spent)


def upload(port: int, trust: ssl.SSLContext, reports: Sequence[bytes], kept: bool) -> None:
    """Send reports one after the other, over one connection or with one each."""
    connection = HTTPSConnection("localhost", port, context=trust, timeout=PATIENCE)
    for report in reports:
        connection.request("POST", "/v1/collections", report)
        response = connection.getresponse()
        response.read()
        if response.status != 204:
            raise SystemExit(f"the front answered {response.status}")
        if not kept:
            connection.close()
    connection.close()


def _answers(port: int, trust: ssl.SSLContext) -> bool:
    connection = HTTPSConnection("localhost", port, context=trust, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 404
    except OSError:
        return False
    finally:
        connection.close()


# Leader and helper.


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker of the leader is given: the reports' folder, its database, its helper, its share."""

    folder: Path
    database: str
    helper: HelperAddress
    devices: int
    worker: int
    workers: int


@contextmanager
def leader_of(given: Work) -> Iterator[tuple[Leader, HelperClient, Opened]]:
    """Yield the leader over a worker's database, and its helper."""
    opened, database = open_collection(given.folder), connect(given.database)
    leader = Leader(database, opened.leader_key, opened.keys.authority.public_key, now)
    yield leader, HelperClient(given.helper, opened.leader_key, PATIENCE), opened
    database.close()


def work(given: Work) -> tuple[float, float, float]:
    """Take and verify a worker's share; return the CPU seconds of both, and peak megabytes."""
    take = verify = 0.0
    with leader_of(given) as (leader, helper, opened):
        task = opened.signed.task.id
        measured(canonical(opened.plan))
        for group in opened.share(given.worker, given.workers, given.devices, GROUP):
            began = time.process_time()
            refusals = leader.take_all(task, group)
            taken = time.process_time()
            if any(refusals):
                raise SystemExit("a report was refused")
            while leader.verify(task, helper):
                pass
            take += taken - began
            verify += time.process_time() - taken
    return take, verify, peak("self")


def collect(opened: Opened, databases: Databases, devices: int, workers: int) -> Collected:
    """Collect all reports from empty databases with so many workers on each side."""
    places = {role: databases.make(f"{role}_{workers}") for role in ("leader", "helper")}
    home = databases.folder / f"helper-{workers}"
    shutil.copytree(opened.home.folder, home, ignore=shutil.ignore_patterns("*.db*"))
    name = f"localhost:{free_port()}"
    settings = (home / CONFIG).read_text("utf-8")
    for key, value in (("listen", f'"{name}"'), ("database", f'"{places["helper"]}"'), ("workers", workers)):
        settings = re.sub(rf"(?m)^{key} = \S+", f"{key} = {value}", settings)
    (home / CONFIG).write_text(settings, "utf-8")
    copy_task(opened, {"leader": connect(places["leader"]), "helper": read_home(home).database()})
    address = replace(read_address(home / ADDRESS), name=name)
    given = [
        Work(opened.folder, places["leader"], address, devices, each, workers) for each in range(workers)
    ]
    with serving(home, name) as process:
        before, began = (cpu(process), databases.cpu()), time.monotonic()
        spent = at_once(given)
        took = time.monotonic() - began
        after = cpu(process), databases.cpu()
        helper_mb = max(peak(each) for each in (process, *children(process)))
        witness = witness_of(opened, databases.folder / f"witness-{workers}")
        with witness, leader_of(given[0]) as (leader, helper, _):
            leader.close(opened.signed.task.id, helper)
            if leader.tally(opened.signed.task.id) != Tally(devices, 0, devices, {}):
                raise SystemExit("not every report was counted once")
    take, verify = (1000 * sum(each[column] for each in spent) / devices for column in (0, 1))
    helpers, server = (1000 * (b - a) / devices for a, b in zip(before, after, strict=True))
    leader_mb = max(each[2] for each in spent)
    return Collected(workers, devices, take, verify, helpers, server, devices / took, leader_mb, helper_mb)


@contextmanager
def witness_of(opened: Opened, journal: Path) -> Iterator[None]:
    """Have the collection's witness answer the helper, with a copy of its journal: it keeps one share of a
    release, and here the same task is closed once for each number of workers."""
    shutil.copytree(opened.keys.journal, journal)
    witness = local_witness(replace(opened.keys, journal=journal), now)
    socket = opened.folder / "witness.sock"
    with WitnessServer(witness, socket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            socket.unlink()


def at_once(given: Sequence[Work]) -> list[tuple[float, float, float]]:
    """Do the work of each in a process of its own, of one in this; return what `work` does."""
    if len(given) == 1:
        return [work(given[0])]
    with multiprocessing.get_context("spawn").Pool(len(given)) as pool:
        return pool.map(work, given, chunksize=1)


@contextmanager
def serving(home: Path, name: str) -> Iterator[int]:
    """Run `fa helper serve`; yield its process id once it answers."""
    trust = ssl.create_default_context(cafile=str(home / "ca.crt"))
    command = [sys.executable, "-m", "fa_core.cli", "helper", "serve", str(home)]
    with (home / "serve.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            port = int(name.rpartition(":")[2])
            until(lambda: _answers(port, trust), f"the helper ended with {process.poll()}")
            yield process.pid
        finally:
            process.terminate()


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(otherwise)
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def peak(process: int | str) -> float:
    """Return the most megabytes that a process has had resident."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


# The four stages.


def four_stages(folder: Path, databases: Databases, devices: int) -> FourStages:
    """Run a round in four stages through a gateway."""
    where = databases.make("gateway") if databases.server else FILE
    folder.mkdir()
    began = time.process_time()
    report = one_round(folder, devices, devices, 1, where, databases.process)
    server = 1000 * (time.process_time() - began) / devices
    each = report.messages / devices
    return FourStages(
        devices,
        report.line_ms_a_device + report.protocol_ms_a_device,
        server,
        report.gateway_ms_a_message * each,
        report.database_ms_a_message * each,
    )


# What is printed.


def check_ms() -> float:
    """Return CPU milliseconds of a check of an Ed25519 signature, the mean of a thousand."""
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key(), key.sign(b"")
    began = time.process_time()
    for _ in range(1000):
        public.verify(signature, b"")
    return time.process_time() - began


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured.

    Attributes:
        check: CPU milliseconds of one check of a signature, by which machines and hours are compared.
        device: those of a device for making a report. database: which.
    """

    check: float
    device: float
    database: str
    transport: Transport
    collected: list[Collected]
    four_stages: FourStages | None

    @property
    def aggregators(self) -> float:
        """CPU milliseconds a report of everything but the device, a connection each."""
        worst = max(each.take + each.verify + each.helper + each.database for each in self.collected)
        return worst + self.transport.front_new


def table(found: Figures) -> str:
    """Return the figures as lines."""
    sent, rows = found.transport, []

    def row(name: str, cost: float, note: str = "") -> None:
        rows.append(f"  {name:<34}{cost:>8.2f}  {note}".rstrip())

    rows.append(f"ms of CPU a report of {PLAN}; databases: {found.database}")
    row("one check of a signature", found.check, "of the four that a report needs")
    row("device: makes its report", found.device)
    row("device: uploads, new connection", sent.device_new, f"{sent.device_kept:.2f} on one that stays")
    row("front: HTTPS, new connection", sent.front_new, f"{sent.front_kept:.2f} on one that stays")
    for each in found.collected:
        rows.append(
            f"{each.devices:,} reports, workers of leader and of helper: {each.workers} and {each.workers}"
        )
        row("leader: takes", each.take)
        row("leader: verifies", each.verify, f"{each.leader_mb:,.0f} MB at most")
        row("helper", each.helper, f"{each.helper_mb:,.0f} MB at most")
        row("database server", each.database)
        rows.append(f"  {each.a_second:,.0f} reports a second")
    if found.four_stages is not None:
        rows += _beside(found, found.four_stages)
    missed = found.aggregators > BOUND_MS
    kept = found.aggregators - sent.front_new + sent.front_kept
    rows.append(
        f"aggregators' side: {found.aggregators:.2f} ms a report, {kept:.2f} on connections that stay; "
        f"at most {BOUND_MS:g}" + (": MISSED" if missed else "")
    )
    return "\n".join(rows)


def _beside(found: Figures, four: FourStages) -> list[str]:
    """Return the lines of the four stages."""
    servers, device = four.server + four.gateway + four.database, found.device + found.transport.device_new
    return [
        f"four stages, {four.devices:,} devices through a gateway, ms a device",
        f"  {'device and its line':<34}{four.device:>8.2f}  {four.device / device:.1f} times",
        f"  {'server and nodes':<34}{four.server:>8.2f}",
        f"  {'gateway':<34}{four.gateway:>8.2f}",
        f"  {'database server':<34}{four.database:>8.2f}",
        f"  all but the device {servers / found.aggregators:.1f} times the aggregators' side",
    ]


@contextmanager
def database_server(folder: Path, *, wanted: bool) -> Iterator[Databases]:
    """Yield where databases are made; a PostgreSQL of this run's own where it is wanted and installed."""
    programs = postgres.binaries() if wanted else None
    if programs is None:
        yield Databases(folder)
        return
    with postgres.server(programs) as home:
        address = f"postgresql://unheard@/postgres?host={home}"
        yield Databases(folder, address, postgres.postmaster(home))


def main() -> int:
    """Run the bench; return 1 where the bound is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the reports stay")
    parser.add_argument("--postgres", action="store_true", help="where it is installed; else files")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--uploads", type=int, default=2_000)
    parser.add_argument("--four-stages", type=int, default=200, metavar="DEVICES", help="0 leaves them out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unheard-million-") as place:
        opened = open_collection(asked.folder or Path(place) / "reports")
        make_all(opened, asked.devices)
        with database_server(Path(place), wanted=asked.postgres) as databases:
            if max(asked.workers) > 1 and not databases.server:
                parser.error("several workers share a PostgreSQL; --postgres, where it is installed")
            found = Figures(
                check_ms(),
                device_ms(opened.folder),
                "PostgreSQL, fsync off" if databases.server else "SQLite",
                transport(opened, min(asked.uploads, asked.devices)),
                [collect(opened, databases, asked.devices, workers) for workers in asked.workers],
                four_stages(Path(place) / "four", databases, asked.four_stages)
                if asked.four_stages
                else None,
            )
    figures = {**asdict(found), "aggregators": found.aggregators}
    print(json.dumps(figures, indent=2) if asked.json else table(found))
    return 1 if found.aggregators > BOUND_MS else 0


if __name__ == "__main__":
    raise SystemExit(main())
