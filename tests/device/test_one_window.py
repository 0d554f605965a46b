"""All devices of a round count one window, or there is no sum: the attack that asks each about another."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.device import contribution
from clients.device.interface import Declined
from clients.evaluate import cohort_of_one, device_vectors
from fa_core.errors import RoundFailed
from fa_core.layout import compile_plan
from fa_core.secagg import Server
from fa_core.secagg.identity import population_id
from fa_core.secagg.messages import join_request
from fa_core.trust import witness
from fa_core.trust.charges import context_of
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, encode
from tests.device.setup import NOW, POPULATION, World, make_setup, plan_of

HOMES, VICTIM = 8, 3
LONG_AGO = datetime(1970, 1, 8, tzinfo=UTC)

TaskOf = Callable[..., Any]


def ask_apart(folder: Path, agree: TaskOf) -> tuple[np.ndarray, np.ndarray]:
    """Ask one device about this week and all others about a week without events, in one cohort.

    The server has charged both windows to the release. Return the sum and the vector of the one. `agree` is
    what server and devices derive the task by.
    """
    world = World(folder)
    homes = []
    for number in range(HOMES):
        (folder / str(number)).mkdir()
        homes.append(make_setup(folder / str(number), world))
    plan, release = plan_of(), world.release()
    world.invite(plan, release, LONG_AGO, NOW)
    invitation, other = (world.invite(plan, release, until, NOW) for until in (NOW, LONG_AGO))
    assert invitation.checkpoint == other.checkpoint
    asked: dict[bool, Invitation] = {}
    for victim, each in ((False, other), (True, invitation)):
        proofs = (each.checkpoint, each.charge)
        layout, task = agree(plan, release, 0, each.until, population_id(POPULATION), proofs)
        asked[victim] = replace(each, request=join_request(task))
    proof = invitation.charge_proof.encode()
    server = Server(task, world.authority.public_key, world.witness(), range(HOMES), proof)
    devices = [home.device() for home in homes]
    while server.stage is not None:
        replies = {}
        for number, request in server.requests().items():
            if server.stage.value == "join":
                request = encode(asked[number == VICTIM])
            try:
                replies[number] = devices[number].handle(server.stage.value, request)
            except Declined:
                continue
        server.receive(replies)
    rows = homes[VICTIM].store().table("wake_events", "quality_metrics", NOW - plan.window, NOW)
    alone = cohort_of_one({"accent": "en-GB"}, {"wake_events": rows})
    return server.result.total, device_vectors(plan, layout, alone, NOW)[0]


def test_devices_that_were_sent_different_windows_are_in_different_rounds(tmp_path: Path) -> None:
    with pytest.raises(RoundFailed):
        ask_apart(tmp_path, task_of)


def test_were_the_window_not_bound_one_devices_vector_would_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control: a task that leaves the window out, for devices and witness."""

    def careless(
        plan: Any, release: bytes, attempt: int, until: datetime, population: bytes, proofs: Any
    ) -> Any:
        return task_of(plan, release, attempt, NOW, population, proofs[:1])

    monkeypatch.setattr(contribution, "task_of", careless)
    monkeypatch.setattr(witness, "context_of", lambda until, proofs: context_of(NOW, proofs[:1]))
    total, alone = ask_apart(tmp_path, careless)
    assert np.any(alone)
    assert np.array_equal(total, alone)


def test_the_round_a_device_joins_is_the_one_whose_window_it_was_sent(tmp_path: Path) -> None:
    world = World(tmp_path)
    home, plan = make_setup(tmp_path, world), plan_of()
    invitation = world.invite(plan, world.release(), NOW, NOW)
    with pytest.raises(Declined):
        home.device().handle("join", encode(replace(invitation, until=LONG_AGO)))
    assert compile_plan(plan).noise == "central"
