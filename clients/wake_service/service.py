"""The service: clients of a voice assistant, each with its own stream, and none in another's way.

Audio is heard in threads, piece by piece, so a client that sends faster than it is heard waits for its own
stream alone. Where one stalls, sends what cannot be read or vanishes, its own stream ends.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TypeVar

from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import Attribution, Describe, Info, WakeModel, WakeProgram
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

from clients.device.contribution import Clock
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.labels import REACTION, ReactionKind
from clients.runtime.session import Recorder
from clients.runtime.sources import PIECE
from clients.wake_service.stream import Begin, Stream
from clients.wake_service.wire import AudioFormat, Converter, Malformed, read_event

MOST_CLIENTS = 32
SILENT_SECONDS = 10.0
"""A client without a stream that is silent for so long makes room for another, where there is none left."""

WRITE_SECONDS = 10.0
"""How long it may leave an answer unread."""

PAUSE_SECONDS = 2.0
"""Audio that pauses for so long goes on as a new stream."""

STEP = timedelta(minutes=1)
"""A stream that is so far behind the device's clock begins anew, and where that was set back so far."""

NOTHING_SAID = "stt-no-text-recognized"
"""The code of Home Assistant's error where speech recognition found no words."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a service consists of.

    Attributes:
        words: the wake words that it answers for. begin: returns the session of one.
        onward: takes the rows. pool: the threads that hear.
    """

    words: tuple[str, ...]
    begin: Begin
    onward: Recorder
    clock: Clock
    pool: ThreadPoolExecutor


def info(words: tuple[str, ...]) -> Info:
    """Return what the service says of itself. Which model acts is nobody's to know: it has no version."""
    ours = Attribution("Unheard", "")
    models = [
        WakeModel(word, ours, True, phrase, None, ["en"], phrase)
        for word in words
        for phrase in [word.replace("_", " ")]
    ]
    program = WakeProgram(
        "unheard", ours, True, "The device's own wake-word detector", version("unheard"), models
    )
    return Info(wake=[program])


class Service:
    """Answers every client, until it is ended."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clients: dict[asyncio.Task[None], Client] = {}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it ends. It raises nothing but what ends the service."""
        client, task = Client(self._parts, self._others, reader, writer), asyncio.current_task()
        assert task is not None
        try:
            if not self._has_room():
                raise Malformed(f"there are {MOST_CLIENTS} clients already")
            self._clients[task] = client
            await client.run()
        except Malformed as wrong:
            logger.info("a client is refused: there are too many, or what it sent cannot be answered")
            with suppress(OSError):
                await client.answer(Error(str(wrong)))
        except (OSError, EOFError):  # a TimeoutError is one of the first
            logger.info("a client vanished, or left an answer unread")
        except asyncio.CancelledError:
            logger.info("a connection was ended: the service stops, or another client needs its place")
        except Exception:
            logger.exception("a client's stream ended by a defect")
        finally:
            self._clients.pop(task, None)
            writer.close()
            await client.end()

    async def end(self) -> None:
        """End every client, and what its stream was waiting for."""
        ending = list(self._clients)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def _has_room(self) -> bool:
        """Return whether one more client may come; where need be, the one that was silent longest ends."""
        if len(self._clients) < MOST_CLIENTS:
            return True
        silent = {task: seconds for task, client in self._clients.items() if (seconds := client.silent())}
        longest = max(silent, key=silent.__getitem__, default=None)
        if longest is None or silent[longest] < SILENT_SECONDS:
            return False
        longest.cancel()
        del self._clients[longest]
        return True

    def _others(self, address: str) -> list["Client"]:
        return [each for each in self._clients.values() if each.address == address and each.waits()]


class Client:
    """One connection: its stream while there is one, and its answers.

    Args:
        others: returns the clients at an address that wait for what follows a wake.
    """

    def __init__(
        self,
        parts: Parts,
        others: Callable[[str], list["Client"]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._parts = parts
        self._others = others
        self._reader = reader
        self._writer = writer
        peer = writer.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._words = parts.words
        self._converter: Converter | None = None
        self._stream: Stream | None = None
        self._stopped = False
        self._detected = False
        self._ahead = 0.0
        self._heard = 0.0
        self._spoke = parts.clock.running()

    async def run(self) -> None:
        """Answer until the client ends; see `read_event` for what is raised."""
        while (event := await self._next()) is not None:
            self._spoke = self._parts.clock.running()
            await self._handle(event)

    def silent(self) -> float:
        """Return for how many seconds nothing came; 0 where there is a stream."""
        return 0.0 if self._stream else self._parts.clock.running() - self._spoke

    async def answer(self, said: Eventable) -> None:
        """Send an event. Raises TimeoutError where the client reads none."""
        try:
            await asyncio.wait_for(async_write_event(said.event(), self._writer), WRITE_SECONDS)
        except TimeoutError:
            self._writer.transport.abort()
            raise

    async def end(self) -> None:
        """End the stream, if there is one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await self._threaded(stream.finish, self._now())

    def waits(self) -> bool:
        """Return whether what followed now would have followed a wake of this client's."""
        return self._stream is not None and self._stream.waits(self._at(self._stream))

    async def _next(self) -> Event | None:
        """Return the next event; a stream that nothing follows ends meanwhile."""
        if self._stream is not None:
            try:
                return await read_event(self._reader, REACTION.total_seconds())
            except TimeoutError:
                await self.end()
        return await read_event(self._reader)

    async def _handle(self, event: Event) -> None:
        if AudioChunk.is_type(event.type):
            await self._hear(event)
        elif Describe.is_type(event.type):
            await self.answer(info(self._parts.words))
        elif Detect.is_type(event.type):
            await self._detect(event.data.get("names") or [])
        elif AudioStart.is_type(event.type):
            AudioFormat.of(event)
            self._stopped, self._detected = True, False
        elif AudioStop.is_type(event.type):
            self._stopped = True
            if not self._detected:
                await self.answer(NotDetected())
            self._detected = False
        elif Ping.is_type(event.type):
            text = event.data.get("text")
            await self.answer(Pong(_encodable(text) if isinstance(text, str) else None))
        elif Transcript.is_type(event.type):
            text = event.data.get("text")
            await self._react("follow_up" if isinstance(text, str) and text.strip() else "silence")
        elif Error.is_type(event.type) and event.data.get("code") == NOTHING_SAID:
            await self._react("silence")

    async def _detect(self, names: object) -> None:
        """Listen for these wake words from here on; for all where none is named."""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Malformed("the names to detect must be a list of wake words")
        words = tuple(word for word in self._parts.words if not names or word in names)
        if words != self._words:
            self._words = words
            await self.end()
        if not words:
            known = ", ".join(self._parts.words)
            await self.answer(Error(f"there is no detector of these names; there are: {known}"))

    async def _hear(self, event: Event) -> None:
        given = AudioFormat.of(event)
        if self._converter is None or self._converter.format != given:
            self._converter = Converter(given)
        pcm = self._converter.convert(event.payload or b"")
        now = self._parts.clock.now()
        if self._stream is not None and self._begins_anew(self._stream, now):
            await self.end()
        if self._stream is None:
            self._ahead = self._clock_ahead(now)
            start = now - timedelta(seconds=pcm.size / SAMPLE_RATE)
            parts = self._parts
            self._stream = await self._threaded(Stream, self._words, parts.begin, parts.onward, start, now)
        self._stopped = False
        for begin in range(0, pcm.size, PIECE):
            await self._hear_piece(self._stream, pcm[begin : begin + PIECE], event.data.get("timestamp"))
        self._heard = self._parts.clock.running()

    async def _hear_piece(self, stream: Stream, pcm: Pcm, timestamp: object) -> None:
        for word in await self._threaded(stream.feed, pcm, self._now()):
            self._detected = True
            await self.answer(Detection(word, timestamp if isinstance(timestamp, int) else None))

    def _begins_anew(self, stream: Stream, now: datetime) -> bool:
        return (
            self._stopped
            or self._parts.clock.running() - self._heard >= PAUSE_SECONDS
            or now - stream.at >= STEP
            or self._ahead - self._clock_ahead(now) >= STEP.total_seconds()
        )

    def _clock_ahead(self, now: datetime) -> float:
        """Return how far the device's clock is ahead of the one that is never set, in seconds."""
        return now.timestamp() - self._parts.clock.running()

    def _now(self) -> datetime:
        """Return the device's clock as the stream has it: as it was when the stream began, and the time
        since by the one that is never set. So a clock that is set makes no row one of another day."""
        return datetime.fromtimestamp(self._ahead + self._parts.clock.running(), UTC)

    async def _react(self, kind: ReactionKind) -> None:
        """Hand a reaction to this client's stream, or to the only one at its address that waits for one."""
        waiting = [self] if self.waits() else self._others(self.address)
        if len(waiting) == 1 and (stream := waiting[0]._stream) is not None:
            await self._threaded(stream.react, kind, waiting[0]._at(stream))

    def _at(self, stream: Stream) -> datetime:
        """Return the time of a stream, and of its pause since."""
        return stream.at + timedelta(seconds=self._parts.clock.running() - self._heard)

    async def _threaded(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.pool, work, *arguments)


def _encodable(text: str) -> str:
    """Return a text with half a surrogate pair, which JSON may have and UTF-8 may not, replaced."""
    return text.encode("utf-8", "replace").decode()
