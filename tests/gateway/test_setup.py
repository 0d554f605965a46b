"""A gateway's folder and what its processes write into it are their user's alone, whatever the umask."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fa_core.errors import BadInput
from fa_core.gateway.settings import read_home
from fa_core.gateway.setup import init
from fa_core.trust.enrolment import Authority
from tests.gateway.running_gateway import until
from tests.gateway.test_faults import Serving
from tests.ports import free_ports


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gateway in a folder that existed, readable by everybody."""
    public, made = tmp_path / "authority.pub", tmp_path / "gateway"
    public.write_text(Authority.generate().public_key.hex())
    made.mkdir(mode=0o755)
    init(made, "127.0.0.1:8443", public, "gateway.db", 1)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_older_file_calls_the_relay_section_door(folder: Path) -> None:
    config = folder / "gateway.toml"
    config.write_text(config.read_text().replace("[relay]", "[door]").replace("relays = []", "relays = [7]"))
    assert read_home(folder).settings.relay.relays == [7]
    config.write_text(config.read_text() + "\n[relay]\nrelays = []\n")
    with pytest.raises(BadInput, match="door: Extra inputs"):
        read_home(folder)


def test_an_existing_folder_becomes_private(folder: Path) -> None:
    assert (mode(folder), mode(folder / "gateway.toml")) == (0o700, 0o600)


def test_files_of_a_gateway_and_its_workers_are_private_and_relays_reach_the_socket(folder: Path) -> None:
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
