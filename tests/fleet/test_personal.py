"""Devices that learned their owner in a drawn fleet: a row of the adapter behind the base's, and their
plan."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import typer
from typer.testing import CliRunner

from clients.fleet import personal
from clients.fleet.make import make_fleet
from clients.fleet.personal import BASE, with_adapters
from clients.fleet.staged import write_fleet
from clients.fleet.tables import Fleet, read_fleet
from clients.runtime.detectors import shipped_head
from fa_core.cli.run import run
from fa_core.publication.artefact import PERSONAL
from tests.fleet.small import small_bank

UNTIL = datetime(2026, 11, 29, tzinfo=UTC)
DEVICES = 300
PLAN = Path("eval_plans/personal-against-base.yaml")
THRESHOLD = shipped_head("okay_nabu").threshold


def drawn(out: Path, devices: int, adapters: float) -> Fleet:
    make_fleet(
        small_bank(), devices, out, seed=7, until=UNTIL, progress=lambda done, total: None, adapters=adapters
    )
    return read_fleet(out)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return drawn(tmp_path_factory.mktemp("fleet") / "drawn", DEVICES, 0.0)


def adapted(fleet: Fleet, share: float) -> Fleet:
    events = with_adapters(fleet.tables["wake_events"], THRESHOLD, share, np.random.default_rng(3))
    return replace(fleet, tables={**fleet.tables, "wake_events": events})


def test_a_fleet_is_otherwise_as_without_adapters(tmp_path: Path) -> None:
    without, learned = (dict(drawn(tmp_path / f"{share}", 40, share).tables) for share in (0.0, 0.5))
    events = learned.pop("wake_events")
    kept = events.filter(pc.not_equal(events["model_version"].cast(pa.string()), PERSONAL))
    assert kept.to_pylist() == without.pop("wake_events").to_pylist()
    assert len(kept) < len(events)
    assert learned == without


def test_each_row_of_an_adapter_is_behind_the_bases_of_the_same_moment(fleet: Fleet) -> None:
    rows = adapted(fleet, 0.5).tables["wake_events"].to_pylist()
    places = [at for at, row in enumerate(rows) if row["model_version"] == PERSONAL]
    for at in places:
        before, own = rows[at - 1], rows[at]
        assert before["model_version"] == BASE
        same = ("device_id", "time", "wake_word", "snr_db", "playback")
        assert [before[name] for name in same] == [own[name] for name in same]
        meant = ("true_accept", "false_reject")
        assert (before["outcome"] in meant) == (own["outcome"] in meant)
        assert own["accepted"] == (own["outcome"] in ("true_accept", "false_accept"))
    learned = {rows[at]["device_id"] for at in places}
    every = {row["device_id"] for row in rows}
    # 300 devices, a half each: outside 35% to 65% with a chance under 1e-6 (5.2 standard deviations).
    assert 0.35 * len(every) < len(learned) < 0.65 * len(every)
    of_base = Counter(row["device_id"] for row in rows if row["model_version"] == BASE)
    assert len(places) == sum(of_base[device] for device in learned)


def missed(fleet: Fleet, folder: Path) -> dict[str, float]:
    """Run the shipped plan, without accents, over a fleet's tables: return the difference of everyone's
    misses.
    """
    write_fleet(fleet, folder / "fleet")
    kept, _, _ = PLAN.read_text().replace("[[], [accent]]", "[[]]").partition("guardrails:")
    lines = [line for line in kept.splitlines() if not line.startswith(("segments:", "  accent:"))]
    (folder / "plan.yaml").write_text("\n".join(lines) + "\n")
    app = typer.Typer()
    app.command()(run)
    places = ["--fleet", str(folder / "fleet"), "--store", str(folder / "store")]
    done = CliRunner().invoke(app, [str(folder / "plan.yaml"), *places, "--engine", "tables", "--json"])
    assert done.exit_code == 0, done.output
    shown: list[dict[str, Any]] = json.loads(done.stdout)["metrics"]
    (found,) = (each for each in shown if each["metric"] == "miss_rate_difference" and not each["group"])
    return found


def test_the_plan_says_whether_adapters_hurt(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 devices the noise has a standard deviation of 6.5 points, so each fails with a chance under
    1e-6.
    """
    for name in ("usual", "deaf"):
        (tmp_path / name).mkdir()
    usual = missed(adapted(fleet, 1.0), tmp_path / "usual")
    assert usual["high"] < 0.5
    monkeypatch.setattr(personal, "GAIN", (-30.0, 0.1))  # adapters that hear nobody
    deaf = missed(adapted(fleet, 1.0), tmp_path / "deaf")
    assert deaf["low"] > 0.5
