"""A report that its owner takes back: its bytes go, and the signed statement is what is left to send."""

from datetime import timedelta
from pathlib import Path

import pytest

from clients.device import reports
from clients.device.journal import sentence
from clients.device.proof import problems
from clients.device.records import Records
from clients.device.store import Scope, Store
from fa_core.collection.report import WITHDRAWAL_SIZE, Report, read_withdrawal
from fa_core.prio.blocks import prio
from tests.device.offering import HOUR, Collection, pinning, summed_plan
from tests.device.setup import NOW, START, Setup, World, make_setup, reason_of

UNTIL = NOW + timedelta(days=365)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def setup(tmp_path: Path, world: World) -> Setup:
    return pinning(make_setup(tmp_path, world))


def taken_back(setup: Setup, collection: Collection, data: bytes) -> None:
    """Check that a report is taken back, by a statement that leader and helper accept, and is deleted."""
    now = setup.time.now
    said = setup.device().handle("report", collection.invite(now))
    report = Report.parse(data, prio(collection.plan))
    authority = setup.world.authority.public_key
    assert len(said) == WITHDRAWAL_SIZE
    assert read_withdrawal(said, collection.task, authority) == (report.id, report.device)
    assert setup.device().withdrawals() == [(collection.task.id, said)]
    store = setup.store()
    assert [each.report for each in reports.still_open(store.connection, START)] == [None]
    assert len(Records(store).contributions()) == 1, "it may have been counted, so it stays charged"
    assert problems(store, None) == []


OWNERS = {
    "revoked": lambda store: store.revoke("quality_metrics", NOW),
    "forgotten": lambda store: store.forget(Scope(), NOW),
    "its purpose": lambda store: store.forget(Scope("quality_metrics"), NOW),
    "its table": lambda store: store.forget(Scope(source="wake_events"), NOW),
}


@pytest.mark.parametrize("how", OWNERS)
def test_what_the_owner_takes_back_is_withdrawn(world: World, setup: Setup, how: str) -> None:
    collection = Collection(world)
    data = setup.device().handle("report", collection.invite())
    assert setup.device().withdrawals() == []
    store = setup.store()
    said = sentence(OWNERS[how](store))
    assert said.endswith(
        "What was reported to weekly is taken back. A report that is taken back before it is verified is not "
        "counted; one that is verified cannot be called back. Its cost stays."
    )
    store.close()
    taken_back(setup, collection, data)


def test_a_consent_whose_time_runs_out_takes_the_report_back(world: World, setup: Setup) -> None:
    collection, store = Collection(world), setup.store()
    store.grant("quality_metrics", NOW + HOUR, NOW)
    store.close()
    data = setup.device().handle("report", collection.invite())
    setup.time.now = NOW + 2 * HOUR
    taken_back(setup, collection, data)


def test_consent_that_is_given_again_brings_no_second_report(world: World, setup: Setup) -> None:
    collection = Collection(world)
    data = setup.device().handle("report", collection.invite())
    store = setup.store()
    store.revoke("quality_metrics", NOW)
    store.grant("quality_metrics", UNTIL, NOW)
    store.close()
    taken_back(setup, collection, data)
    other = Collection(world)
    assert reason_of(lambda: setup.device().handle("report", other.invite())) == "WINDOW"


@pytest.mark.parametrize("scope", [Scope("debug"), Scope(source="listening"), Scope("debug", "wake_events")])
def test_what_a_report_did_not_count_leaves_it_as_it_is(world: World, setup: Setup, scope: Scope) -> None:
    collection = Collection(world)
    data = setup.device().handle("report", collection.invite())
    store = setup.store()
    entry = store.forget(scope, NOW)
    store.close()
    assert "reports" not in entry.body
    assert "taken back" not in sentence(entry)
    assert setup.device().handle("report", collection.invite()) == data
    assert setup.device().withdrawals() == []


@pytest.mark.parametrize("back", [False, True])
def test_nothing_is_kept_of_a_collection_that_is_over(world: World, setup: Setup, back: bool) -> None:
    """Neither the report nor the statement; what is asked after the end is declined, tidied or not."""
    collection = Collection(world)
    device = setup.device()
    device.handle("report", collection.invite())
    if back:
        store = setup.store()
        store.revoke("quality_metrics", NOW)
        store.close()
    setup.time.now = collection.closes - timedelta(seconds=1)
    invitation = collection.invite(setup.time.now)
    device.handle("report", invitation)
    assert len(device.withdrawals()) == back
    setup.time.now = collection.closes
    assert reason_of(lambda: device.handle("report", invitation)) == "COLLECTION"
    assert device.withdrawals() == []
    assert len(reports.still_open(device._store.connection, START)) == 1
    device.tidy()
    assert reports.still_open(device._store.connection, START) == []
    later = setup.store().revoke("quality_metrics", setup.time.now)
    assert "reports" not in later.body


def test_of_several_reports_each_is_taken_back_with_what_it_counted(world: World, setup: Setup) -> None:
    collections = [Collection(world, summed_plan(name)) for name in ("one", "two")]
    for each in collections:
        setup.device().handle("report", each.invite())
    store = setup.store()
    assert "reported to one and two is taken back" in sentence(store.revoke("quality_metrics", NOW))
    assert [task for task, _ in setup.device().withdrawals()] == [each.task.id for each in collections]


def leaves_no_bytes(world: World, setup: Setup) -> None:
    """Look for a report's bytes in what is kept of it, before and after its owner takes it back."""
    data = setup.device().handle("report", Collection(world).invite())
    store = setup.store()
    pieces = [data[at : at + 64] for at in range(200, len(data) - 400, 500)]
    assert all(piece in dumped(store) for piece in pieces)
    store.revoke("quality_metrics", NOW)
    assert not any(piece in dumped(store) for piece in pieces)


def dumped(store: Store) -> bytes:
    rows = store.connection.execute("SELECT report, withdrawal FROM report").fetchall()
    return b"".join(bytes(cell) for row in rows for cell in row if cell is not None)


def test_a_report_that_is_taken_back_is_deleted(world: World, setup: Setup) -> None:
    leaves_no_bytes(world, setup)


def test_a_withdrawal_that_keeps_the_report_is_caught(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control."""
    monkeypatch.setattr(reports, "take_back", lambda connection, tasks: None)
    with pytest.raises(AssertionError):
        leaves_no_bytes(world, setup)


def test_a_store_of_before_gets_the_table(setup: Setup, world: World) -> None:
    store = setup.store()
    store.connection.execute("DROP TABLE report")
    store.close()
    setup.device().handle("report", Collection(world).invite())
    assert len(reports.still_open(setup.store().connection, NOW)) == 1
