"""From a stream of audio to wake events: score it, join the frames of one wake, describe it, discard it.

An *episode* opens when the score passes the near-miss level and lasts for the refractory time; once it
passes the detector's threshold it is a wake, and lasts for the refractory time from there. So the frames
of one spoken word are one event, and false accepts are counted per event. Where several detectors hear one
stream, one episode is of them all: any of them opens it, and the first wake of each prolongs it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from threading import Lock

import numpy as np

from clients.runtime.detectors import SAMPLE_RATE, Detector, Pcm, accepts
from clients.runtime.ring import Ring

REFRACTORY = timedelta(seconds=2)
NEAR = 0.5
"""A near miss reaches at least this share of the threshold."""

MINUTE = 60 * SAMPLE_RATE
"""Samples of a minute."""


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
    """Samples listened to within one hour, `time` being its start; `snr_db` is its events' median."""

    time: datetime
    wake_word: str
    model_version: str
    snr_db: float | None
    playback: bool
    samples: int


class Minutes:
    """Counts whole minutes out of what was listened to; what they leave is carried on to the next.

    One may serve several streams, each after the other or at once: so many short ones are not rounded away.
    """

    def __init__(self) -> None:
        self._over: dict[tuple[str, str, bool], int] = {}
        self._alone = Lock()

    def rows(self, listened: Sequence[Listened]) -> list[dict[str, object]]:
        """Return the rows of `listening`, for each hour that has a minute, to the nearest one."""
        with self._alone:
            return [
                {
                    "time": each.time,
                    "wake_word": each.wake_word,
                    "model_version": each.model_version,
                    "snr_db": each.snr_db,
                    "playback": each.playback,
                    "minutes": minutes,
                }
                for each in listened
                if (minutes := self._whole(each))
            ]

    def _whole(self, each: Listened) -> int:
        """Return the minutes of one hour, and carry on at most half a minute too many or too few."""
        key = each.wake_word, each.model_version, each.playback
        samples = self._over.get(key, 0) + each.samples
        minutes = max(0, round(samples / MINUTE))
        self._over[key] = samples - minutes * MINUTE
        return minutes


@dataclass(slots=True)
class _Model:
    """One detector: its near-miss level, the samples it had, and those of a hop that is not yet whole."""

    detector: Detector
    near: float
    samples: int = 0
    waiting: list[Pcm] = field(default_factory=list)
    missing: int = 0

    def __post_init__(self) -> None:
        self.missing = self.detector.hop
        self.detector.reset()


@dataclass(slots=True)
class _Episode:
    """The open episode; `end` is of its last frame at the earliest, `scores` are each model's highest."""

    time: datetime
    end: datetime
    scores: list[float]
    accepted: list[bool]
    playback: bool
    snr_db: float | None


class Episodes:
    """Some detectors on one stream. Feed it pieces of any length; it holds a few seconds of audio at most.

    Each detector gets whole hops from the start of the stream, in the order in which the hops end and then of
    the detectors, so how the stream is split changes nothing.

    Args:
        detectors: for one wake word; wakes and the time listened are the first one's.
        start: when the stream starts, UTC; the time of every event is counted from it in samples.
        refractory, near: see the module; `near` is a share of a detector's threshold.
    """

    def __init__(
        self, detectors: Sequence[Detector], start: datetime, refractory: timedelta, near: float
    ) -> None:
        self._models = [_Model(each, near * each.threshold) for each in detectors]
        self._ring = Ring()
        self._start = start
        self._refractory = refractory
        self._samples = 0
        self._episode: _Episode | None = None
        self._samples_of: dict[tuple[datetime, bool], int] = {}
        self._levels: dict[datetime, list[float]] = {}
        self.woke: list[datetime] = []
        """When the first detector woke in what was fed last: with the hop, while the episode is yet open."""

    @property
    def now(self) -> datetime:
        """The time up to which the first detector heard the stream."""
        return self._at(self._models[0].samples)

    @property
    def settled(self) -> datetime:
        """The time from which on events may yet be returned."""
        return self._episode.time if self._episode else self._at(min(each.samples for each in self._models))

    def feed(self, pcm: Pcm, *, playback: bool = False) -> list[tuple[Detection, ...]]:
        """Take in samples and return the episodes that ended with them, a detection by each detector."""
        ended: list[tuple[Detection, ...]] = []
        self.woke = []
        while pcm.size:
            size = min(pcm.size, *(each.missing for each in self._models))
            ended += self._step(pcm[:size].copy(), playback)
            pcm = pcm[size:]
        return ended

    def listened(self) -> list[Listened]:
        """Return what was listened to since this was last asked."""
        first = self._models[0].detector
        found = [
            Listened(hour, first.wake_word, first.model_version, snr, playback, samples)
            for (hour, playback), samples in self._samples_of.items()
            for snr in [_median(self._levels.get(hour, []))]
        ]
        self._samples_of.clear()
        self._levels.clear()
        return found

    def finish(self) -> tuple[list[tuple[Detection, ...]], list[Listened]]:
        """End the stream: return the open episode and what was listened to, and wipe the audio."""
        ended = [self._close()] if self._episode else []
        listened = self.listened()
        self._ring.wipe()
        for each in self._models:
            each.waiting.clear()
            each.detector.reset()
        return ended, listened

    def _step(self, pcm: Pcm, playback: bool) -> Iterator[tuple[Detection, ...]]:
        """Take in samples up to the end of a hop at most."""
        self._ring.push(pcm)
        self._samples += pcm.size
        for number, model in enumerate(self._models):
            model.waiting.append(pcm)
            model.missing -= pcm.size
            if not model.missing:
                yield from self._hop(number, model, playback)

    def _hop(self, number: int, model: _Model, playback: bool) -> Iterator[tuple[Detection, ...]]:
        at, pcm = self._at(model.samples), np.concatenate(model.waiting)
        model.waiting.clear()
        model.samples, model.missing = self._samples, model.detector.hop
        if number == 0:
            key = _hour(at), playback
            self._samples_of[key] = self._samples_of.get(key, 0) + pcm.size
        for score in model.detector.feed(pcm):
            yield from self._frame(number, at, float(score), playback)

    def _frame(
        self, number: int, at: datetime, score: float, playback: bool
    ) -> Iterator[tuple[Detection, ...]]:
        model, end = self._models[number], self._at(self._samples)
        if self._episode and end >= self._episode.end:
            yield self._close()
        if self._episode is None:
            if score < model.near:
                return
            self._episode = self._opened(at, end, playback)
        episode = self._episode
        episode.scores[number] = max(episode.scores[number], score)
        episode.playback |= playback
        if accepts(model.detector, score) and not episode.accepted[number]:
            episode.accepted[number] = True
            episode.end = end + self._refractory
            if number == 0:
                self.woke.append(end)

    def _opened(self, at: datetime, end: datetime, playback: bool) -> _Episode:
        snr, count = self._ring.snr_db(), len(self._models)
        if snr is not None:
            self._levels.setdefault(_hour(at), []).append(snr)
        return _Episode(at, end + self._refractory, [0.0] * count, [False] * count, playback, snr)

    def _close(self) -> tuple[Detection, ...]:
        episode, self._episode = self._episode, None
        assert episode is not None
        return tuple(
            Detection(
                episode.time,
                model.detector.wake_word,
                model.detector.model_version,
                min(1.0, score),
                accepted,
                episode.snr_db,
                episode.playback,
            )
            for model, score, accepted in zip(self._models, episode.scores, episode.accepted, strict=True)
        )

    def _at(self, samples: int) -> datetime:
        return self._start + timedelta(microseconds=samples * 1_000_000 // SAMPLE_RATE)


class Listener:
    """One detector on one stream; see `Episodes`."""

    def __init__(
        self, detector: Detector, start: datetime, refractory: timedelta = REFRACTORY, near: float = NEAR
    ) -> None:
        self._episodes = Episodes((detector,), start, refractory, near)

    def feed(self, pcm: Pcm, *, playback: bool = False) -> list[Detection]:
        """Take in samples and return the events that ended with them. `playback`: the device is sounding."""
        return [event for (event,) in self._episodes.feed(pcm, playback=playback)]

    @property
    def now(self) -> datetime:
        """The time up to which the stream was processed."""
        return self._episodes.now

    @property
    def settled(self) -> datetime:
        """The time from which on events may yet be returned."""
        return self._episodes.settled

    @property
    def woke(self) -> list[datetime]:
        """See `Episodes.woke`."""
        return self._episodes.woke

    def listened(self) -> list[Listened]:
        """See `Episodes.listened`."""
        return self._episodes.listened()

    def finish(self) -> tuple[list[Detection], list[Listened]]:
        """End the stream: return the open event and what was listened to, and wipe the audio."""
        ended, listened = self._episodes.finish()
        return [event for (event,) in ended], listened


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _median(levels: Sequence[float]) -> float | None:
    return median(levels) if levels else None
