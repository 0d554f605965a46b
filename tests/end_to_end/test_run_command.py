"""`fa run` as a person uses it: what it prints, where, and with which exit code."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from clients.party import SimulatedDevice
from fa_core.cli.run import run
from fa_core.errors import UnheardError
from fa_core.plan import SignedPlan, load
from fa_core.privacy.ledger import Policy
from fa_core.rounds.keys import local_keys
from fa_core.store import Declaration, open_store
from tests.rounds.small import write_fleet, write_plan

DEVICES = 60
GUARD = 900
"""Seconds: a guard against hanging, not a measure."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fleet(tmp_path_factory.mktemp("small") / "fleet", DEVICES)


@pytest.fixture
def fa_run(tmp_path: Path, fleet: Path) -> Callable[..., Result]:
    """Return `fa run` on the small fleet, with a store of its own."""
    app = typer.Typer()
    app.command()(run)

    def invoke(plan: Path, *arguments: str) -> Result:
        places = ["--fleet", str(fleet), "--store", str(tmp_path / "store")]
        return CliRunner().invoke(app, [str(plan), *places, *arguments])

    return invoke


def exit_code(result: Result) -> int:
    """Return the exit code that `fa` gives an invocation's error."""
    assert isinstance(result.exception, UnheardError), result.output
    return result.exception.exit_code


def test_json_is_one_object_on_stdout_and_progress_is_on_stderr(
    fa_run: Callable[..., Result], tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, groups="[[]]")
    result = fa_run(plan, "--json", "--seed", "3")
    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.stdout)
    assert shown["plan"] == "small"
    assert shown["simulated"] is True
    assert shown["devices"] == {"invited": 60, "joined": 60, "dropped": 0, "counted": 60}
    assert shown["privacy"]["secure_aggregation"] is True
    lines = result.stderr.splitlines()
    assert lines == [
        "devices join: 60 of 60",
        "keys are shared: 60 of 60",
        "shares are checked: 60 of 60",
        "devices count and mask: 60 of 60",
        "the sum is unmasked: 60 of 60",
    ]


def test_a_person_reads_a_table(fa_run: Callable[..., Result], tmp_path: Path) -> None:
    result = fa_run(write_plan(tmp_path, groups="[[]]", secure=False))
    assert result.exit_code == 0, result.output
    assert "misses, everyone" in result.stdout
    assert "SIMULATION" in result.stdout


def test_over_budget_is_exit_code_3(fa_run: Callable[..., Result], tmp_path: Path) -> None:
    tiny = Fraction(1, 10**6)
    with open_store(tmp_path / "store") as store:
        policy = Policy(tiny, tiny, tiny, tiny, tiny)
        store.declare(Declaration("small", "zcdp", policy, datetime.now(UTC)))
    result = fa_run(write_plan(tmp_path, groups="[[]]"))
    assert exit_code(result) == 3
    assert result.stdout == ""
    with open_store(tmp_path / "store") as store:
        assert (store.count(), store.charges("small"), store.failures()) == (0, (), ())


def test_too_many_dropouts_are_exit_code_4(
    fa_run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SimulatedDevice.handle

    def half(device: SimulatedDevice, stage: str, request: bytes) -> bytes:
        if stage == "masked" and device._number % 2:
            raise RuntimeError("gone")
        return whole(device, stage, request)  # type: ignore[arg-type]

    monkeypatch.setattr(SimulatedDevice, "handle", half)
    result = fa_run(write_plan(tmp_path, groups="[[]]"))
    assert exit_code(result) == 4
    # the round ends as soon as too few are left, so those who were not waited for are missing too
    assert re.search(r"at masked: (19|[2-5]\d|60) of 60 devices are missing", str(result.exception))
    with open_store(tmp_path / "store") as store:
        assert (store.count(), len(store.charges("small")), len(store.failures())) == (0, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--engine", "lab"], "no federation at lab"),
        (["--fleet", "nowhere"], "no such directory"),
        (["--store", __file__], "cannot be made"),
        (["--store", "mysql://here"], "a store is a folder or postgresql"),
    ],
)
def test_bad_input_is_exit_code_2_and_writes_nothing(
    fa_run: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fa_run(write_plan(tmp_path, groups="[[]]"), *arguments)
    assert exit_code(result) == 2
    assert error in str(result.exception)
    assert not list(tmp_path.rglob("store.db"))


def test_a_plan_over_a_table_that_the_fleet_lacks_is_named(
    fa_run: Callable[..., Result], tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, groups="[[]]")
    text = plan.read_text().replace("source: wake_events", "source: dictation_events")
    metric = "  words: {kind: mean, field: words, clip: {from: 0, to: 9}}\n"
    start, end = text.index("  misses:"), text.index("eligibility:")
    plan.write_text(text[:start] + metric + text[end:])
    result = fa_run(plan)
    assert exit_code(result) == 2
    assert "dictation_events" in str(result.exception)
    assert not (tmp_path / "store" / "store.db").exists()


def test_an_expired_plan_is_not_run(fa_run: Callable[..., Result], tmp_path: Path) -> None:
    result = fa_run(write_plan(tmp_path, groups="[[]]", expires="2020-01-31"))
    assert exit_code(result) == 2


def test_a_signature_beside_the_plan_is_the_one_in_the_log(
    fa_run: Callable[..., Result], tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, groups="[[]]", secure=False)
    signed = SignedPlan.of(load(plan), local_keys(tmp_path / "team").plan)
    (tmp_path / "small.yaml.sig").write_text(signed.text())
    assert fa_run(plan).exit_code == 0
    with open_store(tmp_path / "store") as store:
        (entry,) = [each for each in store.entries() if each.kind == "plan"]
        assert entry.body["key"] == signed.key.hex()
    write_plan(tmp_path, groups="[[]]", secure=False, sample="0.9")
    assert "signs another version" in str(fa_run(plan).exception)


PLAIN = "from fa_core.cli import main; main()"
HELD = f"""
import time
from fa_core.engines import launch
from fa_core.rounds.round import Watch

def held(report, stopped, *more):
    def slowed(progress):
        report(progress)
        while progress.stage != "join" and not stopped():
            time.sleep(0.01)
    return Watch(slowed, stopped, *more)

launch.Watch = held
{PLAIN}
"""
"""A run that does not go past its second stage before somebody stops it."""


def start(
    plan: Path, fleet: Path, store: Path, *arguments: str, script: str = PLAIN
) -> "subprocess.Popen[str]":
    """Start `fa run` as a process of its own."""
    command = [sys.executable, "-c", script, "run", str(plan), "--fleet", str(fleet), "--store", str(store)]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_a_real_process_releases_once(fleet: Path, tmp_path: Path) -> None:
    plan, store = write_plan(tmp_path, groups="[[]]", noise="distributed"), tmp_path / "store"
    process = start(plan, fleet, store, "--json")
    out, err = process.communicate(timeout=GUARD)
    assert process.returncode == 0, err
    assert json.loads(out)["privacy"]["noise"] == "distributed"
    assert "Traceback" not in err


def test_ctrl_c_is_a_failure_with_exit_code_4(tmp_path: Path) -> None:
    fleet = write_fleet(tmp_path / "fleet", 400)
    plan, store = write_plan(tmp_path, groups="[[]]"), tmp_path / "store"
    process = start(plan, fleet, store, script=HELD)
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=GUARD)
    assert first.startswith("devices join")
    assert process.returncode == 4, err
    assert "stopped at stage" in err
    assert "Traceback" not in err
    with open_store(store) as opened:
        assert (opened.count(), len(opened.failures()), len(opened.charges("small"))) == (0, 1, 1)
