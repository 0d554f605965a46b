"""The process: one device's wake-word service at a TCP or Unix address, until SIGTERM or SIGINT."""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from urllib.parse import urlsplit

from clients.device.consent import allows
from clients.device.contribution import Clock
from clients.device.owner import DeviceHome
from clients.device.policy import utc_now
from clients.device.process import quiet_log
from clients.device.redaction import guard_crashes
from clients.device.serve import Endpoint, harden, listen
from clients.runtime.published import models_of
from clients.runtime.starting import words_of
from clients.wake_service.keeper import Keeper
from clients.wake_service.service import Parts, Service
from clients.wake_service.wire import LINE
from fa_core.errors import BadInput

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service answers: a host and a port (0: any that is free), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, uri: str) -> "Address":
        """Return the address that a URI names. Raises BadInput where it names none."""
        expected = f"{uri!r}: an address is tcp://HOST:PORT or unix:///PATH, as tcp://127.0.0.1:10400"
        try:
            found = urlsplit(uri)
            host, port = found.hostname, found.port
        except ValueError:
            raise BadInput(expected) from None
        more = found.query or found.fragment or found.username
        if found.scheme == "unix" and found.path.startswith("/") and not (found.netloc or more):
            return cls(path=Path(found.path))
        if found.scheme == "tcp" and host and port is not None and not (found.path.strip("/") or more):
            return cls(host, port)
        raise BadInput(expected)

    async def start(self, service: Service) -> asyncio.Server:
        """Return the server, serving. Raises BadInput or Refused where the address cannot be had."""
        if self.path is not None:
            made = listen(Endpoint(self.path))
            return await asyncio.start_unix_server(service.connected, sock=made, limit=LINE)
        try:
            return await asyncio.start_server(service.connected, self.host, self.port, limit=LINE)
        except OSError as error:
            why = error.strerror or error
            raise BadInput(f"the address tcp://{self.host}:{self.port} cannot be had: {why}") from None

    def uri(self, server: asyncio.Server) -> str:
        """Return the URI at which a server of this address answers."""
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{server.sockets[0].getsockname()[1]}"


def serve(folder: Path, uri: str, say: Say, model: str | None = None) -> None:
    """Answer for the device in `folder` at `uri`, until SIGTERM or SIGINT; `say` gets the address.

    Where `model` is named, a version or the hex SHA-256 of a published one, it acts in place of what a
    rollout says. Raises BadInput or Refused before anything is answered where device, model or address
    cannot be had.
    """
    address = Address.parse(uri)
    harden()
    guard_crashes(sys.stderr)
    quiet_log()
    clock = Clock(utc_now, time.monotonic)
    home = DeviceHome.open(folder, clock.now())
    try:
        words = words_of(models_of(home), home.config.labels.wake_word, model)
        if not allows(home.store.grants(), "quality_metrics", clock.now()):
            say("there is no consent to quality_metrics: wake words are detected, and nothing is stored")
        asyncio.run(_until_signalled(Keeper(home, words, clock, model), words, address, clock, say))
    finally:
        home.store.close()


async def _until_signalled(
    keeper: Keeper, words: Sequence[str], address: Address, clock: Clock, say: Say
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await answer(keeper, words, address, clock, stopped, say)


async def answer(
    keeper: Keeper,
    words: Sequence[str],
    address: Address,
    clock: Clock,
    stopped: asyncio.Event,
    say: Say,
) -> None:
    """Answer until `stopped`; then end every stream and write what waits, before this returns."""
    ended = threading.Event()
    keeping = threading.Thread(target=keeper.run, args=(ended,), name="store")
    keeping.start()
    try:
        # Within: what its threads still hand on when they end is written.
        with ThreadPoolExecutor(cpu_count(), "hearing") as pool:
            service = Service(Parts(tuple(words), keeper.session, keeper.writer, clock, pool))
            await _served(
                service, address, stopped, lambda at: say(f"answers at {at} for {', '.join(words)}")
            )
    finally:
        ended.set()
        await asyncio.to_thread(keeping.join)


async def _served(service: Service, address: Address, stopped: asyncio.Event, say: Say) -> None:
    server = await address.start(service)
    try:
        say(address.uri(server))
        await stopped.wait()
    finally:
        server.close()
        await service.end()
        if address.path is not None:
            address.path.unlink(missing_ok=True)
