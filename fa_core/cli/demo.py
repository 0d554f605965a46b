"""`fa demo`: the main job, end to end, on real detector output, each step a command that anybody can run."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Final

import typer

from fa_core.errors import BadInput
from fa_core.plan import load

PLANS: Final = ("wake-word-weekly", "false-wake-incident", "model-a-against-b")
"""Two that show a difference between groups, and an incident: sentences with "okay" that wake the device."""

LEAST: Final = 900
"""Fewest devices that can fill the groups of these plans."""

FA: Final = (sys.executable, "-m", "fa_core.cli")
PORTS: Final = range(8501, 8521)
START_SECONDS: Final = 60.0


def demo(
    devices: Annotated[int, typer.Option(min=1, help="How many devices the fleet has.")] = 2000,
    out: Annotated[Path, typer.Option(help="Where fleet, plans and store go; made anew.")] = Path(
        ".unheard/demo"
    ),
    plans: Annotated[Path, typer.Option(help="The folder of plans.")] = Path("eval_plans"),
) -> None:
    """Build a fleet, look before asking, ask three plans, read the answers, leave the dashboard running."""
    if devices < LEAST:
        raise BadInput(f"--devices {devices}: the groups of its plans need at least {LEAST} devices")
    if missing := [name for name in PLANS if not (plans / f"{name}.yaml").is_file()]:
        raise BadInput(f"{plans / missing[0]}.yaml: there is no such plan; --plans names the folder")
    fleet, store = out / "fleet", out / "store"
    out.mkdir(parents=True, exist_ok=True)
    mine = {name: _unexpired(plans / f"{name}.yaml", out) for name in PLANS}
    questions = {plan: load(plan, fleet=devices).metadata.question for plan in mine.values()}
    _stop(out / "dashboard.pid")
    for folder in (fleet, store):
        if folder.exists():
            rmtree(folder)

    _title(f"A fleet of {devices:,} devices: synthetic voices, human background speech, two real detectors")
    _fa("fleet", "make", "--devices", str(devices), "--out", str(fleet), "--seed", "7")
    _title("Before anything is sent: what the weekly plan costs a device, and how wide its intervals will be")
    _fa("plan", "preview", str(mine[PLANS[0]]), "--devices", str(devices), "--store", str(store))
    for plan, question in questions.items():
        _title(question)
        _fa("run", str(plan), "--fleet", str(fleet), "--store", str(store))
    _title("What was spent on each device of this population")
    _fa("ledger", "show", "--store", str(store))
    _title("The dashboard")
    url, number = _dashboard(store, fleet, plans, out)
    typer.echo(f"It is running at {url} (stop it with: kill {number})")


def _title(text: str) -> None:
    typer.echo(f"\n== {text} ==\n")


def _fa(*arguments: str) -> None:
    """Run one command as a person would, and end where it fails, with its exit code."""
    typer.echo(f"$ fa {' '.join(arguments)}\n")
    if code := subprocess.run([*FA, *arguments], check=False).returncode:
        raise typer.Exit(code)


def _unexpired(plan: Path, out: Path) -> Path:
    """Copy a plan, to expire in a week from today, whenever this is."""
    week = datetime.now(UTC).date() + timedelta(days=7)
    text = re.sub(r"(?m)^(  expires:).*$", rf"\1 {week}", plan.read_text(encoding="utf-8"))
    copy = out / plan.name
    copy.write_text(text, encoding="utf-8")
    return copy


def _dashboard(store: Path, fleet: Path, plans: Path, out: Path) -> tuple[str, int]:
    """Start the dashboard on a free port, as a process that outlives this one; its address and number."""
    port = next(_free())
    arguments = ["--store", str(store), "--port", str(port), "--fleet", str(fleet), "--plans", str(plans)]
    log = out / "dashboard.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FA, "dashboard", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    (out / "dashboard.pid").write_text(str(process.pid), encoding="ascii")
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return f"http://127.0.0.1:{port}", process.pid
        time.sleep(0.2)
    typer.echo(f"fa: the dashboard did not start; {log} says:\n{log.read_text(errors='replace')}", err=True)
    raise typer.Exit(1)


def _free() -> Iterator[int]:
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                yield port
    raise BadInput(f"no port from {PORTS[0]} to {PORTS[-1]} is free")


def _stop(file: Path) -> None:
    """End the dashboard that an earlier demo left running, if the number is still a dashboard's."""
    with suppress(OSError, ValueError):
        number = int(file.read_text(encoding="ascii"))
        if b"dashboard" in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
            os.kill(number, signal.SIGTERM)
