"""Hostile code that a SuperLink sends to a node obtains nothing of the device behind it.

Real processes: a SuperLink and SuperExec, a SuperNode that was admitted and has no more rights than a relay
of another user has, and a device that serves its socket under a user of its own.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.device.serve import Endpoint
from fa_core.federation.certificates import make_node_key, public_bytes
from fa_core.federation.directory import open_federation
from fa_core.federation.processes import node
from fa_core.federation.runs import connect
from fa_core.flower.superlink import Node
from fa_core.wire.invitation import encode
from tests.deployment.hostile import bundle
from tests.deployment.lab import ENVIRONMENT, GUARD, Lab, lab
from tests.device.setup import NOW, Setup, World, plan_of
from tests.device.test_serve import DEVICE, NO, as_root, at_home, device_process, request

__all__ = ["at_home"]
pytestmark = [pytest.mark.long, as_root]

POWERLESS = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs")
"""Root without a capability: not the device's user, and may start this Python wherever it is."""
ROOTS_OWN = {"/proc fd"}
"""The kernel gives the /proc files of a hardened process to root, so a relay with root's number may list the
numbers of open files, and nothing behind them. A relay with a number of its own may not: test_serve.py."""
VICTIM = 7


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("hostile"), nodes=1, devices=1) as made:
        yield made


def online(found: Node) -> bool:
    return found.status == "online"


@contextmanager
def supernode(up: Lab, socket: Path) -> Iterator[int]:
    """Admit a SuperNode and run it before the device at `socket`; yield Flower's id of it."""
    federation = open_federation(up.folder)
    key = federation.node_key(VICTIM)
    with connect(federation) as link:
        if not key.exists():
            make_node_key(key)
            link.register("victim", public_bytes(key.with_suffix(".pub")))
        process = node(federation, VICTIM, 1)
        command = [word.replace(str(federation.hub_socket(VICTIM)), str(socket)) for word in process.command]
        with (up.folder / "log" / "victim.log").open("ab") as log:
            running = subprocess.Popen(
                [*POWERLESS, *command], env=ENVIRONMENT | dict(process.environment), stdout=log, stderr=log
            )
        try:
            end = time.monotonic() + GUARD
            while not (there := [each for each in link.nodes() if each.name == "victim" and online(each)]):
                assert running.poll() is None, (up.folder / "log" / "victim.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.2)
            yield there[0].id
        finally:
            running.terminate()
            running.wait(GUARD)


def steal(
    up: Lab, victim: int, setup: Setup, endpoint: Endpoint, process: int, words: list[bytes]
) -> dict[str, Any]:
    """Run the hostile bundle on the victim's node and return what it got."""
    config = {
        "node": str(victim),
        "store": str(setup.path),
        "socket": str(endpoint.path),
        "process": process,
        "words": json.dumps([word.hex() for word in words]),
    }
    with connect(open_federation(up.folder)) as link:
        run = link.start(bundle(), config)
        said = "".join(text for _, text in link.log(run, 0.0))
    found = [line.partition("GOT ")[2] for line in said.splitlines() if "GOT {" in line]
    assert found, said
    got: dict[str, Any] = json.loads(found[0])
    return got


def words(world: World) -> list[bytes]:
    """Return malformed and forged requests that a node may send to a device."""
    forger = World(world.folder, log_key=world.log_key, witness_key=world.witness_key)
    forged = encode(forger.invite(plan_of(epsilon="100"), world.release(), NOW, NOW))
    datas = (b"", b"status", b"../store.db\0", secrets.token_bytes(300), forged)
    return [request(stage, data, slot) for stage in range(5) for slot in (0, 1) for data in datas]


def test_a_hostile_bundle_obtains_nothing_of_the_device(
    up: Lab, at_home: tuple[World, Setup, Endpoint, Path]
) -> None:
    world, setup, endpoint, log = at_home
    assert endpoint.path.parent.stat().st_uid == DEVICE != os.geteuid()
    assert shutil.which(POWERLESS[0]), "setpriv of util-linux is not installed"
    relay = Endpoint(endpoint.path, frozenset({os.geteuid()}))
    with device_process(setup, relay, log) as process, supernode(up, endpoint.path) as victim:
        got = steal(up, victim, setup, endpoint, process, words(world))
        assert set(got["got"]) <= ROOTS_OWN
        assert set(got["replies"]) <= {NO.hex(), ""}
        said = log.read_text()
        assert not any(word in said for word in ("okay_nabu", "en-GB", "store.db"))

        # The control: the same bundle against a careless device gets what it came for.
        for path in (setup.path, setup.path.parent / "store.key"):
            path.chmod(0o666)
        got = steal(up, victim, setup, endpoint, process, [])
        assert {"read store.db", "write store.db", "read store.key"} <= set(got["got"])
