"""A store that becomes unavailable as a run ends: one release or one failure, never both."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fa_core.database import connection
from fa_core.database.connection import Unavailable
from fa_core.errors import RoundFailed
from fa_core.rounds import outcome
from fa_core.store.database import FILE
from tests.rounds.small import World, small_plan

DEVICES = 10


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "PAUSE", 0.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World.make(tmp_path, DEVICES)
    yield made
    made.store.close()


def failing(call: Callable[..., Any], times: int, *, done: bool = False) -> Callable[..., Any]:
    """A call whose database fails so many times, after the write was done (`done`) or before."""
    left = [times]

    def attempt(*arguments: Any, **named: Any) -> Any:
        if left[0] == 0:
            return call(*arguments, **named)
        left[0] -= 1
        if done:
            call(*arguments, **named)
        raise Unavailable("the store cannot be used: the connection is lost")

    return attempt


def test_a_release_is_written_once_the_store_is_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.store, "save", failing(world.store.save, 3))
    release, _ = world.run(small_plan())
    assert (world.store.find("latest").id, world.store.failures()) == (release.id, ())


def test_a_release_whose_writing_was_not_confirmed_is_written_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.store, "save", failing(world.store.save, 1, done=True))
    release, _ = world.run(small_plan())
    assert (world.store.count(), world.store.find("latest").id, world.store.failures()) == (1, release.id, ())
    assert world.store.verify_log() == []


def test_a_failure_is_written_once_the_store_is_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for done in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "fail", failing(world.store.fail, 1, done=done))
            with pytest.raises(RoundFailed, match="at join: 0 devices joined"):
                world.run(small_plan(), lambda number, device: None)  # type: ignore[arg-type, return-value]
    assert (len(world.store.failures()), world.store.count()) == (2, 0)


def test_if_the_store_stays_unavailable_nothing_is_released_and_the_error_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "STORE_SECONDS", 0.0)
    for name in ("save", "fail"):
        monkeypatch.setattr(world.store, name, failing(getattr(world.store, name), 1000))
    with pytest.raises(RoundFailed, match=r"whether it has release [0-9a-f]{32} is unknown"):
        world.run(small_plan())
    with pytest.raises(RoundFailed, match=r"at join: 0 devices joined.* the store has not recorded it yet"):
        world.run(small_plan(), lambda number, device: None)  # type: ignore[arg-type, return-value]
    assert (world.store.count(), world.store.failures()) == (0, ())
    assert len(world.store.charges("small")) == 2


def test_a_stored_release_is_never_reported_as_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store writes the release as the connection breaks, and returns after the retries have ended."""
    monkeypatch.setattr(outcome, "STORE_SECONDS", 0.0)
    monkeypatch.setattr(world.store, "save", failing(world.store.save, 1, done=True))
    release, _ = world.run(small_plan())
    assert (world.store.count(), world.store.find("latest").id, world.store.failures()) == (1, release.id, ())


def test_a_release_that_may_be_stored_is_not_reported_as_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "STORE_SECONDS", 0.0)
    monkeypatch.setattr(world.store, "save", failing(world.store.save, 1, done=True))
    monkeypatch.setattr(world.store, "fail", failing(world.store.fail, 1000))
    with pytest.raises(RoundFailed) as failed:
        world.run(small_plan())
    assert "nothing was released" not in str(failed.value)
    assert world.store.find("latest").id in str(failed.value)


def test_a_locked_file_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0)
    world = World.make(tmp_path, DEVICES)
    save, turns = world.store.save, [True, True, False]

    def held(*arguments: Any, **named: Any) -> Any:
        with sqlite3.connect(tmp_path / "store" / FILE, isolation_level=None) as other:
            if turns.pop(0):
                other.execute("BEGIN IMMEDIATE")
            try:
                return save(*arguments, **named)
            finally:
                if other.in_transaction:
                    other.execute("ROLLBACK")

    monkeypatch.setattr(world.store, "save", held)
    release, _ = world.run(small_plan())
    assert (turns, world.store.find("latest").id, world.store.failures()) == ([], release.id, ())
    world.store.close()


def test_a_run_that_an_operator_wrote_off_meanwhile_stays_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, fail = world.store.save, world.store.fail

    def written_off(release: Any, estimates: Any, **named: Any) -> Any:
        fail(release.id, release.plan, "small", "unknown", "written off", release.window_end)
        return save(release, estimates, **named)

    monkeypatch.setattr(world.store, "save", written_off)
    monkeypatch.setattr(world.store, "fail", partial(fail))
    with pytest.raises(RoundFailed, match="has ended before"):
        world.run(small_plan())
    assert (world.store.count(), [each.reason for each in world.store.failures()]) == (0, ["written off"])
