"""Launched runs: each is a folder beside the store and a process of its own, so that it survives a page reload."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dashboard.launch.runner import ORDER, OUTCOME, PLAN, PROGRESS
from fa_core.errors import BadInput

FOLDER: Final = "launches"
LOG, PID = "output.log", "pid"
MOST_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet directory that a plan may be launched over, with its public facts only."""

    path: Path
    population: str
    devices: int
    synthetic: bool
    until: datetime


def fleet(path: Path) -> Fleet:
    """Return the public facts of a fleet directory. Raises BadInput where it is not one."""
    try:
        facts = json.loads((path / "fleet.json").read_text(encoding="utf-8"))
        until = datetime.fromisoformat(facts["until"]).astimezone(UTC)
        devices = pq.read_metadata(path / "devices.parquet").num_rows
        return Fleet(path, str(facts["population"]), devices, bool(facts["synthetic"]), until)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        raise BadInput(
            f"{path} is not a fleet directory; `fa fleet make` and `fa fleet import` make one"
        ) from None


@dataclass(frozen=True, slots=True)
class Launch:
    """The state of one launched run.

    Attributes:
        stages: the latest progress of each stage that has started: asked, answered, dropped, left (seconds or None).
        outcome: the result, None while it runs.
    """

    id: str
    order: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    outcome: Mapping[str, str] | None


def start(folder: Path, text: str, chosen: Fleet, store: str, user: str, name: str) -> str:
    """Start a run of a plan in a process of its own and return the launch's id."""
    identifier = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    place = folder / FOLDER / identifier
    place.mkdir(parents=True)
    (place / PLAN).write_text(text, encoding="utf-8")
    where = store if "://" in store else str(Path(store).resolve())
    order = {"fleet": str(chosen.path.resolve()), "population": chosen.population, "engine": "local", "store": where,
             "who": user, "plan": name, "at": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    (place / ORDER).write_text(json.dumps(order), encoding="utf-8")
    with (place / LOG).open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dashboard.launch.runner", str(place)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    (place / PID).write_text(str(process.pid), encoding="utf-8")
    return identifier


def read(folder: Path, identifier: str) -> Launch:
    """Return the state of a launch. Raises BadInput for an unknown name."""
    place = folder / FOLDER / Path(identifier).name
    try:
        order = json.loads((place / ORDER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadInput(f"there is no launch {identifier[:40]}") from None
    stages: dict[str, Mapping[str, Any]] = {}
    if (place / PROGRESS).exists():
        for line in (place / PROGRESS).read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            stages[event["stage"]] = event
    outcome = None
    if (place / OUTCOME).exists():
        outcome = json.loads((place / OUTCOME).read_text(encoding="utf-8"))
    elif not _alive(_pid(place)):
        outcome = {
            "kind": "defect",
            "reason": f"the run's process ended without an outcome; see {LOG} in its folder",
        }
    return Launch(identifier, order, stages, outcome)


def newest(folder: Path) -> tuple[str, ...]:
    """Return the names of the newest launches, newest first."""
    if not (folder / FOLDER).is_dir():
        return ()
    found = sorted(
        (each.name for each in (folder / FOLDER).iterdir() if (each / ORDER).exists()), reverse=True
    )
    return tuple(found[:MOST_SHOWN])


def stop(folder: Path, launch: Launch) -> None:
    """Interrupt a run; its round fails, which is recorded in the store."""
    pid = _pid(folder / FOLDER / launch.id)
    if launch.outcome is None and _alive(pid):
        os.kill(pid, signal.SIGINT)


def _pid(place: Path) -> int:
    file = place / PID
    return int(file.read_text(encoding="utf-8")) if file.exists() else os.getpid()


def _alive(pid: int) -> bool:
    """Return whether a run's process is alive: a child of this process, or of an earlier dashboard process."""
    try:
        done, _ = os.waitpid(pid, os.WNOHANG)
        return done == 0
    except ChildProcessError:
        return Path(f"/proc/{pid}").exists()
