"""A device's part in a collection: what it uploads and charges, when it declines, what is taken back."""

from pathlib import Path

import pytest

from clients.device import receipt
from clients.device.records import Records
from fa_core.layout import compile_plan
from tests.device.offering import HOUR, PLAN, Collection, collecting, of_the_table
from tests.device.setup import NOW, Setup, World, make_setup

COST = receipt.cost(compile_plan(PLAN))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def setup(tmp_path: Path, world: World) -> Setup:
    return collecting(make_setup(tmp_path, world))


def test_a_report_shares_what_the_table_holds_and_is_charged_once(world: World, setup: Setup) -> None:
    collection = Collection(world)
    data = setup.device().handle("report", collection.invite())
    shared = collection.shared(data)
    assert shared.tolist() == of_the_table(setup).tolist()
    assert shared.any()
    assert [each.rho for each in Records(setup.store()).contributions()] == [COST]


def test_every_invitation_to_a_task_gets_the_same_bytes(world: World, setup: Setup) -> None:
    """A newer checkpoint, an older one byte for byte, a restart: the report is made once."""
    collection, device = Collection(world), setup.device()
    first = collection.invite()
    data = device.handle("report", first)
    for step in range(1, 4):
        setup.time.now = NOW + step * HOUR
        newer = collection.invite(setup.time.now)
        assert newer != first
        for each in (device, setup.device()):
            assert each.handle("report", newer) == data
    assert setup.device().handle("report", newer) == data
    assert len(Records(setup.store()).contributions()) == 1
