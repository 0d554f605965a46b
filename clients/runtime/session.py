"""One microphone at work: audio in, labelled events into the store, and nothing kept beside them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from clients.device.consent import Purpose
from clients.runtime.detectors import Pcm
from clients.runtime.events import Detection, Listener, Minutes
from clients.runtime.labels import REACTION, Labelled, Labeller, Reaction
from clients.runtime.policy import FollowedPolicy


class Recorder(Protocol):
    """What takes a session's rows: a `clients.device.store.Store`, or what stands before one."""

    def record(
        self, source: str, events: Sequence[Mapping[str, object]], purpose: Purpose, now: datetime
    ) -> int:
        """See `Store.record`."""
        ...


class Observer(Protocol):
    """Who learns from what a session hears; a session writes the same with it and without."""

    def began(self, at: datetime) -> None:
        """Take in that detectors begin to hear, at this time of the stream."""
        ...

    def ended(self, at: datetime) -> None:
        """Take in that the event which began at `at` has just ended."""
        ...

    def labelled(self, label: Labelled, candidate: Detection | None, now: datetime) -> None:
        """Take in what an event was, as far as what followed shows it; `now` is the device's clock.

        `candidate` is what the model in shadow made of it, None where one model hears alone.
        """
        ...


class Session:
    """Processes one stream and writes its events for one purpose, once it is known what followed them.

    Without consent to the purpose the store writes nothing, and the events are gone. `policy` is followed by
    the listener's detector; `minutes` counts the time listened, of several streams where it is shared.
    """

    def __init__(
        self,
        listener: Listener,
        store: Recorder,
        purpose: Purpose,
        policy: FollowedPolicy | None = None,
        minutes: Minutes | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._listener = listener
        self._store = store
        self._purpose: Purpose = purpose
        self._policy = policy
        self._minutes = minutes or Minutes()
        self._observer = observer
        self._labeller = Labeller()
        self.written = 0

    def feed(self, pcm: Pcm, now: datetime, *, playback: bool = False) -> list[Detection]:
        """Take in samples; return the events that ended with them. `now` is the device's clock."""
        if self._policy is not None:
            self._policy.apply(self._listener.now, playback=playback)
        detections = self._listener.feed(pcm, playback=playback)
        self._add(detections)
        self._settle(self._listener.settled, now)
        return detections

    @property
    def woke(self) -> list[datetime]:
        """When the detector woke in what was fed last; see `clients.runtime.events.Episodes`."""
        return self._listener.woke

    def react(self, reaction: Reaction) -> None:
        """Take in what the person did."""
        if self._policy is not None and reaction.kind != "silence":
            self._policy.interacted(reaction.time)
        self._labeller.react(reaction)

    def command(self, row: dict[str, object], now: datetime) -> None:
        """Write what became of a command, a row of `labels.command_row`."""
        if self._policy is not None:
            self._policy.interacted(now)
        self._write("command_events", [row], now)

    def listened(self, now: datetime) -> None:
        """Write the minutes listened since they were last written."""
        self._write("listening", self._minutes.rows(self._listener.listened()), now)

    def finish(self, now: datetime) -> list[Detection]:
        """End the stream: write what was still waiting and the minutes listened; return the last events."""
        detections, listened = self._listener.finish()
        if self._policy is not None:
            self._policy.end()
        self._add(detections)
        self._settle(self._listener.now + REACTION, now)
        self._write("listening", self._minutes.rows(listened), now)
        return detections

    def _add(self, detections: list[Detection]) -> None:
        for event in detections:
            self._labeller.add(event)
            if self._observer is not None:
                self._observer.ended(event.time)

    def _settle(self, until: datetime, now: datetime) -> None:
        labels = self._labeller.settle(until)
        self._write("wake_events", [each.row() for each in labels], now)
        if self._observer is not None:
            for label in labels:
                self._observer.labelled(label, None, now)

    def _write(self, table: str, rows: list[dict[str, object]], now: datetime) -> None:
        if rows:
            self.written += self._store.record(table, rows, self._purpose, now)
