"""What every test of the wake-word service shares."""

from datetime import timedelta

import pytest

from clients.wake_service import service, wire
from tests.device.conftest import no_waiting_for_the_disk
from tests.device.test_following import served

__all__ = ["no_waiting_for_the_disk", "served"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no client be too late on a machine that is busy; a test of one that is sets the time itself."""
    monkeypatch.setattr(service, "REACTION", timedelta(days=1))
    monkeypatch.setattr(service, "WRITE_SECONDS", 3_600.0)
    monkeypatch.setattr(wire, "EVENT_SECONDS", 3_600.0)
