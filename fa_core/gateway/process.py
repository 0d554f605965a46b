"""The processes of a gateway: uvicorn's workers for devices, and their supervisor.

The supervisor also runs the relay server and the operator's page (health, readiness, metrics). A worker
that dies is started again; workers end with their supervisor.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from fa_core.errors import BadInput, UnheardError
from fa_core.gateway import counters
from fa_core.gateway.drain import Drain
from fa_core.gateway.logs import structured
from fa_core.gateway.queue import Queue
from fa_core.gateway.relay import Collector, RelayServer, sweep
from fa_core.gateway.settings import Home, address
from fa_core.gateway.uploads import Uploads
from fa_core.gateway.worker import ENVIRONMENT

KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 3

logger = logging.getLogger(__name__)


def serve(home: Home) -> None:
    """Serve until SIGTERM or SIGINT. Raises BadInput or Refused before anything is served.

    What this process writes, and the workers that it starts, is for this user alone: a database in a file
    holds devices' replies.
    """
    os.umask(0o077)
    settings = home.settings
    home.authority()
    for name in (settings.certificate, settings.key):
        if not (home.folder / name).is_file():
            raise BadInput(f"{home.folder / name}: there is no such file; TLS needs it")
    database = home.database()
    database.prepare()
    home.counts.mkdir(mode=0o700, exist_ok=True)
    counters.forget(home.counts)
    structured("gateway")
    os.environ[ENVIRONMENT] = str(home.folder.resolve())
    listening = listen(settings.listen)
    queue, uploads, counts = Queue(database), Uploads(database), counters.Counters()
    relays = RelayServer(
        home.folder / settings.relay.socket,
        frozenset(settings.relay.relays),
        Collector(queue, settings.cohort, counts),
        Drain(uploads, settings.limits.collections, counts),
    )
    page = _Page(home, queue)
    stopped = threading.Event()
    config = _config(home)

    def keep() -> None:
        sweep(queue, uploads, stopped, lambda: counts.write(home.counts))

    with _beside(relays.serve_forever), _beside(page.serve_forever), _beside(keep):
        try:
            logger.info("the gateway serves")
            Multiprocess(config, target=uvicorn.Server(config).run, sockets=[listening]).run()
        finally:
            stopped.set()
            for server in (relays, page):
                server.shutdown()
                server.server_close()
    database.close()


def _config(home: Home) -> uvicorn.Config:
    settings = home.settings
    return https_config(
        "fa_core.gateway.worker:application",
        (home.folder / settings.certificate, home.folder / settings.key),
        settings.limits.connections,
        workers=settings.workers,
    )


def https_config(
    app: FastAPI | str, tls: tuple[Path, Path], connections: int, *, workers: int | None = None
) -> uvicorn.Config:
    """Return how uvicorn serves devices: over TLS, with limits on heads and connections.

    Args:
        app: the application, or MODULE:FACTORY, which each of the `workers` calls.
        tls: files of the certificate and of its key, PEM. connections: how many at once.
    """
    certificate, key = tls
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        http="fa_core.gateway.long_poll:HeadLimitProtocol",
        ws="none",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_worker_healthcheck=30,
    )


def listen(where: str) -> socket.socket:
    """Return a socket that listens at HOST:PORT. Raises BadInput where that cannot be."""
    host, port = address(where)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(4096)
    except OSError as error:
        raise BadInput(f"{where} cannot be listened on: {error.strerror or error}") from None
    listening.set_inheritable(True)
    return listening


@contextmanager
def _beside(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread of its own; leaving waits for it."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class _Page(ThreadingHTTPServer):
    """The operator's page: GET /health, /ready, /metrics in plain HTTP, for this machine or a private net."""

    daemon_threads = True

    def __init__(self, home: Home, queue: Queue) -> None:
        self.home = home
        self.queue = queue
        try:
            super().__init__(address(home.settings.operations), _PageHandler)
        except OSError as error:
            where = home.settings.operations
            raise BadInput(f"{where} cannot be listened on: {error.strerror or error}") from None


class _PageHandler(BaseHTTPRequestHandler):
    timeout = 10.0

    def do_GET(self) -> None:
        """Answer."""
        assert isinstance(self.server, _Page)
        status, kind, text = 200, "text/plain; charset=utf-8", "ok\n"
        if self.path == "/metrics":
            kind, text = (
                "text/plain; version=0.0.4; charset=utf-8",
                counters.exposition(self.server.home.counts),
            )
        elif self.path == "/ready":
            try:
                self.server.queue.statuses(time.time())
            except UnheardError:
                status, text = 503, "the database cannot be used\n"
        elif self.path != "/health":
            status, text = 404, "GET /health, /ready or /metrics\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a scrape is no event."""
