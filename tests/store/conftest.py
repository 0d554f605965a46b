"""Every test of the store runs on SQLite with a folder and on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from fa_core.store import Store, open_store
from tests.store import postgres


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Return a function that makes an empty schema on a PostgreSQL server and returns its address."""
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed on this machine")
    with postgres.server(programs) as socket:
        address = f"postgresql://unheard@/postgres?host={socket}"
        numbers = count()
        engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"))

        def make() -> str:
            name = f"store{next(numbers)}"
            with engine.begin() as connection:
                connection.execute(text(f"CREATE SCHEMA {name}"))
            return f"{address}&options=-csearch_path%3D{name}"

        yield make
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "store")
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    """Return an empty store."""
    with open_store(where) as opened:
        yield opened
