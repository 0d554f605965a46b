"""The folder of a new gateway: `gateway.toml`, the enrolment authority's public key, and a first TLS key."""

from pathlib import Path

from fa_core.errors import BadInput
from fa_core.federation.certificates import make_tls, write_private
from fa_core.federation.directory import socket_path
from fa_core.gateway.settings import CONFIG, Home, address, read_home
from fa_core.trust.enrolment import read_hex

TEXT = """\
# A gateway of Unheard: `fa gateway serve` runs it.
name = "{name}"       # the host and port that devices connect to; they sign it
listen = "{listen}"
operations = "127.0.0.1:9464"     # health, readiness and metrics, for the operator alone
database = "{database}"           # a file, for one worker; or postgresql://…
authority = "authority.pub"       # whose certificates admit devices
certificate = "server.crt"        # TLS, PEM; `ca.crt` signed it, which devices are given
key = "server.key"
published = "published"           # what `fa model publish` and `fa rollout` write, for devices to fetch
workers = {workers}

[cohort]
window_seconds = 20.0             # how long devices may join
minimum = 3                       # of fewer, none is passed on
maximum = 10000                   # for each node

[relay]
socket = "gateway.sock"           # the node's configuration names it: gateway="…/gateway.sock"
relays = []                       # user ids of SuperNodes that may use it; put it where they reach it
"""


def init(folder: Path, name: str, authority: Path, database: str, workers: int) -> Home:
    """Make a gateway's folder. Raises BadInput where there is one, or what was given is wrong."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty; a gateway is made in a folder of its own")
    public = read_hex(authority)
    try:
        host, port = address(name)
    except ValueError:
        raise BadInput(f"{name}: the gateway's name is HOST:PORT, as devices connect to it") from None
    if not host or '"' in database or "\\" in database:
        raise BadInput("the gateway's name is HOST:PORT, its database a file or postgresql://…")
    socket_path(folder.resolve() / "gateway.sock")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # also one that was there: devices' replies will be in it
    text = TEXT.format(name=name, listen=f"0.0.0.0:{port}", database=database, workers=workers)
    write_private(folder / CONFIG, text.encode())
    (folder / "authority.pub").write_text(public.hex() + "\n", encoding="ascii")
    make_tls(folder, "gateway", host)
    try:
        return read_home(folder)
    except BadInput:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        raise
