"""A service with scripted detectors over a real store, the library's own client, clocks that a test moves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from wyoming.audio import AudioChunk, AudioStart
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.ping import Ping
from wyoming.wake import Detect

from clients.device import database
from clients.device.contribution import Clock
from clients.device.store import Store
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.events import Listener, Minutes
from clients.runtime.session import Recorder, Session
from clients.wake_service.keeper import Writer
from clients.wake_service.service import Parts, Service
from clients.wake_service.stream import AnySession
from clients.wake_service.wire import LINE
from fa_core.tables import SOURCES
from tests.device.setup import KEY, NOW, RULES
from tests.device.test_runtime import Scripted

GUARD = 120.0
"""Seconds after which a scene is given up: a client that waits for ever fails its test."""

Scores = Mapping[str, Mapping[int, float]]
"""By wake word: the score of each tenth of a second of a stream; elsewhere it is 0."""

WAKE: Scores = MappingProxyType({"okay_nabu": {5: 0.9}})


@dataclass
class Clocks:
    """The device's clock, and the one that is never set."""

    now: datetime = NOW
    seconds: float = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.seconds)

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


class Detector(Scripted):
    """A scripted detector of any wake word."""

    def __init__(self, wake_word: str, scores: Mapping[int, float]) -> None:
        super().__init__(dict(scores))
        self.wake_word = wake_word  # type: ignore[misc]


@dataclass
class Device:
    """A device's store and what is answered for it."""

    folder: Path
    scores: Scores = field(default_factory=lambda: WAKE)
    clocks: Clocks = field(default_factory=Clocks)
    consent: bool = True

    def __post_init__(self) -> None:
        path = self.folder / "store.db"
        if not path.exists():
            database.create(path, KEY)
        self.store = Store.open(path, KEY, RULES, NOW)
        if self.consent:
            self.store.grant("quality_metrics", NOW + timedelta(days=9), NOW - timedelta(days=1))
        self.writer = Writer(self.store)
        self.minutes = Minutes()

    def begin(self, wake_word: str, recorder: Recorder, start: datetime, now: datetime) -> AnySession:
        listener = Listener(Detector(wake_word, self.scores[wake_word]), start)
        return Session(listener, recorder, "quality_metrics", minutes=self.minutes)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return what is stored, once everything that waits was written."""
        assert self.writer.write(self.clocks.now, closing=True)
        names = ("purpose", *SOURCES[table].columns)
        return [dict(zip(names, row, strict=True)) for row in self.store.rows(table)]

    def outcomes(self) -> list[tuple[str, str | None, str | None]]:
        """Return what is stored of wakes and near misses: table, outcome and source."""
        found = [("wake_events", row["outcome"], row["label_source"]) for row in self.rows("wake_events")]
        return found + [("detections", None, None) for _ in self.rows("detections")]


class Player(AsyncTcpClient):
    """The library's client."""

    async def hear(self, seconds: float, pieces: int = 1, **changes: Any) -> list[Event]:
        """Play silence in chunks of so many tenths of a second; return what was answered, in order."""
        for _ in range(round(seconds * 10) // pieces):
            await self.write_event(chunk(pieces, **changes))
        return await self.answered()

    async def answered(self) -> list[Event]:
        """Return everything that was answered to what was sent, after waiting for it."""
        await self.write_event(Ping("everything").event())
        found = []
        while (event := await self.read_event()) is not None and event.type != "pong":
            found.append(event)
        return found

    async def said(self, *events: Event) -> list[Event]:
        """Send events and return what was answered."""
        for event in events:
            await self.write_event(event)
        return await self.answered()


def chunk(
    pieces: int = 1,
    rate: int = SAMPLE_RATE,
    width: int = 2,
    channels: int = 1,
    timestamp: int | None = None,
) -> Event:
    """Return so many tenths of a second of silence."""
    silence = bytes([128 if width == 1 else 0]) * (pieces * rate // 10 * width * channels)
    return AudioChunk(rate, width, channels, silence, timestamp).event()


def started(*names: str) -> tuple[Event, Event]:
    """Return the events that begin a stream, for some wake words or for all."""
    return Detect(list(names) or None).event(), AudioStart(SAMPLE_RATE, 2, 1).event()


def names(events: Sequence[Event]) -> list[str]:
    """Return the wake words that were detected."""
    return [str(event.data["name"]) for event in events if event.type == "detection"]


def speech(seconds: float) -> Pcm:
    """Return a buzz that comes and goes as syllables do: what WebRTC's detector calls speech."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    voice = sum(np.sin(2 * np.pi * 140 * harmonic * times) / harmonic for harmonic in range(1, 20))
    return (4_000 * voice * (np.sin(2 * np.pi * 2 * times) > 0)).astype(np.int16)


def run(scene: Coroutine[Any, Any, None]) -> None:
    """Play a scene to its end."""
    asyncio.run(asyncio.wait_for(scene, GUARD))


@asynccontextmanager
async def serving(device: Device, words: Sequence[str] | None = None) -> AsyncIterator[int]:
    """Serve a device on this machine, and yield the port."""
    with ThreadPoolExecutor(2) as pool:
        parts = Parts(tuple(words or device.scores), device.begin, device.writer, device.clocks.clock(), pool)
        service = Service(parts)
        server = await asyncio.start_server(service.connected, "127.0.0.1", 0, limit=LINE)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await service.end()


@asynccontextmanager
async def player(port: int) -> AsyncIterator[Player]:
    """Connect a client."""
    async with Player("127.0.0.1", port) as client:
        yield client
