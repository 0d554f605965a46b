"""The witness as a process of its own: one request a connection over a Unix socket.

A request is an operation byte, a length (4 bytes, little-endian) and a body; a reply is a status byte, a
length and a body: what the operation returns, or the sentence of a refusal. Access is by the socket's
owner and group; whatever the requests are, the witness signs once.
"""

import logging
import os
import socket
import socketserver
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError
from fa_core.merkle import HASH_SIZE, Proof
from fa_core.trust.witness import Witness
from fa_core.unix_socket import clear

logger = logging.getLogger(__name__)

_LARGEST = 1 << 26
_TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_OK, _REFUSED = 0, 1


class _Operation(IntEnum):
    ROSTER = 1
    SURVIVORS = 2
    SEEN = 3
    COSIGN = 4
    COMPLAINT = 5
    GRANT = 6
    BEGIN = 7
    END = 8
    OPENED = 9
    HOLD = 10
    RESUME = 11
    COLLECTION = 12
    SHARE = 13


class WitnessServer(socketserver.UnixStreamServer):
    """Answers for `witness` at `path`, one connection after the other. `serve_forever` runs it."""

    def __init__(self, witness: Witness, path: Path) -> None:
        self.operations: dict[int, Callable[[bytes], bytes]] = {
            _Operation.ROSTER: witness.sign_roster,
            _Operation.SURVIVORS: witness.sign_survivors,
            _Operation.SEEN: lambda _: witness.seen().to_bytes(8, "little"),
            _Operation.COMPLAINT: witness.record_complaint,
            _Operation.COSIGN: lambda body: witness.cosign(*_read_cosign(body)),
            _Operation.GRANT: witness.grant,
            _Operation.BEGIN: witness.begin,
            _Operation.END: witness.end,
            _Operation.OPENED: witness.opened,
            _Operation.HOLD: witness.hold,
            _Operation.RESUME: witness.resume,
            _Operation.COLLECTION: witness.sign_collection,
            _Operation.SHARE: witness.keep_share,
        }
        clear(path)
        before = os.umask(0o117)
        try:
            super().__init__(str(path), _Handler)
        except OSError as error:
            raise BadInput(f"{path}: cannot listen there ({error.strerror})") from None
        finally:
            os.umask(before)


class _Handler(socketserver.BaseRequestHandler):
    """Reads one request, writes one reply; a caller that stalls or sends something else is disconnected."""

    server: WitnessServer

    def handle(self) -> None:
        self.request.settimeout(_TIMEOUT_SECONDS)
        try:
            kind, body = _receive(self.request)
        except OSError:
            return
        operation = self.server.operations.get(kind)
        try:
            if operation is None:
                raise BadInput("the witness knows no such operation")
            reply = _pack(_OK, operation(body))
        except UnheardError as error:
            reply = _pack(_REFUSED, str(error).encode())
        except Exception as error:  # whatever the bytes were, the caller gets an answer
            logger.exception("a request of operation %d ended in a defect of the witness", kind)
            reply = _pack(_REFUSED, f"the witness cannot answer this ({type(error).__name__})".encode())
        try:
            self.request.sendall(reply)
        except OSError:
            return


class WitnessAway(RoundFailed):
    """The witness does not answer: what was asked may be done, or not, and may be asked again."""


class WitnessClient:
    """The witness at the other end of a socket: the same calls, each raising what the witness raised.

    RoundFailed where it does not answer for `retry_seconds`. A witness that restarts signs the same again, so
    retrying is safe.
    """

    def __init__(self, path: Path, retry_seconds: float = 0.0) -> None:
        self._path = path
        self._retry_seconds = retry_seconds

    def sign_roster(self, request: bytes) -> bytes:
        """As `Witness.sign_roster`."""
        return self._ask(_Operation.ROSTER, request)

    def sign_survivors(self, request: bytes) -> bytes:
        """As `Witness.sign_survivors`."""
        return self._ask(_Operation.SURVIVORS, request)

    def record_complaint(self, request: bytes) -> bytes:
        """As `Witness.record_complaint`."""
        return self._ask(_Operation.COMPLAINT, request)

    def sign_collection(self, request: bytes) -> bytes:
        """As `Witness.sign_collection`."""
        return self._ask(_Operation.COLLECTION, request)

    def keep_share(self, request: bytes) -> bytes:
        """As `Witness.keep_share`."""
        return self._ask(_Operation.SHARE, request)

    def seen(self) -> int:
        """As `Witness.seen`."""
        return int.from_bytes(self._ask(_Operation.SEEN, b""), "little")

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        """As `Witness.cosign`."""
        return self._ask(_Operation.COSIGN, len(note).to_bytes(4, "little") + note + b"".join(proof))

    def grant(self, request: bytes) -> bytes:
        """As `Witness.grant`."""
        return self._ask(_Operation.GRANT, request)

    def begin(self, request: bytes) -> bytes:
        """As `Witness.begin`."""
        return self._ask(_Operation.BEGIN, request)

    def hold(self, request: bytes) -> bytes:
        """As `Witness.hold`."""
        return self._ask(_Operation.HOLD, request)

    def resume(self, request: bytes) -> bytes:
        """As `Witness.resume`."""
        return self._ask(_Operation.RESUME, request)

    def end(self, rollout: bytes) -> bytes:
        """As `Witness.end`."""
        return self._ask(_Operation.END, rollout)

    def opened(self, request: bytes) -> bytes:
        """As `Witness.opened`."""
        return self._ask(_Operation.OPENED, request)

    def _ask(self, operation: _Operation, body: bytes) -> bytes:
        end = time.monotonic() + self._retry_seconds
        while True:
            try:
                status, reply = self._exchange(_pack(operation, body))
                break
            except OSError as error:
                if time.monotonic() >= end:
                    raise WitnessAway(f"the witness at {self._path} does not answer ({error})") from None
            time.sleep(_PAUSE_SECONDS)
        if status != _OK:
            raise Refused(reply.decode(errors="replace"))
        return reply

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(str(self._path))
            connection.sendall(request)
            return _receive(connection)


def _read_cosign(body: bytes) -> tuple[bytes, Proof]:
    size = int.from_bytes(body[:4], "little")
    note, path = body[4 : 4 + size], body[4 + size :]
    if len(note) != size or len(path) % HASH_SIZE:
        raise BadInput("the witness cannot read this checkpoint and its proof")
    return note, tuple(path[i : i + HASH_SIZE] for i in range(0, len(path), HASH_SIZE))


def _pack(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(4, "little") + body


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    """(kind, body). OSError when the other end stops early, stalls or announces too much."""
    head = _exactly(connection, 5)
    size = int.from_bytes(head[1:], "little")
    if size > _LARGEST:
        raise OSError("the message is too long")
    return head[0], _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise OSError("the connection ended early")
        view = view[count:]
    return bytes(data)
