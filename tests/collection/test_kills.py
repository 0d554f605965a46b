"""kill -9 of leader, helper and database, as processes: counted once, noised once, and it goes on."""

import multiprocessing
import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import count, product
from pathlib import Path
from secrets import token_bytes
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text

from fa_core.collection.task import Task
from fa_core.helper_service.setup import init
from fa_core.plan import canonical
from fa_core.privacy.ledger import BUDGETS, Policy
from tests.collection.killing import AGAIN, Given, Kill, lead, serve
from tests.collection.world import WINDOW, Collection
from tests.store import postgres

DEVICES = 6
ROLES = ("leader", "helper")
BODIES = {"leader": lead, "helper": serve}
TAKEN, STOPPED, CLAIMED, COUNTED, CLAIMED_NONE, CLOSED = range(6)
"""The commits of a leader that takes reports and closes."""

FORGOTTEN, VERIFIED, ENDED, GIVEN = range(4)
"""The commits of its helper, which looks first for tasks to forget."""


@pytest.fixture(scope="module")
def forks() -> Any:
    """Processes that are forked from one that has read the modules and has no threads."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.collection.killing"])
    return found


class Trial:
    """A charged collection of devices whose leader and helper are processes over databases of their own."""

    def __init__(self, forks: Any, folder: Path, server: postgres.Database | None = None) -> None:
        self.made, self.forks, self.server = Collection.make(folder, DEVICES), forks, server
        self.made.world.give(Policy(*[Fraction(100)] * len(BUDGETS)))
        self.folder, keys = folder, folder / "local"
        (keys / "leader.pub").write_text(self.made.leader.public_key.hex())
        self.listening = socket.create_server(("127.0.0.1", 0))
        name = f"localhost:{self.listening.getsockname()[1]}"
        init(
            folder / "helper",
            name,
            {each: keys / f"{each}.pub" for each in ("authority", "log", "witness", "leader")},
            keys / "witness.sock",
        )
        self.numbers, self.reports = count(), ()
        self.given = self._charged()

    def _charged(self) -> Given:
        """Charge a release for a task that is not opened yet."""
        made = self.made
        key, charge = made.leader_key.private_bytes_raw(), made.charge().encode()
        plan, databases = canonical(made.plan), self.databases(None)
        return Given(self.folder, databases, made.at, key, plan, made.release, charge, WINDOW)

    def another_release(self) -> None:
        """Begin with another release: the witness has bound this one."""
        self.made.release = token_bytes(16)
        self.given = self._charged()

    def databases(self, like: dict[str, str] | None) -> dict[str, str]:
        """Make databases of both roles, empty or copies of others that nobody uses."""
        number, found = next(self.numbers), {}
        for role in ROLES:
            if self.server is None:
                found[role] = str(self.folder / f"{role}-{number}.db")
                if like is not None:
                    copy(like[role], found[role])
                continue
            name = f"{role}_{number}"
            template = "" if like is None else f" TEMPLATE {make_url(like[role]).database}"
            engine = create_engine(self.server.url.replace("postgresql:", "postgresql+psycopg:"))
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(f"CREATE DATABASE {name}{template}"))
            engine.dispose()
            found[role] = self.server.url.replace("/postgres?", f"/{name}?")
        return found

    def run(self, given: Given, kills: dict[str, Kill]) -> int:
        """Run leader and helper until the leader is done; return how many processes were killed.

        Whatever was killed is started again, and kills nothing any more.
        """
        killed, running = 0, {role: self._start(role, given, kills.get(role)) for role in reversed(ROLES)}
        try:
            while True:
                running["leader"].join(0.02)
                killed += self._revived()
                for role, process in running.items():
                    if process.exitcode in (-signal.SIGKILL, AGAIN):
                        killed += process.exitcode == -signal.SIGKILL
                        running[role] = self._start(role, given, None)
                    elif process.exitcode is not None:
                        assert (role, process.exitcode) == ("leader", 0)
                        return killed + self._revived()
        finally:
            for process in running.values():
                process.kill()
                process.join()

    def _revived(self) -> bool:
        """Start the databases' server again where it was killed; whether it was."""
        if self.server is None or alive(self.server):
            return False
        self.server.start()
        return True

    def _start(self, role: str, given: Given, kill: Kill | None) -> Any:
        more = (self.listening,) if role == "helper" else ()
        process = self.forks.Process(target=BODIES[role], args=(given, kill, *more), daemon=True)
        process.start()
        return process

    def open(self, kills: dict[str, Kill]) -> int:
        """Open the task, some process being killed."""
        return self.run(self.given, kills)

    def task(self) -> Task:
        """The task that was opened."""
        return Task.parse((self.folder / "task").read_bytes())

    def prepare(self) -> None:
        """Open the task and have every device make its report; what follows is tried again and again."""
        self.open({})
        self.reports = tuple(each.encode() for each in self.made.reports(self.task()))

    def collect(self, kills: dict[str, Kill]) -> int:
        """Collect from databases in which the task is open, and check what comes of it.

        The witness is set back as well: it would let no other share be given away.
        """
        for name in ("draws", "shares", "sums"):
            (self.folder / name).unlink(missing_ok=True)
        for entry in (self.folder / "local" / "witness").glob("*-share"):
            entry.unlink()
        given = replace(self.given, databases=self.databases(self.given.databases), reports=self.reports)
        killed = self.run(given, kills)
        sums = np.frombuffer((self.folder / "sums").read_bytes(), np.int64)
        draws = (self.folder / "draws").read_text()
        noise = [[at for at, role in enumerate(draws, 1) if role == each] for each in "lh"]
        exact = self.made.vectors().sum(axis=0)
        assert any(np.array_equal(sums, exact + one + other) for one, other in product(*noise))
        assert len(set((self.folder / "shares").read_text().split())) == 1, "two draws were given away"
        return killed


def copy(file: str, into: str) -> None:
    """Copy a SQLite database, what is in its log included: a process that is killed leaves it there."""
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(into)) as target:
        source.backup(target)


def alive(server: postgres.Database) -> bool:
    """Whether a database server runs."""
    try:
        os.kill(postgres.postmaster(server.home), 0)
    except (OSError, IndexError, ValueError):
        return False
    return True


@contextmanager
def trial(forks: Any, folder: Path, server: postgres.Database | None = None) -> Iterator[Trial]:
    made = Trial(forks, folder, server)
    yield made
    made.listening.close()
    made.made.close()
    made.made.world.store.close()


def test_a_killed_leader_and_a_killed_helper_count_once(forks: Any, tmp_path: Path) -> None:
    """Before the commit that counts a batch, at either; both before the one that ends the task; and the
    helper before the one that says that its share is given away."""
    with trial(forks, tmp_path) as made:
        made.prepare()
        assert made.collect({"leader": Kill(COUNTED), "helper": Kill(VERIFIED)}) == 2
        assert made.collect({"leader": Kill(CLOSED), "helper": Kill(ENDED)}) == 2
        assert made.collect({"helper": Kill(GIVEN)}) == 1


@pytest.mark.long
@pytest.mark.parametrize("role", ROLES)
def test_killed_before_any_write_of_a_collection(forks: Any, tmp_path: Path, role: str) -> None:
    with trial(forks, tmp_path) as made:
        for at in count():
            killed = made.open({role: Kill(at, commits=False)})
            assert made.task().release == made.made.release
            if not killed:
                break
            made.another_release()
        assert at > 1
        made.reports = tuple(each.encode() for each in made.made.reports(made.task()))
        for at in count():
            if not made.collect({role: Kill(at, commits=False)}):
                break
        assert at > 5


@pytest.mark.long
def test_a_database_that_is_killed_before_any_commit(forks: Any, tmp_path: Path) -> None:
    """That of both aggregators at once, and then leader and helper over it."""
    with postgres.mortal() as server, trial(forks, tmp_path, server) as made:
        made.prepare()
        for role in ROLES:
            for at in count():
                if not made.collect({role: Kill(at, process=postgres.postmaster(server.home))}):
                    break
            assert at == {"leader": CLOSED + 1, "helper": GIVEN + 1}[role]
            for at in count():
                if not made.collect({role: Kill(at)}):
                    break
