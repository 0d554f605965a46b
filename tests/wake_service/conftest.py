"""What every test of the wake-word service shares."""

from tests.device.conftest import no_waiting_for_the_disk
from tests.device.test_following import served

__all__ = ["no_waiting_for_the_disk", "served"]
