"""A rollout from the test set to its end, over simulated weeks of the demo's detectors and the real gate.

    python -m scripts.bench.rollout_weeks [--devices 20000] [--weeks 8] [--store DIR]
                                          [--scenarios worse,equal,better,restless] [--reactions 1,0.75,0.5]

Candidates for the detector in the field (micro-1): `worse` is the embedding detector, which hears most people
better and one synthetic accent hardly at all; `equal` is the detector in the field under another name, which
may not be rolled back for what people do not react to; `better` has a slightly lower threshold; `restless`
too, and where it acts it wakes by its own answers, which shadow cannot see. Every week devices record what
they would (`clients.fleet.staged`), the engine `tables` counts and noises it as the plan says, and the gate
decides what is due, with its witness. The stores can be looked at in the dashboard (`--store`).
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rich.console import Console

from clients.fleet.bank import default_bank_path, open_bank, thresholds
from clients.fleet.make import make_fleet
from clients.fleet.staged import Model, Staging, stage_fleet, write_fleet
from clients.fleet.tables import Fleet, read_fleet
from fa_core.engines.launch import Order, launch
from fa_core.errors import Refused, RoundFailed
from fa_core.plan import Plan, load
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.signed import SignedDocument
from fa_core.rollout import control, document, models
from fa_core.rollout.controlled import Condition, ControlledResult
from fa_core.rollout.document import Model as Named
from fa_core.rollout.document import Rollout
from fa_core.rollout.evidence import Judge, recompute
from fa_core.rollout.judging import Gate
from fa_core.rollout.record import Context, Outcome
from fa_core.rollout.states import History
from fa_core.rounds.keys import LocalKeys, give_budgets, keys_folder, local_keys
from fa_core.store import open_store
from fa_core.trust.witness import Witness
from fa_core.values import Estimates

SHIPPED: Final = Path(__file__).parents[2] / "eval_plans" / "rollouts"
WEEK: Final = timedelta(days=7)
START: Final = datetime(2026, 8, 3, tzinfo=UTC)
FIELD: Final = "micro-1"
SEED: Final = 20261128
FALSE_WAKES_BELOW: Final = Fraction(1, 10)
"""More false wakes an hour that a live stage lets pass: what 10% of 20,000 devices can tell from none."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A candidate: whose scores it has, its threshold as a share of that model's, and `Model.own_wakes`."""

    scored_by: str
    share: float
    own_wakes: float = 0.0


SCENARIOS: Final = {
    "worse": Scenario("embed-1", 1.0),
    "equal": Scenario("micro-1", 1.0),
    "better": Scenario("micro-1", 0.94),
    "restless": Scenario("micro-1", 0.94, own_wakes=0.3),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a scenario ended: its decisions, the last status, and the largest share that was exposed."""

    lines: tuple[str, ...]
    status: str
    exposed: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a fleet, play each scenario, print how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--scenarios", default="worse,equal,better,restless")
    parser.add_argument("--reactions", default="1,0.75,0.5")
    parser.add_argument("--store", type=Path, help="keep the stores here, one a scenario")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rollout-") as folder:
        where = Path(folder)
        fleet, levels = _draw(given.devices, given.weeks, where / "fleet")
        for name in given.scenarios.split(","):
            for reactions in (float(each) for each in given.reactions.split(",")):
                store = (given.store or where) / f"{name}-{reactions:g}"
                ending = play(name, reactions, fleet, levels, store, where / f"files-{name}-{reactions:g}")
                print(
                    f"{name}, {reactions:.0%} of misses marked: {ending.status}, exposed {ending.exposed:.0%}"
                )
                for line in ending.lines:
                    print(f"  {line}")


def _draw(devices: int, weeks: int, out: Path) -> tuple[Fleet, dict[str, float]]:
    bank = open_bank(default_bank_path(), lambda done, of: None)
    until = START + weeks * WEEK
    make_fleet(bank, devices, out, seed=SEED, until=until, progress=lambda done, of: None, weeks=weeks)
    return read_fleet(out), thresholds(bank)


def play(
    name: str, reactions: float, fleet: Fleet, levels: dict[str, float], store: Path, files: Path
) -> Ending:
    """Play a scenario over the weeks of a fleet, in a new store and with new files."""
    files.mkdir(parents=True)
    scenario = SCENARIOS[name]
    version = f"{name}-2"
    baseline = Model(FIELD, FIELD, levels[FIELD])
    level = scenario.share * levels[scenario.scored_by]
    candidate = Model(version, scenario.scored_by, level, scenario.own_wakes)
    operator = Operator(store, files, _of_scenario(files, version), Gate())
    outcome = operator.start()
    lines = [line(outcome)]
    for week in range(1, _weeks(fleet) + 1):
        history = outcome.history
        since, until = START + (week - 1) * WEEK, START + week * WEEK
        if not history.active(since) or history.due is None:
            break
        share = float(history.document.stages[history.stage].share)
        recorded = stage_fleet(fleet, Staging(baseline, candidate, share, reactions, SEED), since, until)
        write_fleet(recorded, files / f"week-{week}")
        outcome = operator.week("gate" if history.stage == 0 else "live", files / f"week-{week}", until)
        lines.append(line(outcome))
    shares = [float(each.share) for each in outcome.history.manifests]
    return Ending(tuple(lines), outcome.history.status(outcome.history.decisions[-1].at).value, max(shares))


def _weeks(fleet: Fleet) -> int:
    return (fleet.until - START) // WEEK


def line(outcome: Outcome) -> str:
    """Return in a line what was decided and why."""
    last = outcome.decision
    if last is None:
        return f"{outcome.verdict}: {outcome.why}"
    return f"{last.at:%Y-%m-%d} {last.action} {last.number}: {last.verdict}. {last.why}"


@dataclass(frozen=True, slots=True)
class Documents:
    """A rollout with its two plans (their files by "gate" and "live", and loaded by hash), its models with
    their bytes, and the result of its test set."""

    plans: Mapping[str, Path]
    loaded: Mapping[str, Plan]
    artefacts: tuple[tuple[ArtefactManifest, bytes], ...]
    result: ControlledResult
    rollout: Rollout


def documents(
    files: Path,
    artefacts: tuple[tuple[ArtefactManifest, bytes], ...],
    result: ControlledResult,
    below: Mapping[str, Fraction],
    margins: Mapping[str, Fraction] = MappingProxyType({}),
) -> Documents:
    """Return the shipped rollout and its plans for other models, the baseline and the candidate last.

    Args:
        below: the margins of live measures, by name. margins: what the gate has other than the shipped one.
    """
    baseline, candidate = (Named(version=each.version, sha256=each.sha256) for each, _ in artefacts[-2:])
    plans: dict[str, Path] = {}
    loaded: dict[str, Plan] = {}
    for what in ("gate", "live"):
        text = (SHIPPED / f"embed-2-{what}.yaml").read_text("utf-8")
        text = text.replace("embed-2", candidate.version).replace("micro-1", baseline.version)
        plans[what] = files / f"{candidate.version}-{what}.yaml"
        plans[what].write_text(text, "utf-8")
        loaded[what] = load(plans[what], today=START.date())
    shipped = document.load(SHIPPED / "embed-2.yaml", today=START.date()).rollout
    measures = {
        name: each.model_copy(update={"below": below.get(name, each.below)})
        for name, each in shipped.live.measures.items()
    }
    gate = {"test_set": result.hash, "plan": loaded["gate"].hash, **margins}
    rollout = shipped.model_copy(
        update={
            "metadata": shipped.metadata.model_copy(update={"name": candidate.version}),
            "population": "synthetic",
            "models": shipped.models.model_copy(
                update={"baseline": baseline, "candidate": candidate, "floor": baseline.version}
            ),
            "gate": shipped.gate.model_copy(update=gate),
            "live": shipped.live.model_copy(update={"plan": loaded["live"].hash, "measures": measures}),
        }
    )
    return Documents(plans, {each.hash: each for each in loaded.values()}, artefacts, result, rollout)


def _of_scenario(files: Path, version: str) -> Documents:
    """Return a scenario's documents: its candidate's bytes are its name."""
    artefacts = tuple(
        (
            ArtefactManifest(
                "head", each, each, "okay_nabu", FIELD, "", sha256(each.encode()).hexdigest(), len(each),
                "Apache-2.0", "a scenario",
            ),
            each.encode(),
        )
        for each in (FIELD, version)
    )  # fmt: skip
    baseline, candidate = (manifest.sha256 for manifest, _ in artefacts)
    result = ControlledResult(
        sha256(b"a set").hexdigest(), "okay_nabu", baseline, candidate, 0.95, 0.05, 0.5,
        (Condition("all", 400, 9, 4, 20.0, 1, 2, 0.01, 0.3),),
    )  # fmt: skip
    return documents(files, artefacts, result, {"false_accepts_per_hour": FALSE_WAKES_BELOW})


class Operator:
    """Plays a rollout in a store: its operator, its witness and its clock."""

    def __init__(
        self, store: Path, files: Path, documents: Documents, gate: Judge, began: datetime = START
    ) -> None:
        self._store = store
        self._files = files
        self._documents = documents
        self._gate = gate
        self._now = began
        self._keys: LocalKeys = local_keys(keys_folder(str(store)))
        self._witness = Witness(
            self._keys.witness,
            self._keys.authority.public_key,
            self._keys.journal,
            self._keys.log.public_key().public_bytes_raw(),
            lambda: self._now,
            recompute=lambda evidence: recompute(evidence, gate, allow_simulated=True),
        )

    def start(self) -> Outcome:
        """Publish both models and start the rollout."""
        documents = self._documents
        with open_store(str(self._store)) as store:
            give_budgets(store, self._keys.authority, "synthetic", "zcdp", self._now)
            for manifest, data in documents.artefacts:
                models.add(store, manifest, data, self._keys.plan)
            body = document.canonical(documents.rollout)
            signed = SignedDocument.sign("rollout", body, self._keys.plan)
            context = Context(
                store, self._keys.log, self._witness, self._gate, self._files / "published", self._now
            )
            return control.start(context, documents.rollout, signed, documents.result, documents.loaded)

    def week(self, what: str, fleet: Path, until: datetime) -> Outcome:
        """Run a plan over what the devices recorded, and decide what is due."""
        self._now = until
        try:
            ask(self._documents.plans[what], fleet, self._store, until)
        except (Refused, RoundFailed) as error:
            Console(stderr=True).print(f"{until:%Y-%m-%d}: {error}")
        with open_store(str(self._store)) as store:
            context = Context(
                store, self._keys.log, self._witness, self._gate, self._files / "published", self._now
            )
            outcome = control.decide(context, self._documents.rollout)
            history = outcome.history
            if _passed(history):
                outcome = control.complete(context, self._documents.rollout)
            return outcome


def ask(plan: Path, fleet: Path, store: Path, until: datetime) -> Estimates:
    """Run a plan over a fleet directory, the window ending at `until`, and return its estimates."""
    _, estimates = launch(Order(plan, fleet, "tables", None, str(store), until), warn=lambda text: None)
    return estimates


def _passed(history: History) -> bool:
    last = len(history.document.stages) - 1
    return any((each.number, each.verdict) == (last, "expand") for each in history.of("stage"))


if __name__ == "__main__":
    main()
