"""Collections of a federation: kept open between drains, gone on with by whoever comes, ended once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.cli import run as running
from fa_core.engines import schedule
from fa_core.errors import BadInput, RoundFailed
from fa_core.federation import bundle, runs
from fa_core.federation.collections import drain_late, open_collections
from fa_core.federation.directory import Collecting, Federation, open_federation
from fa_core.flower.superlink import Node, RunState, Unanswered
from fa_core.plan import Plan, parse
from fa_core.rounds.progress_events import report_end, standing_reporter
from fa_core.rounds.standing import Standing
from fa_core.store import open_store
from tests.collection.setup import plan_text
from tests.rounds.draining import Federation as Draining
from tests.rounds.small import NOW, POPULATION
from tests.rounds.small import plan_text as round_text

DEVICES = 8
WINDOW = timedelta(hours=24)


@dataclass
class Link:
    """A SuperLink whose runs drain at once, in this process, and whose ServerApp speaks as the real one."""

    draining: Draining
    started: list[dict[str, Any]] = field(default_factory=list)
    running: bool = False
    lost: bool = False
    log_text: str = ""

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def start(self, files: object, config: dict[str, Any]) -> int:
        self.started.append(config)
        if self.lost:
            raise Unanswered("no SuperLink answers")
        self.draining.made.release = bytes.fromhex(config["release"])
        self.draining.enough = config["enough"]
        lines = Lines()
        self.draining.seen.clear()
        try:
            found = self.draining.drain()
        except RoundFailed as error:
            report_end(error, lines)
        else:
            report = standing_reporter(lines)
            for each in self.draining.seen:
                report(each)
            report_end(None, lines, text="open" if isinstance(found, Standing) else "released")
        self.log_text = "".join(lines.parts)
        return len(self.started)

    def run(self, number: int) -> RunState | None:
        return RunState("running" if self.running else "finished", "") if number else None

    def log(self, number: int, after: float) -> list[tuple[float, str]]:
        return [(after + 1.0, self.log_text)]

    def nodes(self) -> list[Node]:
        return []


class Lines:
    """What a ServerApp writes to standard output."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        self.parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Keep everything."""


def small(file: Path, **options: Any) -> Plan:
    """Read a plan of fewer devices than the policy allows."""
    return parse(file.read_bytes(), str(file), policy=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, Draining]]:
    folder = tmp_path_factory.mktemp("collections")
    made = Draining.make(folder, DEVICES)
    lab = folder / "lab"
    done = CliRunner().invoke(build(), ["federation", "init", str(lab), "--helper", "localhost:18442"])
    assert done.exit_code == 0, done.output
    file = lab / "federation.toml"
    text = file.read_text().replace('population = ""', f'population = "{POPULATION}"')
    text = text.replace("\ndevices = 3 ", f"\ndevices = {DEVICES} ")
    text = text.replace('"leader/leader.db"', f'"{folder / "leader.db"}"')
    file.write_text(text.replace('store = "store"', f'store = "{folder / "store"}"'))
    yield open_federation(lab), made
    made.close()


@pytest.fixture
def link(world: tuple[Federation, Draining], monkeypatch: pytest.MonkeyPatch) -> Link:
    federation, made = world
    made.begin()
    for file in (federation.folder / "runs").glob("*/run.json"):
        file.unlink()
    found = Link(made)
    monkeypatch.setattr(runs, "connect", lambda federation: found)
    monkeypatch.setattr(bundle, "files", dict)
    monkeypatch.setattr(running, "_now", made.made.clock)
    monkeypatch.setattr(runs, "load", small)
    monkeypatch.setattr(schedule, "load", small)
    return found


@pytest.fixture
def federation(world: tuple[Federation, Draining], link: Link) -> Federation:
    return world[0]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    file.write_text(plan_text("sum: two_aggregators, min_cohort: 6"))
    return file


def fa(*arguments: str) -> Result:
    return CliRunner().invoke(build(), list(arguments))


def test_an_open_collection_is_not_written_off_and_is_shown(
    federation: Federation, link: Link, plan: Path
) -> None:
    run = runs.launch(federation, plan, hours=24.0)
    assert runs.settle(federation, link) == []  # type: ignore[arg-type]
    assert runs.outcome(federation, run, None) is None
    (found,) = open_collections(federation)
    assert (found.run, found.closes) == (run, NOW + WINDOW)
    assert found.tally is not None
    assert found.tally.counted == DEVICES
    shown = fa("federation", "status", str(federation.folder), "--json")
    (said,) = json.loads(shown.stdout)["collections"]
    assert said == {
        "release": run.release,
        "plan": "misses@1",
        "closes": (NOW + WINDOW).isoformat(),
        "enough": None,
        "arrived": DEVICES,
        "counted": DEVICES,
        "refused": {},
    }
    table = fa("federation", "status", str(federation.folder)).stdout
    assert run.release[:8] in table
    with open_store(federation.store) as store:
        assert not [each for each in store.failures() if each.release == run.release]


def test_who_comes_first_closes_one_whose_window_is_over(
    federation: Federation, link: Link, plan: Path
) -> None:
    run = runs.launch(federation, plan)
    link.draining.later(24)
    assert drain_late(federation, NOW + WINDOW - timedelta(seconds=1)) == []
    assert drain_late(federation, NOW + WINDOW) == [replace(run, number=2)]
    assert open_collections(federation) == []
    found = runs.outcome(federation, run, None)
    assert found is not None
    assert found.release.participation.counted == DEVICES
    assert runs.settle(federation, link) == []  # type: ignore[arg-type]
    assert runs.settled(federation, run).exists()
    assert drain_late(federation, NOW + 2 * WINDOW) == []


def test_a_drain_is_started_only_where_none_is_going_on(
    federation: Federation, link: Link, plan: Path
) -> None:
    run = runs.launch(federation, plan, hours=72.0, enough=5000)
    link.running = True
    assert runs.drain(federation, run) == run
    link.running = False
    assert runs.drain(federation, run) == replace(run, number=2) == runs.find(federation, "latest")
    first, second = link.started
    assert first == second
    assert (first["window"], first["enough"]) == (72.0, 5000)
    assert (first["helper"], first["leader-key"]) == (str(federation.helper), str(federation.leader_key))


def test_a_launch_whose_answer_is_lost_is_gone_on_with(
    federation: Federation, link: Link, plan: Path
) -> None:
    link.lost = True
    with pytest.raises(Unanswered, match="whether the run was started is not known"):
        runs.launch(federation, plan)
    (run,) = runs.launched(federation)
    assert run.number == 0
    assert runs.settle(federation, link) == []  # type: ignore[arg-type]
    assert not runs.settled(federation, run).exists()
    link.lost = False
    assert runs.drain(federation, run).number == 2
    assert [each.run.release for each in open_collections(federation)] == [run.release]


def test_what_does_not_go_together_is_refused_in_words(
    federation: Federation, link: Link, plan: Path, tmp_path: Path
) -> None:
    where = str(federation.folder)
    stages = tmp_path / "round.yaml"
    stages.write_text(round_text(cohort=50, groups="[[]]"))
    without = replace(
        federation, settings=federation.settings.model_copy(update={"collection": Collecting()})
    )
    with pytest.raises(BadInput, match="names no helper"):
        runs.launch(without, plan)
    for arguments, says in (
        ((str(stages), "--window", "72h"), "for plans with `sum: two_aggregators`; small@1 has a round"),
        ((str(stages), "--enough", "60"), "for plans with `sum: two_aggregators`; small@1 has a round"),
        ((str(plan), "--enough", "5"), "less than 6, the `min_cohort`"),
        ((str(plan), "--window", "31d"), "of at most 30 days"),
        ((str(plan), "--window", "soon"), "not a time such as 72h, 3d or 90m"),
        (("--attach", "latest", "--window", "3h"), "when a run is launched"),
    ):
        error = fa("run", *arguments, "--engine", where).exception
        assert isinstance(error, BadInput)
        assert says in str(error)
    error = fa("run", str(plan), "--fleet", "f", "--window", "3h").exception
    assert "are for a federation" in str(error)
    assert link.started == []


def test_fa_run_drains_until_the_release_is_there(
    federation: Federation, link: Link, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        link.draining.later(12)

    monkeypatch.setattr(running.time, "sleep", sleep)  # type: ignore[attr-defined]
    link.draining.nodes = {1: link.draining.hub(range(6))}
    done = fa("run", str(plan), "--engine", str(federation.folder), "--window", "1d")
    assert done.exit_code == 0, done.output
    assert len(link.started) == 3
    assert len(pauses) == 2
    assert "reports are counted: 6 of 6 that arrived; until 2026-11-23 04:00:00 UTC" in done.stderr
    assert "6 devices counted of 8 invited" in done.stdout
    assert open_collections(federation) == []


def test_ctrl_c_detaches_and_attach_goes_on(
    federation: Federation, link: Link, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = str(federation.folder)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running.time, "sleep", interrupted)  # type: ignore[attr-defined]
    link.draining.nodes = {1: link.draining.hub(range(7))}
    done = fa("run", str(plan), "--engine", where, "--enough", "8")
    (run,) = [each.run for each in open_collections(federation)]
    assert done.exit_code == running.DETACHED
    stays = "the collection stays open. `fa schedule --run` drains it, as does: fa run --attach"
    assert f"{stays} {run.release}" in done.stderr
    link.draining.nodes[2] = link.draining.hub([7])
    done = fa("run", "--attach", "latest", "--engine", where, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["devices"]["counted"] == 8


def test_a_collection_that_fails_ends_with_its_exit_code(
    federation: Federation, link: Link, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link.draining.nodes = {}
    monkeypatch.setattr(running.time, "sleep", lambda _: link.draining.later(24))  # type: ignore[attr-defined]
    error = fa("run", str(plan), "--engine", str(federation.folder)).exception
    assert isinstance(error, RoundFailed)
    assert error.exit_code == 4
    assert "0 devices were counted; fewer than 6" in str(error)


def test_fa_schedule_drains_what_is_open_and_waits_for_nothing(
    federation: Federation, link: Link, plan: Path, tmp_path: Path
) -> None:
    where, folder = str(federation.folder), tmp_path / "plans"
    folder.mkdir()
    text = plan.read_text().replace("name: misses,", "name: misses-weekly, schedule: daily,")
    (folder / "weekly.yaml").write_text(text)
    runs.launch(federation, plan)
    done = fa("schedule", str(folder), "--run", "--engine", where)
    assert done.exit_code == 0, done.output
    assert [each["release"] for each in link.started][:2] == [link.started[0]["release"]] * 2
    assert len(link.started) == 3
    assert done.stderr.count("is open; `fa schedule --run` drains it") == 2
    assert len(open_collections(federation)) == 2
    link.draining.later(24)
    assert fa("schedule", str(folder), "--cron", "--engine", where).stdout.startswith("0 * * * * ")
