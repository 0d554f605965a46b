"""A lab of real processes for a test, by the command line alone, and gone when the test is over."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fa_core.federation.directory import open_federation
from fa_core.privacy.ledger import Policy
from fa_core.store import Declaration, Store, open_store
from fa_core.trust import budgets
from fa_core.trust.enrolment import load
from tests.ports import free_ports
from tests.rounds.small import plan_text, write_fleet

ROOT = Path(__file__).parents[2]
NODES, DEVICES = 3, 20
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
GUARD = 1200.0
"""Seconds after which a command that hangs fails its test. The longest run is that of a SuperLink whose clock
goes back ten minutes: it takes the run for alive as long."""


def fa(
    *arguments: str, code: int | None = 0, aside: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.CompletedProcess[str]":
    """Run `fa` and return what it printed; its exit code must be `code`, None for any. `aside` is put into
    its environment."""
    done = subprocess.run(
        [sys.executable, "-m", "fa_core.cli", *arguments],
        capture_output=True, text=True, env=ENVIRONMENT | dict(aside), timeout=GUARD, check=False,
    )  # fmt: skip
    assert code is None or done.returncode == code, f"{done.returncode}: {done.stderr}\n{done.stdout}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(*arguments: str) -> "subprocess.Popen[str]":
    """Start `fa` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fa_core.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """A federation of hubs of devices that is up."""

    folder: Path
    nodes: int
    devices: int

    def plan(self, name: str, **options: Any) -> Path:
        """Write a plan of this name and return its file; a device answers once for a name and window."""
        wanted: dict[str, Any] = {
            "cohort": 50,
            "noise": "distributed",
            "dropout": "0.34",
            "corrupt": "0.05",
            "groups": "[[]]",
        }
        file = self.folder.parent / f"{name}.yaml"
        file.write_text(plan_text(**wanted | options).replace("name: small", f"name: {name}"))
        return file

    def run(self, plan: Path, code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run a plan on the lab."""
        return fa("run", str(plan), "--engine", str(self.folder), "--json", code=code)

    def status(self) -> dict[str, Any]:
        """Return what `fa federation status` says."""
        status: dict[str, Any] = json.loads(fa("federation", "status", str(self.folder), "--json").stdout)
        return status

    def store(self) -> Store:
        """Return the lab's store."""
        return open_store(open_federation(self.folder).store)

    def supervisor(self) -> int:
        """Return the id of the supervisor."""
        return int(json.loads((self.folder / "run" / "supervisor.json").read_text())["pid"])

    def pid(self, process: str) -> int:
        """Return the id of one of its processes, as the supervisor has it."""
        said = json.loads((self.folder / "run" / "supervisor.json").read_text())
        return int(said["processes"][process]["pid"])

    def ample_budget(self) -> None:
        """Declare a budget that many rounds do not use up, signed by the lab's authority."""
        policy = Policy(*[Fraction(10**6)] * 5)
        declared = Declaration("small", "zcdp", policy, datetime.now(UTC))
        with self.store() as store:
            store.declare(budgets.sign(declared, load(self.folder / "authority").key))


@contextmanager
def lab(
    folder: Path,
    nodes: int = NODES,
    devices: int = DEVICES,
    deadline: float = 900.0,
    aside: Mapping[str, str] = MappingProxyType({}),
    store: str = "store",
    fleet: Path | None = None,
    helper: str = "",
) -> Iterator[Lab]:
    """Make a federation, start its lab, and leave nothing of it behind. `aside` is in its environment.

    `helper`: HOST:PORT of a helper, and drains follow each other at once; "" for none.

    The devices have no limits of their own: rounds run back to back here, in smaller cohorts than a device
    with the default policy answers. Those of a `fleet` that is given have the default budget and policy.
    """
    place, ample = folder / "lab", () if fleet else ("--ample",)
    fleet = fleet or write_fleet(folder / "fleet", nodes * devices)
    ports = ("--port", str(free_ports(nodes + 1)), *(("--helper", helper) if helper else ()))
    fa("federation", "init", str(place), "--nodes", str(nodes), *ports)
    config = place / "federation.toml"
    text = config.read_text().replace("deadline = 180.0", f"deadline = {deadline}")
    text = text.replace("seconds = 300.0", "seconds = 1.0")
    config.write_text(text.replace('store = "store"', f'store = "{store}"'))
    try:
        sizes = ("--fleet", str(fleet), "--devices", str(devices), *ample)
        fa("federation", "up", str(place), *sizes, aside=aside)
        yield Lab(place, nodes, devices)
    finally:
        fa("federation", "down", str(place))
        assert processes_of(place) == [], processes_of(place)


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of living processes that name `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in command:
                found.append(command)
    return found
