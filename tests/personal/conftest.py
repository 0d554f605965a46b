"""A device that may learn its owner, made once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from clients.device import database
from tests.device.publishing import Publisher
from tests.device.setup import World
from tests.personal import devices
from tests.personal.devices import Owned, WrittenStream


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the waits for the disk to be done, as in tests/device."""
    settings = [each.replace("synchronous = EXTRA", "synchronous = OFF") for each in database.settings()]
    monkeypatch.setattr(database, "settings", lambda: settings)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """The folder of an enrolled device, and its world."""
    folder = tmp_path_factory.mktemp("personal")
    world = World(folder)
    devices.make(folder, world)
    return folder, world


@pytest.fixture
def owned(tmp_path: Path, template: tuple[Path, World], monkeypatch: pytest.MonkeyPatch) -> Owned:
    """An enrolled device without consent, whose embeddings are written beforehand."""
    for room in ("personal.hearing", "runtime.detectors"):
        monkeypatch.setattr(f"clients.{room}.EmbeddingStream", WrittenStream)
    folder, world = template
    for name in ("device.toml", "store.db", "store.key"):
        shutil.copy(folder / name, tmp_path / name)
    return Owned(tmp_path, Publisher(world))
