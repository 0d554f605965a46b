"""What an operator installs: systemd units, and a compose file with the same processes and users.

Five users, so that none can look at what another keeps: the aggregator (SuperLink and SuperExec), the
witness, the relay (SuperNode) and the device. Telemetry, update checks and installs at run time are off.
"""

from fa_core.federation.directory import Federation
from fa_core.federation.processes import QUIET

HOME = "/etc/unheard"
STATE = "/var/lib/unheard"
RUN = "/run/unheard"
PROGRAMS = "/opt/unheard/bin"

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
RestartSec=2
RestartMaxDelaySec=60
RestartSteps=5
"""


def write_units(federation: Federation) -> None:
    """Write the systemd units and compose.yaml into `units/`."""
    for name, text in {**units(federation), "compose.yaml": compose(federation)}.items():
        (federation.folder / "units" / name).write_text(text, encoding="utf-8")


def units(federation: Federation) -> dict[str, str]:
    """Return the units: name to text. Paths are an installation's, not this directory's."""
    host, port = federation.settings.host, federation.settings.port
    link = f"--root-certificates {HOME}/tls/ca.crt"
    secret = f"--superexec-auth-secret-file {HOME}/keys/superexec.secret"
    return {
        "unheard-superlink.service": _unit(
            "Unheard: SuperLink",
            "unheard-aggregator",
            f"{PROGRAMS}/python -m fa_core.superlink --ssl-ca-certfile {HOME}/tls/ca.crt "
            f"--ssl-certfile {HOME}/tls/server.crt --ssl-keyfile {HOME}/tls/server.key "
            f"--host {host} --port {port} --database {STATE}/superlink.db --isolation process "
            f"--enable-supernode-auth {secret} --disable-runtime-dependency-installation",
        ),
        "unheard-superexec.service": _unit(
            "Unheard: SuperExec, which starts the aggregator of each run",
            "unheard-aggregator",
            f"{PROGRAMS}/flower-superexec {link} --runtime-api-address {host}:{port} {secret}",
            after="unheard-superlink.service",
        ),
        "unheard-witness.service": _unit(
            "Unheard: the witness; run it beside the enrolment authority, never on the aggregator's machine",
            "unheard-witness",
            f"{PROGRAMS}/fa witness serve {STATE}/witness --socket {RUN}/witness.sock "
            f"--authority {HOME}/authority.pub --log {HOME}/log.pub",
        ),
        "unheard-node@.service": _unit(
            "Unheard: SuperNode %i, which relays and knows a socket only",
            "unheard-relay",
            f"{PROGRAMS}/flower-supernode {link} --superlink {host}:{port} "
            f"--auth-supernode-private-key {HOME}/nodes/%i.key "
            f"--node-config 'socket=\"{RUN}/%i.sock\" devices=1'",
            after="unheard-device@%i.service",
        ),
        "unheard-device@.service": _unit(
            "Unheard: the devices of hub %i, behind their socket",
            "unheard-device",
            f"{PROGRAMS}/fa device serve --hub {STATE}/hubs/%i",
        ),
    }


def _unit(what: str, user: str, command: str, after: str = "network-online.target") -> str:
    quiet = "\n".join(f"Environment={name}={value}" for name, value in QUIET.items())
    return (
        f"[Unit]\nDescription={what}\nAfter={after}\nWants={after}\nStartLimitIntervalSec=0\n\n"
        f"[Service]\nUser={user}\nExecStart={command}\nStateDirectory=unheard\nRuntimeDirectory=unheard\n"
        f"RuntimeDirectoryPreserve=yes\nEnvironment=PATH={PROGRAMS}:/usr/bin\n"
        f"Environment=FLWR_HOME={STATE}/flwr-{user}\n{quiet}\n{_HARDENED}\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def compose(federation: Federation) -> str:
    """Return a compose file: the same processes, each in a container of an image with the wheel installed."""
    port = federation.settings.port
    quiet = "\n".join(f'    {name}: "{value}"' for name, value in QUIET.items())
    services = []
    for name, command, mounts in (
        (
            "superlink",
            "python -m fa_core.superlink --ssl-ca-certfile /tls/ca.crt --ssl-certfile /tls/server.crt "
            f"--ssl-keyfile /tls/server.key --host 0.0.0.0 --port {port} --database /state/superlink.db "
            "--isolation process --enable-supernode-auth "
            "--superexec-auth-secret-file /keys/superexec.secret --disable-runtime-dependency-installation",
            ("../tls/ca.crt:/tls/ca.crt:ro", "../tls/server.crt:/tls/server.crt:ro",
             "../tls/server.key:/tls/server.key:ro", "../keys/superexec.secret:/keys/superexec.secret:ro",
             "superlink:/state"),
        ),
        (
            "superexec",
            "flower-superexec --root-certificates /tls/ca.crt "
            f"--runtime-api-address superlink:{port} --superexec-auth-secret-file /keys/superexec.secret",
            ("../tls/ca.crt:/tls/ca.crt:ro", "../keys/log.key:/keys/log.key:ro",
             "../keys/superexec.secret:/keys/superexec.secret:ro", "../runs:/runs:ro", "store:/store",
             "witness-socket:/run/witness"),
        ),
        (
            "witness",
            "fa witness serve /witness --socket /run/witness/witness.sock --authority /authority.pub "
            "--log /log.pub",
            ("../witness:/witness", "../authority/authority.pub:/authority.pub:ro",
             "../keys/log.pub:/log.pub:ro", "witness-socket:/run/witness"),
        ),
        (
            "device-00",
            "fa device serve --hub /hub",
            ("../hubs/node-00:/hub", "device-00-socket:/run/device"),
        ),
        (
            "node-00",
            f"flower-supernode --root-certificates /tls/ca.crt --superlink superlink:{port} "
            "--auth-supernode-private-key /node.key --node-config "
            "'socket=\"/run/device/device.sock\" devices=1'",
            ("../tls/ca.crt:/tls/ca.crt:ro", "../nodes/node-00.key:/node.key:ro",
             "device-00-socket:/run/device"),
        ),
    ):  # fmt: skip
        volumes = "".join(f'\n      - "{mount}"' for mount in mounts)
        services.append(
            f"  {name}:\n    <<: *process\n    command: >-\n      {command}\n    volumes:{volumes}\n"
        )
    return (
        "# The image `unheard` holds the wheel. `superlink` must be a name in tls/server.crt:\n"
        "# `fa federation init DIR --host superlink`. Add a device and a node for each hub.\n"
        "x-process: &process\n  image: unheard\n  restart: always\n  init: true\n  read_only: true\n"
        "  tmpfs: [/tmp]\n  cap_drop: [ALL]\n  security_opt: [no-new-privileges:true]\n  environment:\n"
        f'    FLWR_HOME: "/tmp/flwr"\n{quiet}\n\nservices:\n'
        + "\n".join(services)
        + "\nvolumes:\n  superlink:\n  store:\n  witness-socket:\n  device-00-socket:\n"
    )
