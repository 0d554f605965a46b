"""A gateway's folder and what its processes write into it are their user's alone, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fa_core.gateway.setup import init
from fa_core.trust.enrolment import Authority
from tests.deployment.lab import free_ports
from tests.gateway.house import until
from tests.gateway.test_faults import Serving


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gateway in a folder that was there, and open to all."""
    public, made = tmp_path / "authority.pub", tmp_path / "gateway"
    public.write_text(Authority.generate().public_key.hex())
    made.mkdir(mode=0o755)
    init(made, "127.0.0.1:8443", public, "gateway.db", 1)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_that_was_there_is_closed(folder: Path) -> None:
    assert (mode(folder), mode(folder / "gateway.toml")) == (0o700, 0o600)


def test_what_a_gateway_and_its_workers_write_is_theirs_and_relays_reach_the_socket(folder: Path) -> None:
    before, config, port = set(folder.iterdir()), folder / "gateway.toml", free_ports(2)
    text = config.read_text().replace("0.0.0.0:8443", f"127.0.0.1:{port}")
    config.write_text(text.replace(":9464", f":{port + 1}").replace("relays = []", "relays = [65534]"))
    serving = Serving(folder, f"127.0.0.1:{port + 1}")
    serving.start()
    try:
        until(lambda: bool(serving.workers()))
        counts = [folder / "run" / f"counts-{process}.json" for process in serving.workers()]
        until(lambda: all(file.exists() for file in counts))
        modes = {path.name: mode(path) for path in [*folder.iterdir(), *counts] if path not in before}
    finally:
        serving.stop()
    del modes["serve.log"]  # is the test's own
    assert modes.pop("gateway.sock") == 0o666
    assert modes.pop("run") == 0o700
    assert {"gateway.db", "gateway.db-wal", *(file.name for file in counts)} <= set(modes)
    assert set(modes.values()) == {0o600}
