"""Play recordings to a device, as a microphone would: for trying it out, and for labs."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.session import Session
from clients.runtime.sources import file_pieces, file_seconds, folder_files, stream_pieces
from clients.runtime.switching import SwitchingSession

STANDARD_INPUT = Path("-")


@dataclass(frozen=True, slots=True)
class Played:
    """What was detected, and how many rows the store took."""

    wakes: int
    near_misses: int
    seconds: float
    written: int


Started = Callable[[datetime, datetime], Session | SwitchingSession]
"""Returns the session of a stream, given when the stream starts and the device's clock."""


def play(sources: Sequence[Path], started: Started, clock: Callable[[], datetime]) -> Played:
    """Play each source in turn, as a stream of its own.

    A recording is played as if it ended now; standard input is a microphone that starts now. Raises
    BadInput for what is no audio; events written before stay.
    """
    wakes = near = written = samples = 0
    for pieces, length in _streams(sources):
        session = started(clock() - timedelta(seconds=length), clock())
        detections = []
        for piece in pieces:
            detections += session.feed(piece, clock())
            samples += piece.size
        detections += session.finish(clock())
        wakes += sum(event.accepted for event in detections)
        near += sum(not event.accepted for event in detections)
        written += session.written
    return Played(wakes, near, round(samples / SAMPLE_RATE, 2), written)


def _streams(sources: Sequence[Path]) -> Iterator[tuple[Iterable[Pcm], float]]:
    """Yield each stream's pieces, and its length in seconds if it is a recording."""
    for source in sources:
        if source == STANDARD_INPUT:
            yield stream_pieces(sys.stdin.buffer), 0.0
        else:
            for path in folder_files(source) if source.is_dir() else [source]:
                yield file_pieces(path), file_seconds(path)
