"""Play recordings to a device, as a microphone would: for trying it out, and for labs."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from clients.device.store import Store
from clients.runtime.detectors import Detector, Pcm
from clients.runtime.events import Listener
from clients.runtime.session import Session
from clients.runtime.shadow import ShadowListener, ShadowSession
from clients.runtime.sources import file_pieces, file_seconds, folder_files, stream_pieces

STANDARD_INPUT = Path("-")


@dataclass(frozen=True, slots=True)
class Played:
    """What was detected, and how many rows the store took."""

    wakes: int
    near_misses: int
    seconds: float
    written: int


def play(
    sources: Sequence[Path],
    detector: Detector,
    store: Store,
    clock: Callable[[], datetime],
    candidate: Detector | None = None,
) -> Played:
    """Play each source in turn, as a stream of its own, for quality metrics; a candidate scores in shadow.

    A recording is played as if it ended now; standard input is a microphone that starts now. Raises
    BadInput for what is no audio; events written before stay.
    """
    wakes = near = written = 0
    seconds = 0.0
    for pieces, length in _streams(sources):
        start = clock() - timedelta(seconds=length)
        listener: Listener | ShadowListener
        session: Session | ShadowSession
        if candidate is None:
            listener = Listener(detector, start)
            session = Session(listener, store, "quality_metrics")
        else:
            listener = ShadowListener(detector, candidate, start)
            session = ShadowSession(listener, store, "quality_metrics")
        detections = [event for piece in pieces for event in session.feed(piece, clock())]
        detections += session.finish(clock())
        wakes += sum(event.accepted for event in detections)
        near += sum(not event.accepted for event in detections)
        seconds += (listener.now - start).total_seconds()
        written += session.written
    return Played(wakes, near, round(seconds, 2), written)


def _streams(sources: Sequence[Path]) -> Iterator[tuple[Iterable[Pcm], float]]:
    """Yield each stream's pieces, and its length in seconds if it is a recording."""
    for source in sources:
        if source == STANDARD_INPUT:
            yield stream_pieces(sys.stdin.buffer), 0.0
        else:
            for path in folder_files(source) if source.is_dir() else [source]:
                yield file_pieces(path), file_seconds(path)
