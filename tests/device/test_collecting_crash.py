"""Kill -9 before each write of a report: nothing charged and nothing sent, or charged and the bytes ready.

A child process answers over a copy of the store, as in `test_crash`, and is killed before one of the
statements that write. The parent restarts the device on what it left.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.device import database, reports
from clients.device.contribution import StoredDevice
from clients.device.database import Connection
from clients.device.proof import problems
from clients.device.records import Records
from clients.device.store import Store
from fa_core.wire.invitation import decode
from tests.device.offering import Collection, pinning
from tests.device.setup import KEY, NOW, RULES, Setup, World, make_setup
from tests.device.test_crash import StoppedRound

WRITES = ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT")


class Killing:
    """A connection that kills its process before the `target`-th write; `count` are those before."""

    def __init__(self, connection: Connection, target: int) -> None:
        self.connection = connection
        self.left = target
        self.count = 0

    def execute(self, sql: str, *parameters: Any) -> Any:
        self._next(sql)
        return self.connection.execute(sql, *parameters)

    def executemany(self, sql: str, parameters: Any) -> Any:
        self._next(sql)
        return self.connection.executemany(sql, parameters)

    def close(self) -> None:
        self.connection.close()

    def _next(self, sql: str) -> None:
        if not sql.startswith(WRITES):
            return
        self.count += 1
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def stopped(tmp_path: Path) -> StoppedRound:
    world = World(tmp_path)
    for name in ("another", "copies"):
        (tmp_path / name).mkdir()
    # What is imported as a report is made is here then, and not imported again in every child.
    pinning(make_setup(tmp_path / "another", world)).device().handle("report", Collection(world).invite())
    setup, request = pinning(make_setup(tmp_path, world)), Collection(world).invite()
    invitation, device = decode(request), setup.device()
    return StoppedRound(world, setup, device, invitation, "report", request, tmp_path / "copies")


def answered(device: StoredDevice, request: bytes, target: int = 0) -> tuple[bytes, int]:
    """Answer, and be killed before the `target`-th write (0: never); return the reply and the writes."""
    killing = Killing(device._store.connection, target)
    device._store.connection = killing
    return device.handle("report", request), killing.count


def after(stopped: StoppedRound, path: Path, said: bytes) -> bool:
    """Check what must hold of a store that a killed device left; return whether it had been charged."""
    setup = Setup(stopped.world, path, stopped.setup.time, stopped.setup.terms)
    store = Store.open(path, KEY, RULES, NOW)
    given, kept = Records(store).contributions(), reports.still_open(store.connection, NOW)
    assert problems(store, None) == []
    assert len(given) == len(kept), "charged and no report, or a report that nobody paid for"
    if said:
        assert [each.report for each in kept] == [said], "sent and not charged, or other bytes"
    reply = setup.device().handle("report", stopped.request)
    assert [each.report or reply for each in kept] in ([], [reply])
    assert len(Records(store).contributions()) == 1
    store.close()
    return bool(given)


def walk(stopped: StoppedRound) -> list[bool]:
    """Kill before each write; return for each whether the device had been charged."""
    _, counted = stopped.attempt(0, lambda device: b"%d" % answered(device, stopped.request)[1])
    charged = []
    for target in range(1, int(counted) + 1):

        def run(device: StoredDevice, target: int = target) -> bytes:
            return answered(device, stopped.request, target)[0]

        path, said = stopped.attempt(target, run)
        assert not said
        charged.append(after(stopped, path, said))
    return charged


def test_killed_before_each_write(stopped: StoppedRound) -> None:
    charged = walk(stopped)
    assert len(charged) > 8
    assert not any(charged), "the last write of all is the one that charges, keeps and says so"
    path, said = stopped.attempt(len(charged) + 1, lambda device: answered(device, stopped.request)[0])
    assert after(stopped, path, said)


def test_a_device_without_transactions_is_caught(
    stopped: StoppedRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def none(connection: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(database, "transaction", none)
    with pytest.raises(AssertionError):
        walk(stopped)


def test_a_device_that_does_not_charge_is_caught(
    stopped: StoppedRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Records, "contribute", lambda self, contribution: None)
    path, said = stopped.attempt(1, lambda device: answered(device, stopped.request)[0])
    assert said
    with pytest.raises(AssertionError):
        after(stopped, path, said)


def test_a_device_that_does_not_keep_its_report_is_caught(
    stopped: StoppedRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "keep", lambda connection, report: None)
    path, said = stopped.attempt(1, lambda device: answered(device, stopped.request)[0])
    assert said
    with pytest.raises(AssertionError):
        after(stopped, path, said)
