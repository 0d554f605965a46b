"""The deployed path as an operator and an analyst walk it, and every bench of a federation in a tiny form.

All on one lab, for a lab and each of its rounds cost much CPU: real processes, TLS, hubs of encrypted stores.
Of all the rounds one is real, the soak bench's; the other benches get its result.
"""

import json
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scripts.bench import faults, hubs, soak, supernodes
from tests.bench.running import run
from tests.deployment import lab as labs
from tests.deployment.lab import Lab, lab

NODES, DEVICES = 2, 26
"""More than one hub, and hardly more devices than the fewest that answer a plan."""
SIZES = ("--nodes", str(NODES), "--devices", str(DEVICES))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("benches"), NODES, DEVICES) as made:
        yield made


@pytest.fixture(autouse=True)
def shared(up: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each bench this lab in place of the one that it would make."""
    for bench in (faults, hubs, soak, supernodes):
        assert bench.lab is labs.lab
        monkeypatch.setattr(bench, "lab", lambda *arguments: nullcontext(up))


@pytest.fixture(scope="module")
def soaked(up: Lab) -> tuple[int, str, "CompletedProcess[str]"]:
    """Run the soak bench for one round; return its exit code, what it printed, and the round's result."""
    results: list[CompletedProcess[str]] = []

    def recorded(self: Lab, plan: Path, code: int | None = 0) -> "CompletedProcess[str]":
        results.append(real(self, plan, code))
        return results[-1]

    real = Lab.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "run", recorded)
        patch.setattr(soak, "lab", lambda *arguments: nullcontext(up))
        code, printed = run(soak, "--rounds", "1", *SIZES)
    (result,) = results
    return code, printed, result


@pytest.fixture
def replayed(soaked: tuple[int, str, "CompletedProcess[str]"], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each round the result of the one that was real."""
    monkeypatch.setattr(Lab, "run", lambda self, plan, code=0: soaked[2])


def test_soak(soaked: tuple[int, str, "CompletedProcess[str]"]) -> None:
    """One round: growth would be compared between rounds, and depends on the machine."""
    code, printed, _ = soaked
    assert code == 0, printed
    assert "from round 1 to 1: +0.0 %" in printed


def test_two_hubs_release_over_a_real_federation(
    up: Lab, soaked: tuple[int, str, "CompletedProcess[str]"]
) -> None:
    status = up.status()
    assert status["ready"]
    assert status["nodes"] == {"node-00": "online", "node-01": "online"}
    done, everyone = soaked[2], NODES * DEVICES
    released = json.loads(done.stdout)
    counts = {"invited": everyone, "joined": everyone, "dropped": 0, "counted": everyone}
    assert released["devices"] == counts
    assert (released["engine"], released["simulated"]) == ("lab", True)
    assert released["privacy"]["secure_aggregation"] is True
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[1:]] == [
        "devices join",
        "keys are shared",
        "shares are checked",
        "devices count and mask",
        "the sum is unmasked",
    ]
    with up.store() as store:
        assert store.find("latest").id == released["release"]
        assert store.verify_log() == store.verify_ledger() == []
        assert store.failures() == ()
    private = [file for file in up.folder.rglob("*") if file.suffix in (".key", ".secret", ".db")]
    assert len(private) > everyone
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in private} == {0}


@pytest.mark.usefixtures("replayed")
def test_hubs() -> None:
    code, printed = run(hubs, *SIZES)
    assert code == 0, printed
    assert f"{NODES} nodes of {DEVICES} devices" in printed


@pytest.mark.usefixtures("replayed")
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


@pytest.mark.usefixtures("replayed")
def test_faults() -> None:
    """The aggregator is killed as the devices join, and the run fails; only the run after it is replayed."""
    _, printed = run(faults, "serverapp", "--stages", "join")
    rows = [line.split()[:3] for line in printed.splitlines()]
    assert rows.count(["serverapp", "join", "failed"]) == 2, printed
