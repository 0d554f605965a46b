"""The folder of a new helper: `helper.toml`, its key, the keys that it trusts, a first TLS key."""

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.collection.exchange import HelperAddress
from fa_core.errors import BadInput
from fa_core.federation.certificates import make_tls, write_private
from fa_core.gateway.settings import address
from fa_core.helper_service.settings import ADDRESS, CONFIG, KEY, Home, read_home
from fa_core.trust.enrolment import read_hex, write_key

TEXT = """\
# A helper of sums by two aggregators: `fa helper serve` runs it, beside the witness, never beside the leader.
name = "{name}"       # the host and port that the leader connects to
listen = "{listen}"
socket = "{socket}"   # the witness's
authority = "authority.pub"       # the keys that it trusts
log = "log.pub"
witness = "witness.pub"
leader = "leader.pub"
database = "helper.db"            # a file, or postgresql://…; never the leader's
certificate = "server.crt"        # TLS, PEM; helper.json has the authority that signed it
key = "server.key"
workers = 1                       # processes that answer; more than one share a PostgreSQL
"""


def init(folder: Path, name: str, trusted: Mapping[str, Path], socket: Path) -> Home:
    """Make a helper's folder. Raises BadInput where there is one, or what was given is wrong.

    Args:
        name: HOST:PORT. trusted: files of the public keys `authority`, `log`, `witness` and `leader`.
        socket: the witness's, absolute or from the helper's folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty; a helper is made in a folder of its own")
    keys = {each: read_hex(path) for each, path in trusted.items()}
    try:
        host, port = address(name)
    except ValueError:
        host, port = "", 0
    where = str(socket)
    if not host or '"' in where or "\\" in where:
        raise BadInput("the helper's name is HOST:PORT, as its leader connects to it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    listen = "127.0.0.1" if host in ("localhost", "127.0.0.1") else "0.0.0.0"  # noqa: S104 - as it is named
    text = TEXT.format(name=name, listen=f"{listen}:{port}", socket=where)
    write_private(folder / CONFIG, text.encode())
    try:
        home = read_home(folder)
    except BadInput:
        (folder / CONFIG).unlink()
        folder.rmdir()
        raise
    key = Ed25519PrivateKey.generate()
    write_key(folder / KEY, key)
    for each, public in keys.items():
        (folder / f"{each}.pub").write_text(public.hex() + "\n", encoding="ascii")
    make_tls(folder, "helper", host)
    authority = (folder / "ca.crt").read_text("ascii")
    shown = HelperAddress(name, key.public_key().public_bytes_raw(), authority)
    (folder / ADDRESS).write_text(shown.encode(), encoding="ascii")
    return home
