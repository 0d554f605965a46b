"""What every room's tests stand on."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, settings

# No case is too slow: hypothesis gives each 200 ms, and a busy machine needs more.
patient = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same cases in every run, so that no run is red by luck; `scripts/test --all` draws new ones.
settings.register_profile("same", patient, derandomize=True)
settings.register_profile("new", patient, max_examples=1000)
settings.load_profile("same")

LONGEST = ("deployment/test_lab.py", "dashboard/test_browser.py", "bench/test_benches.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take minutes first, so that no process ends long after the others."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


@pytest.fixture(scope="session")
def aloud(request: pytest.FixtureRequest) -> Callable[[Iterable[str]], None]:
    """Print lines where whoever runs the tests reads them, whatever pytest captures."""

    def say(lines: Iterable[str]) -> None:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("", *lines, sep="\n", flush=True)

    return say
