"""Shared by the room's tests."""

import pytest


@pytest.fixture(autouse=True)
def journals_need_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of rounds sign thousands of journal entries; what survives a power cut is not tested here."""
    monkeypatch.setattr("fa_core.trust.journal.os.fsync", lambda handle: None)
