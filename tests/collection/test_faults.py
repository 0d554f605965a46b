"""Killed before any statement or commit of a collection: counted once, noised once, and it goes on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from secrets import token_bytes
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, event

from fa_core.collection import measured as measuring
from fa_core.collection.report import Report
from fa_core.collection.task import SignedTask
from fa_core.plan import canonical
from fa_core.privacy.ledger import BUDGETS, Policy
from fa_core.trust.charges import ChargeProof
from tests.collection.world import WINDOW, Collection

DEVICES = 6


class Killed(BaseException):
    """The process is gone: nothing that is open is committed."""


class Killer:
    """Counts the statements and commits that write to a database, and kills before the one of this number."""

    def __init__(self) -> None:
        self.at = -1
        self.reached = 0
        self.armed = False

    def __call__(self, connection: Connection, cursor: object = None, statement: str = "", *_: Any) -> None:
        # A read leaves what the statement before left, and so does the beginning of a transaction.
        writes = connection.get_execution_options().get("unheard_writes", False)
        if not self.armed or not writes or statement.startswith(("SELECT", "BEGIN")):
            return
        if self.reached == self.at:
            raise Killed
        self.reached += 1


@contextmanager
def killer() -> Iterator[Killer]:
    found = Killer()
    event.listen(Engine, "before_cursor_execute", found)
    event.listen(Engine, "commit", found)
    yield found
    event.remove(Engine, "before_cursor_execute", found)
    event.remove(Engine, "commit", found)


class Network:
    """Passes requests to a helper, and keeps every share of a sum that it gives away."""

    def __init__(self, made: Collection, shares: set[bytes]) -> None:
        self._made = made
        self._shares = shares

    def __getattr__(self, name: str) -> Callable[[bytes], bytes]:
        def ask(request: bytes) -> bytes:
            answer: bytes = getattr(self._made.helper, name)(request)
            if name == "close":
                self._shares.add(answer)
            return answer

        return ask


@dataclass
class Trial:
    """A collection whose databases, and the witness's journal, are set back, so that it can be killed at
    another statement."""

    made: Collection
    proof: ChargeProof
    reports: list[Report] = field(default_factory=list)
    shares: set[bytes] = field(default_factory=set)

    def keep(self) -> None:
        """Keep the databases as they are."""
        self.made.close()
        for role in ("leader", "helper"):
            shutil.copy(self._path(role), self._path(role).with_suffix(".kept"))

    def set_back(self) -> None:
        """Set the databases back to what was kept."""
        self.made.close()
        for role in ("leader", "helper"):
            shutil.copy(self._path(role).with_suffix(".kept"), self._path(role))
        for entry in (self.made.world.folder / "local" / "witness").glob("*-share"):
            entry.unlink()
        self.shares.clear()

    def _path(self, role: str) -> Path:
        return self.made.world.folder / f"{role}.db"

    def open(self) -> SignedTask:
        """Open the task, whatever was done before."""
        made, network = self.made, Network(self.made, self.shares)
        return made.leader.open(canonical(made.plan), made.release, self.proof, WINDOW, network)

    def collect(self) -> NDArray[np.int64]:
        """Do everything that a leader and the devices do, from the beginning, whatever was done before."""
        task = self.open().task.id
        for report in self.reports:
            self.made.leader.take(task, report.encode())
        return self.made.leader.close(task, Network(self.made, self.shares))

    def killed(self, killing: Killer, at: int, work: Callable[[], object]) -> bool:
        """Work, and kill before the statement of this number; False where there are fewer."""
        killing.at, killing.reached, killing.armed = at, 0, True
        try:
            work()
        except Killed:
            return True
        finally:
            killing.armed = False
            self.made.close()
        return False


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Collection.make(tmp_path, DEVICES)
    made.world.give(Policy(*[Fraction(100)] * len(BUDGETS)))
    yield Trial(made, made.charge())
    made.close()
    made.world.store.close()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every draw of noise is another number, so that a sum says which of them are in it."""
    found: list[tuple[str, int]] = []

    def numbered(layout: Any, role: str) -> Any:
        found.append((role, 1000 + len(found)))
        return np.full(layout.length, found[-1][1], np.int64)

    monkeypatch.setattr(measuring, "noise_of", numbered)
    return found


def test_a_kill_while_a_task_is_opened_leaves_one_task(trial: Trial) -> None:
    trial.keep()
    with killer() as killing:
        for at in count():
            trial.set_back()
            if not trial.killed(killing, at, trial.open):
                break
            signed = trial.open()
            signed.verify(trial.made.world.pins.witness)
            assert trial.open() == signed
            keys = set()
            for role, database in trial.made.databases.items():
                with database.reading() as connection:
                    rows = connection.exec_driver_sql(f"SELECT id, verify_key FROM {role}_tasks").all()
                assert [row.id for row in rows] == [signed.task.id]
                keys.add(rows[0].verify_key)
            assert len(keys) == 1
            # The next trial is of another release: the witness has bound this one.
            trial.made.release = token_bytes(16)
            trial.proof = trial.made.charge()
    assert at > 5


def test_a_kill_before_any_statement_loses_and_repeats_nothing(
    trial: Trial, drawn: list[tuple[str, int]]
) -> None:
    made, task = trial.made, trial.open().task
    exact, (*before, last) = made.vectors().sum(axis=0), made.reports(task)
    for report in before:
        made.leader.take(task.id, report.encode())
    trial.reports = [last]
    trial.keep()
    given = 0
    with killer() as killing:
        for at in count():
            trial.set_back()
            drawn.clear()
            if not trial.killed(killing, at, trial.collect):
                break
            given += bool(trial.shares)
            sums = trial.collect()
            assert len(trial.shares) == 1, "the helper gave away its share with two draws of noise"
            noise = {role: [number for who, number in drawn if who == role] for role in ("leader", "helper")}
            possible = [exact + one + other for one in noise["leader"] for other in noise["helper"]]
            assert any(np.array_equal(sums, each) for each in possible)
            assert made.leader.tally(task.id).counted == DEVICES
    assert at > 15
    assert given >= 2
