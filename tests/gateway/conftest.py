"""Every test of the queue, and of rounds through it, runs on SQLite and on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fa_core.gateway.queue import Queue
from tests.gateway.running_gateway import queue_of
from tests.store.conftest import new_database

__all__ = ["new_database"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a gateway's database that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "gateway.db")
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


@pytest.fixture
def queue(database: str) -> Iterator[Queue]:
    """Yield a queue with a database of its own."""
    made, connected = queue_of(database)
    yield made
    connected.close()
