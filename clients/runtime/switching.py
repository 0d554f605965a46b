"""One microphone of a device whose model may change: which detectors hear it changes while it runs."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from clients.device.consent import Purpose
from clients.rollout.acting import Choice
from clients.runtime.detectors import SAMPLE_RATE, Detector, Pcm
from clients.runtime.events import Detection, Listener, Minutes
from clients.runtime.labels import Reaction
from clients.runtime.policy import FollowedPolicy
from clients.runtime.session import Observer, Recorder, Session
from clients.runtime.shadow import ShadowListener, ShadowSession
from fa_core.errors import BadInput

CHOOSE = timedelta(seconds=10)
"""How often it is looked which model acts. Manifests are asked for every 240 s: a rollback acts in 300 s."""

Choose = Callable[[datetime], Choice]
Opened = Callable[[Choice], tuple[Detector | None, Detector | None]]


class SwitchingSession:
    """As `clients.runtime.session.Session`, and in shadow as `ShadowSession`.

    Where another model is to act, or none is to score beside it any longer, that begins with the next piece
    of audio: the detectors begin anew, and what waited for a reaction is written as it stands.

    Args:
        choose: returns which model acts at a time. opened: returns the detectors of a choice.
        own: the detector that acts where the choice names none.
        start: when the stream starts, UTC; times of events are counted from it in samples.
        now: the device's clock. policy: followed by every detector that runs.
        minutes: counts the time listened, of several streams where it is shared.
        observer: learns from what is heard.
        every: how often it is looked which model acts.
    """

    def __init__(
        self,
        choose: Choose,
        opened: Opened,
        own: Detector,
        store: Recorder,
        purpose: Purpose,
        start: datetime,
        now: datetime,
        policy: FollowedPolicy | None = None,
        minutes: Minutes | None = None,
        observer: Observer | None = None,
        *,
        every: timedelta = CHOOSE,
    ) -> None:
        self._choose = choose
        self._opened = opened
        self._own = own
        self._store = store
        self._purpose: Purpose = purpose
        self._start = start
        self._policy = policy
        self._minutes = minutes or Minutes()
        self._observer = observer
        self._every = every
        self._samples = 0
        self._written = 0
        self._looked = now
        self.choice = choose(now)
        self._session = self._open()

    @property
    def written(self) -> int:
        """How many rows the store took."""
        return self._written + self._session.written

    def feed(self, pcm: Pcm, now: datetime, *, playback: bool = False) -> list[Detection]:
        """Take in samples; return the acting model's events that ended. `now` is the device's clock."""
        ended = [] if self._looked <= now < self._looked + self._every else self._look(now)
        self._samples += pcm.size
        return ended + self._session.feed(pcm, now, playback=playback)

    @property
    def woke(self) -> list[datetime]:
        """When the acting model woke in what was fed last."""
        return self._session.woke

    def react(self, reaction: Reaction) -> None:
        """Take in what the person did."""
        self._session.react(reaction)

    def command(self, row: dict[str, object], now: datetime) -> None:
        """Write what became of a command, a row of `labels.command_row`."""
        self._session.command(row, now)

    def listened(self, now: datetime) -> None:
        """Write the minutes listened since they were last written."""
        self._session.listened(now)

    def finish(self, now: datetime) -> list[Detection]:
        """End the stream: write what was still waiting and the minutes listened; return the last events."""
        return self._session.finish(now)

    def _look(self, now: datetime) -> list[Detection]:
        """Choose again; where others are to run, end the session and return its last events."""
        before, self.choice, self._looked = self.choice, self._choose(now), now
        if before.runs == self.choice.runs:
            return []
        ended = self._session.finish(now)
        self._written += self._session.written
        self._session = self._open()
        return ended

    def _open(self) -> Session | ShadowSession:
        acting, candidate = self._opened(self.choice)
        acting = acting or self._own
        if self._policy is not None:
            self._policy.follow(*(each for each in (acting, candidate) if each is not None))
        start = self._start + timedelta(seconds=self._samples / SAMPLE_RATE)
        if self._observer is not None:
            self._observer.began(start)
        if candidate is not None:
            with suppress(BadInput):  # the two are of one version: then the acting one hears alone
                listener = ShadowListener(acting, candidate, start)
                return ShadowSession(
                    listener, self._store, self._purpose, self._policy, self._minutes, self._observer
                )
        return Session(
            Listener(acting, start), self._store, self._purpose, self._policy, self._minutes, self._observer
        )
