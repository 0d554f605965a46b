"""Every bench that needs no federation runs in a tiny form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clients.fleet.bank import write_bank
from scripts.bench import (
    dashboard,
    demo_coverage,
    device,
    estimates,
    gateway,
    local_engine,
    local_eval,
    previews,
    rollout,
    rollout_weeks,
    shadow,
    tables_engine,
    wyoming,
)
from tests.bench.running import run
from tests.deployment.lab import ENVIRONMENT, GUARD, ROOT
from tests.device.setup import PLAN
from tests.fleet.small import small_bank

STAGES = ("join", "shares", "confirm", "masked", "unmask")


def test_device() -> None:
    _, printed = run(device, "--devices", "21", "--events", "200")
    assert "a plan of 5,106 cells, 200 events on a device, 21 devices" in printed
    assert all(f"stage {stage}" in printed for stage in STAGES)
    assert "whole round" in printed


def test_local_eval() -> None:
    _, printed = run(local_eval, "--devices", "200", "--peers", "50")
    assert "200 devices x 32 events" in printed
    assert "one device, 10,000 events" in printed
    assert "the sums of all three are equal, cell by cell" in printed


def test_tables_engine() -> None:
    code, printed = run(tables_engine, "--devices", "1000", "--events", "4", "--hours", "2")
    assert code == 0, printed
    assert "1,000 devices x 4 events" in printed


def test_local_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against its own commit, and against one that there is not."""
    plan = tmp_path / "plan.yaml"
    words = {"name": "weekly", "revision": 1, "expires": "2099-12-31", "window": "7d", "epsilon": 1}
    text = PLAN.format(**words, noise="distributed", secure="true", more="")
    plan.write_text(text.replace("min_cohort: 3", "min_cohort: 50"))
    monkeypatch.setattr(local_engine, "PLAN", plan)
    sizes = ("--devices", "100", "--events", "2", "--runs", "1")
    _, printed = run(local_engine, "--before", "HEAD", *sizes, "--json")
    figures = json.loads(printed)
    assert figures["devices"] == 100
    assert min(figures["before_a_device"], figures["now_a_device"], figures["ratio"]) > 0
    with pytest.raises(SystemExit, match="--before nothing: "):
        run(local_engine, "--before", "nothing", *sizes)


def test_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("rate", "confusion")
    monkeypatch.setattr(estimates, "CASES", {kind: estimates.CASES[kind] for kind in kinds})
    _, printed = run(estimates, "--releases", "1", "--seconds", "1e-9")
    assert "Error of a false reject rate by accent" in printed
    assert "Half-widths of the weekly plan's miss rate" in printed
    assert "Single cells of tables, 200,000 devices" in printed
    rows = [line.split()[:3] for line in printed.splitlines()]
    assert all([kind, level, "5,000"] in rows for kind in kinds for level in ("everyone", "device", "event"))


def test_demo_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_coverage, "open_bank", lambda path, progress: small_bank())
    monkeypatch.setattr(demo_coverage, "DRAWN", 10)
    _, printed = run(demo_coverage, "--fleets", "2", "--devices", "30")
    assert "2 fleets of 30 devices" in printed
    rows = [line.split()[:3] for line in printed.splitlines()]
    assert ["wake-word-weekly", "false_reject_rate", "everyone"] in rows


def test_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "open_bank", lambda path, progress: small_bank())
    plans = ("wake-word-weekly", "dictation-word-error-rate")
    _, printed = run(previews, "--devices", "1000", "--releases", "4", "--plans", *plans)
    rows = [line.split()[:3] for line in printed.splitlines()]
    assert ["wake-word-weekly", "false_reject_rate", "everyone"] in rows
    assert ["dictation-word-error-rate", "word_error_rate", "accent"] in rows


def test_rollout(tmp_path: Path) -> None:
    """That it runs: what it says of the gate is in tests/rollout."""
    write_bank(small_bank(), tmp_path / "bank.parquet")
    tables = ("--only", "reactions", "detectors")
    written = tmp_path / "figures.json"
    _, printed = run(
        rollout, "--rollouts", "3", *tables, "--bank", str(tmp_path / "bank.parquet"), "--json", str(written)
    )
    assert "Scores of real detectors" in printed
    assert {figure["of"] for figure in json.loads(written.read_text())} == {3}


def test_secagg(tmp_path: Path) -> None:
    """As a command, with Flower's SecAgg+ beside ours: it forks, and a process of many tests has threads."""
    written = tmp_path / "costs.json"
    sizes = ("--beside", "6", "--alone", "21", "--cells", "40")
    done = subprocess.run(
        [sys.executable, "scripts/bench/secagg.py", *sizes, "--json", str(written)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), (
        done.stderr
    )  # 1: a target is missed, which a cohort of six says nothing of
    assert ("MISSED" in done.stdout) == (done.returncode == 1)
    costs = json.loads(written.read_text())
    assert [(cost["what"], cost["lost"]) for cost in costs] == [
        ("ours, n=6, complete", 0),
        ("Flower, n=6, all shares", 0),
        ("ours, n=21, 0% lost", 0),
        ("ours, n=21, 5% lost", 1),
        ("ours, n=21, 10% lost", 2),
        ("ours, n=21, f=0.2, 20% lost", 4),
    ]
    assert all(cost["server"] > 0 and cost["device"] > 0 for cost in costs)


def test_gateway() -> None:
    _, printed = run(gateway, "--devices", "50", "--per-node", "25", "--workers", "1", "--json")
    report = json.loads(printed)
    assert (report["devices"], report["nodes"], report["counted"]) == (50, 2, 50)
    assert set(report["stage_seconds"]) == set(STAGES)
    assert report["messages"] >= 2 * len(STAGES) * 50


def test_dashboard() -> None:
    _, printed = run(dashboard, "--releases", "3", "--tries", "1")
    assert "3 releases" in printed
    assert "console:" not in printed
    lines = printed.splitlines()
    for what in ("first view", "to Confusions", "Segments: another metric", "Trends: another group"):
        assert any(line.startswith(what) for line in lines), printed


def test_rollout_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few devices can show nothing, so the gate holds and nobody is exposed."""
    monkeypatch.setattr(rollout_weeks, "open_bank", lambda path, progress: small_bank())
    sizes = ("--devices", "1000", "--weeks", "2")
    _, printed = run(rollout_weeks, *sizes, "--scenarios", "worse", "--reactions", "1")
    assert "worse, 100% of misses marked: shadow, exposed 0%" in printed
    assert "look 1: hold" in printed
    assert "look 2: hold" in printed


def test_shadow() -> None:
    _, printed = run(shadow, "--seconds", "3")
    rows = [line.split() for line in printed.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["micro-1", "embed-1", "both"]
    assert all(float(figure) > 0 for row in rows[1:4] for figure in row[1:])
    assert "the second detector adds" in printed


def test_wyoming() -> None:
    """That detections are the detector's; how late they are depends on the machine."""
    _, printed = run(wyoming, "--words", "1", "--streams", "2", "--minutes", "1")
    assert "1 words, 1 wakes by the detector alone" in printed
    assert "the detections are those of the detector alone" in printed
    assert "recordings of people: skipped" in printed
    assert "memory after 1 minute" in printed


def test_startup() -> None:
    """One run of each command: what it prints is looked at, not how long it took."""
    done = subprocess.run(
        [sys.executable, "scripts/bench/startup.py", "--runs", "1"],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for command in ("fa --help", "fa --version", "fa plan check nowhere.yaml"):
        assert command in done.stdout
