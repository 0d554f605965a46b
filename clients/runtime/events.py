"""From a stream of audio to wake events: score it, join the frames of one wake, describe it, discard it.

An *episode* opens when the score passes the near-miss level and lasts for the refractory time; once it
passes the detector's threshold it is a wake, and lasts for the refractory time from there. So the frames
of one spoken word are one event, and false accepts are counted per event.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

import numpy as np

from clients.runtime.detectors import SAMPLE_RATE, Detector, Pcm, accepts
from clients.runtime.ring import Ring

REFRACTORY = timedelta(seconds=2)
NEAR = 0.5
"""A near miss reaches at least this share of the threshold."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One wake or near miss. `score` is the highest of its episode, `time` the start of its first hop."""

    time: datetime
    wake_word: str
    model_version: str
    score: float
    accepted: bool
    snr_db: float | None
    playback: bool


@dataclass(frozen=True, slots=True)
class Listened:
    """Whole minutes listened within one hour, `time` being its start; `snr_db` is its events' median."""

    time: datetime
    wake_word: str
    model_version: str
    snr_db: float | None
    playback: bool
    minutes: int

    def row(self) -> dict[str, object]:
        """Return the fields as a row of `listening`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Episode:
    time: datetime
    end: datetime
    score: float
    accepted: bool
    playback: bool
    snr_db: float | None


class Listener:
    """One detector on one stream. Feed it pieces of any length; it holds a few seconds of audio at most.

    Args:
        start: when the stream starts, UTC; the time of every event is counted from it in samples.
        refractory, near: see the module; `near` is a share of the detector's threshold.
    """

    def __init__(
        self, detector: Detector, start: datetime, refractory: timedelta = REFRACTORY, near: float = NEAR
    ) -> None:
        self._detector = detector
        self._ring = Ring()
        self._start = start
        self._refractory = refractory
        self._near = near * detector.threshold
        self._samples = 0
        self._rest = np.empty(0, np.int16)
        self._episode: _Episode | None = None
        self._minutes: dict[tuple[datetime, bool], int] = {}
        self._levels: dict[datetime, list[float]] = {}
        detector.reset()

    def feed(self, pcm: Pcm, *, playback: bool = False) -> list[Detection]:
        """Take in samples and return the events that ended with them. `playback`: the device is sounding.

        The detector gets whole hops from the start of the stream, so how the stream is split changes nothing.
        """
        events: list[Detection] = []
        pcm, hop = np.concatenate([self._rest, pcm]), self._detector.hop
        whole = pcm.size - pcm.size % hop
        for first in range(0, whole, hop):
            events += self._hop(pcm[first : first + hop], playback)
        self._rest = pcm[whole:].copy()
        return events

    @property
    def now(self) -> datetime:
        """The time up to which the stream was processed."""
        return self._start + timedelta(microseconds=self._samples * 1_000_000 // SAMPLE_RATE)

    def finish(self) -> tuple[list[Detection], list[Listened]]:
        """End the stream: return the open event and the minutes listened, and wipe the audio."""
        events = [self._close()] if self._episode else []
        rows = [
            Listened(hour, self._detector.wake_word, self._detector.model_version, snr, playback, minutes)
            for (hour, playback), samples in self._minutes.items()
            if (minutes := round(samples / SAMPLE_RATE / 60))
            for snr in [_median(self._levels.get(hour, []))]
        ]
        self._rest = self._rest[:0]
        self._minutes.clear()
        self._levels.clear()
        self._ring.wipe()
        self._detector.reset()
        return events, rows

    def _hop(self, pcm: Pcm, playback: bool) -> Iterable[Detection]:
        at = self.now
        self._ring.push(pcm)
        self._minutes[_hour(at), playback] = self._minutes.get((_hour(at), playback), 0) + pcm.size
        self._samples += pcm.size
        for score in self._detector.feed(pcm):
            yield from self._frame(at, float(score), playback)

    def _frame(self, at: datetime, score: float, playback: bool) -> Iterable[Detection]:
        if self._episode and at >= self._episode.end:
            yield self._close()
        wakes = accepts(self._detector, score)
        if self._episode is None:
            if score >= self._near:
                snr = self._ring.snr_db()
                if snr is not None:
                    self._levels.setdefault(_hour(at), []).append(snr)
                self._episode = _Episode(at, at + self._refractory, score, wakes, playback, snr)
            return
        self._episode.score = max(self._episode.score, score)
        self._episode.playback |= playback
        if wakes and not self._episode.accepted:
            self._episode.accepted = True
            self._episode.end = at + self._refractory

    def _close(self) -> Detection:
        episode, self._episode = self._episode, None
        assert episode is not None
        return Detection(
            episode.time,
            self._detector.wake_word,
            self._detector.model_version,
            min(1.0, episode.score),
            episode.accepted,
            episode.snr_db,
            episode.playback,
        )


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _median(levels: Sequence[float]) -> float | None:
    return median(levels) if levels else None
