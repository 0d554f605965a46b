"""The door: where relays on this machine hand in letters, over a Unix socket, and wait for the replies.

A relay runs code that it was sent, so it gets no key and no address of the database: who may come is decided
by the kernel's word for the user at the other end.
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
from fa_core.gateway.counters import LETTERS, STAGES_ENDED, Counters
from fa_core.gateway.queue import Desk, Opening
from fa_core.gateway.settings import CohortSection
from fa_core.unix_socket import clear, peer
from fa_core.wire import bundle
from fa_core.wire.bundle import STAGES, Bundle

ROUND_SECONDS = 3600.0
"""How long after a stage's deadline a round is remembered that nobody goes on with."""

ENDED_SECONDS = 300.0
"""How long a round is remembered whose last replies went out.

A server may send a letter twice, where its SuperLink fails after it took the first, and wait for the second's
reply alone. It is the same.
"""

LOOK_SECONDS = 0.2
SWEEP_SECONDS = 5.0
PATIENCE = 60.0
"""Seconds for a frame to arrive, not for the replies."""


logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Collector:
    """Takes a bundle through the desk: writes its letters, waits, and returns the replies by slot."""

    desk: Desk
    cohort: CohortSection
    counters: Counters
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def collect(self, asked: Bundle) -> dict[int, bytes] | None:
        """Return a reply, or b"" for none, for each slot; None for a letter that cannot be asked now.

        A letter that was begun before, by a gateway that fell since, goes on from there.
        """
        deadline = self.clock() + asked.seconds
        stage = STAGES.index(asked.stage)
        number = self._open(asked, deadline) if stage == 0 else self._ask(asked, stage, deadline)
        if number is None:
            return None
        self._wait(number, stage, deadline)
        replies = self._patiently(lambda: self.desk.collect(number, stage), deadline)
        answered = sum(map(bool, replies.values()))
        told = {"release": asked.release, "stage": asked.stage, "asked": len(replies), "answered": answered}
        logger.info("a stage ended", extra=told)
        self.counters.add(LETTERS, answered, stage=asked.stage, outcome="answered")
        self.counters.add(LETTERS, len(replies) - answered, stage=asked.stage, outcome="silent")
        self.counters.add(STAGES_ENDED, stage=asked.stage)
        if stage == 0 and answered < self.cohort.minimum:
            self._patiently(lambda: self.desk.close(number), deadline)
            return dict.fromkeys(replies, b"")
        return {**dict.fromkeys(asked.parts, b""), **replies}

    def forget(self, asked: Bundle) -> None:
        """Have a round forgotten soon whose last replies are with the relay. Until then it may ask again."""
        if asked.stage != STAGES[-1]:
            return
        now = self.clock()
        deadline, expires = now + asked.seconds, now + ENDED_SECONDS
        found = self._patiently(lambda: self.desk.find(asked.release, asked.node), deadline)
        if found is not None:
            self._patiently(lambda: self.desk.end(found[0], expires), deadline)

    def _open(self, asked: Bundle, deadline: float) -> int | None:
        until, expires = min(self.clock() + self.cohort.window_seconds, deadline), deadline + ROUND_SECONDS
        opening = Opening(asked.release, asked.node, asked.everyone, self.cohort.maximum, until, expires)
        return self._patiently(lambda: self.desk.open(opening), deadline)

    def _ask(self, asked: Bundle, stage: int, deadline: float) -> int | None:
        found = self._patiently(lambda: self.desk.find(asked.release, asked.node), deadline)
        if found is None or found[1] not in (stage - 1, stage):
            return None
        number, expires = found[0], deadline + ROUND_SECONDS
        self._patiently(lambda: self.desk.ask(number, stage, asked.parts, asked.everyone, expires), deadline)
        return number

    def _wait(self, number: int, stage: int, deadline: float) -> None:
        """Wait until every letter is answered (and, to begin with, nobody else may join), or the deadline."""
        began = self.clock()
        while (now := self.clock()) < deadline:
            try:
                tally = self.desk.tally(number, stage)
                joining = stage == 0 and tally.free > 0 and now < began + self.cohort.window_seconds
                if not joining and tally.answered == tally.asked:
                    return
            except UnheardError:
                logger.error("the database cannot be used")
                self.sleep(1.0)
            self.sleep(LOOK_SECONDS)

    def _patiently(self, call: Callable[[], T], deadline: float) -> T:
        """Return what the desk says; while its database is away, ask again until well past the deadline."""
        while True:
            try:
                return call()
            except UnheardError:
                if self.clock() > deadline + PATIENCE:
                    raise
                logger.error("the database cannot be used")
                self.sleep(1.0)


class Door(socketserver.ThreadingUnixStreamServer):
    """Serves relays at `path`, each connection in a thread. `relays` are the users that may come."""

    daemon_threads = True

    def __init__(self, path: Path, relays: frozenset[int], collector: Collector) -> None:
        self.collector = collector
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
        """Return whether the user at the other end is a relay's."""
        assert isinstance(request, socket.socket)
        if peer(request) in self._relays:
            return True
        logger.warning("a user that is no relay of this gateway was turned away")
        return False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say that a connection broke, and nothing of it."""
        logger.exception("a relay was not answered")

    def server_close(self) -> None:
        """Close, and remove the socket."""
        super().server_close()
        self._path.unlink(missing_ok=True)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Door)
        connection: socket.socket = self.request
        connection.settimeout(PATIENCE)
        try:
            asked = bundle.decode(bundle.receive(connection))
            replies = self.server.collector.collect(asked)
            if replies is None:
                bundle.send(connection, bundle.REFUSED)
                return
            bundle.send(connection, bundle.encode_parts(replies))
            self.server.collector.forget(asked)
        except (OSError, bundle.Unreadable):
            logger.info("a relay left in the middle of a letter")


def sweep(desk: Desk, stopped: threading.Event, write: Callable[[], None]) -> None:
    """Forget what expired and old stamps, and `write` the counts, every few seconds, until stopped."""
    while not stopped.wait(SWEEP_SECONDS):
        write()
        try:
            forgotten = desk.sweep(time.time())
        except UnheardError:
            continue
        if forgotten:
            logger.info("rounds were forgotten", extra={"rounds": forgotten})
