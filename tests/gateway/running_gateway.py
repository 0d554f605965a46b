"""A gateway in this process: its service with TLS on loopback, its relay server, and connected devices."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from clients.app import through_gateway
from clients.device.interface import STAGES, Device
from clients.device.remote import Line, attend, line
from fa_core.database.connection import Database, connect_file, connect_server
from fa_core.federation.certificates import make_tls
from fa_core.flower.transport import LocalGrid, client_app
from fa_core.gateway.counters import Counters
from fa_core.gateway.drain import Drain
from fa_core.gateway.long_poll import HeadLimitProtocol
from fa_core.gateway.migrations import LINEAGE
from fa_core.gateway.queue import Queue
from fa_core.gateway.relay import Collector, RelayServer
from fa_core.gateway.service import build
from fa_core.gateway.settings import CohortSection, Home, LimitsSection, Settings
from fa_core.gateway.uploads import Uploads
from fa_core.secagg import DeviceIdentity
from fa_core.trust.enrolment import Authority

LONG = 600.0
"""A guard against hanging, not a measure."""


@dataclass
class Time:
    """The relay server's clock, for deadlines: the real time plus what the test adds."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def queue_of(where: str) -> tuple[Queue, Database]:
    """Open a gateway's database."""
    found = (
        connect_server(where, LINEAGE, durable=False)
        if "://" in where
        else connect_file(Path(where), LINEAGE)
    )
    found.prepare()
    return Queue(found), found


@dataclass
class Gateway:
    """A running gateway, as a test uses it."""

    home: Home
    queue: Queue
    uploads: Uploads
    time: Time
    url: str
    counters: Counters
    _stack: ExitStack = field(repr=False, default_factory=ExitStack)

    def line(self, identity: DeviceIdentity) -> Line:
        """Return a device's line."""
        return line(self.url, identity, self.home.folder / "ca.crt")

    def attend(self, device: Device, identity: DeviceIdentity, stopped: threading.Event) -> None:
        """Have a device take part, in a thread of its own, until `stopped` and the gateway closes."""
        theirs = self.line(identity)
        thread = threading.Thread(target=attend, args=(device, theirs, stopped))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(theirs.close)
        self._stack.callback(stopped.set)

    def grid(self, nodes: int = 1, seconds: float = LONG) -> LocalGrid:
        """Return a Grid whose nodes all use this gateway."""
        config = {"gateway": str(self.home.folder / self.home.settings.relay.socket), "seconds": seconds}

        def answer(message: Any, _: Any) -> Any:
            return through_gateway(message, config)

        return LocalGrid(client_app(answer, STAGES), nodes)


@contextmanager
def gateway(
    folder: Path,
    authority: Authority,
    where: str = "",
    cohort: CohortSection | None = None,
    limits: LimitsSection | None = None,
) -> Iterator[Gateway]:
    """Run a gateway; `where` is its database."""
    folder.mkdir()
    make_tls(folder, "tests", "127.0.0.1")
    (folder / "authority.pub").write_text(authority.public_key.hex() + "\n")
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        name = f"127.0.0.1:{listening.getsockname()[1]}"
        home = Home(
            folder,
            Settings(
                name=name,
                listen=name,
                database=where or "gateway.db",
                cohort=cohort or CohortSection(),
                limits=limits or LimitsSection(requests_a_second=1000.0, burst=1000.0),
            ),
        )
        database = home.database()
        database.prepare()
        stack.callback(database.close)
        now, queue, counters = Time(), Queue(database), Counters()
        collector = Collector(queue, home.settings.cohort, counters, now, lambda seconds: time.sleep(0.01))
        uploads = Uploads(database)
        drain = Drain(uploads, home.settings.limits.collections, counters)
        path = folder / home.settings.relay.socket
        relays = stack.enter_context(RelayServer(path, frozenset(), collector, drain))
        _beside(stack, relays.serve_forever, relays.shutdown)
        server = _server(home)
        _beside(stack, lambda: server.run(sockets=[listening]), lambda: _stop(server))
        until(lambda: server.started)
        running = Gateway(home, queue, uploads, now, f"https://{name}", counters, ExitStack())
        stack.enter_context(running._stack)
        yield running


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition; give up only when something hangs."""
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def _server(home: Home) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            build(home),
            http=HeadLimitProtocol,
            ws="none",
            ssl_certfile=home.folder / "server.crt",
            ssl_keyfile=home.folder / "server.key",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


def _beside(stack: ExitStack, work: Callable[[], None], stop: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop)
