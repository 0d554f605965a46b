"""Devices from afar for a lab: a gateway, a SuperNode in front of it, and devices that connect to it."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clients.device.lab_hub import Hub, Trusted, make_hub
from clients.evaluate import cohort_of_fleet
from clients.fleet.tables import read_fleet
from fa_core.collection.exchange import read_address
from fa_core.federation.certificates import make_node_key, public_bytes
from fa_core.federation.directory import open_federation
from fa_core.federation.processes import node
from fa_core.federation.runs import connect
from tests.deployment.lab import ENVIRONMENT, GUARD, Lab, fa, start

NUMBER = 7
"""The SuperNode before the gateway."""


SOON = """
from clients.device import uploading
from fa_core.cli import main
uploading.EVERY_SECONDS = 2.0
main()
"""
"""`fa`, whose devices look for collections all the time: a test does not wait for a quarter of an hour."""


def connect_device(*arguments: str) -> "subprocess.Popen[str]":
    """Start `fa device connect` of a device that looks for collections all the time."""
    command = [sys.executable, "-c", SOON, "device", "connect", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


@contextmanager
def running(process: "subprocess.Popen[str]") -> Iterator[None]:
    """End a process with the block."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(GUARD)


def until(holds: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for something of a process; fail where the process ends first."""
    end = time.monotonic() + GUARD
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)


def remote_devices(up: Lab, folder: Path, far: Path, devices: int, *, ample: bool = True) -> Path:
    """Make the first devices of the fleet `far`, which trust the lab's keys and are enrolled by its
    authority; return their hub."""
    fleet = read_fleet(far)
    keys = {
        "plan": "review/plan",
        "log": "keys/log",
        "witness": "witness/witness",
        "authority": "authority/authority",
    }
    pinned = {name: (up.folder / f"{at}.pub").read_text().strip() for name, at in keys.items()}
    helper = open_federation(up.folder).helper
    trusted = Trusted(**pinned, helper=read_address(helper).public_key.hex() if helper else None)
    hub = Hub(folder / "remote", folder / "unused.sock", 0, devices, ample)
    now = datetime.now(UTC).replace(microsecond=0)
    cohort, authority = cohort_of_fleet(fleet.devices, fleet.tables), up.folder / "authority"
    make_hub(hub, cohort, trusted, authority, fleet.population, now)
    beside = open_federation(up.folder).hub(0) / "conditions.json"  # which the lab's supervisor keeps fresh
    (hub.folder / "conditions.json").symlink_to(beside)
    return hub.folder


@contextmanager
def gateway(up: Lab, folder: Path, devices: int) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Serve a gateway that lets devices join for a second; yield its operations' address and the process."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [each.getsockname()[1] for each in (one, two)]
    authority = up.folder / "authority" / "authority.pub"
    fa("gateway", "init", str(folder), "--name", f"127.0.0.1:{ports[0]}", "--authority", str(authority))
    config, operations = folder / "gateway.toml", f"127.0.0.1:{ports[1]}"
    text = config.read_text().replace("127.0.0.1:9464", operations).replace("0.0.0.0", "127.0.0.1")
    config.write_text(text.replace("maximum = 10000", f"maximum = {devices}"))
    process = start("gateway", "serve", str(folder))
    with running(process):
        until(lambda: "ok" in said(f"http://{operations}/ready"), process)
        yield operations, process


def said(url: str) -> str:
    """Return what an address says, "" where it does not answer."""
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


@contextmanager
def connected(
    up: Lab, folder: Path, far: Path, devices: int, *, ample: bool = True
) -> Iterator[tuple[str, Path]]:
    """Have so many devices of the fleet `far` take part in the lab's rounds through a gateway; yield its
    operations' address and the hub of the devices."""
    hub, place = remote_devices(up, folder, far, devices, ample=ample), folder / "gateway"
    with ExitStack() as stack:
        operations, serving = stack.enter_context(gateway(up, place, devices))
        settings = place.joinpath("gateway.toml").read_text()
        url = "https://" + settings.partition('name = "')[2].partition('"')[0]
        for slot in sorted(each for each in hub.iterdir() if each.is_dir()):
            own = connect_device(url, "--ca", str(place / "ca.crt"), "--dir", str(slot))
            stack.enter_context(running(own))
        waiting = f"unheard_gateway_waiting {devices}"
        until(lambda: waiting in said(f"http://{operations}/metrics"), serving)
        before = supernode(up, place / "gateway.sock")
        stack.enter_context(running(before))
        with connect(open_federation(up.folder)) as link:
            until(lambda: any((n.name, n.status) == ("gateway", "online") for n in link.nodes()), before)
        yield operations, hub
