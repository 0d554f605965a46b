"""The local engine's processes: the same round as in one process; a process that dies is a dropout."""

import os
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.app import relay
from clients.device.interface import Device
from fa_core.flower.local_workers import ForkedGrid
from fa_core.flower.transport import PARTITION, LocalGrid
from fa_core.privacy.mechanisms import discrete_gaussian
from fa_core.rounds import run as running
from tests.rounds import fakes
from tests.rounds.fakes import FakeDevice, over
from tests.rounds.small import World, small_plan


def nodes_of(devices: list[Device]) -> Any:
    return relay(lambda config: {0: devices[int(config[PARTITION])]})


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_a_round_in_several_processes_equals_the_round_in_one(processes: int) -> None:
    table = fakes.vectors()
    devices: list[Any] = [FakeDevice(row) for row in table]
    devices[2] = FakeDevice(table[2], {"masked": fakes.crash})
    with ForkedGrid(nodes_of(devices), 6, processes) as grid:
        ran = over(grid)
    alone = over(LocalGrid(nodes_of(devices), 6))
    assert np.array_equal(ran.result.total, np.delete(table, 2, axis=0).sum(axis=0))
    assert np.array_equal(ran.result.total, alone.result.total)
    assert ran.result.counted == alone.result.counted


def test_large_messages_pass_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests and replies larger than what a pipe holds: neither end may wait for the other."""
    monkeypatch.setattr(fakes, "LENGTH", 200_000)
    rows = np.ones((4, 200_000), np.int64)
    with ForkedGrid(nodes_of([FakeDevice(row) for row in rows]), 4, 2) as grid:
        assert over(grid).result.total.tolist() == [4] * 200_000


def die(request: bytes) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def test_a_process_that_dies_takes_its_own_nodes_only() -> None:
    table = fakes.vectors()
    devices: list[Any] = [FakeDevice(row) for row in table]
    devices[1] = FakeDevice(table[1], {"masked": die})
    with ForkedGrid(nodes_of(devices), 6, 3) as grid:
        ran = over(grid)
    # two nodes a process: node 0 had answered, node 1 died, and what is left is as much as the rest
    assert ran.result.counted == (0, 2, 3, 4, 5)


def test_no_process_is_left_behind() -> None:
    with ForkedGrid(nodes_of([]), 0, 3) as grid:
        processes = [worker.process for worker in grid._workers]
        assert all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, 10)
    yield made
    made.store.close()


def test_a_secure_run_in_processes_is_exact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    plan = small_plan()

    def behind(config: Mapping[str, Any]) -> dict[int, Device]:
        return {0: world.fleet.device(int(config[PARTITION]))}

    with ForkedGrid(relay(behind), 10, 2) as grid:
        release, _ = world.run_over(grid, plan)
    assert np.array_equal(release.sums, world.vectors(plan).sum(axis=0))


def test_noise_differs_in_every_process() -> None:
    """Forks of one process that has drawn noise before draw other noise than it, and than each other."""
    draw = partial(discrete_gaussian, np.zeros(fakes.LENGTH, np.int64), 1e6)
    draws = [draw().tobytes()]

    class Noisy:
        def handle(self, stage: str, request: bytes) -> bytes:
            return draw().tobytes() if stage == "masked" else b"ok"

    class Keep(fakes.Sum):
        def receive(self, replies: Mapping[int, bytes]) -> None:
            draws.extend(replies.values() if self.stage == "masked" else ())
            super().receive(replies)

    with pytest.MonkeyPatch.context() as patch, ForkedGrid(nodes_of([Noisy()] * 6), 6, 3) as grid:
        patch.setattr(fakes, "Sum", Keep)
        over(grid)
    assert len(set(draws)) == len(draws) == 7
