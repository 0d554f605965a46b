"""Every bench of a federation runs in a tiny form, on one lab: a lab takes many CPU seconds to start."""

import json
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from scripts.bench import faults, hubs, soak, supernodes
from tests.bench.running import run
from tests.deployment import lab as labs
from tests.deployment.lab import Lab, lab

NODES, DEVICES = 1, 50
"""As few processes as there can be, and the fewest devices that answer a plan."""
SIZES = ("--nodes", str(NODES), "--devices", str(DEVICES))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("benches"), NODES, DEVICES) as made:
        made.ample_budget()
        yield made


@pytest.fixture(autouse=True)
def shared(up: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each bench this lab in place of the one that it would make."""
    for bench in (faults, hubs, soak, supernodes):
        assert bench.lab is labs.lab
        monkeypatch.setattr(bench, "lab", lambda *arguments: nullcontext(up))


def test_hubs() -> None:
    code, printed = run(hubs, *SIZES)
    assert code == 0, printed
    assert f"{NODES} nodes of {DEVICES} devices" in printed


def test_supernodes() -> None:
    code, printed = run(supernodes, *SIZES, "--idle", "0.5", "--json")
    assert code == 0, printed
    report = json.loads(printed)
    assert (report["nodes"], report["counted"]) == (NODES, NODES * DEVICES)
    assert report["node_mb"] > 0


def test_supernodes_refuses_a_lab_too_small_for_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(supernodes, "--nodes", "16")
    assert "fewer than 50" in capsys.readouterr().err


def test_soak() -> None:
    """One round: growth would be compared between rounds, and depends on the machine."""
    code, printed = run(soak, "--rounds", "1", *SIZES)
    assert code == 0, printed
    assert "from round 1 to 1: +0.0 %" in printed


def test_faults() -> None:
    """The witness is killed as the devices join, and started again: the round ends in a release."""
    _, printed = run(faults, "witness", "--stages", "join")
    rows = [line.split()[:4] for line in printed.splitlines()]
    assert rows.count(["witness", "join", "released", str(NODES * DEVICES)]) == 2, printed
