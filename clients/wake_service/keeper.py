"""The one thread of the service that uses the store: it writes, and looks which model acts.

Streams hand on rows, and moments to learn the owner from, and never wait for a disk. A store that another
process holds is tried again, so what waits is in memory, `MOST_WAITING` at most. Whether it may be stored is
the store's to say: without the owner's consent it takes nothing.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.consent import Purpose
from clients.device.contribution import Clock
from clients.device.owner import DeviceHome
from clients.models.believe import RefusedModel
from clients.personal.hearing import LabelledMoment, Microphone, Personal, hears
from clients.rollout.acting import Choice
from clients.runtime.detectors import Detector
from clients.runtime.events import Minutes
from clients.runtime.published import models_of
from clients.runtime.session import Recorder
from clients.runtime.switching import CHOOSE
from clients.wake_service.stream import AnySession, Row
from fa_core.errors import BadInput

MOST_WAITING = 10_000
"""Rows and moments that wait for the store at most."""

LISTENING = timedelta(minutes=15)
"""How often the time listened is written: of all streams together, so that a table's room lasts."""

CLOSING_TRIES = 3
"""How often the store is tried when the service ends, each time for as long as it waits for a lock."""

_KEY = ("time", "wake_word", "model_version", "playback")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows on their way into a table; `now` is the device's clock when they were handed on."""

    source: str
    rows: tuple[Row, ...]
    purpose: Purpose
    now: datetime


@dataclass(frozen=True, slots=True)
class Write:
    """Something to write: what does it, and as how many rows it counts while it waits."""

    run: Callable[[], object]
    rows: int = 1


class Writer:
    """Takes rows and moments from any thread and writes them in one."""

    def __init__(self, store: Recorder) -> None:
        self._store = store
        self._waiting: deque[Write] = deque()
        self._listening: list[Waiting] = []
        self._since: datetime | None = None
        self._held = 0
        self._alone = threading.Lock()

    def record(self, source: str, events: Sequence[Row], purpose: Purpose, now: datetime) -> int:
        """Take rows and return how many; see `Recorder.record`. Where too many wait, none is taken."""
        taken = Waiting(source, tuple(events), purpose, now)
        with self._alone:
            if not self._has_room(len(events)):
                return 0
            if source == "listening":
                self._listening.append(taken)
            else:
                self._waiting.append(self._recorded(taken))
            return len(events)

    def learn(self, run: Callable[[], object]) -> None:
        """Take what keeps a moment to learn from; where too much waits, it is not kept."""
        with self._alone:
            if self._has_room(1):
                self._waiting.append(Write(run))

    def write(self, now: datetime, *, closing: bool = False) -> bool:
        """Write what waits; return whether nothing does any longer. `closing`: the time listened, too."""
        with self._alone:
            due = self._since is None or not self._since <= now < self._since + LISTENING
            if closing or due:
                self._since = now
                merged = [self._recorded(each) for each in merge(self._listening)]
                self._held += sum(each.rows for each in merged)
                self._held -= sum(len(each.rows) for each in self._listening)
                self._waiting += merged
                self._listening = []
        while self._waiting:
            each = self._waiting[0]
            try:
                each.run()
            except sqlcipher.Error:
                logger.warning("the store is busy or cannot be written; it will be tried again")
                return False
            except Exception:  # one that fails for ever would keep all others waiting
                logger.exception("rows were dropped: they do not fit their table")
            with self._alone:
                self._waiting.popleft()
                self._held -= each.rows
        return True

    def _recorded(self, each: Waiting) -> Write:
        return Write(
            partial(self._store.record, each.source, each.rows, each.purpose, each.now), len(each.rows)
        )

    def _has_room(self, rows: int) -> bool:
        """Count rows as waiting and return true, where there is room for them."""
        if self._held + rows > MOST_WAITING:
            logger.error("rows were dropped: the store could not be written for too long")
            return False
        self._held += rows
        return True


def merge(listening: Sequence[Waiting]) -> list[Waiting]:
    """Return rows of `listening` put together by purpose, hour, wake word, model version and playback.

    An hour's `snr_db` is the mean of its parts by minutes, as `Store.table` has it.
    """
    found: dict[tuple[object, ...], list[tuple[Waiting, Row]]] = {}
    for waiting in listening:
        for row in waiting.rows:
            key = (waiting.purpose, *(row[name] for name in _KEY))
            found.setdefault(key, []).append((waiting, row))
    return [_merged(parts) for parts in found.values()]


def _merged(parts: Sequence[tuple[Waiting, Row]]) -> Waiting:
    rows = [row for _, row in parts]
    levels = [(float(str(row["snr_db"])), _minutes(row)) for row in rows if row["snr_db"] is not None]
    snr = (
        sum(level * minutes for level, minutes in levels) / sum(minutes for _, minutes in levels)
        if levels
        else None
    )
    row = {**rows[0], "snr_db": snr, "minutes": min(60, sum(map(_minutes, rows)))}
    # With the earliest time, so that nothing of before the owner's consent is written.
    first, _ = parts[0]
    return Waiting("listening", (row,), first.purpose, first.now)


def _minutes(row: Row) -> int:
    minutes = row["minutes"]
    assert isinstance(minutes, int)
    return minutes


class Keeper:
    """The store of one device, and what hears its wake words.

    Args:
        home: open; nobody else uses its connection from here on.
        words: the wake words to answer for, each with a detector. model: see `clients.runtime.starting`.
    """

    def __init__(
        self, home: DeviceHome, words: Sequence[str], clock: Clock, model: str | None = None
    ) -> None:
        self._clock = clock
        self._minutes = Minutes()
        self._models = models_of(home)
        self.writer = Writer(home.store)
        self._heard = {word: hears(home, self._models, word, model) for word in words}
        self._choices = {word: each.choose(clock.now()) for word, (_, each) in self._heard.items()}

    def session(self, wake_word: str, recorder: Recorder, start: datetime, now: datetime) -> AnySession:
        """Return the session of one wake word for a stream; see `clients.wake_service.stream.Begin`.

        It asks at every piece of audio what acts, which costs nothing here: `look` has read it.
        """
        heard, personal = self._heard[wake_word]
        microphone = Microphone(self._models, partial(self._learn, personal))
        opened, choose = partial(self._opened, microphone), partial(self._chosen, wake_word)
        heard = replace(heard, choose=choose, opened=opened, every=timedelta(0))
        return heard.session(recorder, start, now, self._minutes, microphone)

    def run(self, stopped: threading.Event, look_every: float = 1.0) -> None:
        """Write and look until stopped, then write everything that waits."""
        looked = self._clock.running()
        while not stopped.wait(look_every):
            self.writer.write(self._clock.now())
            if self._clock.running() - looked >= CHOOSE.total_seconds():
                looked = self._clock.running()
                self.look()
        for _ in range(CLOSING_TRIES):
            if self.writer.write(self._clock.now(), closing=True):
                return
        logger.error("rows were lost: the store could not be written before the service ended")

    def look(self) -> None:
        """Look which model acts for each wake word; where that cannot be read, what acted still does."""
        for word, (_, personal) in self._heard.items():
            try:
                self._choices[word] = personal.choose(self._clock.now())
            except Exception:
                logger.exception("it cannot be read which model acts; it will be tried again")

    def _chosen(self, wake_word: str, now: datetime) -> Choice:
        return self._choices[wake_word]

    def _learn(self, personal: Personal, moment: LabelledMoment, now: datetime) -> None:
        self.writer.learn(partial(personal.take, moment, now))

    def _opened(self, microphone: Microphone, chosen: Choice) -> tuple[Detector | None, Detector | None]:
        """Return the detectors of a choice; where one was removed or damaged since, the device's own acts."""
        try:
            return microphone.opened(chosen)
        except (RefusedModel, BadInput):
            logger.warning("a model that was chosen does not load; the device's own acts")
            return None, None
