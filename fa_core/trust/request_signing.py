"""How a device proves to a gateway, with each request, that it is one that the enrolment authority admitted.

A request carries one header:

    Authorization: Unheard <device> <certificate> <timestamp> <digest> <signature>

all hexadecimal but the timestamp, a decimal number: microseconds since 1970, rising for each device.
The signature is Ed25519 by the device's certified key over

    label("gateway request") ‖ for each of audience, method, target, timestamp, digest: u32 length ‖ bytes

`audience` is the host and port that the device connects to, so that nothing can be handed on to another
gateway; `target` the path and query; `digest` the SHA-256 of the body. A gateway accepts a timestamp that is
close to its own clock and higher than the device's last, so a captured request cannot be replayed.
"""

import struct
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fa_core.secagg.identity import CERTIFICATE_SIZE, DeviceIdentity, certified
from fa_core.secagg.task import label

SCHEME = "Unheard"
SKEW_SECONDS = 300
"""How far a timestamp may be from the gateway's clock."""

MESSAGE, STAGE = "Unheard-Letter", "Unheard-Stage"
"""Headers of a gateway's answer that holds a request: its number, and the stage of the protocol."""

_SIZES = (32, CERTIFICATE_SIZE, 32, 64)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: method, target and the body's SHA-256."""

    method: str
    target: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """The device that a request claims to be from, its timestamp (microseconds since 1970), its signature."""

    device: bytes
    certificate: bytes
    timestamp: int
    digest: bytes
    signature: bytes

    @classmethod
    def read(cls, header: str) -> "Credentials":
        """Parse a header. Raises ValueError where it is not of this form."""
        scheme, device, certificate, timestamp, digest, signature = header.split(" ")
        parts = tuple(map(bytes.fromhex, (device, certificate, digest, signature)))
        plain = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 18
        if scheme != SCHEME or tuple(map(len, parts)) != _SIZES or not plain:
            raise ValueError("not credentials")
        return cls(parts[0], parts[1], int(timestamp), parts[2], parts[3])

    def hold(self, authority: bytes, audience: str, method: str, target: str) -> bool:
        """Return whether the authority admitted this device and the device signed this very request.

        The gateway itself checks the body's digest, and that the timestamp is new.
        """
        said = _message(audience, Request(method, target, self.digest), self.timestamp)
        try:
            Ed25519PublicKey.from_public_bytes(self.device).verify(self.signature, said)
        except (InvalidSignature, ValueError):
            return False
        return certified(self.device, self.certificate, authority)


def authorization(identity: DeviceIdentity, audience: str, request: Request, timestamp: int) -> str:
    """Return the header with which a device signs a request."""
    signature = identity.key.sign(_message(audience, request, timestamp))
    parts = (identity.device.hex(), identity.certificate.hex(), str(timestamp), request.digest.hex())
    return " ".join((SCHEME, *parts, signature.hex()))


def digest_of(body: bytes) -> bytes:
    """Return the SHA-256 of a body, 32 bytes."""
    return sha256(body).digest()


def _message(audience: str, request: Request, timestamp: int) -> bytes:
    fields = (audience.encode(), request.method.encode(), request.target.encode(), str(timestamp).encode())
    framed = b"".join(struct.pack(">I", len(each)) + each for each in (*fields, request.digest))
    return label("gateway request") + framed
