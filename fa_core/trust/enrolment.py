"""The enrolment authority: whose key admits a device to the fleet. It is never the aggregator.

The authority is a directory: `authority.key` (Ed25519, private, readable by its owner only),
`authority.pub`, and `devices.csv`, the register of what was certified. A device makes its own key; only the
public half comes here.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.secagg.identity import DeviceIdentity, certificate_message

_KEY, _PUBLIC, _REGISTER = "authority.key", "authority.pub", "devices.csv"


@dataclass(frozen=True)
class Authority:
    """A signing key. `certify` admits a device; `enrol` makes its key too, for a simulated fleet."""

    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "Authority":
        """A new authority, in memory only: the local engine's."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public_key(self) -> bytes:
        """32 bytes, which devices hold as `Trust.authority`."""
        return self.key.public_key().public_bytes_raw()

    def certify(self, device: bytes) -> bytes:
        """The certificate, 64 bytes, of a device's Ed25519 public key of 32 bytes."""
        if len(device) != 32:
            raise BadInput(f"a device's public key has 32 bytes, this one {len(device)}")
        return self.key.sign(certificate_message(device))

    def enrol(self) -> DeviceIdentity:
        """A fresh device key with its certificate."""
        key = Ed25519PrivateKey.generate()
        return DeviceIdentity(key, self.certify(key.public_key().public_bytes_raw()))


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """A private key as 64 hexadecimal digits, readable by its owner only. BadInput if the file is there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadInput(f"{path} exists already; a key is never overwritten") from None
    with os.fdopen(handle, "w") as file:
        file.write(key.private_bytes_raw().hex() + "\n")


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key that `write_key` wrote. BadInput if it is not one."""
    return Ed25519PrivateKey.from_private_bytes(read_hex(path))


def read_hex(path: Path) -> bytes:
    """32 bytes written as 64 hexadecimal digits. BadInput if the file is missing or holds anything else."""
    try:
        return parse_hex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, BadInput):
        raise BadInput(f"{path}: expected a key, 64 hexadecimal digits") from None


def parse_hex(text: str) -> bytes:
    """32 bytes from 64 hexadecimal digits. BadInput for anything else."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise BadInput("expected a key, 64 hexadecimal digits")
    return data


def create(directory: Path) -> Authority:
    """A new authority in `directory`. BadInput if there is one already."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority.generate()
    write_key(directory / _KEY, authority.key)
    (directory / _PUBLIC).write_text(authority.public_key.hex() + "\n", encoding="ascii")
    return authority


def load(directory: Path) -> Authority:
    """The authority that `create` made in `directory`. BadInput if there is none."""
    return Authority(read_key(directory / _KEY))


def register(directory: Path, device: bytes, name: str) -> bytes:
    """Certify a device and write it into the register, once. The certificate; the same for the same key."""
    return certify_all(directory, [(device, name)])[0]


def certify_all(directory: Path, devices: Sequence[tuple[bytes, str]]) -> list[bytes]:
    """Certify devices, each a public key and a name, and write those that are new into the register."""
    authority, known = load(directory), {key for key, _ in registered(directory)}
    certificates = [authority.certify(device) for device, _ in devices]
    rows = [[device.hex(), name] for device, name in devices if device not in known]
    with open(directory / _REGISTER, "a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return certificates


def registered(directory: Path) -> list[tuple[bytes, str]]:
    """(public key, name) of every device in the register. BadInput for a line that is none."""
    path = directory / _REGISTER
    if not path.exists():
        return []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: this is no register of devices: {error}") from None
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise BadInput(f"{path}:{number}: expected a device's key and a name")
    return [(parse_hex(key), name) for key, name in rows]
