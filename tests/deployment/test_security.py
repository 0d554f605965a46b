"""A wrong authority, an unregistered node, a replayed reply, a stolen node key: none changes a sum.

That hostile code on a node obtains nothing of the device behind it is shown in test_hostile_app.py, and in
tests/device/test_serve.py by a process of another user.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.app import relay
from clients.device.interface import Device, Stage
from clients.evaluate import seeded_randomness
from clients.party import SimulatedFleet
from fa_core.federation.certificates import make_node_key, make_tls
from fa_core.federation.directory import open_federation
from fa_core.federation.processes import node
from fa_core.flower.transport import PARTITION, LocalGrid
from fa_core.rounds import run as running
from fa_core.trust.enrolment import Authority
from tests.deployment.lab import ENVIRONMENT, GUARD, fa, lab
from tests.rounds.small import POPULATION, SEED, World, small_plan, today

NODES, PER_NODE = 3, 6
MINE = slice(PER_NODE, 2 * PER_NODE)
"""The devices behind the attacker's node."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Build a fleet whose sums carry no noise, so that they can be compared bit for bit."""
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    made = World.make(tmp_path, NODES * PER_NODE)
    yield made
    made.store.close()


def grid(behind: Mapping[int, Device]) -> LocalGrid:
    """Return a Grid of hubs over these devices."""

    def here(config: Mapping[str, Any]) -> dict[int, Device]:
        first = int(config[PARTITION]) * PER_NODE
        return {slot: behind[first + slot] for slot in range(PER_NODE)}

    return LocalGrid(relay(here), NODES)


def devices(world: World) -> dict[int, Device]:
    return {number: world.fleet.device(number) for number in range(NODES * PER_NODE)}


def others(world: World, plan: Any) -> Any:
    """Return the exact sum of the devices that are not the attacker's."""
    vectors = world.vectors(plan)
    return np.delete(vectors, range(*MINE.indices(len(vectors))), axis=0).sum(axis=0)


def test_a_stolen_node_key_without_device_certificates_adds_nothing(world: World) -> None:
    elsewhere, random = Authority.generate(), seeded_randomness(SEED)
    puppets = SimulatedFleet(world.cohort, world.pins, elsewhere, POPULATION, random, today)
    behind = devices(world) | {number: puppets.device(number) for number in range(*MINE.indices(18))}
    plan = small_plan(dropout="0.4")
    release, _ = world.run_over(grid(behind), plan)
    assert np.array_equal(release.sums, others(world, plan))
    assert release.participation.counted == 12


def test_with_certificates_the_same_devices_would_count(world: World) -> None:
    release, _ = world.run_over(grid(devices(world)), plan := small_plan(dropout="0.4"))
    assert np.array_equal(release.sums, world.vectors(plan).sum(axis=0))


class Replaying:
    """A device under a hostile relay: it answers with its reply to the same stage of the first round."""

    def __init__(self, device: Device, at: Stage) -> None:
        self._device, self._at = device, at
        self._said: dict[Stage, bytes] = {}

    def handle(self, stage: Stage, request: bytes) -> bytes:
        reply = self._device.handle(stage, request)
        first = self._said.setdefault(stage, reply)
        return first if stage == self._at else reply


@pytest.mark.parametrize("at", ["join", "shares", "masked"])
def test_a_replayed_reply_is_a_dropout(world: World, at: Stage) -> None:
    behind = devices(world)
    behind |= {number: Replaying(behind[number], at) for number in range(*MINE.indices(18))}
    plan = small_plan(dropout="0.4")
    first, _ = world.run_over(grid(behind), plan)
    assert first.participation.counted == 18
    second, _ = world.run_over(grid(behind), plan)
    assert np.array_equal(second.sums, others(world, plan))


@pytest.mark.long
def test_unregistered_nodes_and_wrong_authorities_are_refused_with_an_error(tmp_path: Path) -> None:
    with lab(tmp_path, nodes=3, devices=20) as up:
        other = tmp_path / "other"
        other.mkdir()
        make_tls(other, "other", "127.0.0.1")
        authority = (up.folder / "tls" / "ca.crt").read_bytes()
        (up.folder / "tls" / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
        plan = up.plan("refused")
        assert "certificate is not signed by this federation's authority" in up.run(plan, code=2).stderr
        assert "CERTIFICATE_VERIFY_FAILED" in start_node(up.folder, 7, tmp_path / "wrong-authority.log")
        (up.folder / "tls" / "ca.crt").write_bytes(authority)
        assert "Failed to activate SuperNode" in start_node(up.folder, 7, tmp_path / "unregistered.log")
        assert set(up.status()["nodes"]) == {"node-00", "node-01", "node-02"}
        up.run(plan)
        with up.store() as store:
            assert store.find("latest").counted == 60
        assert "no run begins" in fa("run", "--attach", "f00d", "--engine", str(up.folder), code=2).stderr


def start_node(folder: Path, number: int, log: Path) -> str:
    """Start a SuperNode whose key is not registered; return its output until it ended, as it must."""
    federation = open_federation(folder)
    if not federation.node_key(number).exists():
        make_node_key(federation.node_key(number))
    process = node(federation, number, 1)
    with log.open("wb") as file:
        running = subprocess.Popen(
            [*process.command, "--max-retries", "1"], env=ENVIRONMENT | dict(process.environment),
            stdout=file, stderr=file, cwd=sys.prefix, start_new_session=True,
        )  # fmt: skip
    try:
        assert running.wait(GUARD) != 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # Flower leaves its SuperExec behind
    return log.read_text()
