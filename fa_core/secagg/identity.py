"""Who may take part: device keys certified by the enrolment authority, and round keys signed by devices.

A device *is* its Ed25519 public key. The authority, which is not the aggregator, signs that key once, with
the population whose privacy budget pays for what the device answers; the device signs two fresh X25519 keys
for each round. Together they are a `record` of 256 bytes: the leaf of the roster's Merkle tree.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.secagg.keys import KEY_SIZE, usable
from fa_core.secagg.task import label

SIGNATURE_SIZE = 64
POPULATION_SIZE = 32
CERTIFICATE_SIZE = POPULATION_SIZE + SIGNATURE_SIZE
RECORD_SIZE = 3 * KEY_SIZE + CERTIFICATE_SIZE + SIGNATURE_SIZE


@dataclass(frozen=True)
class Trust:
    """What a device believes in: two Ed25519 public keys (32 bytes each) and its own smallest cohort."""

    authority: bytes
    witness: bytes
    min_devices: int = 1


@dataclass(frozen=True)
class DeviceIdentity:
    """A device's long-lived signing key and the authority's certificate (96 bytes) for it."""

    key: Ed25519PrivateKey = field(repr=False)
    certificate: bytes

    @property
    def device(self) -> bytes:
        """The public key, 32 bytes, by which the device is known."""
        return self.key.public_key().public_bytes_raw()

    @property
    def population(self) -> bytes:
        """The population that the certificate names, as `population_id` gives it, 32 bytes."""
        return self.certificate[:POPULATION_SIZE]


@dataclass(frozen=True)
class Record:
    """One device's certified keys for one round: `share_key` seals shares, `mask_key` agrees on masks."""

    device: bytes
    certificate: bytes
    share_key: bytes
    mask_key: bytes
    signature: bytes

    def encode(self) -> bytes:
        """The 256 bytes that are hashed into the roster."""
        return self.device + self.certificate + self.share_key + self.mask_key + self.signature

    @staticmethod
    def decode(data: bytes) -> "Record":
        """The record of 256 bytes. ValueError for another length; nothing else is checked."""
        return _decode(data)

    def valid(self, session: bytes, authority: bytes, population: bytes) -> bool:
        """Whether the authority certified the device for this population (32 bytes), the device signed the
        keys, and the keys are usable."""
        return _valid(self, session, authority, population)


@lru_cache(maxsize=1 << 14)
def _decode(data: bytes) -> Record:
    if len(data) != RECORD_SIZE:
        raise ValueError(f"a record has {RECORD_SIZE} bytes")
    return Record(data[:32], data[32:128], data[128:160], data[160:192], data[192:])


@lru_cache(maxsize=1 << 14)
def _valid(record: Record, session: bytes, authority: bytes, population: bytes) -> bool:
    return (
        signed(record.signature, _keys_message(session, record.share_key, record.mask_key), record.device)
        and record.certificate[:POPULATION_SIZE] == population
        and certified(record.device, record.certificate, authority)
        and usable(record.share_key)
        and usable(record.mask_key)
    )


def population_id(name: str) -> bytes:
    """The 32 bytes by which certificates and tasks name a population."""
    return sha256(label("population") + name.encode()).digest()


def certificate_message(device: bytes, population: bytes) -> bytes:
    """What the authority signs to admit a device (32 bytes) to a population (32 bytes)."""
    return label("device certificate") + population + device


def certified(device: bytes, certificate: bytes, authority: bytes) -> bool:
    """Whether a certificate is the authority's for this device, whatever population it names."""
    population, signature = certificate[:POPULATION_SIZE], certificate[POPULATION_SIZE:]
    return len(certificate) == CERTIFICATE_SIZE and signed(
        signature, certificate_message(device, population), authority
    )


def make_record(identity: DeviceIdentity, session: bytes, share_key: bytes, mask_key: bytes) -> Record:
    """The identity's signed record of two fresh round keys (public, 32 bytes each)."""
    signature = identity.key.sign(_keys_message(session, share_key, mask_key))
    return Record(identity.device, identity.certificate, share_key, mask_key, signature)


@lru_cache(maxsize=1 << 16)
def signed(signature: bytes, message: bytes, public: bytes) -> bool:
    """Whether the Ed25519 `signature` on `message` is by `public`; False for a public key that is no point.

    Remembered with its arguments, since a hub or a simulation checks the same public signature for each of
    its devices: not for messages of any length, nor for what a stranger may send as often as he likes.
    """
    return verifies(signature, message, public)


def verifies(signature: bytes, message: bytes, public: bytes) -> bool:
    """As `signed`, and nothing is remembered."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _keys_message(session: bytes, share_key: bytes, mask_key: bytes) -> bytes:
    return label("round keys") + session + share_key + mask_key
