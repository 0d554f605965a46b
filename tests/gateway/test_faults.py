"""kill -9 of a worker, of the gateway and of its database, at each stage of a round, on the real processes.

Whatever fails, a round ends as released once, or as failed with nothing released; ledger and log agree; and
the next round works.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clients.app import through_gateway
from clients.device import remote
from clients.device.interface import STAGES, Stage
from clients.device.remote import attend, line
from fa_core.errors import RoundFailed
from fa_core.flower.transport import LocalGrid, client_app
from fa_core.gateway.setup import init
from fa_core.secagg import IN_ORDER
from tests.gateway.running_gateway import until
from tests.ports import free_ports
from tests.rounds.small import World, small_plan
from tests.store.postgres import Database, mortal

pytestmark = pytest.mark.long

DEVICES = 10
SECONDS = 300.0
"""How long devices have for a stage."""


@dataclass
class Serving:
    """`fa gateway serve` as a process with two workers."""

    folder: Path
    operations: str
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        log = (self.folder / "serve.log").open("ab")
        command = [sys.executable, "-m", "fa_core.cli", "gateway", "serve", str(self.folder)]
        self.process = subprocess.Popen(command, stderr=log, stdout=log)
        log.close()
        try:
            until(lambda: self.process.poll() is not None or self.ready())
            assert self.process.poll() is None, (self.folder / "serve.log").read_text()
        except BaseException:
            self.kill()
            raise

    def ready(self) -> bool:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"http://{self.operations}/ready", timeout=10):
                return True
        except OSError:
            return False

    def workers(self) -> list[int]:
        """The workers' process ids, without multiprocessing's helper."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        commands = {int(each): Path(f"/proc/{each}/cmdline").read_bytes() for each in children}
        return [each for each, command in commands.items() if b"spawn_main" in command]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class Watched:
    """A simulated device that reports each stage at which it is asked."""

    def __init__(self, device: Any, lock: threading.Lock, asked: Callable[[Stage], None]) -> None:
        self._device, self._lock, self._asked = device, lock, asked

    def handle(self, stage: Stage, request: bytes) -> bytes:
        self._asked(stage)
        with self._lock:
            reply: bytes = self._device.handle(stage, request)
        return reply


@dataclass
class Stand:
    """Everything of a test case: the world, the gateway, its database, and the faults to come."""

    world: World
    serving: Serving
    database: Database
    faults: dict[Stage, Callable[[], None]] = field(default_factory=dict)

    def asked(self, stage: Stage) -> None:
        """Strike once, when the first device is asked at the stage."""
        fault = self.faults.pop(stage, None)
        if fault is not None:
            fault()

    def run(self) -> str:
        config = {"gateway": str(self.serving.folder / "gateway.sock"), "seconds": SECONDS}
        grid = LocalGrid(client_app(lambda message, _: through_gateway(message, config), STAGES), 1)
        try:
            self.world.run_over(grid, small_plan())
        except RoundFailed as error:
            return f"failed, nothing released: {error}"
        return "released"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with mortal() as made:
        yield made


@pytest.fixture
def stand(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.1, 1.0))
    world = World.make(tmp_path / "world", DEVICES)
    public = tmp_path / "authority.pub"
    public.write_text(world.authority.public_key.hex())
    port = free_ports(2)
    folder = tmp_path / "gateway"
    init(folder, f"127.0.0.1:{port}", public, database.url, 2)
    config = folder / "gateway.toml"
    text = (
        config.read_text().replace("127.0.0.1:9464", f"127.0.0.1:{port + 1}").replace("0.0.0.0", "127.0.0.1")
    )
    config.write_text(
        text.replace("maximum = 10000 ", f"maximum = {DEVICES} ").replace("= 20.0 ", "= 600.0 ")
    )
    serving = Serving(folder, f"127.0.0.1:{port + 1}")
    serving.start()
    here = Stand(world, serving, database)
    with devices(here, f"https://127.0.0.1:{port}"):
        yield here
    serving.stop()
    world.store.close()


@contextmanager
def devices(here: Stand, url: str) -> Iterator[None]:
    lock, stopped = threading.Lock(), threading.Event()
    lines, threads = [], []
    for number in range(DEVICES):
        device = here.world.fleet.device(number)
        lines.append(line(url, device._identity, here.serving.folder / "ca.crt"))
        watched = Watched(device, lock, here.asked)
        threads.append(threading.Thread(target=attend, args=(watched, lines[-1], stopped)))
        threads[-1].start()
    yield
    stopped.set()
    for each in lines:
        each.close()
    for thread in threads:
        thread.join()


def kill_a_worker(here: Stand) -> None:
    os.kill(here.serving.workers()[0], signal.SIGKILL)


def kill_the_database(here: Stand) -> None:
    here.database.kill()
    threading.Thread(target=here.database.start).start()


def kill_the_gateway(here: Stand) -> None:
    here.serving.kill()
    threading.Thread(target=here.serving.start).start()


TABLE: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table(aloud: Callable[[Iterable[str]], None]) -> Iterator[None]:
    """Print fault, stage, outcome and seconds of every case at the end."""
    yield
    aloud(["fault                stage   seconds  outcome", *TABLE])


@pytest.mark.parametrize("stage", IN_ORDER)
@pytest.mark.parametrize("fault", [kill_a_worker, kill_the_database, kill_the_gateway])
def test_a_round_ends_once_whatever_is_killed(
    stand: Stand, fault: Callable[[Stand], None], stage: Stage
) -> None:
    stand.faults[stage] = lambda: fault(stand)
    began = time.monotonic()
    outcome = stand.run()
    took = time.monotonic() - began
    name = fault.__name__.replace("kill_", "").replace("_", " ")
    TABLE.append(f"{name:20} {stage:7} {took:7.1f}  {outcome}")
    assert stage not in stand.faults, "the fault never struck"
    store = stand.world.store
    assert store.count() + len(store.failures()) == 1
    assert (store.count() == 1) == (outcome == "released")
    if fault is kill_a_worker:
        assert outcome == "released"  # its devices come to another, and nothing is lost
    until(stand.serving.ready)
    assert stand.run() == "released"
    assert store.verify_ledger() == store.verify_log() == []
    assert len(store.charges("small")) == 2
