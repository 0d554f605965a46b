"""Where the key of a device's store comes from: a keystore, a key file, or the environment. Never the store.

The key is 32 random bytes, used by SQLCipher as it is (no passphrase, so no stretching). It is refused
wherever another user of the machine could read it.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import keyring
from keyring.backend import KeyringBackend
from keyring.backends.chainer import ChainerBackend

from fa_core.errors import BadInput, Refused

KEY_BYTES = 32
ENVIRONMENT = "UNHEARD_STORE_KEY"
KEYRING_SERVICE = "unheard"

PROTECTED_KEYRINGS = frozenset(
    {
        "keyring.backends.SecretService",
        "keyring.backends.libsecret",
        "keyring.backends.kwallet",
        "keyring.backends.macOS",
        "keyring.backends.Windows",
    }
)
"""Backends that keep secrets in the operating system's keystore. Others write them where files are read."""

KeySource = Literal["file", "keyring", "environment"]


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The key of one store. It does not show itself in a repr."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise BadInput(f"a store key is {KEY_BYTES} bytes; this one is {len(self.secret)}")


def new_key() -> StoreKey:
    """Return a fresh key from the operating system's randomness."""
    return StoreKey(secrets.token_bytes(KEY_BYTES))


def load_key(source: KeySource, path: Path, name: str) -> StoreKey:
    """Return the key from `source`: the file `path`, the keyring entry `name`, or the environment."""
    if source == "file":
        return key_from_file(path)
    if source == "keyring":
        return key_from_keyring(name)
    return key_from_environment(os.environ)


def create_key(source: KeySource, path: Path, name: str) -> StoreKey:
    """Make a new key in `source` and return it; an environment's key is only read. Never replaces one."""
    if source == "environment":
        return key_from_environment(os.environ)
    key = new_key()
    if source == "file":
        write_key_file(path, key)
        return key
    backend = protected_keyring(keyring.get_keyring())
    if backend.get_password(KEYRING_SERVICE, name) is not None:
        raise Refused(f"the keyring already holds a key for {name}; a store may still need it")
    backend.set_password(KEYRING_SERVICE, name, key.secret.hex())
    return key


def key_from_environment(environ: Mapping[str, str]) -> StoreKey:
    """Return the key in `UNHEARD_STORE_KEY`, 64 hexadecimal digits."""
    text = environ.get(ENVIRONMENT)
    if text is None:
        raise BadInput(f"no store key: {ENVIRONMENT} is not set (64 hexadecimal digits)")
    return _parse(text, ENVIRONMENT)


def key_from_file(path: Path) -> StoreKey:
    """Return the key in a file of mode 0600 (or stricter) that belongs to this user and is no link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"the key file {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f"the key file {path} is not a regular file")
        if facts.st_uid != os.geteuid():
            raise Refused(f"the key file {path} belongs to another user; it must be this user's own")
        if facts.st_mode & 0o077:
            mode = stat.S_IMODE(facts.st_mode)
            raise Refused(f"the key file {path} has mode {mode:04o}; others could read it, it must be 0600")
        text = file.read(4 * KEY_BYTES)
    return _parse(text, f"the key file {path}")


def write_key_file(path: Path, key: StoreKey) -> None:
    """Write a new key file of mode 0600. Raises Refused where one is there: it may be a store's only key."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Refused(f"the key file {path} exists; a store may still need it") from None
    except OSError as error:
        raise BadInput(f"the key file {path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(key.secret.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def key_from_keyring(name: str) -> StoreKey:
    """Return the key of `name` from the operating system's keystore; other keyrings are refused by name."""
    text = protected_keyring(keyring.get_keyring()).get_password(KEYRING_SERVICE, name)
    if text is None:
        raise BadInput(f"the keyring holds no key for {name}")
    return _parse(text, f"the keyring's entry for {name}")


def protected_keyring(backend: KeyringBackend) -> KeyringBackend:
    """Return `backend` if the operating system guards it, else raise Refused with its name.

    A chain of backends is only as good as its weakest, since it writes to whichever answers first.
    """
    parts = list(backend.backends) if isinstance(backend, ChainerBackend) else [backend]
    for part in parts:
        if type(part).__module__ not in PROTECTED_KEYRINGS:
            raise Refused(
                f"the keyring {type(part).__module__}.{type(part).__qualname__} is not a keystore of the "
                f"operating system; use a key file of mode 0600 or {ENVIRONMENT} instead"
            )
    if not parts:
        raise Refused(f"no keystore is here; use a key file of mode 0600 or {ENVIRONMENT} instead")
    return backend


def _parse(text: str, where: str) -> StoreKey:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        raise BadInput(f"{where} is not a store key: 64 hexadecimal digits are") from None
    if len(secret) != KEY_BYTES:
        raise BadInput(f"{where} is not a store key: 64 hexadecimal digits are, {2 * len(secret)} were found")
    return StoreKey(secret)
