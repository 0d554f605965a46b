"""One world a test, closed at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.donation.parties import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.close()
