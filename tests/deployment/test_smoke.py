"""The deployed path as an operator and an analyst walk it: real processes, TLS, hubs of encrypted stores.

A lab takes long to start, so the benches of a federation, each in a tiny form, use the same one.
"""

import json
import stat
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from scripts.bench import faults, hubs, soak, supernodes
from tests.bench.running import run
from tests.deployment import lab as labs
from tests.deployment.lab import DEVICES, NODES, Lab, lab

SIZES = ("--nodes", str(NODES), "--devices", str(DEVICES))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose nodes every test leaves online."""
    with lab(tmp_path_factory.mktemp("smoke")) as made:
        made.ample_budget()
        yield made


@pytest.fixture
def given(up: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The lab, which the benches get in place of one that they would make."""
    for bench in (faults, hubs, soak, supernodes):
        assert bench.lab is labs.lab
        monkeypatch.setattr(bench, "lab", lambda *arguments: nullcontext(up))
    return up


def test_three_hubs_release_over_a_real_federation(up: Lab) -> None:
    status = up.status()
    assert status["ready"]
    assert status["nodes"] == {"node-00": "online", "node-01": "online", "node-02": "online"}
    done = up.run(up.plan("smoke"))
    released = json.loads(done.stdout)
    assert released["devices"] == {"invited": 60, "joined": 60, "dropped": 0, "counted": 60}
    assert (released["engine"], released["simulated"]) == ("lab", True)
    assert released["privacy"]["secure_aggregation"] is True
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[1:]] == [
        "devices join",
        "keys are shared",
        "devices count and mask",
        "the sum is unmasked",
    ]
    with up.store() as store:
        assert store.find("latest").id == released["release"]
        assert store.verify_log() == store.verify_ledger() == []
        assert store.failures() == ()
    private = [file for file in up.folder.rglob("*") if file.suffix in (".key", ".secret", ".db")]
    assert len(private) > 70
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in private} == {0}


def test_the_bench_of_hubs(given: Lab) -> None:
    code, printed = run(hubs, *SIZES)
    assert code == 0, printed
    assert f"{NODES} nodes of {DEVICES} devices" in printed


def test_the_bench_of_supernodes(given: Lab) -> None:
    code, printed = run(supernodes, *SIZES, "--idle", "0.5", "--json")
    assert code == 0, printed
    report = json.loads(printed)
    assert (report["nodes"], report["counted"]) == (NODES, NODES * DEVICES)
    assert report["node_mb"] > 0


def test_the_bench_of_supernodes_refuses_a_lab_too_small_for_a_plan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(supernodes, "--nodes", "16")
    assert "fewer than 50" in capsys.readouterr().err


def test_the_soak_bench(given: Lab) -> None:
    """One round: growth would be compared between rounds, and depends on the machine."""
    code, printed = run(soak, "--rounds", "1", *SIZES)
    assert code == 0, printed
    assert "from round 1 to 1: +0.0 %" in printed


def test_the_bench_of_faults(given: Lab) -> None:
    """The witness dies as the devices join, and is started again: the round ends in a release."""
    _, printed = run(faults, "witness", "--stages", "join")
    rows = [line.split()[:4] for line in printed.splitlines()]
    assert rows.count(["witness", "join", "released", str(NODES * DEVICES)]) == 2, printed
