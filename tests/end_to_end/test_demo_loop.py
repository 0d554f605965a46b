"""`fa demo --loop` in a tiny form: it trains, and the accent that was missed is heard; (long) all of it."""

import os
import signal
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from clients.device.policy import Policy
from clients.fleet import bank as banks
from clients.fleet import hearings
from fa_core.cli import build, demo_loop, demo_steps
from fa_core.cli.demo_loop import BEFORE, LEAST, WEEK, WORST, Loop
from fa_core.errors import BadInput, Refused
from fa_core.store import open_store
from tests.fleet.heard import bank, drawn

PLANS = Path("eval_plans")


def here(*arguments: str, codes: Collection[int] = (0,)) -> int:
    result = CliRunner().invoke(build(), list(arguments))
    assert result.exit_code in codes, (arguments, result.output, result.exception)
    return result.exit_code


def lines_here(*arguments: str) -> str:
    result = CliRunner().invoke(build(), list(arguments))
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


def test_the_accent_that_was_missed_is_heard_after_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything but the test set and the rollout, which 2,500 devices are too few for."""
    kept = tmp_path / "bank.parquet"
    banks.write_bank(bank(), kept)
    monkeypatch.setattr(banks, "default_bank_path", lambda: kept)
    monkeypatch.setattr(hearings, "open_hearings", lambda progress: drawn())
    monkeypatch.setattr(demo_steps, "fa", here)
    monkeypatch.setattr(demo_steps, "fa_lines", lines_here)
    monkeypatch.setattr(demo_steps, "dashboard", lambda *arguments: ("http://here", 1))
    monkeypatch.setattr(demo_loop, "AFTER", 1)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    loop = Loop(tmp_path, midnight - (BEFORE + 1) * WEEK)
    (tmp_path / "plans").mkdir()
    base = demo_loop._fleet(loop, demo_loop._speech(loop), LEAST)
    before = demo_loop._measure(loop, PLANS, demo_loop.BASE, "fleet", 1)
    candidate = demo_loop._train(loop, PLANS, base, LEAST)
    demo_loop._recorded(loop, drawn(), candidate, LEAST)
    fleet = demo_loop._stage(loop, candidate, BEFORE + 1, 1.0)
    after = demo_loop._measure(loop, PLANS, candidate, fleet, BEFORE + 1)
    demo_loop._end(loop, before, after)
    said = capsys.readouterr().out
    assert "answers all 4 rounds" in said
    assert said.splitlines()[-2].startswith(f"{WORST}: ")
    with open_store(loop.store[1], create=False) as store:
        was, now = (demo_loop._misses(store.estimates(each).results)[WORST] for each in (before, after))
    assert was.estimate is not None
    assert now.estimate is not None
    assert was.estimate > 0.8
    assert now.estimate < 0.3
    # The control: a device that grants less answers less, and the demo says so.
    monkeypatch.setattr("clients.device.policy.Policy", lambda: Policy(training_rounds_a_week=0))
    with pytest.raises(Refused, match="takes no part in training"):
        demo_loop.default_device(loop)


def test_too_few_devices_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(build(), ["demo", "--loop", "--devices", "500", "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, BadInput)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("stop", "said"),
    [(Refused("near misses"), "is held"), (typer.Exit(4), "is rolled back"), (ValueError(), "")],
)
def test_a_candidate_that_is_stopped_ends_the_loop_with_the_dashboard(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: Exception,
    said: str,
) -> None:
    def stopped(*arguments: object) -> None:
        raise stop

    for name in ("_speech", "_fleet"):
        monkeypatch.setattr(demo_loop, name, lambda *arguments: "")
    monkeypatch.setattr(demo_loop, "_measure", lambda *arguments: "abc")
    monkeypatch.setattr(demo_loop, "_train", stopped)
    monkeypatch.setattr(demo_steps, "dashboard", lambda *arguments: ("http://here", 1))
    with pytest.raises(type(stop)):
        demo_loop.play(LEAST, tmp_path / "loop", PLANS)
    printed = capsys.readouterr().out
    assert said in printed
    assert ("http://here/segments?release=abc" in printed) == bool(said)


@pytest.mark.long
def test_the_whole_loop(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    demo_loop.play(demo_loop.DEVICES, tmp_path / "loop", PLANS)
    os.kill(int((tmp_path / "loop" / "dashboard.pid").read_text()), signal.SIGTERM)
    assert f"{WORST}: " in capfd.readouterr().out
