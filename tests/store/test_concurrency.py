"""Many writers at once, killed at any moment: never over budget, never a charge lost, never one invented."""

import multiprocessing
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from fa_core.privacy.ledger import Charge, Policy, shortages
from fa_core.store import Declaration, Store, open_store
from fa_core.store.database import FILE
from tests.store import workers
from tests.store.samples import DAY, NOW, announce, charge_for, make_release, plan, release_id

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.store.workers"])
POLICY = Policy(Fraction(1, 2), Fraction(1), Fraction(1), Fraction(3, 2), Fraction(5, 4))
WRITERS = 3


@contextmanager
def started(target: Any, where: str, *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """Run a worker beside us; kill it at the end."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=target, args=(where, theirs, *arguments), daemon=True)
    process.start()
    theirs.close()  # so that a worker that dies is the end of the pipe, and not a silence
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def received(pipe: Connection) -> Any:
    assert pipe.poll(900), "the other process says nothing"  # a guard against hanging, not a measure
    return pipe.recv()


def schedule(chance: random.Random, number: int) -> list[list[tuple[float, Charge]]]:
    """Charges of one population for each writer, with pauses of up to 2 ms between them."""
    template = charge_for(make_release())
    plans: list[list[tuple[float, Charge]]] = []
    for writer in range(WRITERS):
        mine = []
        for turn in range(chance.randint(1, 4)):
            end = NOW + chance.randint(0, 20) * DAY
            asked = replace(
                template,
                population=f"population {number}",
                family=chance.choice("ab"),
                release=release_id(1_000_000 + number * 100 + writer * 10 + turn),
                cost=Fraction(chance.randint(1, 7), 12),
                window_start=end - chance.randint(1, 10) * DAY,
                window_end=end,
                at=NOW + chance.choice([0, 1, 8, 400]) * DAY,
            )
            mine.append((chance.random() * 0.002, asked))
        plans.append(mine)
    return plans


def run_schedules(where: str, count: int) -> tuple[int, int]:
    """Run `count` schedules; return how many charges were admitted and how many refused."""
    chance = random.Random(20261102)
    admitted = refused = 0
    with (
        open_store(where) as store,
        started(workers.serve, where) as a,
        started(workers.serve, where) as b,
        started(workers.serve, where) as c,
    ):
        announce(store, plan())
        pipes = [each[1] for each in (a, b, c)]
        assert [received(pipe) for pipe in pipes] == ["ready"] * WRITERS
        for number in range(count):
            population = f"population {number}"
            store.declare(Declaration(population, "zcdp", POLICY, NOW))
            plans = schedule(chance, number)
            for pipe, mine in zip(pipes, plans, strict=True):
                pipe.send(mine)
            accepted = {release for pipe in pipes for release in received(pipe)}
            asked = [charge for mine in plans for _, charge in mine]
            check(store, population, accepted, asked)
            admitted += len(accepted)
            refused += len(asked) - len(accepted)
        assert store.verify_ledger() == []
    return admitted, refused


def check(store: Store, population: str, accepted: set[str], asked: list[Charge]) -> None:
    """The ledger holds what was admitted, within budget; what was refused would still not fit."""
    charges = store.charges(population)
    assert [each.release for each in charges if each.release not in accepted] == [], "a charge was invented"
    assert accepted == {each.release for each in charges}, "a charge was lost"
    for place, charge in enumerate(charges):
        assert shortages(POLICY, charges[:place], charge) == (), "over budget"
    for charge in asked:
        assert charge.release in accepted or shortages(POLICY, charges, charge), "refused without need"


def test_many_writers_never_overspend_nor_lose_a_charge(where: str) -> None:
    admitted, refused = run_schedules(where, 15)
    assert admitted > 15
    assert refused > 15


@pytest.mark.long
def test_ten_thousand_schedules(where: str) -> None:
    admitted, refused = run_schedules(where, 10_000)
    assert admitted > 10_000
    assert refused > 10_000


def test_several_processes_may_be_the_first_to_open_a_store(where: str) -> None:
    with (
        started(workers.serve, where) as a,
        started(workers.serve, where) as b,
        started(workers.serve, where) as c,
    ):
        assert [received(each[1]) for each in (a, b, c)] == ["ready"] * 3


def test_the_first_to_open_a_store_waits_for_another_who_is_making_it(tmp_path: Path) -> None:
    """SQLite says at once that a file is locked which is to get its write-ahead log and is being written."""
    file = tmp_path / FILE
    with sqlite3.connect(file, isolation_level=None, check_same_thread=False) as making:
        making.execute("BEGIN IMMEDIATE")
        leaving = threading.Timer(0.2, making.execute, ["COMMIT"])
        leaving.start()
        open_store(tmp_path).close()
        leaving.join()
    making.close()


def test_a_ledger_that_does_not_see_the_others_is_caught(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control: a check that misses other writers' charges, as without the lock, overspends."""
    from fa_core.store import chain

    where = str(tmp_path / "store")
    big = [replace(charge_for(make_release(n)), cost=Fraction(1, 2), population="p") for n in range(3)]
    with open_store(where) as store:
        announce(store, plan())
        store.declare(Declaration("p", "zcdp", POLICY, NOW))
        with monkeypatch.context() as broken:
            broken.setattr(chain, "charges", lambda connection, population: ())
            for charge in big:
                store.charge(charge)
        with pytest.raises(AssertionError, match="over budget"):
            check(store, "p", {each.release for each in big}, big)
        assert any("has not enough budget" in each for each in store.verify_ledger())


def test_a_writer_killed_inside_its_transaction_charges_nothing(where: str) -> None:
    charge = charge_for(make_release())
    with open_store(where) as store:
        announce(store, plan())
        store.declare(Declaration("homes", "zcdp", POLICY, NOW))
        with started(workers.hang_inside, where, charge) as (process, pipe):
            assert received(pipe) == "inside"
            process.kill()
            process.join()
        assert store.charges("homes") == ()
        store.charge(charge)  # refused after a minute, if the dead writer still held the lock
        assert store.verify_ledger() == []


def kill_at_random(where: str, times: int) -> None:
    chance = random.Random(7)
    with open_store(where) as store:
        announce(store, plan())
        for number in range(times):
            policy = Policy(*[Fraction(10**6)] * 5)
            population = f"population {number}"
            store.declare(Declaration(population, "zcdp", policy, NOW))
            ids = range(number * 1000, number * 1000 + 300)
            charges = [replace(charge_for(make_release(n)), population=population) for n in ids]
            with started(workers.charge_until_killed, where, charges) as (process, pipe):
                known = [received(pipe) for _ in range(chance.randint(1, 20))]
                time.sleep(chance.random() * 0.01)
                process.kill()
                process.join()
                while pipe.poll():
                    try:
                        known.append(pipe.recv())
                    except EOFError:
                        break
            kept = [each.release for each in store.charges(population)]
            assert kept[: len(known)] == known, "a committed charge was lost"
            assert len(kept) <= len(known) + 1, "a charge was committed twice over"
        assert store.verify_ledger() == []


def test_writers_killed_at_any_moment_lose_no_confirmed_charge(where: str) -> None:
    kill_at_random(where, 2)


@pytest.mark.long
def test_two_hundred_killed_writers(where: str) -> None:
    kill_at_random(where, 200)
