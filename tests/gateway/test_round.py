"""Whole rounds through a gateway: the sum is exact, whichever devices drop out."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.device.interface import STAGES, Declined, Reason, Stage
from fa_core.errors import RoundFailed
from fa_core.flower.transport import LocalGrid
from fa_core.gateway.relay import ENDED_SECONDS
from fa_core.gateway.settings import CohortSection
from fa_core.rounds import run as running
from fa_core.secagg import IN_ORDER
from tests.gateway.running_gateway import Gateway, gateway, until
from tests.rounds.small import World, small_plan
from tests.secagg.liars import Garbage

DEVICES = 10


class Faulty:
    """A simulated device that declines at some stages, and records its requests and replies."""

    def __init__(self, device: Any, lock: threading.Lock, declines: tuple[Stage, ...] = ()) -> None:
        self.device, self.lock, self.declines = device, lock, declines
        self.talk: dict[Stage, tuple[bytes, bytes]] = {}

    def handle(self, stage: Stage, request: bytes) -> bytes:
        if stage in self.declines:
            raise Declined(Reason.ORDER)
        with self.lock:  # the simulated devices share their fleet's tables
            reply: bytes = self.device.handle(stage, request)
        self.talk[stage] = (request, reply)
        return reply


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path / "world", DEVICES)
    yield made
    made.store.close()


def connect(here: Gateway, world: World, silent: dict[int, tuple[Stage, ...]]) -> list[Faulty]:
    """Connect every device of a world."""
    lock, stopped = threading.Lock(), threading.Event()
    devices = []
    for number in range(world.devices):
        device = world.fleet.device(number)
        devices.append(Faulty(device, lock, silent.get(number, ())))
        here.attend(devices[-1], device._identity, stopped)
    return devices


def test_the_sum_over_remote_devices_is_exact(
    world: World, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    cohort = CohortSection(window_seconds=600, minimum=3, maximum=DEVICES)
    with gateway(tmp_path / "gateway", world.authority, database, cohort) as here:
        devices = connect(here, world, {})
        release, _ = world.run_over(here.grid(), small_plan())
        until(lambda: here.queue.sweep(here.time() + ENDED_SECONDS) == 1)  # it is deleted, minutes later
    assert np.array_equal(release.sums, world.vectors(small_plan()).sum(axis=0))
    assert (release.participation.joined, release.participation.counted) == (DEVICES, DEVICES)
    assert all(set(device.talk) == {*IN_ORDER} for device in devices)
    for stage in IN_ORDER:
        assert len({len(device.talk[stage][1]) for device in devices}) == 1  # replies of a stage are alike


def test_devices_that_decline_drop_out_and_the_rest_is_released(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One declines at once, one after joining, one after its vector went out: only this one is counted."""
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    cohort = CohortSection(window_seconds=600, minimum=3, maximum=DEVICES)
    silent: dict[int, tuple[Stage, ...]] = {
        2: STAGES,
        5: ("masked", "unmask"),
        8: ("unmask",),
    }
    with gateway(tmp_path / "gateway", world.authority, cohort=cohort) as here:
        connect(here, world, silent)
        with hurried(here, {"join": DEVICES - 1, "masked": DEVICES - 2, "unmask": DEVICES - 3}):
            release, _ = world.run_over(here.grid(), small_plan())
    exact = np.delete(world.vectors(small_plan()), [2, 5], axis=0).sum(axis=0)
    assert np.array_equal(release.sums, exact)
    facts = release.participation
    assert (facts.invited, facts.joined, facts.counted) == (DEVICES, DEVICES - 1, DEVICES - 2)


class Spoiling(Faulty):
    """A device that deals garbage."""

    def handle(self, stage: Stage, request: bytes) -> bytes:
        reply = super().handle(stage, request)
        if stage == "join":
            self.device._party.__class__ = Garbage
        return reply


def test_a_device_that_deals_garbage_is_left_out_of_the_next_attempt(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    cohort = CohortSection(window_seconds=600, minimum=3, maximum=DEVICES)
    with gateway(tmp_path / "gateway", world.authority, cohort=cohort) as here:
        lock, stopped = threading.Lock(), threading.Event()
        for number in range(DEVICES):
            device = world.fleet.device(number)
            made = (Spoiling if number == 4 else Faulty)(device, lock)
            here.attend(made, device._identity, stopped)
        release, _ = world.run_over(here.grid(), small_plan())
    assert np.array_equal(release.sums, np.delete(world.vectors(small_plan()), 4, axis=0).sum(axis=0))
    assert (release.participation.invited, release.participation.counted) == (DEVICES, DEVICES - 1)
    assert len(world.store.charges("small")) == 1


def test_under_the_minimum_no_reply_reaches_the_server(world: World, tmp_path: Path) -> None:
    cohort = CohortSection(window_seconds=600, minimum=DEVICES, maximum=DEVICES)
    with gateway(tmp_path / "gateway", world.authority, cohort=cohort) as here:
        connect(here, world, {0: ("join",)})
        with hurried(here, {"join": DEVICES - 1}), pytest.raises(RoundFailed, match="0 devices joined"):
            world.run_over(here.grid(), small_plan())
        assert here.queue.statuses(0.0) == []
    assert world.store.count() == 0


def test_two_nodes_share_the_devices_of_one_gateway(world: World, tmp_path: Path) -> None:
    """Each device is behind one node only, so that none counts twice."""
    cohort = CohortSection(window_seconds=600, minimum=1, maximum=DEVICES // 2)
    with gateway(tmp_path / "gateway", world.authority, cohort=cohort) as here:
        connect(here, world, {})
        grid = _Both(here.grid(2))
        release, _ = world.run_over(grid, small_plan())
    assert release.participation.counted == DEVICES


class _Both:
    """A Grid over a local one that runs its nodes at the same time, as SuperNodes do."""

    def __init__(self, grid: LocalGrid) -> None:
        self._grid = grid
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get_node_ids(self) -> Any:
        return self._grid.get_node_ids()

    def push_messages(self, messages: Any) -> Any:
        ids = list(self._grid.push_messages(messages))
        for each in ids:
            threading.Thread(target=self._run, args=(each,)).start()
        return ids

    def pull_messages(self, message_ids: Any) -> Any:
        return [self._said.get() for _ in range(self._said.qsize())]

    def _run(self, message_id: str) -> None:
        for said in self._grid.pull_messages([message_id]):
            self._said.put(said)


class hurried:  # noqa: N801 - reads as a word of the test
    """Moves the gateway's clock past a stage's deadline once so many devices have answered it.

    Only of stages in which a device is silent: another ends by itself, perhaps before this thread has seen
    all replies. And only once every slot is taken: the last device to join may be the one that declines.
    """

    def __init__(self, here: Gateway, answers: dict[Stage, int]) -> None:
        self._here, self._answers = here, answers
        self._done: Future[None] = Future()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        self._done.result()

    def _run(self) -> None:
        try:
            for stage, answers in self._answers.items():
                until(lambda stage=stage, answers=answers: self._answered(STAGES.index(stage)) == answers)
                self._here.time.ahead += 700.0
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def _answered(self, stage: int) -> int:
        tallies = [self._here.queue.tally(status.round, stage) for status in self._here.queue.statuses(0.0)]
        return sum(tally.answered for tally in tallies if tally.free == 0)
