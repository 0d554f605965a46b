"""The device process: store, keys, consent, budget and protocol behind a Unix socket; and the relay's end.

Flower's SuperNode runs app code that it is sent, as a user of its own. That user may connect to the socket
and may read nothing behind it: the store and its key belong to this process's user, the socket takes seven
stages and nothing else, and every declined request gets the same answer, whatever the reason.

A request is: version (u8, 2), stage (u8, 0 to 6), slot (u16), length (u32), that many bytes. A reply is:
answered (u8, 1 or 0), length (u32), that many bytes. All big-endian; a connection carries any number, one
after the other. `slot` numbers the devices of a hub from 0.
"""

import ctypes
import logging
import math
import os
import resource
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clients.device.interface import STAGES, Declined, Device, Reason, Stage
from fa_core.errors import BadInput, Refused
from fa_core.unix_socket import clear, peer

VERSION = 2
MAX_BYTES = 64 * 1024 * 1024
MAX_CONNECTIONS = 32
IDLE_SECONDS = 120.0
ANSWER_SECONDS = 30.0
"""How long a relay waits for one device: one that hangs must not keep the others of its hub waiting."""

_REQUEST = struct.Struct(">BBHI")
_REPLY = struct.Struct(">BI")
_PR_SET_DUMPABLE = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The path of the socket and the users that may connect to it.

    Attributes:
        path: of the socket, in a folder that only this user can write to.
        relays: user ids that may connect, beside this process's own.
    """

    path: Path
    relays: frozenset[int] = frozenset()

    @property
    def mode(self) -> int:
        """File mode of the socket: this user's alone, unless others may connect; then each connection is
        checked by the user id that the kernel reports (SO_PEERCRED)."""
        return 0o666 if self.relays else 0o600


class Server:
    """Serves the devices of one process, by slot. Each request is answered in a thread of its connection."""

    def __init__(self, devices: Mapping[int, Device], endpoint: Endpoint) -> None:
        self._devices = dict(devices)
        self._endpoint = endpoint
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._listening = listen(endpoint)

    def run(self, stopped: Callable[[], bool] = lambda: False, look_every: float = 0.2) -> None:
        """Serve until `stopped()`, then remove the socket."""
        self._listening.settimeout(look_every)
        try:
            while not stopped():
                try:
                    connection, _ = self._listening.accept()
                except TimeoutError:
                    continue
                self._take(connection)
        finally:
            self._listening.close()
            self._endpoint.path.unlink(missing_ok=True)

    def _take(self, connection: socket.socket) -> None:
        """Give a connection a thread of its own, if its user may have one and one is free."""
        if peer(connection) not in self._endpoint.relays | {os.geteuid()}:
            logger.warning("a connection was refused: its user is no relay of this device")
            connection.close()
        elif not self._free.acquire(blocking=False):
            logger.warning("a connection was refused: there are too many")
            connection.close()
        else:
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(IDLE_SECONDS)
            with connection:
                while (request := _receive(connection)) is not None:
                    answer = self._answer(*request)
                    connection.sendall(_REPLY.pack(answer is not None, len(answer or b"")) + (answer or b""))
        except (OSError, _Unreadable):
            logger.info("a connection ended in the middle of a request")
        finally:
            self._free.release()

    def _answer(self, stage: Stage, slot: int, request: bytes) -> bytes | None:
        """Return a device's reply, None where there is none for any reason at all."""
        device = self._devices.get(slot)
        if device is None:
            return None
        try:
            return device.handle(stage, request)
        except Declined as declined:
            logger.info("declined at %s: %s", stage, declined.reason)
        except Exception:
            logger.exception("a defect at %s", stage)
        return None


class SocketDevice:
    """The relay's end: a `Device` at the other end of a socket. Holds nothing but the address."""

    def __init__(self, path: Path, slot: int = 0, end: float = math.inf) -> None:
        """`end`: when its answer is too late, by the monotonic clock."""
        self._path = path
        self._slot = slot
        self._end = end

    def handle(self, stage: Stage, request: bytes) -> bytes:
        """See `Device.handle`. Every refusal looks the same from here: `Declined(Reason.ORDER)`."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._left())
                connection.connect(str(self._path))
                head = _REQUEST.pack(VERSION, STAGES.index(stage), self._slot, len(request))
                connection.settimeout(self._left())
                connection.sendall(head + request)
                answered, length = _REPLY.unpack(_exactly(connection, _REPLY.size, self._left))
                reply = _exactly(connection, length, self._left)
        except (OSError, _Unreadable):
            raise Declined(Reason.ORDER) from None
        if not answered:
            raise Declined(Reason.ORDER)
        return reply

    def _left(self) -> float:
        return max(min(ANSWER_SECONDS, self._end - time.monotonic()), 0.0)


def harden() -> None:
    """Make this process leave no core dump, let nobody trace it, and write files for itself alone."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Refused("this system does not let a process keep its memory to itself (prctl failed)")


class _Unreadable(Exception):
    """The other end sent something that is no request, or stopped in the middle."""


def listen(endpoint: Endpoint) -> socket.socket:
    """Return the listening socket. It appears at its path only when it listens and has its mode."""
    folder = endpoint.path.parent
    try:
        facts = folder.stat()
    except OSError as error:
        raise BadInput(f"the socket's folder {folder} cannot be read: {error.strerror}") from None
    if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"the socket's folder {folder} must belong to this user, who alone may write there")
    clear(endpoint.path)
    making = endpoint.path.with_name(f".{endpoint.path.name}")
    making.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(making))
    except OSError as error:
        listening.close()
        raise BadInput(f"no socket can be made at {endpoint.path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    making.chmod(endpoint.mode)
    listening.listen(MAX_CONNECTIONS)
    making.rename(endpoint.path)
    return listening


def _receive(connection: socket.socket) -> tuple[Stage, int, bytes] | None:
    """Return the next request, None where the other end is done."""
    first = connection.recv(1)
    if not first:
        return None
    head = first + _exactly(connection, _REQUEST.size - 1)
    version, stage, slot, length = _REQUEST.unpack(head)
    if version != VERSION or stage >= len(STAGES) or length > MAX_BYTES:
        raise _Unreadable
    return STAGES[stage], slot, _exactly(connection, length)


def _exactly(
    connection: socket.socket, length: int, timeout: Callable[[], float] = lambda: IDLE_SECONDS
) -> bytes:
    """Return so many bytes; `patience()` is how long to wait for the next of them."""
    parts = []
    while length:
        connection.settimeout(timeout())
        part = connection.recv(min(length, 1 << 20))
        if not part:
            raise _Unreadable
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
