"""Devices as they are deployed, through a whole run: encrypted stores behind sockets, a hub a node."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.app import behind_socket, relay
from clients.device.admission import Terms
from clients.device.contribution import Clock
from clients.device.interface import Device
from clients.device.odometer import Budget
from clients.device.policy import Policy
from clients.device.serve import Endpoint, Server
from clients.device.stored_fleet import StoredFleet
from fa_core.errors import RoundFailed
from fa_core.flower.transport import PARTITION, LocalGrid
from fa_core.rounds import run as running
from tests.rounds.small import NOW, POPULATION, World, small_plan

HUBS, PER_HUB = 2, 6
POOR, UNWILLING = 4, 9
POLICY = Policy(
    plans_a_day=9,
    time_a_day=timedelta(days=1),
    min_cohort=3,
    central_noise=True,
    single_vectors=True,
    min_corrupt=Fraction(0),
    reply_after=timedelta(0),
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, HUBS * PER_HUB)
    yield made
    made.store.close()


@pytest.fixture
def hubs(world: World, tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """Serve every device from its store, behind one socket a hub; return the nodes' configurations."""
    terms = Terms(Budget(Fraction(1), timedelta(days=28), timedelta(0)), POLICY, world.pins)
    clock = Clock(lambda: NOW, lambda: 0.0)
    stores = StoredFleet(tmp_path / "devices", world.cohort, terms, world.authority, POPULATION, clock)
    poor = stores.device(POOR)
    poor._admission.terms = replace(poor._admission.terms, budget=replace(terms.budget, rho=Fraction(0)))
    stores.device(UNWILLING)._store.revoke("quality_metrics", NOW)
    over = threading.Event()
    with ExitStack() as stack:
        nodes = []
        for hub in range(HUBS):
            folder = tmp_path / f"hub-{hub}"
            folder.mkdir(mode=0o700)
            here: Mapping[int, Device] = {
                slot: stores.device(hub * PER_HUB + slot) for slot in range(PER_HUB)
            }
            server = Server(here, Endpoint(folder / "relay.sock"))
            thread = threading.Thread(target=server.run, args=(over.is_set, 0.01))
            thread.start()
            stack.callback(thread.join)
            nodes.append({"socket": str(folder / "relay.sock"), "devices": PER_HUB})
        stack.callback(over.set)
        yield nodes


def test_hubs_of_stored_devices_release_the_exact_sum_of_those_who_may(
    world: World, hubs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without consent a device drops out; without budget it joins and adds zeros."""
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    plan = small_plan(events=64)
    grid = LocalGrid(relay(lambda node: behind_socket(hubs[node[PARTITION]])), HUBS)
    release, _ = world.run_over(grid, plan)
    exact = np.delete(world.vectors(plan), [POOR, UNWILLING], axis=0).sum(axis=0)
    assert np.array_equal(release.sums, exact)
    facts = release.participation
    assert (facts.invited, facts.joined, facts.counted) == (12, 11, 11)


def test_a_device_answers_for_a_window_once(world: World, hubs: list[dict[str, Any]]) -> None:
    grid = LocalGrid(relay(lambda node: behind_socket(hubs[node[PARTITION]])), HUBS)
    world.run_over(grid, small_plan())
    with pytest.raises(RoundFailed, match="0 devices joined"):
        world.run_over(grid, small_plan())
