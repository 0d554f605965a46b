"""One client's audio: a session for each wake word that it listens for, and what shows how a wake went.

The protocol shows a wake-word service little of what its detections led to, and what it does not show stays
unknown: a wake that nothing showed to be right or wrong is a row of `detections`, and a near miss whose
stream ended before the word could be said again has no outcome.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import webrtcvad

from clients.device.consent import Purpose
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.labels import REACTION, RETRY, Reaction, ReactionKind
from clients.runtime.ring import FRAME
from clients.runtime.session import Recorder
from clients.runtime.sources import PIECE
from fa_core.tables import DETECTIONS

Row = Mapping[str, object]

WRITE_MINUTES = timedelta(minutes=5)
"""How often a stream's listening time is handed on."""


class AnySession(Protocol):
    """A session, whatever it runs; see `clients.runtime.session.Session`."""

    def feed(self, pcm: Pcm, now: datetime) -> object: ...
    @property
    def woke(self) -> list[datetime]: ...
    def react(self, reaction: Reaction) -> None: ...
    def listened(self, now: datetime) -> None: ...
    def finish(self, now: datetime) -> object: ...


class Begin(Protocol):
    """Returns the session of one wake word for a stream that starts at `start`."""

    def __call__(self, wake_word: str, recorder: Recorder, start: datetime, now: datetime) -> AnySession: ...


def placed(source: str, events: Sequence[Row], ended: datetime | None) -> dict[str, list[Row]]:
    """Return rows by the table that they belong to, with no more said of them than is known.

    Args:
        ended: when the stream ended, None while it goes on.
    """
    if source != "wake_events":
        return {source: list(events)}
    # Two rows of one time are of two models in shadow, and are compared; they stay together.
    alone = Counter(event["time"] for event in events)
    found: dict[str, list[Row]] = {"wake_events": [], "detections": []}
    for event in events:
        if event["accepted"] and event["outcome"] is None and alone[event["time"]] == 1:
            found["detections"].append({name: event[name] for name in DETECTIONS.columns})
        elif event["label_source"] == "near_miss" and ended is not None and _cut_off(event, ended):
            found["wake_events"].append({**event, "outcome": None, "label_source": None})
        else:
            found["wake_events"].append(event)
    return {table: rows for table, rows in found.items() if rows}


def _cut_off(event: Row, ended: datetime) -> bool:
    """Return whether the word could have been said again after the stream had ended."""
    time = event["time"]
    return isinstance(time, datetime) and time + RETRY > ended


class StreamRecorder:
    """Takes the rows of one stream's sessions and hands them on as `placed` has them."""

    def __init__(self, onward: Recorder) -> None:
        self._onward = onward
        self.ended: datetime | None = None

    def record(self, source: str, events: Sequence[Row], purpose: Purpose, now: datetime) -> int:
        """See `Recorder.record`."""
        tables = placed(source, events, self.ended)
        return sum(self._onward.record(table, rows, purpose, now) for table, rows in tables.items())


class Silence:
    """Watches whether anybody speaks after a wake. The first half second is the word's and the chime's."""

    SKIPPED = SAMPLE_RATE // 2
    WATCHED = 5 * SAMPLE_RATE
    MOST_SPEECH = SAMPLE_RATE // 5
    """Samples in frames that are called speech: with so many, somebody may have spoken."""

    def __init__(self) -> None:
        self._detector = webrtcvad.Vad(2)
        self._rest = b""
        self._passed = self.WATCHED
        self._speech = 0

    def woke(self) -> None:
        """Begin to watch."""
        self._rest, self._passed, self._speech = b"", -self.SKIPPED, 0

    def feed(self, pcm: Pcm) -> bool:
        """Take in samples; return true once, when the time is over and nobody spoke."""
        if self._passed >= self.WATCHED:
            return False
        data, size = self._rest + pcm.tobytes(), 2 * FRAME
        for start in range(0, len(data) - size + 1, size):
            self._passed += FRAME
            if self._passed > 0 and self._detector.is_speech(data[start : start + size], SAMPLE_RATE):
                self._speech += FRAME
        self._rest = data[len(data) - len(data) % size :]
        return self._passed >= self.WATCHED and self._speech < self.MOST_SPEECH


class Stream:
    """One stream of 16 kHz audio, from its first sample until it pauses, stops or its client is gone.

    Its methods may be called from any thread; what is called after `finish` does nothing.

    Args:
        words: the wake words to listen for. start: when the stream starts; `now`: the device's clock.
    """

    def __init__(
        self, words: Sequence[str], begin: Begin, onward: Recorder, start: datetime, now: datetime
    ) -> None:
        self._recorder = StreamRecorder(onward)
        self._sessions = {word: begin(word, self._recorder, start, now) for word in words}
        self._start = start
        self._samples = 0
        self._written = start
        self._silence = Silence()
        self._last: tuple[str, datetime] | None = None
        self._alone = threading.Lock()

    @property
    def at(self) -> datetime:
        """The time of the stream: its start, and the samples since."""
        return self._start + timedelta(microseconds=self._samples * 1_000_000 // SAMPLE_RATE)

    def feed(self, pcm: Pcm, now: datetime) -> list[str]:
        """Take in at most `PIECE` samples; return the wake words that were detected with them."""
        assert pcm.size <= PIECE
        with self._alone:
            self._samples += pcm.size
            woke = []
            for word, session in self._sessions.items():
                session.feed(pcm, now)
                if times := session.woke:
                    woke.append(word)
                    self._last = word, times[-1]
            if woke:
                self._silence.woke()
            elif self._silence.feed(pcm):
                self._react("silence", self.at)
            if self.at - self._written >= WRITE_MINUTES:
                self._written = self.at
                for session in self._sessions.values():
                    session.listened(now)
            return woke

    def waits(self, at: datetime) -> bool:
        """Return whether a reaction at a time of the stream's would be one to its last wake."""
        return self._last is not None and at < self._last[1] + REACTION

    def react(self, kind: ReactionKind, at: datetime) -> None:
        """Take in what followed the last wake, at a time of the stream's."""
        with self._alone:
            self._react(kind, at)

    def _react(self, kind: ReactionKind, at: datetime) -> None:
        if self._last is not None and (session := self._sessions.get(self._last[0])) is not None:
            session.react(Reaction(at, kind))

    def finish(self, now: datetime) -> None:
        """End the stream: what was still waiting is handed on as it stands, and the audio is wiped."""
        with self._alone:
            self._recorder.ended = self.at
            for session in self._sessions.values():
                session.finish(now)
            self._sessions = {}
