"""`fa demo`: the main job, end to end, on real detector output, each step a command that anybody can run."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree, which
from typing import Annotated, Final

import typer

from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.plan import load

WEEKLY: Final = "wake-word-weekly"
"""Asked of both weeks: of the first in the tables, of the newest by messages and masks."""

OTHERS: Final = (
    "false-wake-incident",
    "model-a-against-b",
    "det-by-accent",
    "command-confusions",
    "correction-rate-by-intent",
)
"""Asked of the newest week, in the tables: a round of messages takes each of them a minute."""

PLANS: Final = (WEEKLY, *OTHERS)

CHANGED: Final = {"det-by-accent": {"epsilon": "2", "accent": "{device: accent, values: [en-US]}"}}
"""Keys that a plan for 20,000 devices has another value of here: one accent and the others, at the most that
a device grants one plan by default. The newest week's plans cost rho 0.2 together, and a population has 0.25
for a week: there is room for two more."""

LEAST: Final = 900
"""Fewest devices that can fill the groups of these plans."""

FA: Final = (sys.executable, "-m", "fa_core.cli")
PORTS: Final = range(8501, 8521)
START_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo's fleet, store and plans are, all made by it."""

    out: Path

    @property
    def fleet(self) -> Path:
        """A fleet directory."""
        return self.out / "fleet"

    @property
    def store(self) -> Path:
        """The folder of a store."""
        return self.out / "store"

    @property
    def plans(self) -> Path:
        """A folder of plans."""
        return self.out / "plans"

    def plan(self, name: str) -> str:
        """Return a plan's file."""
        return str(self.plans / f"{name}.yaml")

    def make(self, devices: int) -> tuple[str, ...]:
        """Return the command that makes the fleet."""
        size = ("--devices", str(devices), "--weeks", "2", "--seed", "7")
        return "fleet", "make", *size, "--out", str(self.fleet)

    def preview(self, name: str, devices: int) -> tuple[str, ...]:
        """Return the command that previews a plan."""
        return "plan", "preview", self.plan(name), "--devices", str(devices), "--store", str(self.store)

    def run(self, name: str, *more: str) -> tuple[str, ...]:
        """Return the command that runs a plan."""
        return "run", self.plan(name), "--fleet", str(self.fleet), "--store", str(self.store), *more

    def of_store(self, *words: str) -> tuple[str, ...]:
        """Return a command about the store."""
        return *words, "--store", str(self.store)

    def next_steps(self, devices: int) -> tuple[tuple[str, ...], ...]:
        """Return what may be typed after the demo."""
        return (
            self.of_store("results", "list"),
            self.of_store("report", "latest", "--out", str(self.out / "report.html")),
            self.of_store("log", "verify"),
            self.preview("first-look", devices),
            self.run("first-look", "--engine", "tables"),
        )


def demo(
    devices: Annotated[int, typer.Option(min=1, help="How many devices the fleet has.")] = 2000,
    out: Annotated[Path, typer.Option(help="Where fleet, plans and store go; made anew.")] = Path(
        ".unheard/demo"
    ),
    plans: Annotated[Path, typer.Option(help="The folder of plans.")] = Path("eval_plans"),
) -> None:
    """Build a fleet, look before asking, ask six plans, read the answers, leave the dashboard running."""
    if devices < LEAST:
        raise BadInput(f"--devices {devices}: the groups of its plans need at least {LEAST} devices")
    if missing := [name for name in PLANS if not (plans / f"{name}.yaml").is_file()]:
        raise BadInput(f"{plans / missing[0]}.yaml: there is no such plan; --plans names the folder")
    places = Places(out)
    copy_plans(plans, places.plans)
    questions = {name: load(Path(places.plan(name)), fleet=devices).metadata.question for name in PLANS}
    _stop(out / "dashboard.pid")
    for folder in (places.fleet, places.store):
        if folder.exists():
            rmtree(folder)

    _title(f"A fleet of {devices:,} devices: synthetic voices, human background speech, two real detectors")
    _fa(*places.make(devices))
    _title("Before anything is sent: what the weekly plan costs a device, and how wide its intervals will be")
    _fa(*places.preview(WEEKLY, devices))
    typer.echo(
        "\nA round of messages takes a minute or two. The weekly plan has one at the end, of the newest week."
        "\nUntil then tables are counted: noise as large, no device asked, and each release says so."
    )
    before = _week_before(places)
    for name in OTHERS:
        _title(questions[name])
        if name in CHANGED:
            typer.echo(
                f"{name} is made for larger fleets: here it has epsilon 2, and one accent and the rest.\n"
            )
        _fa(*places.run(name, "--engine", "tables"))
    _title(questions[WEEKLY])
    after = _launch(places)
    _fa(*places.of_store("results", "show", after))
    _title("What changed since the week before")
    _fa(*places.of_store("compare", before, after))
    _title("What was spent on each device of this population")
    _fa(*places.of_store("ledger", "show"))
    _title("The dashboard")
    url, number = _dashboard(places)
    typer.echo(f"It is running at {url} (stop it with: kill {number})")
    _title(f"To go on{_activation()}")
    for command in places.next_steps(devices):
        typer.echo(_typed(command))


def copy_plans(plans: Path, copies: Path) -> None:
    """Copy plans, to expire in a week from today, whenever this is, and changed for a small fleet."""
    week = datetime.now(UTC).date() + timedelta(days=7)
    copies.mkdir(parents=True, exist_ok=True)
    for plan in sorted(plans.glob("*.yaml")):
        text = plan.read_text(encoding="utf-8")
        for key, value in {"expires": str(week), **CHANGED.get(plan.stem, {})}.items():
            text = re.sub(rf"(?m)^(  {key}:).*$", rf"\1 {value}", text)
        (copies / plan.name).write_text(text, encoding="utf-8")


def _week_before(places: Places) -> str:
    """Ask the weekly plan of the first week and return its release."""
    from dashboard.launch import run_folder
    from fa_core.store import open_store

    _title("The week before, on a clock that is set back")
    end = run_folder.fleet(places.fleet).until - timedelta(days=7)
    _fa(*places.run(WEEKLY, "--engine", "tables", "--until", f"{end:%Y-%m-%dT%H:%MZ}"))
    with open_store(places.store, create=False) as store:
        return store.find("latest").id[:12]


def _launch(places: Places) -> str:
    """Run the weekly plan as the dashboard does, which then shows its stages. Return its release."""
    from dashboard.auth import audit
    from dashboard.launch import run_folder
    from dashboard.settings import folder_of

    typer.echo(
        "Launched as from the dashboard, whose page Plans, Runs keeps its stages. From here it would be:"
    )
    typer.echo(f"  {_typed(places.run(WEEKLY))}\n")
    store, file, fleet = str(places.store), Path(places.plan(WEEKLY)), run_folder.fleet(places.fleet)
    folder, text, plan = folder_of(store), file.read_text(encoding="utf-8"), load(file)
    launched = run_folder.start(folder, text, fleet, store, "demo", plan.name)
    details = {"plan": plan.name, "hash": plan.hash, "fleet": fleet.population, "launch": launched}
    audit.record(folder, "demo", "launch", details)
    try:
        outcome = _follow(folder, launched)
    except KeyboardInterrupt:
        run_folder.stop(folder, run_folder.read(folder, launched))
        raise
    if "release" in outcome:
        typer.echo("")
        return outcome["release"][:12]
    typer.echo(f"fa: {outcome['reason']}", err=True)
    codes = {each.__name__: each.exit_code for each in (BadInput, Refused, RoundFailed)}
    raise typer.Exit(codes.get(outcome["kind"], 1))


def _follow(folder: Path, launched: str) -> Mapping[str, str]:
    """Print a line for each stage that ends, and return the outcome."""
    from dashboard.launch import run_folder
    from fa_core.rounds.progress import WHAT
    from fa_core.secagg.task import Stage

    ended: set[str] = set()
    while True:
        launch = run_folder.read(folder, launched)
        for name, event in launch.stages.items():
            if name not in ended and event["answered"] + event["dropped"] == event["asked"]:
                ended.add(name)
                typer.echo(f"{WHAT[Stage(name)]}: {event['answered']} of {event['asked']}", err=True)
        if launch.outcome is not None:
            return launch.outcome
        time.sleep(LOOK_SECONDS)


def _title(text: str) -> None:
    typer.echo(f"\n== {text} ==\n")


def _typed(arguments: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(["fa", *arguments])


def _activation() -> str:
    """Return how `fa` comes on the path, where it is not."""
    script = Path(sys.executable).with_name("activate")
    if which("fa") is not None or not script.is_file():
        return ""
    with suppress(ValueError):
        script = script.relative_to(Path.cwd())
    return f" (`. {shlex.quote(str(script))}` puts fa on the path)"


def _fa(*arguments: str) -> None:
    """Run one command as a person would, and end where it fails, with its exit code."""
    typer.echo(f"$ {_typed(arguments)}\n")
    if code := subprocess.run([*FA, *arguments], check=False).returncode:
        raise typer.Exit(code)


def _dashboard(places: Places) -> tuple[str, int]:
    """Start the dashboard on a free port, as a process that outlives this one; its address and number."""
    port = next(_free())
    arguments = places.of_store(
        "--port", str(port), "--fleet", str(places.fleet), "--plans", str(places.plans)
    )
    log = places.out / "dashboard.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*FA, "dashboard", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    (places.out / "dashboard.pid").write_text(str(process.pid), encoding="ascii")
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
