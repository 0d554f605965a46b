"""One round of many remote devices through one gateway on loopback: secure aggregation, distributed noise.

    python scripts/bench/gateway.py                       # 500 devices
    python scripts/bench/gateway.py --devices 10000       # the full figure: some 20 minutes on two cores

The gateway is the real one: `fa gateway serve` with TLS, workers of its own, behind a PostgreSQL that this
script starts. Each device is a thread with a connection of its own, the device's own client and a device
key; it signs every request, waits by long poll, and does the whole protocol. Devices of one process share the
memory of signatures that were verified, so the protocol takes less time than on a device alone, which
scripts/bench/secagg.py gives; the time of the line to the gateway is each device's own. `--per-node` devices
sit behind each node; nodes run at the same time, as SuperNodes do, without Flower between server and nodes.
"""

import argparse
import json
import math
import multiprocessing
import os
import queue
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.app import through_gateway
from clients.device.interface import STAGES, Stage
from clients.device.remote import Line, attend, line
from clients.device.trust import Pins
from clients.party import SimulatedDevice, pins_of, simulated
from fa_core.flower.transport import LocalGrid, client_app
from fa_core.gateway.settings import CONFIG, FILE
from fa_core.gateway.setup import init
from fa_core.plan import Plan, SignedPlan, parse
from fa_core.rounds.keys import LocalKeys, give_budgets, local_keys, local_signers
from fa_core.rounds.round import MonotonicClock, Pace, Progress, Watch
from fa_core.rounds.run import Job, RunContext, run
from fa_core.store import open_store
from fa_core.trust.enrolment import Authority

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.tables import ACCENTS, CLASSES, UNTIL, cohort
from tests.store import postgres

STAGE_SECONDS = 3600.0
EVENTS, HOURS = 24, 40
POPULATION = "bench"
TICKS = os.sysconf("SC_CLK_TCK")

PLAN = f"""\
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: gateway-bench
  revision: 1
  owner: bench
  question: How long does a round of remote devices take?
  expires: 2099-12-31
source: wake_events
window: 7d
segments:
  accent: {{device: accent, values: [{", ".join(ACCENTS)}]}}
  device_class: {{device: device_class, values: [{", ".join(CLASSES)}]}}
group_by: [[], [accent], [device_class]]
metrics:
  false_reject_rate:
    kind: rate
    of: {{outcome: false_reject}}
    over: {{outcome: [false_reject, true_accept]}}
    expect: 0.05
privacy: {{epsilon: 1.0, delta: 1e-8, noise: distributed, max_events: 32, min_cohort: 50}}
"""


@dataclass(frozen=True)
class Report:
    """The figures of a round. Times in seconds; CPU of a device in milliseconds."""

    devices: int
    nodes: int
    cells: int
    stage_seconds: dict[str, float]
    round_seconds: float
    connect_seconds: float
    messages: int
    messages_a_second: float
    line_ms_a_device: float
    protocol_ms_a_device: float
    gateway_ms_a_message: float
    database_ms_a_message: float
    gateway_mb: float
    counted: int


class TimedDevice:
    """A simulated device whose protocol time is measured. Those of a process think one after the other
    (`turn`): together they would spend more on the interpreter's lock than on the protocol."""

    def __init__(self, device: SimulatedDevice, turn: threading.Lock) -> None:
        self._device = device
        self._turn = turn
        self.seconds = 0.0

    def handle(self, stage: Stage, request: bytes) -> bytes:
        with self._turn:
            began = time.thread_time()
            try:
                return self._device.handle(stage, request)
            finally:
                self.seconds += time.thread_time() - began


@dataclass(frozen=True)
class Crowd:
    """What a process of devices is given."""

    size: int
    seed: int
    url: str
    ca: Path
    pins: Pins
    authority: bytes


def crowd(given: Crowd, pipe: Connection) -> None:
    """Play `size` devices, each in a thread, until the pipe closes; then send their CPU seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.stack_size(512 * 1024)
    authority = Authority(Ed25519PrivateKey.from_private_bytes(given.authority))
    events = cohort(given.size, EVENTS, HOURS, given.seed)
    fleet = simulated(events, given.pins, authority, POPULATION, None)
    turn = threading.Lock()
    devices = [TimedDevice(fleet.device(number), turn) for number in range(given.size)]
    lines = [line(given.url, fleet.device(number)._identity, given.ca) for number in range(given.size)]
    stopped, totals, lock = threading.Event(), [0.0], threading.Lock()

    def live(device: TimedDevice, theirs: Line) -> None:
        attend(device, theirs, stopped)
        with lock:
            totals[0] += time.thread_time()

    threads = [threading.Thread(target=live, args=each) for each in zip(devices, lines, strict=True)]
    for thread in threads:
        thread.start()
    try:
        pipe.recv()
    except EOFError:
        os._exit(1)
    stopped.set()
    for theirs in lines:
        theirs.hang_up()
    for thread in threads:
        thread.join()
    pipe.send((totals[0], sum(device.seconds for device in devices)))


class NodesAtOnce:
    """A Grid over a local one whose nodes run at the same time, each in a thread."""

    def __init__(self, grid: LocalGrid) -> None:
        self._grid = grid
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get_node_ids(self) -> Any:
        return self._grid.get_node_ids()

    def push_messages(self, messages: Any) -> list[str]:
        ids = list(self._grid.push_messages(messages))
        for each in ids:
            threading.Thread(target=self._run, args=(each,), daemon=True).start()
        return ids

    def pull_messages(self, message_ids: Any) -> list[Any]:
        return [self._said.get() for _ in range(self._said.qsize())]

    def _run(self, message_id: str) -> None:
        for said in self._grid.pull_messages([message_id]):
            self._said.put(said)


def cpu(process: int) -> float:
    """Return the CPU seconds of a process, those of its living and dead children included."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu(int(child)) for child in children)


def memory(process: int) -> float:
    """Return the resident megabytes of a process and its children."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return pages * resource.getpagesize() / 1e6 + sum(memory(int(child)) for child in children)


def metric(operations: str, name: str) -> float:
    """Return the sum of a metric over its labels."""
    with urllib.request.urlopen(f"http://{operations}/metrics", timeout=30) as page:
        rows = [row for row in page.read().decode().splitlines() if row.startswith(name)]
    return sum(float(row.rpartition(" ")[2]) for row in rows)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def gateway(folder: Path, authority: Authority, database: str, workers: int, per_node: int) -> Iterator[Any]:
    """Run `fa gateway serve`; yield (its process, its URL, its operations' address)."""
    name, operations = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    folder.parent.mkdir(exist_ok=True)
    public = folder.parent / "authority.pub"
    public.write_text(authority.public_key.hex() + "\n")
    init(folder, name, public, database, workers)
    config = (folder / CONFIG).read_text()
    config = config.replace("127.0.0.1:9464", operations).replace("0.0.0.0:", "127.0.0.1:")
    config = config.replace("maximum = 10000 ", f"maximum = {per_node} ").replace(
        "window_seconds = 20.0", "window_seconds = 3600.0"
    )
    (folder / CONFIG).write_text(config)
    log = (folder / "serve.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "fa_core.cli", "gateway", "serve", str(folder)], stderr=log
    )
    try:
        wait(lambda: reachable(f"http://{operations}/ready"), process)
        yield process, f"https://{name}", operations
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def wait(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not holds():
        if process.poll() is not None:
            raise SystemExit(f"the gateway ended with {process.returncode}")
        time.sleep(0.2)


def one_round(folder: Path, devices: int, per_node: int, workers: int, database: str, server: int) -> Report:
    """Run one round. `server` is the process id of PostgreSQL, 0 for none."""
    keys = local_keys(folder / "local")
    authority = keys.authority
    signer, log, witness = (
        key.public_key().public_bytes_raw() for key in (keys.plan, keys.log, keys.witness)
    )
    pins = pins_of(signer, log, witness, authority.public_key)
    nodes = math.ceil(devices / per_node)
    plan = parse(PLAN.encode(), "bench.yaml", today=datetime.now(UTC).date(), policy=None)
    with gateway(folder / "gateway", authority, database, workers, math.ceil(devices / nodes)) as (
        process,
        url,
        operations,
    ):
        began = time.monotonic()
        given = [
            Crowd(size, seed, url, folder / "gateway" / "ca.crt", pins, authority.key.private_bytes_raw())
            for seed, size in enumerate(shares(devices, min(4, math.ceil(devices / 100))))
        ]
        crowds = [start(each) for each in given]
        wait(lambda: metric(operations, "unheard_gateway_waiting") >= devices, process)
        connected = time.monotonic() - began
        before = cpu(process.pid), cpu(server), metric(operations, "unheard_gateway_requests_total")
        socket_of = {"gateway": str(folder / "gateway" / "gateway.sock"), "seconds": STAGE_SECONDS}
        grid = LocalGrid(client_app(lambda message, _: through_gateway(message, socket_of), STAGES), nodes)
        seen: list[tuple[float, str]] = []
        began = time.monotonic()
        release = drive(folder, NodesAtOnce(grid), plan, keys, devices, nodes, seen)
        took = time.monotonic() - began
        time.sleep(2.0)  # workers leave their counts once a second
        messages = metric(operations, "unheard_gateway_requests_total") - before[2]
        spent = cpu(process.pid) - before[0], cpu(server) - before[1]
        size = memory(process.pid)
        spent_by_crowds = [stop(*each) for each in crowds]
    total, protocol = (sum(each) for each in zip(*spent_by_crowds, strict=True))
    return Report(
        devices=devices,
        nodes=nodes,
        cells=release.layout.length,
        stage_seconds=stages(seen),
        round_seconds=took,
        connect_seconds=connected,
        messages=int(messages),
        messages_a_second=messages / took,
        line_ms_a_device=1000 * (total - protocol) / devices,
        protocol_ms_a_device=1000 * protocol / devices,
        gateway_ms_a_message=1000 * spent[0] / messages,
        database_ms_a_message=1000 * spent[1] / messages,
        gateway_mb=size,
        counted=release.participation.counted,
    )


def drive(folder: Path, grid: Any, plan: Plan, keys: LocalKeys, devices: int, nodes: int, seen: Any) -> Any:
    """Run the plan over the grid and return its release; `seen` gets (time, stage) of each look."""

    def report(progress: Progress) -> None:
        seen.append((time.monotonic(), str(progress.stage.value)))

    def today() -> datetime:
        return datetime.now(UTC)

    with open_store(folder / "store") as store:
        give_budgets(store, keys.authority, POPULATION, plan.privacy.accounting, today())
        signers = local_signers(keys, today)
        watch = Watch(report, lambda: False)
        context = RunContext(store, signers, Pace(2 * STAGE_SECONDS, 0.1), MonotonicClock(), today, watch)
        signed = SignedPlan.of(plan, keys.plan)
        job = Job(plan, signed, POPULATION, UNTIL, "gateway", True, True, nodes, devices)
        release, _ = run(job, grid, context)
        return release


def stages(seen: list[tuple[float, str]]) -> dict[str, float]:
    """Return the seconds of each stage: from the first look at it to the first at the next."""
    first: dict[str, float] = {}
    for at, stage in seen:
        first.setdefault(stage, at)
    ends = [*list(first.values())[1:], seen[-1][0]]
    return {stage: end - at for (stage, at), end in zip(first.items(), ends, strict=True)}


def shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def start(given: Crowd) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=crowd, args=(given, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def stop(process: Any, pipe: Connection) -> tuple[float, float]:
    pipe.send(None)
    seconds: tuple[float, float] = pipe.recv()
    process.join()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--per-node", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sqlite", action="store_true", help="one worker and a file, no PostgreSQL")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    programs = None if asked.sqlite else postgres.binaries()
    with tempfile.TemporaryDirectory(prefix="unheard-gateway-") as name:
        folder = Path(name)
        if programs is None:
            report = one_round(folder, asked.devices, asked.per_node, 1, FILE, 0)
        else:
            with postgres.server(programs) as home:
                process = int((home / "data" / "postmaster.pid").read_text().split()[0])
                address = f"postgresql://unheard@/postgres?host={home}"
                report = one_round(folder, asked.devices, asked.per_node, asked.workers, address, process)
    print(json.dumps(asdict(report), indent=2) if asked.json else text(report))


def text(report: Report) -> str:
    """Return the figures as lines."""
    stage = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.stage_seconds.items())
    return "\n".join(
        (
            f"{report.devices:,} remote devices behind {report.nodes} nodes, {report.cells} cells; "
            f"{report.counted:,} counted",
            f"  connecting    {report.connect_seconds:8.1f} s, until everybody waits",
            f"  the round     {report.round_seconds:8.1f} s: {stage}",
            f"  messages      {report.messages:8,} requests, {report.messages_a_second:,.0f} a second",
            f"  a device      {report.line_ms_a_device:8.1f} ms CPU for its line (TLS, signing, waiting), "
            f"{report.protocol_ms_a_device:.1f} ms for the protocol, counting and noise",
            f"  the gateway   {report.gateway_ms_a_message:8.2f} ms CPU a request; its database "
            f"{report.database_ms_a_message:.2f} ms; {report.gateway_mb:,.0f} MB",
        )
    )


if __name__ == "__main__":
    main()
