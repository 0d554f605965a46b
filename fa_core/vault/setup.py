"""The folder of a new vault: `vault.toml`, its keys, an empty file, an empty key store, a first TLS key."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.federation.certificates import make_tls, write_private
from fa_core.gateway.settings import address
from fa_core.trust.enrolment import read_hex, write_key
from fa_core.vault import database
from fa_core.vault.settings import CONFIG, KEY, PUBLIC, Home, read_home
from fa_core.vault.wraps import Wraps

TEXT = """\
# A vault of Unheard for donated samples: `fa vault serve` runs it.
name = "{name}"       # the host and port that devices and reviewers connect to
listen = "{listen}"
authority = "authority.pub"       # whose signature donation requests need
requests = "requests"             # the donation requests that are served, *.json
wraps = "wraps"                   # the key store: never back it up, best on a disk of its own
certificate = "server.crt"        # TLS, PEM; `ca.crt` signed it, which devices and reviewers are given
key = "server.key"

[log]                             # the transparency log that every access is entered in
store = "{store}"
# key = "log.key"                 # with both, each entry is under a cosigned checkpoint at once
# witness = "witness.sock"

[limits]
samples = 2000
"""


def init(folder: Path, name: str, authority: Path, store: str) -> Home:
    """Make a vault's folder. Raises BadInput where there is one, or what was given is wrong."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty; a vault is made in a folder of its own")
    public = read_hex(authority)
    try:
        host, port = address(name)
    except ValueError:
        host, port = "", 0
    if not host or '"' in store or "\\" in store:
        raise BadInput(
            "the vault's name is HOST:PORT, as others connect to it; the log's store a folder or URL"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    where = store if "://" in store else str(Path(store).resolve())
    write_private(folder / CONFIG, TEXT.format(name=name, listen=f"0.0.0.0:{port}", store=where).encode())
    try:
        home = read_home(folder)
    except BadInput:
        (folder / CONFIG).unlink()
        folder.rmdir()
        raise
    key = Ed25519PrivateKey.generate()
    own = key.public_key().public_bytes_raw()
    write_key(folder / KEY, key)
    (folder / PUBLIC).write_text(own.hex() + "\n", encoding="ascii")
    (folder / "authority.pub").write_text(public.hex() + "\n", encoding="ascii")
    (folder / home.settings.requests).mkdir(mode=0o700)
    Wraps.make(folder / home.settings.wraps, own)
    database.create(folder / database.FILE)
    (folder / database.FILE).chmod(0o600)
    make_tls(folder, "vault", host)
    return home
