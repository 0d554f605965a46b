"""Files for an operator: systemd units, a compose file with the same processes, and the owners of files.

Six users, so that none can read another's files: the SuperLink, the aggregator (SuperExec and its
ServerApp, the leader), the witness, the helper (where there is one: the witness's operator runs it, never the
aggregator), the relay (SuperNode, which runs code that it is sent) and the device. Of the
federation's directory each process sees its own parts and nothing else, at the paths that a run's
configuration names. Telemetry, update checks and installs at run time are off.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fa_core.federation.directory import Federation, node_name
from fa_core.federation.processes import QUIET
from fa_core.trust.enrolment import REGISTER

INSTALLED = Path("/var/lib/unheard")
"""Where a machine has its parts of the federation's directory, for the units."""

PROGRAMS = "/opt/unheard/bin"
ENVIRONMENT = {"FLWR_HOME": "/tmp/flwr", **QUIET}  # noqa: S108 - units and containers have a /tmp of their own

USERS = {
    "superlink": 59101,
    "aggregator": 59102,
    "witness": 59103,
    "relay": 59104,
    "device": 59105,
    "helper": 59106,
}
"""Each user's number. Files and containers know numbers only, and so does `relays` in a device.toml."""

SOCKETS = 59100
"""Number of the group unheard-sockets: the witness, and those who connect to it, aggregator and helper."""

_MANY = {"node", "device"}
"""Of these there is one for each hub."""

_HARDENED = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes
UMask=0077
Restart=always
RestartSec=5
"""


@dataclass(frozen=True, slots=True)
class _Part:
    """One process of a federation.

    Attributes:
        user: who runs it, of `USERS`.
        reads, writes: what it sees of the federation's directory. A socket's folder rather than the socket:
            one that is made anew is another file.
        meets: whether it is in the group unheard-sockets.
        after: the unit that starts before it.
    """

    what: str
    user: str
    command: tuple[str, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    meets: bool = False
    after: str = "network-online.target"


def write_units(federation: Federation) -> None:
    """Write the systemd units, compose.yaml and owners.sh into `units/`."""
    texts = {**units(federation), "compose.yaml": compose(federation), "owners.sh": owners()}
    for name, text in texts.items():
        (federation.folder / "units" / name).write_text(text, encoding="utf-8")


def units(federation: Federation) -> dict[str, str]:
    """Return the units: name to text. Paths are an installation's, not this directory's."""
    host = federation.settings.host
    parts = _parts(replace(federation, folder=INSTALLED), host, host, "%i")
    return {
        f"unheard-{name}{'@' if name in _MANY else ''}.service": _unit(part) for name, part in parts.items()
    }


def _parts(federation: Federation, host: str, listen: str, hub: str) -> Mapping[str, _Part]:
    """Return the processes. The SuperLink is called `host` and listens at `listen`; `hub` is one hub."""
    folder, port = federation.folder, federation.settings.port
    authority, witness = str(federation.certificate), federation.witness_socket
    tls, keys, state, sockets = folder / "tls", folder / "keys", folder / "state", folder / "sockets" / hub
    enrolment, node_key = folder / "authority" / "authority.pub", folder / "nodes" / f"{hub}.key"
    register = folder / "authority" / REGISTER
    link = ("--root-certificates", authority)
    store: tuple[str, ...] = () if "://" in federation.store else (federation.store,)
    leader: tuple[str, ...] = ()
    if federation.helper is not None:
        leader = (f"{keys}/leader.key", str(federation.helper))
        store += () if "://" in federation.leader else (str(Path(federation.leader).parent),)
    parts = {
        "superlink": _Part(
            "SuperLink",
            "superlink",
            (
                *("python", "-m", "fa_core.flower.superlink", "--ssl-ca-certfile", authority),
                *("--ssl-certfile", f"{tls}/server.crt", "--ssl-keyfile", f"{tls}/server.key"),
                *("--host", listen, "--port", str(port), "--database", f"{state}/superlink.db"),
                *("--isolation", "process", "--enable-supernode-auth"),
                *("--superexec-auth-secret-file", f"{state}/superexec.secret"),
                "--disable-runtime-dependency-installation",
            ),
            reads=(authority, f"{tls}/server.crt", f"{tls}/server.key"),
            writes=(str(state),),
        ),
        "superexec": _Part(
            "SuperExec, which starts the aggregator of each run",
            "aggregator",
            (
                *("flower-superexec", *link, "--runtime-api-address", f"{host}:{port}"),
                *("--superexec-auth-secret-file", f"{keys}/superexec.secret"),
            ),
            reads=(
                *(authority, f"{keys}/log.key", f"{keys}/superexec.secret", str(enrolment)),
                *(f"{folder}/runs", str(witness.parent), *leader),
            ),
            writes=store,
            meets=True,
            after="unheard-superlink.service",
        ),
        "witness": _Part(
            "the witness, run by the holder of the enrolment authority, never by the aggregator",
            "witness",
            (
                *("fa", "witness", "serve", f"{folder}/witness", "--socket", str(witness)),
                *("--authority", str(enrolment), "--log", f"{keys}/log.pub"),
                *("--devices", str(register)),
            ),
            reads=(str(enrolment), f"{keys}/log.pub", str(register)),
            writes=(f"{folder}/witness", str(witness.parent)),
            meets=True,
        ),
        "node": _Part(
            f"SuperNode {hub}, which relays and knows a socket only",
            "relay",
            (
                *("python", "-m", "fa_core.flower.supernode", *link, "--superlink", f"{host}:{port}"),
                *("--auth-supernode-private-key", str(node_key)),
                *("--node-config", f'socket="{sockets}/device.sock" devices=1'),
            ),
            reads=(authority, str(node_key), str(sockets)),
            after=f"unheard-device@{hub}.service",
        ),
        "device": _Part(
            f"the devices of hub {hub}, behind their socket",
            "device",
            ("fa", "device", "serve", "--hub", f"{folder}/hubs/{hub}"),
            writes=(f"{folder}/hubs/{hub}", str(sockets)),
        ),
    }
    if federation.helper is not None:
        parts["helper"] = _Part(
            "the helper of sums by two aggregators, run by the witness's operator, never by the aggregator",
            "helper",
            ("fa", "helper", "serve", str(federation.helper_folder)),
            reads=(str(witness.parent),),
            writes=(str(federation.helper_folder),),
            meets=True,
            after="unheard-witness.service",
        )
    return parts


def _unit(part: _Part) -> str:
    environment = "\n".join(f"Environment={name}={value}" for name, value in ENVIRONMENT.items())
    group = "unheard-sockets" if part.meets else f"unheard-{part.user}"
    seen = "".join(f"BindReadOnlyPaths={path}\n" for path in part.reads)
    seen += "".join(f"BindPaths={path}\n" for path in part.writes)
    return (
        f"[Unit]\nDescription=Unheard: {part.what}\nAfter={part.after}\nWants={part.after}\n"
        f"StartLimitIntervalSec=0\n\n[Service]\nUser=unheard-{part.user}\nGroup={group}\n"
        f"ExecStart={PROGRAMS}/{shlex.join(part.command)}\nTemporaryFileSystem={INSTALLED}:ro\n{seen}"
        f"Environment=PATH={PROGRAMS}:/usr/bin\n{environment}\n{_HARDENED}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def compose(federation: Federation) -> str:
    """Return a compose file: the same processes, each in a container of an image with the wheel installed."""
    port = federation.settings.port
    services = []
    for name, part in _parts(federation, "superlink", "0.0.0.0", node_name(0)).items():  # noqa: S104
        service = f"{name}-00" if name in _MANY else name
        group = SOCKETS if part.meets else USERS[part.user]
        lists = {
            "volumes": [f"{path}:{path}:ro" for path in part.reads]
            + [f"{path}:{path}" for path in part.writes],
            "ports": [f"127.0.0.1:{port}:{port}"] if name == "superlink" else [],
        }
        services.append(
            f'  {service}:\n    <<: *process\n    user: "{USERS[part.user]}:{group}"\n'
            f"    command: {_literal(part.command)}\n"
            + "".join(
                f"    {key}:\n" + "".join(f"      - {_literal(each)}\n" for each in values)
                for key, values in lists.items()
                if values
            )
        )
    quiet = "".join(f"    {name}: {_literal(value)}\n" for name, value in ENVIRONMENT.items())
    users = "".join(f"#   {number}  unheard-{user}\n" for user, number in USERS.items())
    return f"""\
# The image `unheard` holds the wheel. `superlink` must be a name in tls/server.crt, and resolve to this
# machine for users who launch runs: `fa federation init DIR --host superlink`, and `127.0.0.1 superlink` in
# /etc/hosts. Add a device and a node for each hub.
#
# Each service has a user of its own, who must own its files: without capabilities not even root reads files
# of another user. `sh owners.sh`, beside this file, is run once as root, and again for each new hub. It
# changes the owners (chown) of keys and folders to these numbers:
#
{users}#   {SOCKETS}  unheard-sockets, the group in which the aggregator reaches the witness's socket
#
# A run's configuration names files by the host's paths, so these are the containers' as well.
x-process: &process
  image: unheard
  restart: always
  init: true
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: [no-new-privileges:true]
  environment:
{quiet}
services:
""" + "\n".join(services)


def _literal(value: object) -> str:
    """Return a value as compose reads it: JSON is YAML, and a dollar sign stands for itself when doubled."""
    return json.dumps(value).replace("$", "$$")


def owners() -> str:
    """Return the script that makes the users and gives each of them what is its own."""
    names = "\n".join(f"user unheard-{user} {number}" for user, number in USERS.items())
    superlink, aggregator, witness, relay, device, helper = USERS.values()
    return f"""\
#!/bin/sh
# Once, as root, on every machine that has parts of the federation's directory, and again for each new hub:
# makes the users and gives each its own. What is not on this machine is left out.
set -eu
cd "$(dirname "$0")/.."

user() {{  # NAME NUMBER
    getent group "$1" >/dev/null || groupadd --gid "$2" "$1"
    id "$1" >/dev/null 2>&1 || useradd --no-create-home --shell /usr/sbin/nologin --uid "$2" --gid "$2" "$1"
    [ "$(id -u "$1")" = "$2" ] || {{ echo "$1 must have the number $2" >&2; exit 1; }}
}}
getent group unheard-sockets >/dev/null || groupadd --gid {SOCKETS} unheard-sockets
{names}

own() {{  # USER:GROUP MODE PATH...; without USER:GROUP its owner stays
    who=$1 mode=$2
    shift 2
    for path; do
        if [ -e "$path" ]; then
            [ -z "$who" ] || chown -R "$who" "$path"
            chmod "$mode" "$path"
        fi
    done
}}
for hub in hubs/*/; do
    [ ! -d "$hub" ] || mkdir -p "sockets/$(basename "$hub")"
done
[ ! -e keys/log.key ] || mkdir -p store leader
[ ! -e keys/superexec.secret ] || install -m 600 keys/superexec.secret state/superexec.secret

# The aggregator launches runs, and finds its files below these. No path leads through a folder of another
# user: what is named there might be a link.
own "" 711 . tls
own "" 644 federation.toml tls/*.crt authority/authority.pub keys/log.pub keys/leader.pub keys/helper.json

own {superlink}:{superlink} 700 state
own {superlink}:{superlink} 600 tls/server.key
own {aggregator}:{aggregator} 700 runs store leader
own {aggregator}:{aggregator} 600 keys/log.key keys/leader.key keys/superexec.secret
own {witness}:{witness} 700 witness
own {witness}:{witness} 600 authority/devices.csv
own {witness}:{SOCKETS} 750 run
own {relay}:{relay} 600 nodes/*.key
own {helper}:{helper} 700 helper
own {device}:{device} 700 hubs/*
own {device}:{device} 755 sockets/*
"""
