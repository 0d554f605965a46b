"""A fleet through encrypted stores and straight from its tables: the same vectors, bit for bit."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clients.device.admission import Terms
from clients.device.contribution import Clock
from clients.device.counting import count
from clients.device.receipt import sources
from clients.device.stored_fleet import StoredFleet
from clients.evaluate import Cohort, cohort_of_fleet, device_vectors
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.secagg import Server, plain
from fa_core.secagg.messages import read_join_request
from fa_core.tables import WAKE_EVENTS
from fa_core.wire.invitation import encode
from tests.device.setup import BUDGET, NOW, POLICY, POPULATION, World, plan_of

WEEK = timedelta(days=7)


def fleet(devices: int) -> Cohort:
    """Return devices of four accents with up to 20 events each, some outside the window, some unlabelled."""
    chance = np.random.default_rng(7)
    ids = [f"d{number:04d}" for number in range(devices)]
    rows = []
    for name in ids:
        for _ in range(int(chance.integers(0, 20))):
            missed = bool(chance.random() < 0.2)
            rows.append(
                {
                    "device_id": name,
                    "time": NOW - timedelta(minutes=int(chance.integers(0, 14 * 24 * 60))),
                    "wake_word": str(chance.choice(["okay_nabu", "alexa"])),
                    "model_version": "micro-1",
                    "score": float(chance.random()),
                    "accepted": not missed,
                    "outcome": [None, "false_reject", "true_accept"][int(chance.integers(0, 3))],
                    "label_source": None,
                    "snr_db": None if chance.random() < 0.1 else float(chance.normal(12, 6)),
                    "playback": bool(chance.random() < 0.3),
                }
            )
    accents = [["en-US", "en-GB", "en-IN", None][number % 4] for number in range(devices)]
    table = pa.Table.from_pylist(rows, WAKE_EVENTS.arrow_schema(device_id=True))
    return cohort_of_fleet(pa.table({"device_id": ids, "accent": accents}), {"wake_events": table})


def stored(folder: Path, cohort: Cohort, world: World) -> StoredFleet:
    terms = Terms(BUDGET, POLICY, world.pins())
    clock = Clock(lambda: NOW, lambda: 0.0)
    return StoredFleet(folder / "devices", cohort, terms, world.authority, POPULATION, clock)


def rounds_sum(world: World, plan: Plan, devices: StoredFleet) -> np.ndarray:
    """Run a round of stored devices alone and return its sum."""
    invitation = world.invite(plan, world.release(), NOW, NOW)
    task, proof = read_join_request(invitation.request), invitation.charge_proof.encode()
    nodes = range(len(devices))
    server: Server | plain.Server = (
        Server(task, world.authority.public_key, world.witness(), nodes, proof)
        if plan.privacy.secure_aggregation
        else plain.Server(task, world.authority.public_key, nodes)
    )
    while server.stage is not None:
        stage, requests = server.stage.value, server.requests()
        asked = {node: encode(invitation) if stage == "join" else requests[node] for node in requests}
        server.receive({node: devices.device(node).handle(stage, request) for node, request in asked.items()})
    return server.result.total


def test_two_hundred_stores_hold_the_vectors_of_their_tables(tmp_path: Path) -> None:
    cohort, plan = fleet(200), plan_of()
    layout = compile_plan(plan)
    straight = device_vectors(plan, layout, cohort, NOW)
    devices = stored(tmp_path, cohort, World(tmp_path))
    for number, expected in enumerate(straight):
        store = devices.device(number)._store
        tables = {name: store.table(name, "quality_metrics", NOW - WEEK, NOW) for name in sources(plan)}
        assert count(plan, layout, tables, store.facts(), NOW).tolist() == expected.tolist()
    assert straight.any(axis=1).mean() > 0.5


def test_a_masked_round_of_stores_sums_what_the_tables_hold(tmp_path: Path) -> None:
    cohort, plan = fleet(14), plan_of()
    world = World(tmp_path)
    expected = device_vectors(plan, compile_plan(plan), cohort, NOW).sum(axis=0)
    assert rounds_sum(world, plan, stored(tmp_path, cohort, world)).tolist() == expected.tolist()


@pytest.mark.long
@pytest.mark.parametrize("secure", ["true", "false"])
def test_a_round_of_two_hundred_stores_sums_what_the_tables_hold(tmp_path: Path, secure: str) -> None:
    cohort, plan = fleet(200), plan_of(secure=secure)
    world = World(tmp_path)
    expected = device_vectors(plan, compile_plan(plan), cohort, NOW).sum(axis=0)
    assert rounds_sum(world, plan, stored(tmp_path, cohort, world)).tolist() == expected.tolist()


def test_devices_of_a_hub_share_nothing(tmp_path: Path) -> None:
    """One device's spent budget and revoked consent leave its neighbour as it was."""
    world = World(tmp_path)
    devices = stored(tmp_path, fleet(3), world)
    poor = devices.device(0)
    poor._admission.terms = replace(poor._admission.terms, budget=replace(BUDGET, rho=BUDGET.rho * 0))
    devices.device(1)._store.revoke("quality_metrics", NOW)
    assert [len(devices.device(number)._store.grants()) for number in range(3)] == [1, 0, 1]
    identities = {devices.device(number)._identity.device for number in range(3)}
    assert len(identities) == 3
    rounds_of_one = world.invite(plan_of(), world.release(), NOW, NOW)
    devices.device(2).handle("join", encode(rounds_of_one))
