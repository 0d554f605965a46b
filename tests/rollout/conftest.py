"""A store to start rollouts in, made once and copied."""

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


@pytest.fixture
def fleet(tmp_path: Path, template: Path) -> Iterator[Rolling]:
    """A population with budgets and two models, over which a rollout can be started."""
    found = rolling.opened(tmp_path, template)
    yield found
    found.store.close()
