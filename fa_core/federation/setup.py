"""Making a federation's directory, and starting and stopping a lab of it on this machine."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.federation import runs
from fa_core.federation.certificates import make_node_key, make_tls, write_private
from fa_core.federation.directory import CONFIG, Federation, Settings, open_federation
from fa_core.federation.lab import Lab, find_lab, read_lab
from fa_core.federation.supervisor import lock, write_conditions
from fa_core.federation.units import write_units
from fa_core.flower.superlink import Node
from fa_core.trust import enrolment
from fa_core.trust.enrolment import write_key

START_SECONDS, START_SECONDS_A_NODE = 120.0, 12.0
"""How long a lab may take until every node is there: SuperNodes start one after the other on few cores."""

STOP_SECONDS = 40.0
LOOK_EVERY = 0.25


@dataclass(frozen=True, slots=True)
class State:
    """How a federation is: of each process of a lab its id (None where it is not running), restarts, last
    exit code and since when it runs (ISO 8601, "" for never); of each node its status at the SuperLink; why
    there is none, where that does not answer."""

    up: bool
    processes: dict[str, dict[str, int | str | None]]
    nodes: dict[str, str]
    problem: str

    @property
    def ready(self) -> bool:
        """Whether every process runs and every node is online."""
        running = all(each["pid"] is not None for each in self.processes.values())
        return self.up and running and bool(self.nodes) and set(self.nodes.values()) == {"online"}


def init(folder: Path, settings: Settings) -> Federation:
    """Make a federation's directory: keys, certificates, settings, units. Raises BadInput if it is there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty; a federation is made in a folder of its own")
    _check_sockets(Federation(folder.resolve(), settings))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}") from None
    folder = folder.resolve()
    for name in (
        "tls",
        "nodes",
        "keys",
        "review",
        "witness",
        "authority",
        "home",
        "units",
        "runs",
        "log",
        "run",
        "state",
    ):
        (folder / name).mkdir(mode=0o700)
    make_tls(folder / "tls", settings.name, settings.host)
    enrolment.create(folder / "authority")
    for place in ("witness/witness", "review/plan", "keys/log", "keys/leader"):
        _make_key(folder / f"{place}.key")
    write_private(folder / "keys" / "superexec.secret", secrets.token_hex(32).encode())
    (folder / CONFIG).write_text(settings.text(), encoding="utf-8")
    federation = open_federation(folder)
    make_node_keys(federation, settings.nodes)
    _write_connection(federation)
    write_units(federation)
    return federation


def _check_sockets(federation: Federation) -> None:
    """Raise BadInput where a socket's path would be too long: before anything is written."""
    for number in range(federation.settings.nodes):
        federation.hub_socket(number)
    _ = federation.witness_socket


def make_node_keys(federation: Federation, nodes: int) -> None:
    """Make the keys of so many SuperNodes that are not there yet."""
    for number in range(nodes):
        if not federation.node_key(number).exists():
            make_node_key(federation.node_key(number))


def up(federation: Federation) -> State:
    """Start the lab of a federation and return when every node is online. Raises BadInput otherwise."""
    lab = read_lab(federation)
    held = lock(federation)
    if held is None:
        raise BadInput(f"{federation.folder} is up already; `fa federation status` says how it is")
    with held:
        _check_ports(federation, lab)
        for name in ("log", "state"):
            (federation.folder / name).mkdir(mode=0o700, exist_ok=True)
        write_conditions(federation, lab)
        _said(federation).unlink(missing_ok=True)
    log = federation.folder / "log" / "supervisor.log"
    with log.open("ab") as file:
        started = subprocess.Popen(
            [sys.executable, "-m", "fa_core.federation.supervisor", str(federation.folder)],
            cwd=federation.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS + START_SECONDS_A_NODE * lab.nodes
    while time.monotonic() < deadline:
        if started.poll() is not None:
            raise BadInput(f"the supervisor ended with {started.returncode}; {log} says why")
        state = status(federation)
        if state.ready and len(state.nodes) >= lab.nodes and _served(federation, lab):
            return state
        time.sleep(LOOK_EVERY)
    down(federation)
    raise BadInput(f"the nodes were not online in time; the logs in {log.parent} say why")


def status(federation: Federation) -> State:
    """Return how a federation is now: a lab as its supervisor has it, any other as its SuperLink says."""
    said = _supervisor(federation)
    if said is None and find_lab(federation) is not None:
        return State(False, {}, {}, "it is not up")
    if said is None:
        try:
            with runs.connect(federation) as link:
                return State(True, {}, {node.name or str(node.id): node.status for node in link.nodes()}, "")
        except BadInput as error:
            return State(False, {}, {}, str(error))
    nodes, problem = {}, ""
    if said["registered"]:
        try:
            with runs.connect(federation) as link:
                nodes = {node.name: _standing(node, said) for node in link.nodes()}
        except BadInput as error:
            problem = str(error)
    return State(True, said["processes"], nodes, problem)


def down(federation: Federation) -> bool:
    """Stop the lab and wait until nothing of it is left; return whether it was up."""
    said = _supervisor(federation)
    if said is None:
        return False
    pid = said["pid"]
    if pid is None:
        raise BadInput(f"{federation.folder} is just being started or stopped; try again in a moment")
    deadline = time.monotonic() + STOP_SECONDS
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline and _is_ours(pid, federation):
            time.sleep(LOOK_EVERY / 5)
        if _is_ours(pid, federation):
            os.kill(pid, signal.SIGKILL)
    for each in said["processes"].values():
        if each["pid"] is not None and _is_ours(each["pid"], federation):
            with suppress(ProcessLookupError):
                os.killpg(each["pid"], signal.SIGKILL)
    _said(federation).unlink(missing_ok=True)
    federation.witness_socket.unlink(missing_ok=True)
    return True


def _make_key(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    write_key(path, key)
    public = key.public_key().public_bytes_raw().hex()
    path.with_suffix(".pub").write_text(public + "\n", encoding="ascii")


def _write_connection(federation: Federation) -> None:
    """Write the connection for Flower's own `flwr`, by the federation's name."""
    name = federation.settings.name
    text = (
        f'[superlink]\ndefault = "{name}"\n\n[superlink."{name}"]\naddress = "{federation.address}"\n'
        f'root-certificates = "{federation.certificate}"\n'
    )
    (federation.folder / "home" / "config.toml").write_text(text, encoding="utf-8")


def _check_ports(federation: Federation, lab: Lab) -> None:
    host, first = federation.settings.host, federation.settings.port
    for number in range(lab.nodes + 1):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host if number == 0 else "127.0.0.1", first + number))
            except OSError as error:
                raise BadInput(
                    f"port {first + number} of {host} cannot be used ({error.strerror}); another lab may be "
                    f"up. Ports {first} to {first + lab.nodes} are needed: see `port` in "
                    f"{federation.folder / CONFIG}"
                ) from None


def _standing(node: Node, said: Mapping[str, Any]) -> str:
    """Return a node's status. The SuperLink takes one that vanished for online until its time is over."""
    since = said["processes"].get(node.name, {}).get("since") or said["since"]
    started = datetime.fromisoformat(since)
    signed_on = bool(node.activated) and datetime.fromisoformat(node.activated) >= started
    return "signing on" if node.status == "online" and not signed_on else node.status


def _said(federation: Federation) -> Path:
    return federation.folder / "run" / "supervisor.json"


def _supervisor(federation: Federation) -> dict[str, Any] | None:
    """Return what the supervisor last wrote, None where there is none alive."""
    if not _held(federation):
        return None
    try:
        said = json.loads(_said(federation).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"pid": _holder(federation), "since": "", "registered": False, "processes": {}}
    assert isinstance(said, dict)
    return said


def _holder(federation: Federation) -> int | None:
    """Return the process that holds the lock, None where it has not said so yet."""
    said = (federation.folder / "run" / "supervisor.lock").read_text(encoding="ascii")
    return int(said) if said.isdigit() and int(said) > 1 and _is_ours(int(said), federation) else None


def _held(federation: Federation) -> bool:
    held = lock(federation)
    if held is None:
        return True
    held.close()
    return False


def _served(federation: Federation, lab: Lab) -> bool:
    return all(federation.hub_socket(number).exists() for number in range(lab.nodes))


def _is_ours(pid: int, federation: Federation) -> bool:
    """Whether a process is still one of this federation's: numbers of processes are used again."""
    try:
        return str(federation.folder) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return False
