"""A sum by two aggregators on a real lab: helper and aggregator are killed meanwhile; devices from afar."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fa_core.federation.directory import open_federation
from tests.collection.setup import plan_text
from tests.deployment.faults import below
from tests.deployment.lab import GUARD, Lab, fa, lab, start
from tests.deployment.remote import connected, said
from tests.ports import free_ports
from tests.rounds.small import write_fleet

NODES, DEVICES = 3, 20


def plan_of(folder: Path) -> Path:
    """Write a plan that all of the lab's devices answer."""
    text = plan_text("sum: two_aggregators, min_cohort: 50").replace("[[], [accent]]", "[[]]")
    segments = text[text.index("segments:") : text.index("group_by:")]
    file = folder / "misses.yaml"
    file.write_text(text.replace(segments, ""))
    return file


def collections(up: Lab) -> list[dict[str, Any]]:
    """Return what is open, as `fa federation status` has it."""
    found: list[dict[str, Any]] = up.status()["collections"]
    return found


def wait_for(what: Callable[[], Any]) -> Any:
    """Return what `what` returns once that is true."""
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("it never came")


def kill(up: Lab, process: str) -> None:
    """Kill a process of the supervisor's, which starts it again."""
    os.kill(up.pid(process), signal.SIGKILL)


@pytest.mark.long
def test_helper_and_aggregator_are_killed_and_the_release_is_there_once(tmp_path: Path) -> None:
    """The ServerApp is killed with its SuperExec once the collection is charged, the helper twice, and the
    command that launched it; another goes on with it."""
    port = free_ports()
    with lab(tmp_path, NODES, DEVICES, helper=f"127.0.0.1:{port}") as up:
        where, plan = str(up.folder), plan_of(tmp_path)
        launched = start(
            "run", str(plan), "--engine", where, "--enough", str(NODES * DEVICES), "--window", "2h"
        )
        with up.store() as store:
            wait_for(lambda: store.charges("small"))
            for pid in below(up.pid("superexec"), "flwr-serverapp"):
                os.kill(pid, signal.SIGKILL)
            kill(up, "superexec")
            kill(up, "helper")
            launched.kill()
            launched.communicate()
            (found,) = collections(up)
            kill(up, "helper")
            done = fa("run", "--attach", found["release"], "--engine", where, "--json")
            released = json.loads(done.stdout)
            assert released["release"] == found["release"]
            assert released["devices"]["counted"] == NODES * DEVICES
            assert [each.release for each in store.charges("small")] == [found["release"]]
            assert len(store.published("task", found["release"])) == 1
            assert store.failures() == ()
            assert store.verify_log() == store.verify_ledger() == []
        assert collections(up) == []
        fa("run", "--attach", found["release"], "--engine", where)
        helper = open_federation(up.folder).helper_folder
        assert {file.stat().st_mode & 0o077 for file in helper.rglob("*.db")} == {0}


@pytest.mark.long
def test_devices_behind_a_gateway_and_devices_of_hubs_are_in_one_sum(tmp_path: Path) -> None:
    """Those from afar upload by themselves, whenever they look; a drain hands over what waits."""
    remote, far = 3, write_fleet(tmp_path / "far", 3)
    everyone = NODES * DEVICES + remote
    with (
        lab(tmp_path, NODES, DEVICES, helper=f"127.0.0.1:{free_ports()}") as up,
        connected(up, tmp_path, far, remote) as (operations, _),
    ):
        plan = str(plan_of(tmp_path))
        done = fa("run", plan, "--engine", str(up.folder), "--enough", str(everyone), "--json")
        assert json.loads(done.stdout)["devices"]["counted"] == everyone
        metrics = said(f"http://{operations}/metrics")
        for outcome in ("taken", "handed_over"):
            assert f'unheard_gateway_uploads_total{{kind="report",outcome="{outcome}"}} {remote}' in metrics
