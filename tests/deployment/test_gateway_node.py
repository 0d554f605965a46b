"""A real SuperNode in front of a real gateway: devices from afar and devices of hubs count in one round."""

from pathlib import Path

import pytest

from tests.deployment.lab import lab
from tests.deployment.remote import connected, said
from tests.rounds.small import write_fleet

pytestmark = pytest.mark.long
NODES, DEVICES, REMOTE = 2, 25, 3


def test_remote_devices_and_devices_of_hubs_are_counted_together(tmp_path: Path) -> None:
    far = write_fleet(tmp_path / "far", REMOTE)
    with lab(tmp_path, NODES, DEVICES) as up, connected(up, tmp_path, far, REMOTE) as (operations, _):
        for name in ("first", "second"):
            up.run(up.plan(name, cohort=50))
            with up.store() as store:
                assert store.find("latest").counted == NODES * DEVICES + REMOTE
        metrics = said(f"http://{operations}/metrics")
        for stage in ("join", "shares", "confirm", "masked", "unmask"):
            assert (
                f'unheard_gateway_letters_total{{outcome="answered",stage="{stage}"}} {2 * REMOTE}' in metrics
            )
