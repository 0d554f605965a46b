"""A real SuperNode in front of a real gateway: devices from afar and devices of hubs count in one round."""

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clients.device.lab_hub import Hub, Trusted, make_hub
from clients.evaluate import cohort_of_fleet
from clients.fleet.tables import read_fleet
from fa_core.federation.certificates import make_node_key, public_bytes
from fa_core.federation.directory import open_federation
from fa_core.federation.processes import node
from fa_core.federation.runs import connect
from tests.deployment.lab import ENVIRONMENT, GUARD, Lab, fa, lab, start
from tests.rounds.small import write_fleet

pytestmark = pytest.mark.long
NODES, DEVICES, REMOTE = 2, 25, 3
NUMBER = 7
"""The SuperNode before the gateway."""


@contextmanager
def running(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(GUARD)


def until(holds: object, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + GUARD
    while not holds():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)


def remote_devices(up: Lab, folder: Path) -> Path:
    """Make devices that trust the lab's keys and are enrolled by its authority; return their hub."""
    fleet = read_fleet(write_fleet(folder / "far", REMOTE))
    keys = {
        "plan": "review/plan",
        "log": "keys/log",
        "witness": "witness/witness",
        "authority": "authority/authority",
    }
    trusted = Trusted(**{name: (up.folder / f"{at}.pub").read_text().strip() for name, at in keys.items()})
    hub = Hub(folder / "remote", folder / "unused.sock", 0, REMOTE, ample=True)
    now = datetime.now(UTC).replace(microsecond=0)
    cohort, authority = cohort_of_fleet(fleet.devices, fleet.tables), up.folder / "authority"
    make_hub(hub, cohort, trusted, authority, fleet.population, now)
    beside = open_federation(up.folder).hub(0) / "conditions.json"  # which the lab's supervisor keeps fresh
    (hub.folder / "conditions.json").symlink_to(beside)
    return hub.folder


@contextmanager
def gateway(up: Lab, folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Serve a gateway that lets devices join for a second; yield its operations' address and the process."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [each.getsockname()[1] for each in (one, two)]
    authority = up.folder / "authority" / "authority.pub"
    fa("gateway", "init", str(folder), "--name", f"127.0.0.1:{ports[0]}", "--authority", str(authority))
    config, operations = folder / "gateway.toml", f"127.0.0.1:{ports[1]}"
    text = config.read_text().replace("127.0.0.1:9464", operations).replace("0.0.0.0", "127.0.0.1")
    config.write_text(text.replace("maximum = 10000", f"maximum = {REMOTE}"))
    process = start("gateway", "serve", str(folder))
    with running(process):
        until(lambda: "ok" in said(f"http://{operations}/ready"), process)
        yield operations, process


def said(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return str(page.read().decode())
    except OSError:
        return ""


def supernode(up: Lab, relay_socket: Path) -> "subprocess.Popen[str]":
    """Admit a SuperNode and start it before the gateway's socket, as the run book says."""
    federation = open_federation(up.folder)
    key = federation.node_key(NUMBER)
    make_node_key(key)
    with connect(federation) as link:
        link.register("gateway", public_bytes(key.with_suffix(".pub")))
    process = node(federation, NUMBER, 1)
    command = [*process.command[:-1], f'gateway="{relay_socket}" seconds=60']
    return subprocess.Popen(command, env=ENVIRONMENT | dict(process.environment), stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, text=True)  # fmt: skip


def test_remote_devices_and_devices_of_hubs_are_counted_together(tmp_path: Path) -> None:
    with lab(tmp_path, NODES, DEVICES) as up, ExitStack() as stack:
        far = remote_devices(up, tmp_path)
        place = tmp_path / "gateway"
        operations, serving = stack.enter_context(gateway(up, place))
        url = (
            "https://" + place.joinpath("gateway.toml").read_text().partition('name = "')[2].partition('"')[0]
        )
        for slot in sorted(far.iterdir()):
            if slot.is_dir():
                own = start("device", "connect", url, "--ca", str(place / "ca.crt"), "--dir", str(slot))
                stack.enter_context(running(own))
        waiting = f"unheard_gateway_waiting {REMOTE}"
        until(lambda: waiting in said(f"http://{operations}/metrics"), serving)
        before = supernode(up, place / "gateway.sock")
        stack.enter_context(running(before))
        with connect(open_federation(up.folder)) as link:
            until(lambda: any((n.name, n.status) == ("gateway", "online") for n in link.nodes()), before)
        for name in ("first", "second"):
            up.run(up.plan(name, cohort=50))
            with up.store() as store:
                assert store.find("latest").counted == NODES * DEVICES + REMOTE
        metrics = said(f"http://{operations}/metrics")
        for stage in ("join", "shares", "confirm", "masked", "unmask"):
            assert (
                f'unheard_gateway_letters_total{{outcome="answered",stage="{stage}"}} {2 * REMOTE}' in metrics
            )
