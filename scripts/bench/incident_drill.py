"""An incident from alarm to fix: false wakes in a programme's hours, another threshold, and their fall.

    python -m scripts.bench.incident_drill [--devices 20000] [--weeks 8] [--store DIR]

A game show begins in the second week of a drawn fleet, and its host begins every sentence with "Okay".

1. The short-lived plan (`eval_plans/false-wake-incident.yaml`) is run on a day before the show and on a day
   of it: at which hours do devices wake by themselves?
2. A test set is made from the recipe of the show (`fa testset make eval_plans/testsets/game-show.yaml`). The
   threshold in the field and a higher one, artefacts that `fa model add` took in, are scored on it
   (`fa testset run`).
3. The higher threshold is rolled out: the real gate, log and witness, week by week.
4. The short-lived plan is run again, where the new threshold acts: is the rate of the show's hours lower?

Exits with 1 where the rise or the fall is not significant, or the rollout is not completed.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Final

from clients.fleet.bank import default_bank_path, open_bank
from clients.fleet.make import make_fleet
from clients.fleet.staged import Model, Staging, stage_fleet, write_fleet
from clients.fleet.tables import Fleet, read_fleet
from clients.testset.recipe import Recipe
from clients.testset.recipe import load as load_recipe
from fa_core.cli import build
from fa_core.estimate.compare import Difference, compare
from fa_core.estimate.sentences import significant
from fa_core.publication.artefact import ArtefactManifest
from fa_core.rollout import models
from fa_core.rollout.controlled import ControlledResult, read_result
from fa_core.rollout.evidence import Judge
from fa_core.rollout.judging import Gate
from fa_core.store import open_store
from fa_core.values import Estimate, Estimates
from scripts.bench.rollout_weeks import SEED, START, WEEK, Documents, Operator, ask, documents, line

PLANS: Final = Path(__file__).parents[2] / "eval_plans"
WAKE_WORD: Final = "okay_nabu"
SCORED_BY: Final = "embed-1"
FIELD: Final = Model("embed-1-field", SCORED_BY, 0.5)
CANDIDATE: Final = Model("embed-1-tighter", SCORED_BY, 0.6)
MISSES_BELOW: Final = 0.5
"""More misses in any accent that the test set lets pass. It is wide: a third of an accent's 36 clips are in
noise of 7 dB, where few devices are, and so few clips show nothing much smaller. The gate's is the one that
protects accents."""

REACTIONS: Final = 0.75
"""Share of misses after which people try again."""

SHOW_HOURS: Final = "evening"
"""The plan's label for the hours in which the show is on."""

GATE: Final[Mapping[str, Fraction]] = MappingProxyType(
    {"rollback_above": Fraction(15, 100), "ship_below": Fraction(1, 4), "overall_below": Fraction(1, 20)}
)
LIVE: Final[Mapping[str, Fraction]] = MappingProxyType(
    {"false_accepts_per_hour": Fraction(1, 10), "false_reject_rate": Fraction(6, 100)}
)
"""What the fix may cost in misses. A tighter threshold cannot be free: two synthetic accents, which this
detector hears weakly, are missed 11 to 12 points more. Whoever signs the rollout signs these margins."""


@dataclass(frozen=True, slots=True)
class Drill:
    """What a drill came to.

    Attributes:
        rise: of each hour label, from the day before the show to a day of it, the field's threshold acting.
        worse_hours: labels that are significantly higher than another on the day of the show.
        result: of the test set.
        ended: the rollout's status, and its decisions in a line each.
        fall: of each hour label, from the day of the show to one with the new threshold. None where the
            rollout did not come to its last stage.
    """

    rise: Mapping[str, Difference]
    worse_hours: tuple[str, ...]
    result: ControlledResult
    ended: tuple[str, tuple[str, ...]]
    fall: Mapping[str, Difference] | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the drill and print it; return 1 where something of it is not shown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--store", type=Path, help="keep the store here")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        where = Path(folder)
        bank = open_bank(default_bank_path(), lambda done, of: None)
        until = START + given.weeks * WEEK
        make_fleet(
            bank, given.devices, where / "fleet", seed=SEED, until=until, progress=lambda done, of: None,
            weeks=given.weeks, television_weeks=given.weeks - 1,
        )  # fmt: skip
        store = given.store or where / "store"
        found = play(read_fleet(where / "fleet"), show_recipe(), store, where, Gate())
    rose, fell = found.rise[SHOW_HOURS].change == "worse", SHOW_HOURS in found.worse_hours
    return 0 if rose and fell and found.fall and found.fall[SHOW_HOURS].change == "better" else 1


def show_recipe() -> Recipe:
    """Return the shipped recipe of the show with the drill's margin for misses."""
    recipe = load_recipe(PLANS / "testsets" / "game-show.yaml")
    margins = recipe.margins.model_copy(update={"misses_below": MISSES_BELOW})
    return recipe.model_copy(update={"margins": margins})


def play(fleet: Fleet, recipe: Recipe, store: Path, files: Path, judge: Judge) -> Drill:
    """Play the drill over the weeks of a fleet, in a new store, and print each step."""
    step = _Step()
    step(f"{len(fleet.devices):,} devices; a game show is on from the second week, 19 to 21 UTC")
    before, during = (_incident(fleet, FIELD, 0.0, week, files / f"day-{week}", store) for week in (1, 2))
    rise = _changes(before, during)
    step("the short-lived plan, a day before the show and a day of it: false wakes an hour")
    _print_changes(rise)
    worse = tuple(dict(each.group)["hour"] for each in significant(_by_hour(during)))
    print(f"   on the day of the show significantly higher than at other hours: {', '.join(worse) or 'none'}")
    step(f"hypothesis: the show's lines wake {FIELD.version} at its threshold {FIELD.threshold:g}")
    artefacts = _artefacts(files, store)
    tested = _validate(recipe, files, store)
    step(f"rollout of {CANDIDATE.version} in place of {FIELD.version}, two thresholds of {SCORED_BY}")
    papers = documents(files, artefacts, tested, LIVE, GATE)
    status, lines, week = _roll_out(fleet, papers, store, files, judge)
    print(f"   the rollout is {status}")
    fall = None
    if week is not None:
        after = _incident(fleet, CANDIDATE, 1.0, week, files / "day-after", store)
        fall = _changes(during, after)
        step("the short-lived plan on a day of the last stage, against the day of the show")
        _print_changes(fall)
    return Drill(rise, worse, tested, (status, lines), fall)


class _Step:
    """Prints the steps with their numbers."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, text: str) -> None:
        self._number += 1
        print(f"{self._number}. {text}")


def _incident(fleet: Fleet, acting: Model, share_live: float, week: int, out: Path, store: Path) -> Estimates:
    """Run the short-lived plan on the last day of a week, about the model that acts."""
    until = START + week * WEEK
    staging = Staging(FIELD, CANDIDATE, share_live, REACTIONS, SEED)
    write_fleet(stage_fleet(fleet, staging, until - timedelta(days=1), until), out)
    text = (PLANS / "false-wake-incident.yaml").read_text("utf-8")
    text = text.replace("model_version: micro-1", f"model_version: {acting.version}")
    lapses = datetime.now(UTC).date() + timedelta(days=7)
    plan = out.with_suffix(".yaml")
    plan.write_text(re.sub(r"expires: \S+", f"expires: {lapses}", text), "utf-8")
    return ask(plan, out, store, until)


def _by_hour(found: Estimates) -> list[Estimate]:
    return [each for each in found.results if [name for name, _ in each.group] == ["hour"]]


def _changes(before: Estimates, after: Estimates) -> dict[str, Difference]:
    """Return how the rate of each hour label changed."""
    found = (each for each in compare(before, after) if [name for name, _ in each.group] == ["hour"])
    return {dict(each.group)["hour"]: each for each in found}


def _print_changes(changes: Mapping[str, Difference]) -> None:
    words = {"worse": "significantly higher", "better": "significantly lower"}
    for label, each in changes.items():
        if each.before is None or each.after is None:
            print(f"   {label:<8} not shown: {each.reason}")
            continue
        bounds = f"[{each.simultaneous_low:+.3f}, {each.simultaneous_high:+.3f}]"
        change = words.get(each.change, each.change)
        print(f"   {label:<8} {each.before:.3f} -> {each.after:.3f}, {bounds}: {change}")


def _fa(*words: object, store: Path | None = None) -> str:
    """Run a command of `fa`; return what it printed. Raises whatever it would end with."""
    arguments = [str(each) for each in words] + ([] if store is None else ["--store", str(store)])
    printed = StringIO()
    with redirect_stdout(printed):
        build()(arguments, standalone_mode=False)
    return printed.getvalue()


def _artefacts(files: Path, store: Path) -> tuple[tuple[ArtefactManifest, bytes], ...]:
    """Add the threshold in the field and the new one, over the detector that came with the program."""
    about = ("--wake-word", WAKE_WORD, "--licence", "Apache-2.0", "--trained-by", "a drill")
    _fa("model", "add", SCORED_BY, "--version", SCORED_BY, *about, store=store)
    for model in (FIELD, CANDIDATE):
        file = files / f"{model.version}.json"
        limits = {"thresholds": {WAKE_WORD: f"{model.threshold:g}"}, "version": model.version}
        file.write_text(json.dumps(limits), "utf-8")
        kind = ("--kind", "thresholds", "--base", SCORED_BY)
        _fa("model", "add", file, "--version", model.version, *kind, *about, store=store)
    with open_store(str(store), create=False) as opened:
        found = [models.find(opened, each).manifest for each in (SCORED_BY, FIELD.version, CANDIDATE.version)]
        return tuple((each, opened.artefact(each.sha256)) for each in found)


def _validate(recipe: Recipe, files: Path, store: Path) -> ControlledResult:
    """Make the set, and score both thresholds on it. Raises Refused where the candidate does not pass."""
    written, made, out = files / "show.yaml", files / "show", files / "result.json"
    written.write_text(json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)), "utf-8")
    _fa("testset", "make", written, "--out", made)
    print(_fa("testset", "run", made, FIELD.version, CANDIDATE.version, "--out", out, store=store))
    return read_result(out)


def _roll_out(
    fleet: Fleet, papers: Documents, store: Path, files: Path, judge: Judge
) -> tuple[str, tuple[str, ...], int | None]:
    """Roll out from the third week on; return the status, the decisions, and the week of the last stage."""
    operator = Operator(store, files, papers, judge, START + 2 * WEEK)
    outcome = operator.start()
    lines, everywhere = [line(outcome)], None
    print(f"   {lines[-1]}")
    for week in range(3, (fleet.until - START) // WEEK + 1):
        history = outcome.history
        since, until = START + (week - 1) * WEEK, START + week * WEEK
        if not history.active(since) or history.due is None:
            break
        live = float(history.document.stages[history.stage].share)
        everywhere = week if live == 1 else None
        staging = Staging(FIELD, CANDIDATE, live, REACTIONS, SEED)
        write_fleet(stage_fleet(fleet, staging, since, until), files / f"week-{week}")
        outcome = operator.week("gate" if history.stage == 0 else "live", files / f"week-{week}", until)
        lines.append(line(outcome))
        print(f"   {lines[-1]}")
    last = outcome.history.decisions[-1].at
    return outcome.history.status(last).value, tuple(lines), everywhere


if __name__ == "__main__":
    sys.exit(main())
