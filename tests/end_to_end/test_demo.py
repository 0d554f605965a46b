"""`fa demo`: what it refuses, and (long) that it runs to the end and leaves a page that answers."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.cli.demo import LEAST, PLANS, _stop, _unexpired
from fa_core.errors import BadInput
from fa_core.plan import load


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


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_lapsed_is_asked_as_if_written_today(name: str, tmp_path: Path) -> None:
    before = datetime.now(UTC).date()
    plan = load(_unexpired(Path("eval_plans") / f"{name}.yaml", tmp_path), fleet=2000)
    days = {day + timedelta(days=7) for day in (before, datetime.now(UTC).date())}
    assert plan.metadata.expires in days
    then = load(Path("eval_plans") / f"{name}.yaml", policy=None, today=date(2026, 11, 1))
    assert plan.metadata.question == then.metadata.question


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
            _stop(file)
    assert killed == [other.pid]


@pytest.mark.long
def test_the_whole_demo(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["demo", "--devices", "1000", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    number = int((tmp_path / "dashboard.pid").read_text())
    try:
        url = result.output.split("It is running at ")[1].split()[0]
        with urlopen(url) as page:
            assert page.status == 200
    finally:
        os.kill(number, signal.SIGTERM)
