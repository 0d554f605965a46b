"""Events of the Wyoming protocol, read within bounds, and audio of any usual form made 16 kHz mono.

An event is a line of JSON with its type and the lengths of what follows it: more JSON, then a payload. The
library reads whatever length a client names; here a client may take up so much of the memory and no more.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from av import AudioFrame, AudioResampler
from numpy.typing import NDArray
from wyoming.event import Event

from clients.runtime.detectors import SAMPLE_RATE, Pcm

LINE = 64 << 10
"""Bytes of an event's first line at most; its further JSON may be as long."""

PAYLOAD = 1 << 20
"""Bytes of a payload at most: half a minute of 16 kHz audio in one chunk."""

EVENT_SECONDS = 10.0
"""How long the rest of an event may take once its first line is here."""

RATES = range(8_000, 192_001)
LAYOUTS = {1: "mono", 2: "stereo"}
FORMATS = {1: ("u8", "u1"), 2: ("s16", "<i2"), 4: ("s32", "<i4")}
"""By bytes a sample, as the protocol has them: the name in FFmpeg, and NumPy's."""


class Malformed(Exception):
    """What a client sent is no event, or not one that fits the bounds; the text is for its owner."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Samples a second, bytes a sample and channels of a client's audio."""

    rate: int
    width: int
    channels: int

    @classmethod
    def of(cls, event: Event) -> "AudioFormat":
        """Return the format that an event names. Raises Malformed where that is none that can be heard."""
        found = [event.data.get(name) for name in ("rate", "width", "channels")]
        numbers = [each for each in found if isinstance(each, int)]
        if len(numbers) < len(found):
            raise Malformed(f"{event.type} must have the whole numbers rate, width and channels")
        rate, width, channels = numbers
        if rate not in RATES or width not in FORMATS or channels not in LAYOUTS:
            raise Malformed(
                f"audio of {rate} Hz, {width} bytes a sample and {channels} channels cannot be heard; "
                f"{RATES[0]} to {RATES[-1]} Hz, 1, 2 or 4 bytes and 1 or 2 channels can"
            )
        return cls(rate, width, channels)


class Converter:
    """Makes audio of one format 16 kHz, mono, signed 16 bit. Samples that are so already pass untouched."""

    def __init__(self, given: AudioFormat) -> None:
        self.format = given
        self._name, self._dtype = FORMATS[given.width]
        as_it_is = given == AudioFormat(SAMPLE_RATE, 2, 1)
        self._resampler = None if as_it_is else AudioResampler("s16", "mono", SAMPLE_RATE)

    def convert(self, data: bytes) -> Pcm:
        """Return the samples that these bytes complete. Raises Malformed where they end within a sample."""
        if len(data) % (self.format.width * self.format.channels):
            raise Malformed("a chunk of audio must end with a whole sample of every channel")
        samples: NDArray[np.integer[Any]] = np.frombuffer(data, self._dtype)
        if self._resampler is None or not samples.size:
            return samples.astype(np.int16)
        frame = AudioFrame.from_ndarray(samples[None], self._name, LAYOUTS[self.format.channels])
        frame.sample_rate = self.format.rate
        parts = [each.to_ndarray()[0] for each in self._resampler.resample(frame)]
        return np.concatenate([np.empty(0, np.int16), *parts]).astype(np.int16)


async def read_event(reader: asyncio.StreamReader, seconds: float | None = None) -> Event | None:
    """Return a client's next event, None where it has ended.

    Args:
        seconds: how long to wait for its first line, None for as long as it takes.
    Raises:
        Malformed: it is no event, or too long. IncompleteReadError, ConnectionError: the client vanished.
        TimeoutError: no line came; what came of one is kept for the next call.
    """
    try:
        line = await asyncio.wait_for(reader.readline(), seconds)
    except ValueError:
        raise Malformed(f"an event's first line must be at most {LINE} bytes long") from None
    if not line:
        return None
    head = _object(line)
    kind, data = head.get("type"), head.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise Malformed("an event must have a type, and data that is an object")
    more, payload = _length(head, "data_length", LINE), _length(head, "payload_length", PAYLOAD)
    try:
        rest = await asyncio.wait_for(reader.readexactly(more + payload), EVENT_SECONDS)
    except TimeoutError:
        raise Malformed(f"the rest of an event must follow within {EVENT_SECONDS:.0f} s") from None
    return Event(kind, {**data, **(_object(rest[:more]) if more else {})}, rest[more:])


def _object(text: bytes) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("an event must be a line of JSON") from None
    if not isinstance(found, dict):
        raise Malformed("an event must be an object")
    return found


def _length(head: dict[str, object], name: str, most: int) -> int:
    length = head.get(name)
    if length is None:
        return 0
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= most:
        raise Malformed(f"{name} must be a whole number from 0 to {most}")
    return length
