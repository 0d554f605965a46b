"""The engines agree: the same fleet, plan and seed give the same sum, bit for bit before noise."""

from pathlib import Path

import numpy as np
import pytest

from fa_core.engines.launch import Order, launch
from fa_core.errors import BadInput
from fa_core.rounds import run as running
from fa_core.store import open_store
from tests.rounds.small import write_fleet, write_plan

DEVICES = 52


def test_flowers_simulation_gives_the_local_engines_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    fleet, plan = write_fleet(tmp_path / "fleet", DEVICES), write_plan(tmp_path, groups="[[]]")
    store = str(tmp_path / "store")
    local, _ = launch(Order(plan, fleet, "local", 7, store))
    other, _ = launch(Order(plan, fleet, "simulation", 7, store))
    assert np.array_equal(local.sums, other.sums)
    assert local.participation == other.participation
    assert (local.engine, other.engine) == ("local", "simulation")
    assert local.simulated
    assert other.simulated
    with open_store(store) as kept:
        assert kept.count() == 2
        assert kept.verify_ledger() == kept.verify_log() == []


def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no engine 'lab' here"):
        launch(Order(tmp_path / "plan.yaml", tmp_path, "lab", None, str(tmp_path / "store")))
