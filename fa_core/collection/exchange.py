"""How a leader reaches its helper: one HTTPS request a message, signed by the leader.

The body is the leader's signature, 64 bytes, and the message. The signature is over the operation, the helper
and the message's SHA-256, so that it is worth nothing elsewhere; that it may be repeated is harmless, since
every answer to the same message is the same. TLS keeps answers from everybody else.
"""

import http.client
import json
import ssl
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.collection.task import label
from fa_core.errors import BadInput, Refused, UnheardError
from fa_core.secagg.identity import SIGNATURE_SIZE, verifies
from fa_core.trust import strict

OPERATIONS: Final = ("tasks", "batches", "closings")
"""What may be posted to a helper, at /v1/…"""

MOST: Final = 1 << 23
"""Bytes of a body, or of an answer: 8 MiB.

A batch of 256 reports has 2.8 MB where a device counts 5,000 cells of 5 bits each, and 5.2 MB with the 20,000
cells that a plan has at most; the share of such a sum has 160 kB, and a request for a task at most 4 MiB.
"""

SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5


class HelperAway(UnheardError):
    """The helper does not answer: what was asked may be done, or not, and is asked again."""

    exit_code = BadInput.exit_code


def sealed(key: Ed25519PrivateKey, helper: bytes, operation: str, message: bytes) -> bytes:
    """Return the body of a request. `helper`: its public key, 32 bytes."""
    return key.sign(_to_sign(helper, operation, message)) + message


def unsealed(body: bytes, leader: bytes, helper: bytes, operation: str) -> bytes | None:
    """Return the message in a body, None where the leader (public key, 32 bytes) did not sign it.

    Nothing of a body is remembered: anybody may send one.
    """
    signature, message = body[:SIGNATURE_SIZE], body[SIGNATURE_SIZE:]
    return message if verifies(signature, _to_sign(helper, operation, message), leader) else None


def _to_sign(helper: bytes, operation: str, message: bytes) -> bytes:
    return label(f"helper {operation}") + helper + sha256(message).digest()


@dataclass(frozen=True, slots=True)
class HelperAddress:
    """What a leader is given of a helper, as `fa helper init` writes it.

    Attributes:
        name: HOST:PORT. public_key: 32 bytes, which devices pin too.
        authority: the certificate of the authority that signed its TLS certificate, PEM.
    """

    name: str
    public_key: bytes
    authority: str

    def encode(self) -> str:
        """Return the file's text, JSON."""
        body = {"name": self.name, "public_key": self.public_key.hex(), "authority": self.authority}
        return json.dumps(body, indent=2) + "\n"


def read_address(path: Path) -> HelperAddress:
    """Return what is in a helper's file. Raises BadInput for anything else.

    Its authority is one certificate: with none, Python would trust every authority of the system.
    """
    try:
        body = json.loads(path.read_text("utf-8"))
        key = bytes.fromhex(body["public_key"])
        found = HelperAddress(strict.text(body["name"]), key, strict.text(body["authority"]))
        http.client.HTTPConnection(found.name)  # reads the name, and connects to nothing
        (_,) = x509.load_pem_x509_certificates(found.authority.encode("ascii"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError, http.client.InvalidURL):
        found = None
    if found is None or len(found.public_key) != SIGNATURE_SIZE // 2:
        raise BadInput(f"{path} is not a helper's file, as `fa helper init` makes it")
    return found


@dataclass(frozen=True, slots=True)
class HelperClient:
    """The helper at the other end of a connection: an `Aggregator`.

    Attributes:
        address: of the helper. key: the leader's.
        retry_seconds: for how long a request is repeated where the helper does not answer.
    """

    address: HelperAddress
    key: Ed25519PrivateKey = field(repr=False)
    retry_seconds: float = 0.0

    def open(self, request: bytes) -> bytes:
        """As `Helper.open`."""
        return self._ask("tasks", request)

    def verify(self, batch: bytes) -> bytes:
        """As `Helper.verify`."""
        return self._ask("batches", batch)

    def close(self, request: bytes) -> bytes:
        """As `Helper.close`."""
        return self._ask("closings", request)

    def _ask(self, operation: str, message: bytes) -> bytes:
        body = sealed(self.key, self.address.public_key, operation, message)
        end = time.monotonic() + self.retry_seconds
        while True:
            try:
                return self._post(operation, body)
            except HelperAway:
                if time.monotonic() >= end:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _post(self, operation: str, body: bytes) -> bytes:
        name = self.address.name
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            trust.load_verify_locations(cadata=self.address.authority)
        except (ssl.SSLError, ValueError, TypeError):
            raise BadInput(f"the file of the helper {name} holds no certificate") from None
        trust.minimum_version = ssl.TLSVersion.TLSv1_3
        connection = http.client.HTTPSConnection(name, context=trust, timeout=SECONDS)
        try:
            connection.request("POST", f"/v1/{operation}", body, {"content-type": "application/octet-stream"})
            response = connection.getresponse()
            data, status = response.read(MOST), response.status
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = "its certificate is not trusted" if isinstance(error, ssl.SSLError) else "no answer"
            raise HelperAway(f"the helper {name} cannot be asked: {why}") from None
        finally:
            connection.close()
        if status == 200:
            return data
        if status in (400, 409):
            raise Refused(f"the helper {name} refuses: {_reason(data)}")
        raise HelperAway(f"the helper {name} cannot be asked: status {status}")


def _reason(data: bytes) -> str:
    try:
        return str(json.loads(data)["refused"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "it does not say why"
