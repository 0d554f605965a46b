"""The processes of a federation as command lines, the same for a lab's supervisor and for systemd units."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fa_core.federation.directory import Federation, node_name
from fa_core.trust import enrolment

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""What keeps Flower from phoning home and from installing packages at run time."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: what it is called, its command and what its environment has beside ours."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def superlink(federation: Federation) -> Process:
    """Return the SuperLink: TLS, SuperNodes by registered keys only, state on disk, apps run elsewhere."""
    tls, settings = federation.folder / "tls", federation.settings
    return _flower(
        federation,
        "superlink",
        (sys.executable, "-m", "fa_core.flower.superlink"),
        *("--ssl-ca-certfile", str(tls / "ca.crt")),
        *("--ssl-certfile", str(tls / "server.crt"), "--ssl-keyfile", str(tls / "server.key")),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--database", str(federation.folder / "state" / "superlink.db")),
        *("--isolation", "process", "--enable-supernode-auth"),
        *("--superexec-auth-secret-file", str(_secret(federation))),
        "--disable-runtime-dependency-installation",
    )


def superexec(federation: Federation) -> Process:
    """Return the SuperExec, which starts a ServerApp a run: the aggregator."""
    return _flower(
        federation,
        "superexec",
        _program("flower-superexec"),
        *("--root-certificates", str(federation.certificate)),
        *("--runtime-api-address", federation.address),
        *("--superexec-auth-secret-file", str(_secret(federation))),
    )


def witness(federation: Federation) -> Process:
    """Return the witness, which the aggregator must not run."""
    folder = federation.folder
    return _ours(
        "witness",
        *("witness", "serve", str(folder / "witness"), "--socket", str(federation.witness_socket)),
        *(
            "--authority",
            str(folder / "authority" / "authority.pub"),
            "--log",
            str(folder / "keys" / "log.pub"),
            "--devices",
            str(folder / "authority" / enrolment.REGISTER),
        ),
    )


def helper(federation: Federation) -> Process:
    """Return the helper, which the aggregator must not run."""
    return _ours("helper", "helper", "serve", str(federation.helper_folder))


def hub(federation: Federation, number: int) -> Process:
    """Return the device process behind a SuperNode."""
    return _ours(f"hub-{number:02d}", "device", "serve", "--hub", str(federation.hub(number)))


def node(federation: Federation, number: int, devices: int) -> Process:
    """Return a SuperNode in front of so many devices. It relays, and knows their socket only."""
    socket = federation.hub_socket(number)
    return _flower(
        federation,
        node_name(number),
        (sys.executable, "-m", "fa_core.flower.supernode"),
        *("--root-certificates", str(federation.certificate)),
        *("--superlink", federation.address),
        *("--auth-supernode-private-key", str(federation.node_key(number))),
        *("--port", str(federation.settings.port + 1 + number)),
        *("--node-config", f'socket="{socket}" devices={devices}'),
    )


def _secret(federation: Federation) -> Path:
    return federation.folder / "keys" / "superexec.secret"


def _program(name: str) -> tuple[str, ...]:
    return (str(Path(sys.executable).parent / name),)


def _flower(federation: Federation, name: str, program: tuple[str, ...], *arguments: str) -> Process:
    """Return a process of Flower's, with a Flower home of its own: bundles are unpacked there."""
    here = Path(sys.executable).parent
    environment = {
        **QUIET,
        "FLWR_HOME": str(federation.folder / "state" / name),
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    return Process(name, (*program, *arguments), environment)


def _ours(name: str, *arguments: str) -> Process:
    return Process(name, (sys.executable, "-m", "fa_core.cli", *arguments), {})
