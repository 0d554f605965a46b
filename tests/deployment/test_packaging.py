"""The wheel in a clean environment: one code for device, dashboard and bundle; three roles, three keys."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from fa_core.plan import SignedPlan, load
from fa_core.rounds.keys import local_keys
from tests.deployment.lab import GUARD, ROOT
from tests.rounds.small import write_plan

LOOK = """
import hashlib, importlib, json, sys
from importlib.util import find_spec
from pathlib import Path
from fa_core.federation import bundle
from fa_core.flower.superlink import bundle_bytes

packages = ("fa_core", "clients", "dashboard")
installed = {name: hashlib.sha256(data).hexdigest() for name, data in bundle.code(packages)}
places = {package: str(Path(find_spec(package).origin)) for package in packages}
Path(sys.argv[1]).write_bytes(bundle_bytes(bundle.files()))
print(json.dumps({"installed": installed, "places": places}))
"""

AGGREGATE = """
import json, sys
from fa_core.rounds.app import main
from fa_core.flower.transport import LocalGrid, ClientApp

main(LocalGrid(ClientApp(), 0), json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it into a clean environment, and return that environment's Python."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    made = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(made), "install", "--no-deps", "--no-index", str(wheel))
    # What the wheel needs comes from here; our own code does not: a .pth that a .pth leads to is not read.
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


def run(*command: str, cwd: Path | None = None, code: int = 0) -> str:
    """Run a command away from the source tree and return what it printed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd or "/", env=clean, timeout=GUARD, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def hashes(archive: Path) -> dict[str, str]:
    """Return the hash of every Python file in a wheel or a bundle."""
    with zipfile.ZipFile(archive) as opened:
        return {
            name: hashlib.sha256(opened.read(name)).hexdigest()
            for name in opened.namelist()
            if name.endswith(".py")
        }


def test_device_dashboard_and_bundle_are_the_code_that_is_installed(python: Path, tmp_path: Path) -> None:
    found = json.loads(run(str(python), "-c", LOOK, str(tmp_path / "app.fab"), cwd=tmp_path).splitlines()[0])
    assert all(place.startswith(str(python.parents[1])) for place in found["places"].values())
    (wheel,) = python.parents[2].glob("*.whl")
    assert found["installed"] == hashes(wheel)
    bundled = hashes(tmp_path / "app.fab")
    device = {name: digest for name, digest in found["installed"].items() if not name.startswith("dashboard")}
    assert bundled == device
    assert len(bundled) > 100


@pytest.mark.long
def test_authority_witness_and_aggregator_are_three_processes_with_three_keys(
    python: Path, tmp_path: Path
) -> None:
    fa = (str(python), "-m", "fa_core.cli")
    authority, witness, keys = tmp_path / "authority", tmp_path / "witness", local_keys(tmp_path / "team")
    public = {
        run(*fa, "enrol", "init", str(authority)).strip(),
        run(*fa, "witness", "init", str(witness)).strip(),
    }
    log = keys.log.public_key().public_bytes_raw().hex()
    assert len(public | {log}) == 3
    (tmp_path / "log.pub").write_text(log)
    plan = write_plan(tmp_path, groups="[[]]")
    Path(f"{plan}.sig").write_text(SignedPlan.of(load(plan), keys.plan).text())
    config = {
        "plan": str(plan), "release": "ab" * 16, "population": "small", "until": "", "simulated": False,
        "synthetic": False, "engine": "lab", "nodes": 0, "devices": 60, "deadline": 60.0,
        "store": str(tmp_path / "store"), "log-key": str(tmp_path / "team" / "log.key"),
        "authority": str(tmp_path / "authority.pub"), "witness": str(tmp_path / "witness.sock"),
    }  # fmt: skip
    shutil.copy(authority / "authority.pub", tmp_path / "authority.pub")
    budgets, register = tmp_path / "budgets.json", tmp_path / "devices.csv"
    run(*fa, "enrol", "population", "small", "--authority", str(authority), "--out", str(budgets))
    shutil.copy(authority / "devices.csv", register)
    (authority / "authority.key").rename(tmp_path / "elsewhere")  # no other process may need it
    serving = subprocess.Popen(
        [*fa, "witness", "serve", str(witness), "--socket", config["witness"], "--authority",
         config["authority"], "--log", str(tmp_path / "log.pub"), "--devices", str(register)],
        stdout=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    try:
        assert serving.stdout is not None
        assert "listens on" in serving.stdout.readline()
        (witness / "witness.key").rename(tmp_path / "witness.key.elsewhere")
        assert "has no budgets" in run(str(python), "-c", AGGREGATE, json.dumps(config), code=1)
        taken = ("--signed", str(budgets), "--authority", config["authority"], "--store", config["store"])
        run(*fa, "ledger", "declare", *taken)
        output = run(str(python), "-c", AGGREGATE, json.dumps(config), code=1)
        assert "at join: 0 devices joined" in output
        verified = run(*fa, "log", "verify", "--store", config["store"])
        assert "cosigned" in verified or "witness" in verified, verified
    finally:
        serving.terminate()
        serving.wait(timeout=GUARD)
