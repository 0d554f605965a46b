"""Kill -9 at every statement of a contribution: never two in one window, nothing sent and not charged.

A child process goes on with a round from `masked` (or another stage) over a copy of the store and is killed
by SIGKILL when it reaches one chosen statement of `clients/device`. What it said before it died went into a
pipe, which stands for the network. The parent then looks at the store it left, restarts the device on it
and tries to make it contribute again.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from clients.device import database
from clients.device.contribution import StoredDevice
from clients.device.interface import Stage
from clients.device.proof import problems
from clients.device.records import Records
from clients.device.store import Store
from fa_core.secagg import IN_ORDER
from fa_core.wire.invitation import Invitation, encode
from tests.device.setup import KEY, NOW, RULES, Setup, World, drive, make_setup, plan_of, reason_of

ROOM = str(Path(database.__file__).parent)
PLAN = plan_of()


@dataclass
class StoppedRound:
    """A round stopped just before one stage, and a copy of the store for every way to go on."""

    world: World
    setup: Setup
    device: StoredDevice
    invitation: Invitation
    stage: Stage
    request: bytes
    copies: Path

    def attempt(self, number: int, run: Callable[[StoredDevice], bytes]) -> tuple[Path, bytes]:
        """Let a child go on over a copy of the store until it dies; return the copy and what it said."""
        folder = self.copies / f"{number}"
        shutil.copytree(self.setup.path.parent, folder, ignore=shutil.ignore_patterns("copies", "witness"))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                self._reopen(folder / self.setup.path.name)
                said = run(self.device)
                os.write(writing, said)
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            return folder / self.setup.path.name, pipe.read()

    def _reopen(self, path: Path) -> None:
        """Give the device a connection of this process: SQLite's do not survive a fork."""
        self.device._store.connection = database.connect(path, KEY)


class _Stop(Exception):
    pass


@pytest.fixture
def stopped_at(tmp_path: Path) -> Callable[[Stage], StoppedRound]:
    def build(stage: Stage) -> StoppedRound:
        world = World(tmp_path)
        setup = make_setup(tmp_path, world)
        device, invitation = setup.device(), world.invite(PLAN, world.release(), NOW, NOW)
        requests: dict[Stage, bytes] = {}

        class Stopping:
            def handle(self, at: Stage, request: bytes) -> bytes:
                requests[at] = request
                if at == stage:
                    raise _Stop
                return device.handle(at, request)

        with pytest.raises(_Stop):
            drive(world, PLAN, Stopping(), invitation)
        (tmp_path / "copies").mkdir()
        return StoppedRound(world, setup, device, invitation, stage, requests[stage], tmp_path / "copies")

    return build


def killed_at(target: int, run: Callable[[], bytes], seen: set[tuple[str, int]]) -> bytes:
    """Run, and kill this process when the `target`-th different statement of the room is reached."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == target:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        return run()
    finally:
        sys.settrace(None)


def statements(stopped: StoppedRound) -> int:
    """Return how many different statements of the room the stage runs through."""

    def count(device: StoredDevice) -> bytes:
        seen: set[tuple[str, int]] = set()
        killed_at(-1, lambda: device.handle(stopped.stage, stopped.request), seen)
        return b"%d" % len(seen)

    return int(stopped.attempt(0, count)[1])


def after(stopped: StoppedRound, path: Path, said: bytes) -> None:
    """Check everything that must hold of a store that a killed device left."""
    store = Store.open(path, KEY, RULES, NOW)
    records = Records(store)
    given = records.contributions()
    assert problems(store, None) == []
    assert len(given) <= 1
    setup = Setup(stopped.world, path, stopped.setup.time, stopped.setup.terms)
    restarted = setup.device()
    if said and stopped.stage == "masked":
        assert len(given) == 1, "something was sent and not charged"
    if said:
        assert restarted.handle(stopped.stage, stopped.request) == said
    again = encode(stopped.world.invite(PLAN, stopped.world.release(), NOW, NOW))
    assert reason_of(lambda: restarted.handle("join", again)) == ("WINDOW" if given else "")
    store.close()


def walk(stopped: StoppedRound, step: int = 1) -> int:
    """Kill at every `step`-th statement and check each time; return how many times."""
    last = statements(stopped)
    for target in range(1, last + 1, step):

        def run(device: StoredDevice, target: int = target) -> bytes:
            return killed_at(target, lambda: device.handle(stopped.stage, stopped.request), set())

        after(stopped, *stopped.attempt(target, run))
    return len(range(1, last + 1, step))


@pytest.mark.parametrize(
    ("stage", "step"), [("masked", 4), ("join", 13), ("shares", 9), ("confirm", 9), ("unmask", 9)]
)
def test_killed_at_statements_of_every_stage(
    stopped_at: Callable[[Stage], StoppedRound], stage: Stage, step: int
) -> None:
    assert walk(stopped_at(stage), step) >= 3


@pytest.mark.long
@pytest.mark.parametrize("stage", IN_ORDER)
def test_killed_at_every_statement_of_every_stage(
    stopped_at: Callable[[Stage], StoppedRound], stage: Stage
) -> None:
    assert walk(stopped_at(stage)) > 20


@pytest.mark.parametrize("kills", [12, pytest.param(300, marks=pytest.mark.long)])
def test_killed_inside_the_databases_own_steps(
    stopped_at: Callable[[Stage], StoppedRound], kills: int
) -> None:
    """The statements above are Python's; these deaths come between two instructions of SQLite's machine."""
    stopped = stopped_at("masked")

    def steps(device: StoredDevice) -> bytes:
        count = [0]

        def tick() -> int:
            count[0] += 1
            return 0

        device._store.connection.set_progress_handler(tick, 1)  # type: ignore[attr-defined]
        device.handle("masked", stopped.request)
        return b"%d" % count[0]

    total = int(stopped.attempt(0, steps)[1])
    for number in range(1, kills + 1):
        target = total * number // kills

        def run(device: StoredDevice, target: int = target) -> bytes:
            left = [target]

            def tick() -> int:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return 0

            device._store.connection.set_progress_handler(tick, 1)  # type: ignore[attr-defined]
            return device.handle("masked", stopped.request)

        after(stopped, *stopped.attempt(number, run))


def test_a_device_that_is_not_killed_contributes_once(stopped_at: Callable[[Stage], StoppedRound]) -> None:
    stopped = stopped_at("masked")
    path, said = stopped.attempt(1, lambda device: device.handle("masked", stopped.request))
    after(stopped, path, said)
    assert said


def test_a_device_without_transactions_is_caught(
    stopped_at: Callable[[Stage], StoppedRound], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = stopped_at("masked")

    @contextmanager
    def none(connection: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(database, "transaction", none)
    with pytest.raises(AssertionError):
        walk(stopped, step=6)


def test_a_device_that_does_not_charge_is_caught(
    stopped_at: Callable[[Stage], StoppedRound], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = stopped_at("masked")
    monkeypatch.setattr(Records, "contribute", lambda self, contribution: None)
    path, said = stopped.attempt(1, lambda device: device.handle("masked", stopped.request))
    with pytest.raises(AssertionError):
        after(stopped, path, said)
