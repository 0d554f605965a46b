"""A device that reaches its rounds through a gateway: it asks for requests over HTTPS and posts its replies.

The connection goes out from the device and nothing listens at it. Each request is signed by the device's
certified key (`fa_core.trust.request_signing`). A device that declines disconnects and stays away for a
while, as one does that lost its connection: the gateway cannot distinguish the two.
"""

import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from secrets import SystemRandom
from types import MappingProxyType
from urllib.parse import urlsplit

from clients.device.interface import STAGES, Declined, Device, Stage
from fa_core.errors import BadInput
from fa_core.secagg import DeviceIdentity
from fa_core.trust.request_signing import MESSAGE, STAGE, Request, authorization, digest_of

WAIT_SECONDS = 240
"""How long a device waits for a request. The longer, the fewer polls a gateway has to answer."""

ANSWER_SECONDS = 60.0
"""How long the gateway may take to answer, beyond the wait that was asked for."""

AWAY_SECONDS = 300.0
"""How long a device stays away that declined, half as long again at most."""

KEEP_ALIVE_SECONDS = 30
RETRY_SECONDS = (1.0, 60.0)
MAX_BYTES = 64 * 1024 * 1024
MAX_LIST_BYTES = 1024 * 1024
COLLECTIONS, TASK_SIZE = "/v1/collections", 32
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger(__name__)


class Unreachable(Exception):
    """The gateway did not answer, or not as one does. Carries no text from the gateway."""


class NotAdmitted(Unreachable):
    """The gateway does not admit this device, or not at this time by its clock."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request for this device, by the gateway's number."""

    number: int
    stage: Stage
    request: bytes


@dataclass(slots=True)
class Line:
    """One device's line to a gateway: a connection that is kept, and opened again when it broke.

    Attributes:
        address: host and port, as in the gateway's `name`; it is signed.
        trust: checks the gateway's certificate.
    """

    address: str
    trust: ssl.SSLContext
    identity: DeviceIdentity
    clock: Callable[[], float] = time.time
    _connection: http.client.HTTPSConnection | None = None
    _timestamp: int = 0
    _ahead: float = 0.0
    _closed: bool = False

    def next(self, wait: int = WAIT_SECONDS) -> Message | None:
        """Return the next request, None where none came in `wait` seconds. Raises Unreachable."""
        status, headers, body = self._ask("GET", f"/v1/letters?wait={wait}", b"", wait)
        if status == 204:
            return None
        number, stage = headers.get(MESSAGE, ""), headers.get(STAGE, "")
        if status != 200 or stage not in STAGES or not (number.isascii() and number.isdigit()):
            raise Unreachable
        return Message(int(number), stage, body)

    def reply(self, message: Message, reply: bytes) -> bool:
        """Post a reply; return whether it was accepted. Raises Unreachable; it may then be posted again.

        A kept connection may have been closed while the device was computing: then a new one is used.
        """
        status = self._send("PUT", f"/v1/letters/{message.number}", reply)
        if status not in (204, 409):
            raise Unreachable
        return status == 204

    def published(self, name: str, most: int, tag: str = "") -> tuple[int, str, bytes]:
        """Return the status (200, 304 or 404), tag and bytes of a file that the gateway has for all devices.

        Args:
            most: bytes at most; more are none. tag: the one of the bytes that are here already, for a 304.
        Raises:
            Unreachable: where the gateway does not answer, or answers otherwise.
        """
        more = {"If-None-Match": tag} if tag else {}
        status, headers, body = self._ask("GET", f"/v1/published/{name}", b"", 0, most, more)
        if status not in (200, 304, 404):
            raise Unreachable
        return status, headers.get("etag", ""), body

    def collections(self) -> list[bytes]:
        """Return the tasks (ids, 32 bytes) of the collections that are open, none for a gateway without them.

        Raises Unreachable.
        """
        status, _, body = self._ask("GET", COLLECTIONS, b"", 0, MAX_LIST_BYTES)
        if status == 404:
            return []
        try:
            if status != 200:
                raise ValueError("no list")
            found = [bytes.fromhex(each["task"]) for each in json.loads(body)["collections"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Unreachable from None
        if any(len(task) != TASK_SIZE for task in found):
            raise Unreachable
        return found

    def collection(self, task: bytes) -> bytes | None:
        """Return the invitation to a collection, None where it is over. Raises Unreachable."""
        status, _, body = self._ask("GET", f"{COLLECTIONS}/{task.hex()}", b"", 0)
        if status not in (200, 404):
            raise Unreachable
        return body if status == 200 else None

    def upload(self, task: bytes, body: bytes) -> bool:
        """Post a report or a withdrawal; return whether there is no point in posting it again.

        That is so where it was taken, and where other bytes of this device were taken before. Raises
        Unreachable; it may then be posted again.
        """
        status = self._send("POST", f"{COLLECTIONS}/{task.hex()}", body)
        if status not in (204, 404, 409, 413):
            raise Unreachable
        return status in (204, 409)

    def close(self) -> None:
        """Hang up for good, also under a request that waits or begins in another thread."""
        self._closed = True
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, also under a request that waits in another thread."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                logger.debug("the connection was closed already")
        connection.close()

    def _send(self, method: str, target: str, body: bytes) -> int:
        """Send a body, again on a new connection where a kept one was closed; return the status."""
        kept = self._connection is not None
        try:
            return self._ask(method, target, body, 0)[0]
        except NotAdmitted:
            raise
        except Unreachable:
            if not kept:
                raise
            return self._ask(method, target, body, 0)[0]

    def _ask(
        self,
        method: str,
        target: str,
        body: bytes,
        wait: int,
        most: int = MAX_BYTES,
        more: Mapping[str, str] = NO_HEADERS,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Ask, and once more by the gateway's clock where it says that ours is off.

        `most` bytes are read of the answer; `more` are headers beside the signature.
        """
        answer = self._exchange(method, target, body, wait, most, more)
        if answer[0] == 401 and self._set_clock(answer[1]):
            answer = self._exchange(method, target, body, wait, most, more)
        if answer[0] == 401:
            raise NotAdmitted
        return answer

    def _exchange(
        self, method: str, target: str, body: bytes, wait: int, most: int, more: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._timestamp = max(self._timestamp + 1, int((self.clock() + self._ahead) * 1_000_000))
        request = Request(method, target, digest_of(body))
        headers = {"Authorization": authorization(self.identity, self.address, request, self._timestamp)}
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self.address, context=self.trust, timeout=ANSWER_SECONDS
            )
        connection = self._connection
        try:
            _opened(connection).settimeout(wait + ANSWER_SECONDS)
            if self._closed:
                raise Unreachable
            connection.request(method, target, body or None, headers | dict(more))
            response = connection.getresponse()
            data = response.read(most)
            # http.client returns a truncated body as it is: half a message is none.
            if response.length or (not response.isclosed() and response.read(1)):
                raise Unreachable
            return response.status, response.headers, data
        except (OSError, http.client.HTTPException, ValueError, Unreachable):
            self.hang_up()
            raise Unreachable from None

    def _set_clock(self, headers: http.client.HTTPMessage) -> bool:
        """Take the gateway's time for timestamps, and for nothing else; return whether it differs much."""
        try:
            theirs = parsedate_to_datetime(headers.get("date", "")).timestamp()
        except (TypeError, ValueError):
            return False
        before, self._ahead = self._ahead, theirs - self.clock()
        self._timestamp = 0
        return abs(self._ahead - before) > 2.0


def line(url: str, identity: DeviceIdentity, authority: Path | None) -> Line:
    """Return the line to a gateway at https://host[:port].

    Args:
        authority: the certificate that must have signed the gateway's, PEM; None for the system's.
    Raises:
        BadInput: for another kind of address, or a file that holds no certificate.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise BadInput(f"a gateway's address is https://HOST or https://HOST:PORT, not {url}")
    try:
        trust = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError):
        raise BadInput(f"{authority}: expected a certificate authority's certificate, in PEM") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Line(f"{host}:{port}", trust, identity)


def _opened(connection: http.client.HTTPSConnection) -> socket.socket:
    """Return a connection's socket, opened where it is not. Raises OSError.

    The system then asks a silent line now and then whether it is still there, which keeps routers awake too.
    """
    found: socket.socket | None = connection.sock
    if found is not None:
        return found
    connection.connect()
    found = connection.sock
    if found is None:
        raise ConnectionResetError  # closed by another thread meanwhile
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_SECONDS)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_SECONDS)
    return found


def attend(device: Device, gateway: Line, stopped: threading.Event) -> None:
    """Take part in rounds until stopped: ask, answer, and ask again."""
    chance = SystemRandom()
    trouble = RETRY_SECONDS[0]
    while not stopped.is_set():
        try:
            away = _turn(device, gateway)
            trouble = RETRY_SECONDS[0]
        except NotAdmitted:
            logger.warning("the gateway does not admit this device")
            away = RETRY_SECONDS[1]
        except Unreachable:
            logger.info("the gateway cannot be reached")
            away, trouble = trouble, min(2 * trouble, RETRY_SECONDS[1])
        if away and not stopped.is_set():
            stopped.wait(away * (1 + 0.5 * chance.random()))
    gateway.hang_up()


def _turn(device: Device, gateway: Line) -> float:
    """Answer the next request, if one comes; return how long to stay away after that."""
    message = gateway.next()
    if message is None:
        return 0.0
    try:
        reply = device.handle(message.stage, message.request)
    except Declined as declined:
        logger.info("declined at %s: %s", message.stage, declined.reason)
    except Exception:
        logger.exception("a defect at %s", message.stage)
    else:
        gateway.reply(message, reply)
        return 0.0
    gateway.hang_up()
    return AWAY_SECONDS
