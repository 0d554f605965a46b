"""Two detectors on one stream: what a candidate would have done, while the acting model does what is done.

Two models score at their own pace (hops of 30 and 80 ms, say) and are late by their own lag, so their events
would never begin at one time. In shadow both speak to one *moment*: an episode that either of them opens
(`clients.runtime.events.Episodes`), with each model's peak in it. A candidate that comes nowhere near its
threshold leaves the acting model's events as they are without it. In a rollout both score as they were
published, without anything that was learnt on the device; what was learnt is compared with its base in the
same way, at other times (`clients.personal`).

A moment is labelled by what followed for the acting model, for nobody reacts to a candidate. What was meant
to wake the device was heard or missed by each of the two, and what was not, likewise. Where only the
candidate woke, and nobody said the word again, nothing shows whether it was right to: then its row is one of
`detections`, and a gate counts these as what they are, unknown.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from clients.device.consent import Purpose
from clients.runtime.detectors import Detector, Pcm
from clients.runtime.events import NEAR, REFRACTORY, Detection, Episodes, Listened, Minutes
from clients.runtime.labels import REACTION, Labelled, Labeller, Outcome, Reaction
from clients.runtime.policy import FollowedPolicy
from clients.runtime.session import Observer, Recorder
from fa_core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment, as each model heard it; the two detections have equal times.

    `near` says whether the acting model came near its threshold: it has an event without the candidate, too.
    """

    acting: Detection
    candidate: Detection
    near: bool


def rows(moment: Moment, label: Labelled) -> dict[str, list[dict[str, object]]]:
    """Return the rows of a moment by table, given the label of the acting model's detection.

    Two rows of `wake_events`, unless only the candidate woke and nothing shows whether it was right: then its
    row is one of `detections`, and the acting model's near miss stands alone, if it was one. A moment in
    which neither woke and the acting model came not even near has none, unless the word was then said again.
    """
    candidate = moment.candidate
    if moment.acting.accepted or label.outcome == "false_reject":
        heard = Labelled(candidate, _outcome(candidate.accepted, label.outcome), label.source)
        return {"wake_events": [label.row(), heard.row()]}
    own = [label.row()] if moment.near else []
    if candidate.accepted:
        return {"wake_events": own, "detections": [_unlabelled(candidate)]}
    return {"wake_events": [*own, Labelled(candidate, label.outcome, label.source).row()] if own else []}


def _outcome(accepted: bool, acting: Outcome | None) -> Outcome | None:
    """Return the outcome of a model that woke or did not, in a moment where the acting model's is known."""
    if acting is None:
        return None
    if acting in ("true_accept", "false_reject"):
        return "true_accept" if accepted else "false_reject"
    return "false_accept" if accepted else "true_reject"


def _unlabelled(detection: Detection) -> dict[str, object]:
    names = ("time", "wake_word", "model_version", "score", "snr_db", "playback")
    return {name: getattr(detection, name) for name in names}


class ShadowListener:
    """An acting model and a candidate on one stream; see the module and `clients.runtime.events.Episodes`.

    Raises BadInput where the two listen for different wake words or are of one version: no row would say
    whose it is.
    """

    def __init__(
        self,
        acting: Detector,
        candidate: Detector,
        start: datetime,
        refractory: timedelta = REFRACTORY,
        near: float = NEAR,
    ) -> None:
        if acting.wake_word != candidate.wake_word or acting.model_version == candidate.model_version:
            raise BadInput("in shadow score two versions of a model, and both for one wake word")
        self._episodes = Episodes((acting, candidate), start, refractory, near)
        self._near = near * acting.threshold

    @property
    def now(self) -> datetime:
        """The time up to which the stream was processed."""
        return self._episodes.now

    @property
    def settled(self) -> datetime:
        """The time from which on moments may yet be returned."""
        return self._episodes.settled

    def feed(self, pcm: Pcm, *, playback: bool = False) -> list[Moment]:
        """Take in samples and return the moments that ended with them. `playback`: the device is sounding."""
        return [self._moment(*each) for each in self._episodes.feed(pcm, playback=playback)]

    @property
    def woke(self) -> list[datetime]:
        """When the acting model woke in what was fed last; see `Episodes.woke`."""
        return self._episodes.woke

    def listened(self) -> list[Listened]:
        """Return what the acting model listened to; see `Episodes.listened`."""
        return self._episodes.listened()

    def finish(self) -> tuple[list[Moment], list[Listened]]:
        """End the stream: return the open moment and what the acting model listened to; wipe the audio."""
        ended, listened = self._episodes.finish()
        return [self._moment(*each) for each in ended], listened

    def _moment(self, acting: Detection, candidate: Detection) -> Moment:
        return Moment(acting, candidate, acting.score >= self._near)


class ShadowSession:
    """One microphone in shadow: as `clients.runtime.session.Session`, with the rows of both models.

    `policy` is followed by both of the listener's detectors: it would stand beside either of them.
    """

    def __init__(
        self,
        listener: ShadowListener,
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
        self._moments: deque[Moment] = deque()
        self.written = 0

    def feed(self, pcm: Pcm, now: datetime, *, playback: bool = False) -> list[Detection]:
        """Take in samples; return the acting model's events that ended with them. `now`: the device's."""
        if self._policy is not None:
            self._policy.apply(self._listener.now, playback=playback)
        moments = self._listener.feed(pcm, playback=playback)
        self._take(moments, self._listener.settled, now)
        return _events(moments)

    @property
    def woke(self) -> list[datetime]:
        """When the acting model woke in what was fed last."""
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
        self._write({"command_events": [row]}, now)

    def listened(self, now: datetime) -> None:
        """Write the minutes listened since they were last written."""
        self._write({"listening": self._minutes.rows(self._listener.listened())}, now)

    def finish(self, now: datetime) -> list[Detection]:
        """End the stream: write what was still waiting and the minutes listened; return the last events."""
        moments, listened = self._listener.finish()
        if self._policy is not None:
            self._policy.end()
        self._take(moments, self._listener.now + REACTION, now)
        self._write({"listening": self._minutes.rows(listened)}, now)
        return _events(moments)

    def _take(self, moments: Sequence[Moment], until: datetime, now: datetime) -> None:
        for moment in moments:
            self._moments.append(moment)
            self._labeller.add(moment.acting)
            if self._observer is not None:
                self._observer.ended(moment.acting.time)
        for label in self._labeller.settle(until):
            moment = self._moments.popleft()
            self._write(rows(moment, label), now)
            if self._observer is not None:
                self._observer.labelled(label, moment.candidate, now)

    def _write(self, found: Mapping[str, Sequence[Mapping[str, object]]], now: datetime) -> None:
        for table, events in found.items():
            if events:
                self.written += self._store.record(table, events, self._purpose, now)


def _events(moments: Sequence[Moment]) -> list[Detection]:
    return [each.acting for each in moments if each.near]
