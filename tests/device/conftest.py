"""What every test of the device shares."""

import pytest

from clients.device import database


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the waits for the disk to be done: they guard against power loss, which no test plays.

    A process that is killed loses nothing that it wrote, with or without them.
    """
    settings = [each.replace("synchronous = EXTRA", "synchronous = OFF") for each in database.settings()]
    monkeypatch.setattr(database, "settings", lambda: settings)
