"""Row 5 of the review, through whole runs: one device deals garbage, and the charge is not lost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients import party
from clients.device.interface import Device
from fa_core.errors import RoundFailed
from fa_core.rounds import run as running
from fa_core.secagg import DeviceParty, Stage
from tests.rounds.small import World, small_plan
from tests.secagg.liars import FalseAccuser, Garbage, Trusting

DEVICES, LIAR = 10, 3


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, DEVICES)
    yield made
    made.store.close()


class Turned:
    """A simulated device whose party is of another kind. `joins` counts how often each was asked."""

    def __init__(self, device: Any, kind: type[DeviceParty], joins: dict[int, int], number: int) -> None:
        self._device, self._kind, self._joins, self._number = device, kind, joins, number

    def handle(self, stage: str, request: bytes) -> bytes:
        reply: bytes = self._device.handle(stage, request)
        if stage == "join":
            self._joins[self._number] = self._joins.get(self._number, 0) + 1
            self._device._party.__class__ = self._kind
        return reply


def turned(
    kinds: Callable[[int], type[DeviceParty]], joins: dict[int, int]
) -> Callable[[int, Device], Device]:
    return lambda number, device: Turned(device, kinds(number), joins, number)


def one(kind: type[DeviceParty], others: type[DeviceParty] = DeviceParty) -> Callable[..., type[DeviceParty]]:
    return lambda number: kind if number == LIAR else others


def exact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)


@pytest.mark.parametrize("kind", [Garbage, FalseAccuser])
def test_the_release_comes_in_the_second_attempt_without_the_liar_and_is_charged_once(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: type[DeviceParty]
) -> None:
    exact(world, monkeypatch)
    joins: dict[int, int] = {}
    release, _ = world.run(small_plan(), turned(one(kind), joins))
    assert joins == {number: 1 if number == LIAR else 2 for number in range(DEVICES)}
    assert np.array_equal(release.sums, np.delete(world.vectors(small_plan()), LIAR, axis=0).sum(axis=0))
    facts = release.participation
    assert (facts.invited, facts.joined, facts.dropped, facts.counted) == (DEVICES, 9, 0, 9)
    assert [charge.release for charge in world.store.charges("small")] == [release.id]
    assert world.store.failures() == ()
    assert world.store.verify_ledger() == world.store.verify_log() == []
    journal = world.folder / "local" / "witness"
    assert len(list(journal.glob("*-charge"))) == len(list(journal.glob("*-complaint-0-*"))) == 1
    assert [file.name[-11:] for file in sorted(journal.glob("*-survivors"))] == ["1-survivors"]
    stages = list(dict.fromkeys(each.stage for each in world.seen))
    assert stages == [
        Stage.JOIN, Stage.SHARES, Stage.CONFIRM, Stage.DISPUTE, Stage.MASKED, Stage.UNMASK,
    ]  # fmt: skip


def test_where_nobody_complains_one_device_loses_everybody_the_charge(world: World) -> None:
    """The control: devices that mask before they have looked into their boxes."""
    with pytest.raises(RoundFailed, match="too few shares came back"):
        world.run(small_plan(), turned(one(Garbage, Trusting), {}))
    assert world.store.count() == 0
    assert len(world.store.charges("small")) == 1


def test_no_vector_is_counted_in_an_attempt_that_was_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each device counts once, in the attempt that is summed."""
    counted: list[tuple[int, int]] = []
    count = party.SimulatedFleet._contribution

    def noting(self: Any, current: Any, number: int, joined: int) -> Any:
        counted.append((current.task.attempt, number))
        return count(self, current, number, joined)

    monkeypatch.setattr(party.SimulatedFleet, "_contribution", noting)
    world.run(small_plan(), turned(one(Garbage), {}))
    assert sorted(counted) == [(1, number) for number in range(DEVICES) if number != LIAR]


def test_four_liars_who_come_one_after_the_other_break_the_round(world: World) -> None:
    """docs/threat-model.md says so: four attempts are all that a witness signs."""
    joins: dict[int, int] = {}

    def kinds(number: int) -> type[DeviceParty]:
        return Garbage if number < 4 and joins.get(number, 0) == number else DeviceParty

    with pytest.raises(RoundFailed, match="in each of 4 attempts"):
        world.run(small_plan(cohort=3), lambda number, device: _Late(device, kinds, joins, number))
    assert world.store.count() == 0
    assert len(world.store.charges("small")) == 1


class _Late(Turned):
    """A device that is honest at first: its kind is asked for at each `join`."""

    def __init__(self, device: Any, kinds: Callable[[int], type[DeviceParty]], *rest: Any) -> None:
        super().__init__(device, DeviceParty, *rest)
        self._kinds = kinds

    def handle(self, stage: str, request: bytes) -> bytes:
        if stage == "join":
            self._kind = self._kinds(self._number)
        return super().handle(stage, request)
