"""`fa demo --loop`: from a wake word that does not hear an accent to one that does, over simulated weeks.

    measure → ask for steps → refit → test set → shadow → staged rollout → measure again

Every step of an operator is a command that anybody can run. What devices record between these steps is drawn
here: the demo's voices and scores, the trained head and its adapters on the same recordings, and clocks that
are set back. The engine is `tables`: nobody is asked, noise is as large, and every release says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Final

import typer

from fa_core.cli import demo_steps as steps
from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.plan import load

if TYPE_CHECKING:
    from clients.fleet.hearings import Hearings
    from clients.models.adapters import Adapters
    from fa_core.rollout.states import History
    from fa_core.values import Estimate

DEVICES: Final = 20_000
LEAST: Final = 2_500
"""Fewest devices of which each accent has a hundred or so."""

BASE: Final = "embed-1"
WORST: Final = "es-en"
SEED: Final = 7
WEEK: Final = timedelta(days=7)
BEFORE: Final = 2
"""Weeks until there is a candidate: one for the norms and the rates as they are, one for the training."""

AFTER: Final = 8
"""Weeks of the rollout at most, four of them in shadow, and one to measure in."""

REACTIONS: Final = 1.0
"""Share of misses after which people try again: all, as in the other demo; `scripts/bench/rollout_weeks.py`
plays fewer."""

WAKES_BELOW: Final = "0.1"
"""More false wakes an hour that a live stage lets pass: what a tenth of 20,000 devices can distinguish from
none."""

NEEDED: Final = ("wake-word-weekly", "moment-norms", "hear-every-accent")
RECIPE: Final[Mapping[str, str]] = {
    "wake_phrases": "[okay nabu]", "noise": "[babble]", "snr_db": "[27, 17]", "takes": "2",
    "margins": "{misses_below: 0.2, false_wakes_below: 90}",
}  # fmt: skip
"""What the demo's test set has other than the shipped one: a sixth of its clips, and margins that so few
can show."""


BY_ACCENT: Final = "metric=false_reject_rate&by=accent"
"""What the dashboard is to show first: the end of its address."""

GATES: Final = "gates: {near_misses: 0.05, phrases: 0.05}\n"
"""What a candidate may be worse in: a dozen of 234 public near misses, so that a few of one accent's head do
not hold it. The test set and the live stages measure false wakes by themselves."""


STOPPED: Final[Mapping[int, str]] = {
    Refused.exit_code: "held",
    RoundFailed.exit_code: "rolled back, or its round failed",
}
"""What a candidate is where a step ends with these: a sound end of the loop, and no defect."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Where everything of the demo is, and its clock: `start` is a midnight, UTC."""

    out: Path
    start: datetime

    @property
    def store(self) -> tuple[str, ...]:
        """The option that names the store."""
        return "--store", str(self.out / "store")

    @property
    def public(self) -> tuple[str, ...]:
        """The option that names the public speech."""
        return "--public", str(self.out / "public.npz")

    def plan(self, name: str) -> Path:
        """Return a plan's file."""
        return self.out / "plans" / f"{name}.yaml"

    def end(self, week: int) -> datetime:
        """Return the end of a week, counted from 1."""
        return self.start + week * WEEK

    def run(self, name: str, fleet: str, week: int) -> tuple[str, ...]:
        """Return the command that asks a plan at the end of a week."""
        return "run", str(self.plan(name)), *self.asked(fleet, week)

    def asked(self, fleet: str, week: int) -> tuple[str, ...]:
        """Return the options of a round at the end of a week."""
        until = f"{self.end(week):%Y-%m-%dT%H:%MZ}"
        return "--fleet", str(self.out / fleet), "--engine", "tables", "--until", until, *self.store


def play(devices: int, out: Path, plans: Path) -> None:
    """Play the loop with so many devices; leave the dashboard running."""
    if devices < LEAST:
        raise BadInput(f"--devices {devices}: thirteen accents need at least {LEAST} devices")
    if missing := [name for name in NEEDED if not (plans / f"{name}.yaml").is_file()]:
        raise BadInput(f"{plans / missing[0]}.yaml: there is no such plan; --plans names the folder")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    loop = Loop(out, midnight - (BEFORE + AFTER) * WEEK)
    steps.stop_dashboard(out / "dashboard.pid")
    if out.exists():
        rmtree(out)
    (out / "plans").mkdir(parents=True)
    heard = _speech(loop)
    base = _fleet(loop, heard, devices)
    before = _measure(loop, plans, BASE, "fleet", 1)
    try:
        candidate = _train(loop, plans, base, devices)
        _test(loop, plans, candidate)
        name = _documents(loop, plans, base, candidate, devices)
        _recorded(loop, heard, candidate, devices)
        week = _roll_out(loop, name, candidate)
    except (Refused, typer.Exit) as stopped:
        if stopped.exit_code in STOPPED:
            _stopped(loop, before, STOPPED[stopped.exit_code])
        raise
    after = _measure(loop, plans, candidate, _stage(loop, candidate, week, 1.0), week)
    _end(loop, before, after)


def _speech(loop: Loop) -> "Hearings":
    """Return what the head hears of the demo's voices, and write the public part of it."""
    import sys

    from rich.console import Console

    from clients.fleet.hearings import open_hearings
    from fa_core.cli.fleet import Steps
    from fa_core.training.public import Clip, PublicSpeech

    steps.title("Speech: the voices of the fleet, and public ones of nobody's device")
    with Steps(Console(file=sys.stderr), "utterances heard") as progress:
        heard = open_hearings(progress)
    kinds = heard.of("wake", "human", "near", "phrase")
    clips = [Clip(heard.kinds[at], heard.accents[at], heard.windows[at]) for at in kinds]  # type: ignore[arg-type]
    PublicSpeech(tuple(clips), heard.seconds).save(loop.out / "public.npz")
    typer.echo(f"{loop.out / 'public.npz'}: {len(clips)} public clips, the wake word in four accents alone")
    return heard


def _fleet(loop: Loop, heard: "Hearings", devices: int) -> str:
    """Draw two weeks of a fleet with moments, in a store that has the base; return the base's hash."""
    from clients.fleet.bank import default_bank_path, open_bank
    from clients.fleet.hearings import takes_of
    from clients.fleet.make import make_fleet
    from clients.runtime.published import shipped_bytes

    steps.title(f"{devices:,} devices with {BASE} in the field, whose owners consent to personalisation")
    base = sha256(shipped_bytes(BASE, "okay_nabu")).hexdigest()
    make_fleet(
        open_bank(default_bank_path(), lambda done, of: None), devices, loop.out / "fleet", seed=SEED,
        until=loop.end(BEFORE), progress=lambda done, of: None, weeks=BEFORE, television_weeks=0,
        takes=takes_of(heard, base),
    )  # fmt: skip
    typer.echo(f"drawn: {loop.out / 'fleet'}, {BEFORE} weeks until {loop.end(BEFORE):%Y-%m-%d}\n")
    about = (
        "--wake-word",
        "okay_nabu",
        "--licence",
        "Apache-2.0",
        "--trained-by",
        "scripts/train_candidate_b",
    )
    steps.fa("model", "add", BASE, "--version", BASE, *about, *loop.store)
    return base


def _measure(loop: Loop, plans: Path, version: str, fleet: str, week: int) -> str:
    """Ask the weekly plan about a model and return its release."""
    steps.title(f"Which accents does {version} miss?")
    name = f"weekly-{version}"
    changes = {"model_version: micro-1": f"model_version: {version}"}
    _write(plans / "wake-word-weekly.yaml", loop.plan(name), changes, {"revision": str(week)})
    steps.fa(*loop.run(name, fleet, week))
    return _newest(loop, "wake-word-weekly")


def _newest(loop: Loop, plan: str) -> str:
    """Return the newest release of a plan: with a clock that is set, two plans may have one at a time."""
    from fa_core.store import Query, open_store

    with open_store(loop.store[1], create=False) as store:
        return store.releases(Query(plan=plan), 1)[0].id


def _train(loop: Loop, plans: Path, base: str, devices: int) -> str:
    """Ask for norms, then for steps; return the candidate's version."""
    from fa_core.rollout import models
    from fa_core.store import open_store

    steps.title("How long are devices' steps from public speech? A twentieth of what training costs")
    center = steps.fa_lines("train", "center", *loop.public).strip()
    for name in ("moment-norms", "hear-every-accent"):
        _write(plans / f"{name}.yaml", loop.plan(name), {}, {})
        text = loop.plan(name).read_text("utf-8")
        text = re.sub(r"(?ms)^center: \[.*?\]", center, text)
        if name == "hear-every-accent":
            text += GATES
        text = re.sub(r'(?m)^(  sha256:) "[0-9a-f]{64}"', rf'\1 "{base}"', text)
        loop.plan(name).write_text(text, "utf-8")
    steps.fa(*loop.run("moment-norms", "fleet", 1))
    clip = steps.fa_lines("train", "clip", _newest(loop, "moment-norms"), *loop.store).strip()
    plan = loop.plan("hear-every-accent")
    plan.write_text(re.sub(r"(?m)^clip: .*$", clip, plan.read_text("utf-8")), "utf-8")
    steps.title("One round of training: each device sends one masked vector")
    steps.fa("train", "check", str(plan))
    steps.fa("train", "preview", str(plan), *loop.public, "--devices", str(devices), *loop.store)
    steps.fa("train", "run", str(plan), *loop.public, *loop.asked("fleet", BEFORE))
    with open_store(loop.store[1], create=False) as store:
        return models.newest(models.models(store))[-1].manifest.version


def _test(loop: Loop, plans: Path, candidate: str) -> None:
    """Score both models on a controlled test set."""
    steps.title("The controlled test set: nothing may get worse before any device hears of it")
    recipe = loop.out / "okay-nabu.yaml"
    text = (plans / "testsets" / "okay-nabu.yaml").read_text("utf-8")
    for key, value in RECIPE.items():
        line = f"{key}: {value}"
        text = (
            re.sub(rf"(?m)^{key}:.*$", line, text) if re.search(rf"(?m)^{key}:", text) else f"{text}{line}\n"
        )
    recipe.write_text(re.sub(r"minutes: \d+", "minutes: 10", text), "utf-8")
    made = str(loop.out / "testset")
    steps.fa("testset", "make", str(recipe), "--out", made)
    steps.fa("testset", "run", made, BASE, candidate, "--out", str(loop.out / "result.json"), *loop.store)


def _documents(loop: Loop, plans: Path, base: str, candidate: str, devices: int) -> str:
    """Write the rollout and its two plans, check and start it; return its name."""
    from fa_core.rollout import models
    from fa_core.rollout.controlled import read_result
    from fa_core.store import open_store

    steps.title("The rollout: up to four weeks in shadow, then a tenth, a half and all of the devices")
    with open_store(loop.store[1], create=False) as store:
        made = models.find(store, candidate).manifest.sha256
    names = {"embed-2": candidate, "micro-1": BASE}
    for what in ("gate", "live"):
        shipped = plans / "rollouts" / f"embed-2-{what}.yaml"
        _write(shipped, loop.plan(f"{candidate}-{what}"), names, {})
    hashes = [load(loop.plan(f"{candidate}-{what}")).hash for what in ("gate", "live")]
    found = [base, made, read_result(loop.out / "result.json").hash, *hashes]
    _write(plans / "rollouts" / "embed-2.yaml", loop.plan(candidate), names, {})
    text = re.sub(r"\b[0-9a-f]{64}\b", lambda _: found.pop(0), loop.plan(candidate).read_text("utf-8"))
    text = text.replace("population: default", "population: synthetic")
    text = re.sub(r"(false_accepts_per_hour: {below:) [\d.]+", rf"\1 {WAKES_BELOW}", text)
    loop.plan(candidate).write_text(text, "utf-8")
    file, at = str(loop.plan(candidate)), f"{loop.end(BEFORE):%Y-%m-%dT%H:%MZ}"
    steps.fa("rollout", "check", file, "--devices", str(devices), *loop.store)
    steps.fa("rollout", "start", file, "--test-set", str(loop.out / "result.json"), "--at", at, *loop.store)
    return candidate


def _recorded(loop: Loop, heard: "Hearings", candidate: str, devices: int) -> None:
    """Draw the weeks after the training, in which both models hear every moment."""
    from clients.fleet.bank import default_bank_path, open_bank
    from clients.fleet.hearings import judged
    from clients.fleet.make import make_fleet

    bank = open_bank(default_bank_path(), lambda done, of: None)
    make_fleet(
        bank, devices, loop.out / "weeks", seed=SEED, until=loop.end(BEFORE + AFTER),
        progress=lambda done, of: None, weeks=AFTER, television_weeks=0,
        judged=judged(bank, heard, _adapters(loop, candidate)),
    )  # fmt: skip


def _adapters(loop: Loop, version: str) -> "Adapters":
    from clients.models.adapters import Adapters
    from clients.models.formats import content
    from fa_core.rollout import models
    from fa_core.store import open_store

    with open_store(loop.store[1], create=False) as store:
        manifest = models.find(store, version).manifest
        found = content(manifest, store.artefact(manifest.sha256))
    assert isinstance(found, Adapters)
    return found


def _roll_out(loop: Loop, name: str, candidate: str) -> int:
    """Ask and decide once a week until the rollout is complete; return the week after that.

    Raises Refused where it holds with no look left, and typer.Exit where it is rolled back.
    """
    week = BEFORE
    while (history := _history(loop)).due is not None and week < BEFORE + AFTER - 1:
        week += 1
        share = float(history.document.stages[history.stage].share) if history.stage else 0.0
        where = "in shadow" if not share else f"on {share:.0%} of the devices"
        steps.title(f"Week {week - BEFORE} of the rollout: {name} is {where}")
        fleet, what = _stage(loop, candidate, week, share), "live" if history.stage else "gate"
        steps.fa(*loop.run(f"{candidate}-{what}", fleet, week))
        at = ("--at", f"{loop.end(week):%Y-%m-%dT%H:%MZ}", *loop.store)
        steps.fa("rollout", "decide", name, *at, codes=(0, Refused.exit_code))
    tested = history.of("stage")
    if not tested or (tested[-1].number, tested[-1].verdict) != (len(history.document.stages) - 1, "expand"):
        raise Refused(f"{name} is held, and no look is left; `fa rollout status {name}` says of which group")
    steps.fa("rollout", "complete", name, "--at", f"{loop.end(week):%Y-%m-%dT%H:%MZ}", *loop.store)
    return week + 1


def _history(loop: Loop) -> "History":
    from fa_core.rollout.states import histories
    from fa_core.store import open_store

    with open_store(loop.store[1], create=False) as store:
        (found,) = histories(store.rollouts()).values()
    return found


def _stage(loop: Loop, candidate: str, week: int, share: float) -> str:
    """Write what devices record in a week, the candidate acting on a share of them; return the fleet."""
    from clients.fleet.bank import default_bank_path, read_bank, thresholds
    from clients.fleet.staged import Model, Staging, stage_fleet, write_fleet
    from clients.fleet.tables import read_fleet

    limit = thresholds(read_bank(default_bank_path()))[BASE]
    field, new = Model(BASE, BASE, limit), Model(candidate, candidate, 0.5)
    staging = Staging(field, new, share, REACTIONS, SEED)
    fleet = read_fleet(loop.out / "weeks")
    name = f"week-{week}"
    write_fleet(stage_fleet(fleet, staging, loop.end(week - 1), loop.end(week)), loop.out / name)
    return name


def _write(shipped: Path, to: Path, words: Mapping[str, str], keys: Mapping[str, str]) -> None:
    """Copy a document, with other words and other values of indented keys, to expire in a week from today."""
    text = shipped.read_text("utf-8")
    for old, new in words.items():
        text = text.replace(old, new)
    expires = {"expires": str(datetime.now(UTC).date() + timedelta(days=7))}
    for key, value in {**keys, **expires}.items():
        text = re.sub(rf"(?m)^(  {key}:).*$", rf"\1 {value}", text)
    to.write_text(text, "utf-8")


def _end(loop: Loop, before: str, after: str) -> None:
    """Say what changed, what a device would have made of it all, and where to look at it."""
    from fa_core.store import open_store

    steps.title("What changed")
    steps.fa("compare", before, after, *loop.store)
    steps.title("What it took")
    steps.fa("ledger", "show", *loop.store)
    typer.echo(default_device(loop))
    steps.title("The dashboard")
    url, number = _dashboard(loop, "weeks")
    both = f"view=releases&before={before}&release={after}&{BY_ACCENT}"
    typer.echo(f"{url}/trends?{both} (stop it with: kill {number})\n")
    with open_store(loop.store[1], create=False) as store:
        found = [_misses(store.estimates(each).results) for each in (before, after)]
    for group in (WORST, None):
        was, now = (each.get(group) for each in found)
        who = "everyone" if group is None else group
        typer.echo(f"{who}: {_rate(was)} of wake words missed before, {_rate(now)} after")


def _stopped(loop: Loop, before: str, what: str) -> None:
    """Say that a check stopped the candidate, as it is to, and where to look at what led to it."""
    steps.title(f"The loop ends here: the candidate is {what}")
    typer.echo("Above stands which check stopped it, and why. Nothing was loosened to let it pass.\n")
    url, number = _dashboard(loop, "fleet")
    typer.echo(f"{url}/segments?release={before}&{BY_ACCENT} (stop it with: kill {number})\n")


def _dashboard(loop: Loop, fleet: str) -> tuple[str, int]:
    arguments = (*loop.store, "--fleet", str(loop.out / fleet), "--plans", str(loop.out / "plans"))
    return steps.dashboard(loop.out, *arguments)


def _misses(results: "tuple[Estimate, ...]") -> "dict[str | None, Estimate]":
    """Return the false reject rates by accent, None for everyone."""
    rates = (each for each in results if each.metric == "false_reject_rate")
    return {dict(each.group).get("accent"): each for each in rates}


def _rate(found: "Estimate | None") -> str:
    if found is None or found.estimate is None or found.low is None or found.high is None:
        return "an unknown share"
    return f"{found.estimate:.1%} [{found.low:.1%}, {found.high:.1%}]"


def default_device(loop: Loop) -> str:
    """Return in a sentence what a device with the default policy and budget would have made of every round.

    Raises Refused where it would not have answered one with its counts.
    """
    from clients.device.odometer import SKEW, Budget, Charge, Moment, affords
    from clients.device.policy import Policy, asks_of, over_limits, trained_enough
    from clients.device.receipt import cost
    from fa_core.plan import TrainPlan, from_canonical
    from fa_core.store import Query, open_store

    with open_store(loop.store[1], create=False) as store:
        entries = store.releases(Query(), 100)
        releases = sorted((store.release(each.id) for each in entries), key=lambda each: each.window_end)
    spent: dict[bool, list[Charge]] = {False: [], True: []}
    for release in releases:
        plan, at = from_canonical(release.plan), release.window_end
        training, rho = isinstance(plan, TrainPlan), cost(release.layout)
        why = list(over_limits(Policy(), asks_of(plan, release.layout)))
        if training and trained_enough(Policy(), [each.at for each in spent[True]], at):
            why.append("it trained in this week already")
        if not affords(spent[training], rho, Moment(at, at, at, SKEW), Budget().of(training=training)):
            why.append("its budget is used up")
        if why:
            raise Refused(f"a device with the default policy would not answer {plan.name}: {'; '.join(why)}")
        spent[training].append(Charge(rho, at))
    return (
        f"A device with the default policy and budget answers all {len(releases)} rounds: rho "
        f"{float(sum(each.rho for each in spent[False])):.3f} of evaluation, "
        f"{float(sum(each.rho for each in spent[True])):.3f} of training."
    )
