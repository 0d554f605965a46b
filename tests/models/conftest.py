"""What every test of models shares."""

from tests.device.conftest import no_waiting_for_the_disk

__all__ = ["no_waiting_for_the_disk"]
