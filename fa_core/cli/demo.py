"""`fa demo`: the main job, end to end, on real detector output, each step a command that anybody can run."""

import re
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree, which
from typing import Annotated, Final

import typer

from fa_core.cli import demo_steps as steps
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

DEVICES: Final = 2000
LEAST: Final = 900
"""Fewest devices that can fill the groups of these plans."""

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
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="How many devices the fleet has: 2,000, or 20,000 with --loop."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where fleet, plans and store go; made anew.")] = Path(
        ".unheard/demo"
    ),
    plans: Annotated[Path, typer.Option(help="The folder of plans.")] = Path("eval_plans"),
    loop: Annotated[
        bool, typer.Option("--loop", help="Train, test, roll out and measure again, over simulated weeks.")
    ] = False,
) -> None:
    """Build a fleet, look before asking, ask six plans, read the answers, leave the dashboard running."""
    if loop:
        from fa_core.cli import demo_loop

        demo_loop.play(devices or demo_loop.DEVICES, out, plans)
        return
    devices = devices or DEVICES
    if devices < LEAST:
        raise BadInput(f"--devices {devices}: the groups of its plans need at least {LEAST} devices")
    if missing := [name for name in PLANS if not (plans / f"{name}.yaml").is_file()]:
        raise BadInput(f"{plans / missing[0]}.yaml: there is no such plan; --plans names the folder")
    places = Places(out)
    copy_plans(plans, places.plans)
    questions = {name: load(Path(places.plan(name)), fleet=devices).metadata.question for name in PLANS}
    steps.stop_dashboard(out / "dashboard.pid")
    for folder in (places.fleet, places.store):
        if folder.exists():
            rmtree(folder)

    steps.title(
        f"A fleet of {devices:,} devices: synthetic voices, human background speech, two real detectors"
    )
    steps.fa(*places.make(devices))
    steps.title(
        "Before anything is sent: what the weekly plan costs a device, and how wide its intervals will be"
    )
    steps.fa(*places.preview(WEEKLY, devices))
    typer.echo(
        "\nA round of messages takes a minute or two. The weekly plan has one at the end, of the newest week."
        "\nUntil then tables are counted: noise as large, no device asked, and each release says so."
    )
    before = _week_before(places)
    for name in OTHERS:
        steps.title(questions[name])
        if name in CHANGED:
            typer.echo(
                f"{name} is made for larger fleets: here it has epsilon 2, and one accent and the rest.\n"
            )
        steps.fa(*places.run(name, "--engine", "tables"))
    steps.title(questions[WEEKLY])
    after = _launch(places)
    steps.fa(*places.of_store("results", "show", after))
    steps.title("What changed since the week before")
    steps.fa(*places.of_store("compare", before, after))
    steps.title("What was spent on each device of this population")
    steps.fa(*places.of_store("ledger", "show"))
    steps.title("The dashboard")
    url, number = steps.dashboard(
        out, *places.of_store("--fleet", str(places.fleet), "--plans", str(places.plans))
    )
    typer.echo(f"It is running at {url} (stop it with: kill {number})")
    steps.title(f"To go on{_activation()}")
    for command in places.next_steps(devices):
        typer.echo(steps.typed(command))


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

    steps.title("The week before, on a clock that is set back")
    end = run_folder.fleet(places.fleet).until - timedelta(days=7)
    steps.fa(*places.run(WEEKLY, "--engine", "tables", "--until", f"{end:%Y-%m-%dT%H:%MZ}"))
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
    typer.echo(f"  {steps.typed(places.run(WEEKLY))}\n")
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


def _activation() -> str:
    """Return how `fa` comes on the path, where it is not."""
    script = Path(sys.executable).with_name("activate")
    if which("fa") is not None or not script.is_file():
        return ""
    with suppress(ValueError):
        script = script.relative_to(Path.cwd())
    return f" (`. {shlex.quote(str(script))}` puts fa on the path)"
