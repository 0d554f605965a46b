"""Faults on real processes, at every stage: released once, or failed and nothing released; then the next.

Prints the table at the end; `scripts/bench/faults.py` prints that of chosen ones.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.deployment.faults import (
    KILLED,
    OWN_NETWORK,
    STAGES,
    Result,
    check,
    fill_disk,
    hang_superlink,
    kill_store,
    loose_clocks,
    shift_clock,
    small_store,
    strike,
    table,
    wait_for_stage,
    wait_until_ready,
)
from tests.deployment.lab import ENVIRONMENT, GUARD, ROOT, Lab, fa, lab, start
from tests.store.postgres import Database, mortal

pytestmark = pytest.mark.long
NODES, DEVICES, DEADLINE = 3, 30, 90.0
SURVIVED = {"superlink", "node", "hub", "witness", "hung-node", "hung-hub"}
"""Faults after which the round still ends in a release: the plan tolerates the loss of a third."""


TABLE: list[Result] = []


@pytest.fixture(scope="module", autouse=True)
def printed(aloud: Callable[[Iterable[str]], None]) -> Iterator[None]:
    """Print fault, stage, outcome and seconds of every case at the end."""
    yield
    aloud(table(TABLE).splitlines())


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("faults"), NODES, DEVICES, DEADLINE) as made:
        made.ample_budget()
        yield made


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", KILLED)
def test_a_run_ends_once_whatever_dies(up: Lab, name: str, stage: str) -> None:
    result = strike(up, name, KILLED[name], stage)
    TABLE.append(result)
    assert (result.outcome == "released") is (name in SURVIVED), result


def test_the_next_round_works(up: Lab) -> None:
    every_device_counts(up, "afterwards")


@pytest.mark.parametrize("stage", ["join", "masked"])
def test_a_full_disk_is_a_failure_that_is_written_down_later(tmp_path: Path, stage: str) -> None:
    place = tmp_path / "lab-store"
    with small_store(place), lab(tmp_path, NODES, DEVICES, DEADLINE, store=str(place)) as up:
        (up.folder / "store").symlink_to(tmp_path / "lab-store")
        began = time.monotonic()
        process = start("run", str(up.plan(f"disk-{stage}")), "--engine", str(up.folder))
        wait_for_stage(up, stage, process)
        mend = fill_disk(up)
        _, err = process.communicate(timeout=GUARD)
        assert process.returncode != 0
        assert "Traceback" not in err, err
        mend()
        again = fa("run", "--attach", "latest", "--engine", str(up.folder), code=4)
        seconds = time.monotonic() - began
        TABLE.append(check(up, "disk", stage, False, seconds, again.stderr.strip().splitlines()[-1]))
        up.run(up.plan("room-again"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Database]]:
    """A lab whose store is a PostgreSQL that can be killed."""
    with (
        mortal() as server,
        lab(tmp_path_factory.mktemp("served"), NODES, DEVICES, DEADLINE, store=server.url) as up,
    ):
        up.ample_budget()
        yield up, server


@pytest.mark.parametrize("stage", STAGES)
def test_a_store_that_is_killed_and_comes_back_holds_the_release(
    served: tuple[Lab, Database], stage: str
) -> None:
    up, server = served
    result = strike(up, "store", kill_store(server), stage)
    TABLE.append(result)
    assert (result.outcome, result.counted) == ("released", NODES * DEVICES)


def test_a_store_that_stays_unavailable_is_a_failure_that_is_recorded_later(
    served: tuple[Lab, Database],
) -> None:
    """Only the end of a run writes there, so one stage is like another."""
    (up, server), stage = served, "unmask"
    began = time.monotonic()
    process = start("run", str(up.plan(f"store-gone-{stage}")), "--engine", str(up.folder))
    try:
        wait_for_stage(up, stage, process)
        server.kill()
        _, err = process.communicate(timeout=GUARD)
    finally:
        server.start()
        process.kill()
    assert process.returncode != 0
    assert "Traceback" not in err, err
    again = fa("run", "--attach", "latest", "--engine", str(up.folder), code=4)
    seconds, reason = time.monotonic() - began, again.stderr.strip().splitlines()[-1]
    TABLE.append(check(up, "store-gone", stage, False, seconds, reason))
    up.run(up.plan("store-back"))


CLOCKS = {
    "witness": "witness",
    "aggregator": "flwr-serverapp",
    "node": "node-01.key",
    "hub": "hubs/node-01",
    "superlink": "fa_core.flower.superlink",
}
"""The process whose clock is shifted -> a part of its command line alone."""


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Path]]:
    """A lab whose clocks can be shifted, and the folder that shifts them."""
    folder = tmp_path_factory.mktemp("loose")
    aside = loose_clocks(folder / "clocks", CLOCKS)
    with lab(folder, NODES, DEVICES, DEADLINE, aside=aside) as up:
        up.ample_budget()
        yield up, folder / "clocks"


@pytest.mark.parametrize("minutes", [10, -10])
@pytest.mark.parametrize("whose", CLOCKS)
def test_a_clock_that_goes_ten_minutes_off_harms_nothing(
    loose: tuple[Lab, Path], whose: str, minutes: int
) -> None:
    up, folder = loose
    name = f"{'fast' if minutes > 0 else 'slow'}-{whose}"
    TABLE.append(strike(up, name, shift_clock(folder, whose, minutes), "shares"))
    every_device_counts(up, f"{name}-after")


@pytest.mark.parametrize("stage", ["join", "masked"])
def test_nodes_come_back_to_a_superlink_that_hung(up: Lab, stage: str) -> None:
    TABLE.append(strike(up, "hung-superlink", hang_superlink, stage))
    every_device_counts(up, f"hung-superlink-{stage}-after")


def every_device_counts(up: Lab, plan: str) -> None:
    """Run a plan once every node is back, and check that every device is counted."""
    wait_until_ready(up)
    up.run(up.plan(plan))
    with up.store() as store:
        assert store.find("latest").counted == NODES * DEVICES


def test_a_slow_network_and_an_interrupted_one_are_tolerated() -> None:
    """In a network namespace of its own: nothing else on this machine may notice."""
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    faults = "scripts/bench/faults.py cut-network slow-network"
    walk = f"ip link set lo up mtu 1500 && exec {sys.executable} {faults}"
    done = subprocess.run(
        [*own, "sh", "-c", walk],
        cwd=ROOT,
        env=ENVIRONMENT | {OWN_NETWORK: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "-network" in line]
    lines = lines[: len(lines) // 2]  # each is printed as it is known, and again in the whole table
    assert len(lines) == 2 * len(STAGES)
    assert {line[2] for line in lines} == {"released"}, done.stdout
    TABLE.extend(Result(line[0], line[1], line[2], int(line[3]), float(line[4]), "") for line in lines)


def test_without_a_fault_every_device_counts(up: Lab) -> None:
    """The control of all of the above."""
    assert strike(up, "nothing", lambda up: lambda: None, "masked").counted == NODES * DEVICES
