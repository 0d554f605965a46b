"""A store of realistic shape, made once for all tests of the dashboard, and a signed-in user."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.components.v2.component_manager import BidiComponentManager

from dashboard import settings
from dashboard.auth import session
from dashboard.auth.users import ROLES, User
from dashboard.data import reading
from tests.dashboard.stores import demo

ALL_ROLES = User("tester", frozenset(ROLES))


@pytest.fixture(autouse=True)
def no_other_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip Streamlit's search of every installed package for components at each start."""
    monkeypatch.setattr(BidiComponentManager, "discover_and_register_components", lambda self, **_: None)


@pytest.fixture(autouse=True)
def the_same_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore `__main__`: Streamlit's AppTest replaces it with the page, which every process started later by
    multiprocessing would run again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with three weeks of eight plans and one failed round."""
    folder = tmp_path_factory.mktemp("demo") / "store"
    demo(folder, how_many=3, devices=1200).store.close()
    return folder


@pytest.fixture
def opened(demo_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The store, opened by the dashboard of this process, for a user with every role; yields the dashboard's folder."""
    settings.use(settings.Settings(str(demo_store), tmp_path / "dashboard", plans=Path("eval_plans")))
    monkeypatch.setattr(session, "current_user", lambda: ALL_ROLES)
    yield tmp_path / "dashboard"
    reading.forget()
