"""`fa schedule`: what is due, that it is run once in its period, and timers that run it."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.engines.schedule import Scheduled, period_start, scheduled
from fa_core.plan import canonical, load
from fa_core.store import open_store
from tests.rounds.small import write_fleet, write_plan
from tests.store.samples import announce, charge, charge_for, make_release, run

PLAN = """\
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: NAME, revision: 1, owner: us, question: How often?, expires: EXPIRES, schedule: weekly}
window: 7d
metrics: [false_reject_rate]
privacy: {epsilon: 1}
"""
MONDAY = datetime(2026, 11, 23, 9, tzinfo=UTC)


def write(folder: Path, name: str, expires: str = "2027-12-31", schedule: str = "weekly") -> Path:
    file = folder / f"{name}.yaml"
    text = PLAN.replace("NAME", name).replace("EXPIRES", expires)
    file.write_text(text.replace("schedule: weekly", f"schedule: {schedule}"))
    return file


def states(file: Path, folder: Path, now: datetime) -> Scheduled:
    with open_store(folder) as store:
        (found,) = scheduled([file], store, now)
    return found


@pytest.mark.parametrize(
    ("schedule", "start"),
    [("daily", "2026-11-28"), ("weekly", "2026-11-23"), ("monthly", "2026-11-01")],
)
def test_periods_begin_at_midnight_on_mondays_and_on_the_first(schedule: str, start: str) -> None:
    at = period_start(schedule, datetime(2026, 11, 28, 18, 3, tzinfo=UTC))
    assert at == datetime.fromisoformat(f"{start}T00:00:00+00:00")


def test_a_plan_is_due_once_in_each_period(tmp_path: Path) -> None:
    """Asked on a Sunday night, it is due again on Monday, and not eight days later."""
    file = write(tmp_path, "wake-word-weekly")
    assert states(file, tmp_path, MONDAY).state == "due"
    with open_store(tmp_path) as store:
        run(store, replace(make_release(), created=MONDAY))
    later = states(file, tmp_path, MONDAY + timedelta(days=6))
    assert (later.state, later.last) == ("asked", MONDAY)
    assert later.next == datetime(2026, 11, 30, tzinfo=UTC)
    assert states(file, tmp_path, MONDAY + timedelta(days=7, hours=-8)).state == "due"


def test_a_round_that_failed_is_not_asked_again_in_its_period(tmp_path: Path) -> None:
    file, failed = write(tmp_path, "wake-word-weekly"), make_release()
    with open_store(tmp_path) as store:
        announce(store, failed.plan)
        charge(store, charge_for(failed))
        store.fail(failed.id, failed.plan, failed.population, "join", "too few", MONDAY)
    assert states(file, tmp_path, MONDAY + timedelta(days=1)).state == "asked"
    assert states(file, tmp_path, MONDAY + timedelta(days=7)).state == "due"


def test_a_plan_that_is_being_collected_is_not_asked_again_in_its_period(tmp_path: Path) -> None:
    """It is charged and has no end yet."""
    file, opened = write(tmp_path, "wake-word-weekly"), make_release()
    with open_store(tmp_path) as store:
        announce(store, opened.plan)
        charge(store, replace(charge_for(opened), at=MONDAY))
    assert states(file, tmp_path, MONDAY + timedelta(days=1)).state == "asked"
    assert states(file, tmp_path, MONDAY + timedelta(days=7)).state == "due"


def test_an_expired_plan_is_listed_and_never_due(tmp_path: Path) -> None:
    found = states(write(tmp_path, "old", "2026-11-22"), tmp_path, MONDAY)
    assert (found.state, found.next) == ("expired", None)
    last = states(write(tmp_path, "ends", "2026-11-29"), tmp_path, MONDAY)
    assert (last.state, last.next) == ("due", None)


def test_a_plan_without_a_schedule_keeps_its_bytes(tmp_path: Path) -> None:
    file = write(tmp_path, "plain")
    file.write_text(file.read_text().replace(", schedule: weekly", ""))
    assert b"schedule" not in canonical(load(file))
    assert scheduled([file], None, MONDAY) == []


@pytest.fixture
def fa(tmp_path: Path) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(build(), ["schedule", *map(str, arguments)])


def test_what_is_due_is_run_once_and_a_wrong_plan_holds_nothing_up(
    fa: Callable[..., Result], tmp_path: Path
) -> None:
    plans, store = tmp_path / "plans", tmp_path / "store"
    plans.mkdir()
    fleet = write_fleet(tmp_path / "fleet", 120)
    small = write_plan(plans, groups="[[]]", secure=False)
    small.write_text(small.read_text().replace("  revision: 1\n", "  revision: 1\n  schedule: weekly\n"))
    (plans / "bad.yaml").write_text("apiVersion: fa/v1\n")
    options = (plans, "--fleet", fleet, "--store", store)
    listed = fa(*options, "--json")
    assert [(row["state"], row["plan"]) for row in json.loads(listed.stdout)] == [
        ("wrong", None),
        ("due", "small@1"),
    ]
    first = fa(*options, "--run")
    assert first.exit_code == 2, first.output
    assert "bad.yaml:1:1" in first.stderr
    second = fa(*options, "--run")
    assert "asked" in second.stdout
    with open_store(store) as opened:
        assert opened.count() == 1


def test_a_crontab_line_runs_what_is_due(
    fa: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "50% of 'plans'"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    line = fa(folder, "--cron", "--fleet", "fleet", "--store", "store").stdout
    assert line.startswith("0 6 * * * cd ")
    words = shlex.split(line.replace("\\%", "%"))
    assert words[words.index("schedule") + 1 :] == [
        str(folder), "--run", "--fleet", str(tmp_path / "fleet"), "--engine", "local",
        "--store", str(tmp_path / "store"),
    ]  # fmt: skip
    assert "%" not in line.replace("\\%", "")


def test_a_systemd_timer_is_written(fa: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / 'a "$HOME" of 5%'
    folder.mkdir()
    result = fa(folder, "--systemd", tmp_path / "units", "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    service = (tmp_path / "units" / "unheard-schedule.service").read_text()
    assert f'"{tmp_path}/a \\"$$HOME\\" of 5%%" "--run"' in service
    assert "OnCalendar=*-*-* 06:00:00 UTC" in (tmp_path / "units" / "unheard-schedule.timer").read_text()
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *map(str, (tmp_path / "units").iterdir())],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


def test_a_file_is_no_directory_of_plans(fa: Callable[..., Result], tmp_path: Path) -> None:
    assert "takes a directory of plans" in str(fa(write(tmp_path, "one")).exception)
