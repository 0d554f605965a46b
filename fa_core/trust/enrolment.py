"""The enrolment authority: whose key admits a device to the fleet. It is never the aggregator.

The authority is a directory: `authority.key` (Ed25519, private), `authority.pub`, and `devices.csv`, the
register of what was certified: the device's key, a name, its population and its owner. A device makes its own
key; only the public half comes here. The owner stands in no certificate, since it would link the devices of a
household for the server; the witness reads the register. Key and register are readable by their owner only.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.secagg.identity import DeviceIdentity, certificate_message, population_id

REGISTER = "devices.csv"
_KEY, _PUBLIC = "authority.key", "authority.pub"


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

    def certify(self, device: bytes, population: str) -> bytes:
        """The certificate, 96 bytes, of a device's Ed25519 public key (32 bytes) for a population."""
        if len(device) != 32:
            raise BadInput(f"a device's public key has 32 bytes, this one {len(device)}")
        name = population_id(population)
        return name + self.key.sign(certificate_message(device, name))

    def enrol(self, population: str) -> DeviceIdentity:
        """A fresh device key with its certificate."""
        key = Ed25519PrivateKey.generate()
        return DeviceIdentity(key, self.certify(key.public_key().public_bytes_raw(), population))


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One line of the register.

    Attributes:
        device: Ed25519 public key, 32 bytes. name: what the register calls it.
        population: whose budget is charged. owner: who holds the device; one owner may hold many.
    """

    device: bytes
    name: str
    population: str
    owner: str


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
    (directory / REGISTER).touch(mode=0o600)
    return authority


def load(directory: Path) -> Authority:
    """The authority that `create` made in `directory`. BadInput if there is none."""
    return Authority(read_key(directory / _KEY))


def register(directory: Path, device: Enrolled) -> bytes:
    """Certify a device and write it into the register, once. The certificate; the same for the same key."""
    return certify_all(directory, [device])[0]


def certify_all(directory: Path, devices: Sequence[Enrolled]) -> list[bytes]:
    """Certify devices, and write those that are new into the register.

    Raises BadInput for a device that is registered in another population: its events would be charged twice.
    """
    authority, known = load(directory), {each.device: each for each in registered(directory)}
    for each in devices:
        before = known.get(each.device)
        if before is not None and before.population != each.population:
            raise BadInput(
                f"device {each.device.hex()[:12]} is registered in population {before.population!r}; "
                f"it cannot be certified for {each.population!r} as well"
            )
    rows = [
        [each.device.hex(), each.name, each.population, each.owner]
        for each in devices
        if each.device not in known
    ]
    with open(directory / REGISTER, "a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return [authority.certify(each.device, each.population) for each in devices]


def registered(directory: Path) -> list[Enrolled]:
    """Every device in the register. BadInput for a line that is none."""
    return read_register(directory / REGISTER)


def read_register(path: Path) -> list[Enrolled]:
    """Every device in a register; none where there is no file. BadInput for a line that is no device."""
    if not path.exists():
        return []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: this is no register of devices: {error}") from None
    for number, row in enumerate(rows, start=1):
        if len(row) != 4:
            raise BadInput(f"{path}:{number}: expected a device's key, a name, a population and an owner")
    return [Enrolled(parse_hex(key), name, population, owner) for key, name, population, owner in rows]


class Owners:
    """Who owns a device, by a register that is read again when it has changed.

    Devices that are not in it count as one owner's: nobody says that they are not.
    """

    def __init__(self, register: Path) -> None:
        self._register = register
        self._read: tuple[int, int] | None = None
        self._owners: dict[bytes, str] = {}

    def __call__(self, device: bytes) -> str:
        """Return the owner of a device (32 bytes), "" where the register does not have it."""
        if device not in self._owners:
            self._reread()
        return self._owners.get(device, "")

    def _reread(self) -> None:
        try:
            found = self._register.stat()
        except OSError as error:
            raise BadInput(f"{self._register}: cannot be read: {error.strerror}") from None
        if self._read != (found.st_mtime_ns, found.st_size):
            self._owners = {each.device: each.owner for each in read_register(self._register)}
            self._read = (found.st_mtime_ns, found.st_size)
