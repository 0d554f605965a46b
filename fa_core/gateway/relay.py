"""The relay server: relays on this machine submit requests over a Unix socket and wait for the replies.

A relay runs code that it was sent, so it gets neither a key nor the database's address. It is authorised by
its user id, as the kernel reports it (SO_PEERCRED).
"""

import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fa_core.errors import BadInput, UnheardError
from fa_core.gateway.counters import MESSAGES, STAGES_ENDED, Counters
from fa_core.gateway.drain import Drain
from fa_core.gateway.queue import NewRound, Queue
from fa_core.gateway.settings import CohortSection
from fa_core.gateway.uploads import Uploads
from fa_core.unix_socket import clear, peer
from fa_core.wire import bundle
from fa_core.wire.bundle import FOLLOWS, STAGES, Bundle

ROUND_SECONDS = 3600.0
"""How long after a stage's deadline a round is kept whose next stage does not begin."""

ENDED_SECONDS = 300.0
"""How long a round is kept after its last replies went out.

A server may send a message twice, if its SuperLink fails after taking the first, and wait for the reply to
the second alone. It gets the same replies.
"""

REPORT = "report"
"""The stage of a collection, which is no part of a round."""

LAST = "unmask"
"""The stage after which nothing more comes."""

LOOK_SECONDS = 0.2
SWEEP_SECONDS = 5.0
TIMEOUT_SECONDS = 60.0
"""Seconds for a frame to arrive (not for devices to reply), and for a database to return after a deadline."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Collector:
    """Takes a bundle through the queue: writes its messages, waits, and returns the replies by slot."""

    queue: Queue
    cohort: CohortSection
    counters: Counters
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def collect(self, asked: Bundle) -> dict[int, bytes] | None:
        """Return a reply, or b"" for none, for each slot; None for a request that is out of order.

        A stage that was begun by a gateway that has crashed since goes on from there.
        """
        deadline = self.clock() + asked.seconds
        stage = STAGES.index(asked.stage)
        opening = stage == 0 and not asked.parts
        number = self._open(asked, deadline) if opening else self._ask(asked, stage, deadline)
        if number is None:
            return None
        self._wait(number, stage, deadline, opening)
        replies = self._retry(lambda: self.queue.collect(number, stage), deadline)
        answered = sum(map(bool, replies.values()))
        counts = {"release": asked.release, "stage": asked.stage, "asked": len(replies), "answered": answered}
        logger.info("a stage ended", extra=counts)
        self.counters.add(MESSAGES, answered, stage=asked.stage, outcome="answered")
        self.counters.add(MESSAGES, len(replies) - answered, stage=asked.stage, outcome="silent")
        self.counters.add(STAGES_ENDED, stage=asked.stage)
        if stage == 0 and answered < self.cohort.minimum:
            self._retry(lambda: self.queue.close(number), deadline)
            return dict.fromkeys(replies, b"")
        return {**dict.fromkeys(asked.parts, b""), **replies}

    def forget(self, asked: Bundle) -> None:
        """Have a round deleted soon whose last replies the relay has. Until then the relay may ask again."""
        if asked.stage != LAST:
            return
        now = self.clock()
        deadline, expires = now + asked.seconds, now + ENDED_SECONDS
        found = self._retry(lambda: self.queue.find(asked.release, asked.node), deadline)
        if found is not None:
            self._retry(lambda: self.queue.end(found[0], expires), deadline)

    def _open(self, asked: Bundle, deadline: float) -> int | None:
        until, expires = min(self.clock() + self.cohort.window_seconds, deadline), deadline + ROUND_SECONDS
        new = NewRound(asked.release, asked.node, asked.everyone, self.cohort.maximum, until, expires)
        return self._retry(lambda: self.queue.open(new), deadline)

    def _ask(self, asked: Bundle, stage: int, deadline: float) -> int | None:
        found = self._retry(lambda: self.queue.find(asked.release, asked.node), deadline)
        if found is None or STAGES[found[1]] not in (*FOLLOWS[asked.stage], asked.stage):
            return None
        number, expires = found[0], deadline + ROUND_SECONDS
        self._retry(lambda: self.queue.ask(number, stage, asked.parts, asked.everyone, expires), deadline)
        return number

    def _wait(self, number: int, stage: int, deadline: float, opening: bool) -> None:
        """Wait until every message is answered (and a round that opens has no slot left), or the deadline."""
        began = self.clock()
        while (now := self.clock()) < deadline:
            try:
                tally = self.queue.tally(number, stage)
                joining = opening and tally.free > 0 and now < began + self.cohort.window_seconds
                if not joining and tally.answered == tally.asked:
                    return
            except UnheardError:
                logger.error("the database cannot be used")
                self.sleep(1.0)
            self.sleep(LOOK_SECONDS)

    def _retry(self, call: Callable[[], T], deadline: float) -> T:
        """Return the result of a call to the queue; retry while its database is unavailable."""
        while True:
            try:
                return call()
            except UnheardError:
                if self.clock() > deadline + TIMEOUT_SECONDS:
                    raise
                logger.error("the database cannot be used")
                self.sleep(1.0)


class RelayServer(socketserver.ThreadingUnixStreamServer):
    """Serves relays at `path`, each connection in a thread. `relays` are the user ids that may connect."""

    daemon_threads = True

    def __init__(self, path: Path, relays: frozenset[int], collector: Collector, drain: Drain) -> None:
        self.collector = collector
        self.drain = drain
        self._path = path
        self._relays = relays | {os.geteuid()}
        clear(path)
        before = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        except OSError as error:
            raise BadInput(f"no socket can be made at {path}: {error.strerror or error}") from None
        finally:
            os.umask(before)
        path.chmod(0o666 if relays else 0o600)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Return whether the user at the other end is a relay."""
        assert isinstance(request, socket.socket)
        if peer(request) in self._relays:
            return True
        logger.warning("a user that is no relay of this gateway was refused")
        return False

    def handle_error(self, request: object, client_address: object) -> None:
        """Log that a connection failed, and nothing of its content."""
        logger.exception("a relay was not answered")

    def server_close(self) -> None:
        """Close, and remove the socket."""
        super().server_close()
        self._path.unlink(missing_ok=True)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, RelayServer)
        connection: socket.socket = self.request
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            asked = bundle.decode(bundle.receive(connection))
            collects = self.server.drain.hand_over if asked.stage == REPORT else self.server.collector.collect
            replies = collects(asked)
            if replies is None:
                bundle.send(connection, bundle.REFUSED)
                return
            bundle.send(connection, bundle.encode_parts(replies))
            self.server.collector.forget(asked)
        except (OSError, bundle.Unreadable):
            logger.info("a relay disconnected in the middle of a request")


def sweep(queue: Queue, uploads: Uploads, stopped: threading.Event, write: Callable[[], None]) -> None:
    """Delete expired rounds, collections and timestamps, and `write` the counts, every few seconds."""
    while not stopped.wait(SWEEP_SECONDS):
        write()
        try:
            expired, ended = queue.sweep(time.time()), uploads.sweep(time.time())
        except UnheardError:
            continue
        if expired:
            logger.info("expired rounds were deleted", extra={"rounds": expired})
        if ended:
            logger.info("collections that ended long ago were deleted", extra={"collections": ended})
