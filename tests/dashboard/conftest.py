"""A store of real shape, made once for all tests of the dashboard, and somebody who looks at it."""

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

EVERYTHING = User("tester", frozenset(ROLES))


@pytest.fixture(autouse=True)
def no_other_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit looks through every installed package for components at each start; here there are none."""
    monkeypatch.setattr(BidiComponentManager, "discover_and_register_components", lambda self, **_: None)


@pytest.fixture(autouse=True)
def the_same_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's AppTest puts the page in the place of `__main__`, and every process started later by
    multiprocessing would run it again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with three weeks of eight plans and one failed round."""
    folder = tmp_path_factory.mktemp("shop") / "store"
    demo(folder, how_many=3, devices=1200).store.close()
    return folder


@pytest.fixture
def opened(shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The store, as the dashboard of this process shows it to somebody with every role."""
    settings.use(settings.Settings(str(shop), tmp_path / "dashboard", plans=Path("eval_plans")))
    monkeypatch.setattr(session, "somebody", lambda: EVERYTHING)
    yield tmp_path / "dashboard"
    reading.forget()
