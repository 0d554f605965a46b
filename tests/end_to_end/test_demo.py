"""`fa demo`: what it refuses, and (long) that it runs to the end and leaves a page that answers."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from clients.device.odometer import Budget
from clients.device.policy import Policy
from clients.device.receipt import cost
from clients.fleet.make import make_fleet
from fa_core.cli import build
from fa_core.cli.demo import CHANGED, LEAST, OTHERS, PLANS, WEEKLY, Places, copy_plans
from fa_core.cli.demo_steps import stop_dashboard
from fa_core.cli.demo_steps import typed as as_typed
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import load
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.store import Query, open_store
from tests.cli.printed import problem
from tests.fleet.small import small_bank


def test_without_its_plans_it_makes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["demo", "--out", str(tmp_path / "out"), "--plans", str(tmp_path)])
    assert isinstance(result.exception, BadInput)
    assert "there is no such plan" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_fleet_that_its_plans_cannot_ask_is_refused_before_it_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["demo", "--devices", "300", "--out", str(tmp_path)])
    assert isinstance(result.exception, BadInput)
    assert str(result.exception).endswith("the groups of its plans need at least 900 devices")
    assert not (tmp_path / "fleet").exists()


def test_the_least_is_what_the_plans_need() -> None:
    for name in PLANS:
        load(Path("eval_plans") / f"{name}.yaml", today=date(2026, 11, 28), fleet=LEAST)
    with pytest.raises(BadInput):
        load(Path("eval_plans") / f"{PLANS[0]}.yaml", today=date(2026, 11, 28), fleet=LEAST - 1)


@pytest.mark.parametrize(
    "options", [["--devices", "600"], ["--devices=899"], ["--devices"], ["--devices", "x"]]
)
def test_the_number_of_devices_is_checked_before_the_set_up(options: list[str], tmp_path: Path) -> None:
    """FIELD 17. The script is run as a copy whose set-up leaves a trace."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy("scripts/demo", scripts / "demo")
    (scripts / "setup").write_text("#!/bin/sh\ntouch was-set-up\nexit 9\n")
    (scripts / "setup").chmod(0o755)
    done = subprocess.run([scripts / "demo", *options], capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "was-set-up").exists()) == (2, False)
    assert f"at least {LEAST} devices" in done.stderr
    done = subprocess.run([scripts / "demo", "--devices", str(LEAST)], check=False)
    assert (done.returncode, (tmp_path / "was-set-up").exists()) == (9, True)


def test_a_plan_that_lapsed_is_asked_as_if_written_today(tmp_path: Path) -> None:
    before = datetime.now(UTC).date()
    copy_plans(Path("eval_plans"), tmp_path)
    days = {day + timedelta(days=7) for day in (before, datetime.now(UTC).date())}
    for shipped in Path("eval_plans").glob("*.yaml"):
        plan, then = load(tmp_path / shipped.name), load(shipped, policy=None, today=date(2026, 11, 1))
        assert plan.metadata.expires in days
        assert plan.metadata.question == then.metadata.question
        same = plan.privacy.epsilon == then.privacy.epsilon and plan.segments == then.segments
        assert same == (shipped.stem not in CHANGED)


def test_the_plans_fit_the_default_budgets_of_a_device_and_of_a_population(tmp_path: Path) -> None:
    """The week before counts in a device's 28 days; a plan may cost epsilon 2; and there is room to go on."""
    copy_plans(Path("eval_plans"), tmp_path)
    layouts = {name: compile_plan(load(tmp_path / f"{name}.yaml")) for name in (*PLANS, "first-look")}
    costs = {name: cost(layout) for name, layout in layouts.items()}
    week = sum(costs[name] for name in PLANS)
    assert max(layout.epsilon for layout in layouts.values()) <= Policy().max_epsilon
    assert week + costs["first-look"] <= DEFAULT_POLICIES["zcdp"].week
    assert costs[WEEKLY] + week + costs["first-look"] <= Budget().rho
    assert 2 * week > DEFAULT_POLICIES["zcdp"].week  # the control: the demo twice would not fit


def test_another_process_with_the_dashboards_number_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dashboard.pid"
    killed: list[int] = []
    with monkeypatch.context() as patched, ExitStack() as others:
        patched.setattr(os, "kill", lambda number, _: killed.append(number))
        for words in (["--store", "dashboard.db"], ["dashboard", "--store", "x"]):
            command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", *words]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            other = others.enter_context(subprocess.Popen(command, **pipes))
            others.callback(other.communicate)
            assert other.stdout is not None
            other.stdout.readline()  # only a process that runs has its command line in /proc
            file.write_text(str(other.pid))
            stop_dashboard(file)
    assert killed == [other.pid]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """What a demo leaves, but over a few utterances, and with every release from the tables."""
    made = Places(tmp_path_factory.mktemp("demo"))
    until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    make_fleet(
        small_bank(), LEAST, made.fleet, seed=7, until=until, progress=lambda done, total: None, weeks=2
    )
    copy_plans(Path("eval_plans"), made.plans)
    week_before = f"{until - timedelta(days=7):%Y-%m-%dT%H:%MZ}"
    for command in (
        made.run(WEEKLY, "--engine", "tables", "--until", week_before),
        *(made.run(name, "--engine", "tables") for name in (*OTHERS, WEEKLY)),
    ):
        typed(command)
    return made


def typed(command: Sequence[str]) -> str:
    """Run a command as it is printed and return its output."""
    result = CliRunner().invoke(build(), list(command))
    assert result.exit_code == 0, (command, result.exception)
    return result.output


def test_what_is_printed_at_its_end_runs(places: Places) -> None:
    assert places.next_steps(LEAST)
    for command in places.next_steps(LEAST):
        typed(command)
    assert (places.out / "report.html").is_file()


def test_the_commands_that_results_name_run(places: Places) -> None:
    with open_store(places.store, create=False) as store:
        confusions = store.releases(Query(plan="command-confusions"), 1)[0]
    shown = typed(places.of_store("results", "show", confusions.id))
    found = re.search(r"more cells: `fa (.+)` has them", shown)
    assert found is not None
    assert json.loads(typed(shlex.split(found.group(1))))["release"] == confusions.id


def test_its_steps_are_commands(places: Places) -> None:
    steps = (
        places.make(2000),
        places.preview(WEEKLY, 2000),
        places.run(WEEKLY),
        places.of_store("ledger", "show"),
    )
    assert [problem(as_typed(command), whole=True) for command in steps] == [""] * len(steps)
    assert problem(as_typed(places.run(WEEKLY, "--weeks", "2")), whole=True)  # the control


def test_every_kind_of_number_is_shown(places: Places) -> None:
    """What the pages Thresholds, Confusions, Trends and their two comparisons need."""
    with open_store(places.store, create=False) as store:
        shown = {
            (entry.plan, result.kind)
            for entry in store.releases(Query(), 100)
            for result in store.estimates(entry.id).results
            if not result.suppressed
        }
        assert len(store.releases(Query(plan=WEEKLY), 100)) == 2
    kinds = {"det", "confusion", "paired_difference", "rate", "rate_per_hour"}
    assert kinds <= {kind for _, kind in shown}
    assert {plan for plan, _ in shown} >= set(PLANS)


@pytest.mark.long
def test_the_whole_demo(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["demo", "--devices", "1000", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    number = int((tmp_path / "dashboard.pid").read_text())
    try:
        url = result.output.split("It is running at ")[1].split()[0]
        with urlopen(url) as page:
            assert page.status == 200
        launches = tmp_path / "store" / "dashboard" / "launches"
        assert [json.loads(file.read_text())["release"] for file in launches.glob("*/outcome.json")]
    finally:
        os.kill(number, signal.SIGTERM)
