"""A store to start rollouts in, made once and copied."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rollout import rolling
from tests.rollout.rolling import Rolling


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rollout") / "store"
    rolling.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def live_template(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Rolling:
    """A rollout whose first live stage began, closed."""
    found = rolling.opened(tmp_path_factory.mktemp("live"), template)
    found.start()
    found.week("gate", 1)
    found.store.close()
    return found


@pytest.fixture
def live(tmp_path: Path, live_template: Rolling) -> Iterator[Rolling]:
    """As `fleet`, with a rollout whose first live stage began."""
    folder = live_template.folder.parent
    for each in ("store", "witness", "published"):
        shutil.copytree(folder / each, tmp_path / each)
    found = rolling.reopened(tmp_path)
    found.now, found.numbers = live_template.now, live_template.numbers
    yield found
    found.store.close()


@pytest.fixture
def fleet(tmp_path: Path, template: Path) -> Iterator[Rolling]:
    """A population with budgets and two models, over which a rollout can be started."""
    found = rolling.opened(tmp_path, template)
    yield found
    found.store.close()
