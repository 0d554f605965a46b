"""When a device learns: charging, idle and with nobody speaking, once a day, and it stops at once otherwise.

A fit takes some 20 ms of CPU, and what the system says is read before each of its parts, so a device stops
within a few milliseconds of speech or use; it starts again minutes later, from the beginning. What the system
does not say counts as no. Nothing is fetched but the public anchor sets that `device.toml` names, over
an unmetered network alone. The store is held only to read and to write, never during a fit.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.contribution import StoredDevice
from clients.device.owner import DeviceHome
from clients.device.personal import Attempt, PersonalRecords
from clients.device.policy import Conditions, utc_now
from clients.device.process import Beside, Work
from clients.device.records import Records
from clients.device.remote import Unreachable, line
from clients.models.believe import RefusedModel
from clients.models.head import Head
from clients.models.kept import Models
from clients.models.sources import Folder, Gateway, Source
from clients.personal import anchors as anchor_sets
from clients.personal import stages
from clients.personal.adapter import Step, group_step, temporal_shape
from clients.personal.anchors import Anchors
from clients.personal.collect import moments_of
from clients.personal.delta import Delta, encode
from clients.personal.learn import Candidate, Refusal, learn, logit
from clients.personal.moments import Moment, countable
from fa_core.errors import BadInput

LOOK_SECONDS: Final = 240.0
"""How often a device's process looks whether it may learn."""

A_DAY: Final = timedelta(minutes=5)
"""Time that learning one wake word may take in a day, attempts that were stopped included."""

DAY: Final = timedelta(days=1)

logger = logging.getLogger(__name__)


class NotNow(StrEnum):
    """Why nothing is learned at the moment, in words for the owner."""

    CONSENT = "you have not consented to personalisation"
    NOTHING = "no moment was kept to learn from yet"
    IN_USE = "an adapter is in use already"
    TODAY = "it tried today already"
    NOTHING_NEW = "no moment was kept since it learned last"
    TIME = "its minutes of today are used up"
    QUIET = "these are quiet hours"
    CONDITIONS = "it learns only while the device is charging and idle, and nobody speaks"
    MODEL = "the model that the moments were heard by is not here, or cannot be adapted"
    ANCHORS = "there is no public anchor set for the model on this device"
    STOPPED = "it stopped, since somebody spoke or used the device; it starts again later"
    CHANGED = "what was kept changed meanwhile; it starts again later"


_LACKING: Final = frozenset({NotNow.MODEL, NotNow.ANCHORS})
"""What a device lacks it looks for once a day."""


class _Stopped(Exception):
    pass


@dataclass(frozen=True)
class _Material:
    """What is learned from: the base, the moments that count, the anchors, and the step of before."""

    base: str
    head: Head
    moments: Sequence[Moment]
    anchors: Anchors
    before: Step | None
    deletion: int


@dataclass(frozen=True)
class Learner:
    """What learns on one device.

    Attributes:
        source: where anchor sets are published, None where nowhere.
        alone: held while the store is used, so that nobody else uses its connection meanwhile.
        running: a clock that never goes back, in seconds.
    """

    home: DeviceHome
    source: Source | None
    alone: AbstractContextManager[object]
    running: Callable[[], float] = time.monotonic

    def look(self, now: Callable[[], datetime]) -> None:
        """Learn every wake word that is due, where the device may learn now."""
        if self._allowed(now()):
            for wake_word in self._wake_words():
                if self.due(wake_word, now()) is None:
                    found = self.learn(wake_word, now, fetch=True, goes_on=self._goes_on)
                    if isinstance(found, NotNow) and found in _LACKING:
                        self._note_lack(wake_word, found.value, now())

    def due(self, wake_word: str, now: datetime) -> NotNow | None:
        """Return why a wake word is not to be learned now, None where it is."""
        with self.alone:
            records = PersonalRecords(self.home.store)
            if not records.allowed(now):
                return NotNow.CONSENT
            used, attempt, kept = (
                records.in_use(wake_word),
                records.attempt(wake_word),
                records.moments(wake_word),
            )
        if used is not None and used.stage != "reset":
            return NotNow.IN_USE
        if not kept:
            return NotNow.NOTHING
        if attempt is not None and abs(now - attempt.at) < DAY:
            if attempt.done:
                return NotNow.TODAY
            if attempt.used >= A_DAY:
                return NotNow.TIME
        learned = attempt is not None and attempt.done and attempt.why not in _LACKING
        if attempt is not None and learned and kept[-1].at <= attempt.at <= now:
            return NotNow.NOTHING_NEW
        if self.home.config.device_policy().quiet.covers(now):
            return NotNow.QUIET
        return None if _free(self.home.conditions()(now)) else NotNow.CONDITIONS

    def learn(
        self,
        wake_word: str,
        now: Callable[[], datetime],
        *,
        fetch: bool,
        goes_on: Callable[[datetime], bool],
    ) -> Candidate | Refusal | NotNow:
        """Learn a wake word now; a candidate that passes is kept and is tried out from the next look on.

        Args:
            now: the device's clock. fetch: whether anchor sets may be fetched, on an unmetered network.
            goes_on: asked before each part of the fit; False stops it.
        """
        material = self._material(wake_word, now(), fetch)
        if isinstance(material, NotNow):
            return material
        began, at = self.running(), now()

        def check() -> None:
            if not goes_on(now()):
                raise _Stopped

        wanted = [each.windows for each in material.moments if each.wanted]
        unwanted = [each.windows for each in material.moments if not each.wanted]
        limit = logit(material.head.threshold)
        found: Candidate | Refusal | NotNow
        try:
            found = learn(wanted, unwanted, material.anchors, limit, material.before, check)
        except _Stopped:
            found = NotNow.STOPPED
        return self._keep(wake_word, material, found, at, timedelta(seconds=self.running() - began))

    def _allowed(self, now: datetime) -> bool:
        with self.alone:
            return PersonalRecords(self.home.store).allowed(now)

    def _wake_words(self) -> list[str]:
        with self.alone:
            return sorted({each.wake_word for each in PersonalRecords(self.home.store).moments()})

    def _goes_on(self, now: datetime) -> bool:
        return _free(self.home.conditions()(now))

    def _material(self, wake_word: str, now: datetime, fetch: bool) -> _Material | NotNow:
        from clients.runtime.published import models_of, open_head

        with self.alone:
            store = self.home.store
            records = PersonalRecords(store)
            if not records.allowed(now):
                return NotNow.CONSENT
            kept = records.moments(wake_word)
            if not kept:
                return NotNow.NOTHING
            base = kept[-1].base
            head = open_head(models_of(self.home), base)
            if head is None:
                return NotNow.MODEL
            adapter = stages.load(store, wake_word, now)
            if adapter is not None and adapter.used.stage != "reset":
                return NotNow.IN_USE
            before = adapter.delta.step if adapter is not None and adapter.delta.base == base else None
            moments, deletion = countable(moments_of(records, wake_word, base), now), store.last_deletion()
        anchors = self._anchors(base, wake_word, now, fetch)
        if anchors is None:
            return NotNow.ANCHORS
        return _Material(base, head, moments, anchors, before, deletion)

    def _anchors(self, base: str, wake_word: str, now: datetime, fetch: bool) -> Anchors | None:
        """Return the anchor set of a base that is here; where there is none, fetch those of device.toml."""
        from clients.runtime.published import models_of

        with self.alone:
            found = kept_anchors(self.home, base, wake_word)
            if found is not None or not fetch or self.source is None:
                return found
            if self.home.conditions()(now).unmetered_network is not True:
                return None
            models = models_of(self.home, self.source)
            for digest in self.home.config.models.anchors:
                try:
                    models.obtain(digest, now)
                except RefusedModel:
                    logger.warning("an anchor set was refused; the journal says why")
            return kept_anchors(self.home, base, wake_word)

    def _note_lack(self, wake_word: str, why: str, now: datetime) -> None:
        with self.alone, self.home.store.transaction(now):
            records = PersonalRecords(self.home.store)
            if records.allowed(now):
                records.note_attempt(wake_word, Attempt(now, why, timedelta(), done=True))

    def _keep(
        self,
        wake_word: str,
        material: _Material,
        found: Candidate | Refusal | NotNow,
        at: datetime,
        took: timedelta,
    ) -> Candidate | Refusal | NotNow:
        """Write what came of an attempt, and the delta if there is one, in one transaction."""
        with self.alone:
            store = self.home.store
            records = PersonalRecords(store)
            with store.transaction(at):
                used, last = records.in_use(wake_word), records.attempt(wake_word)
                if not records.allowed(at) or store.last_deletion() != material.deletion:
                    return NotNow.CHANGED
                if used is not None and used.stage != "reset":
                    return NotNow.IN_USE
                today = last.used if last is not None and abs(at - last.at) < DAY else timedelta()
                done = found is not NotNow.STOPPED
                why = "" if isinstance(found, Candidate) else found.value
                records.note_attempt(wake_word, Attempt(at, why, today + took, done))
                if isinstance(found, Candidate):
                    if used is not None:
                        records.drop("forget", used, "another was learned in its place", at)
                    number = records.next_number()
                    gain = found.gain
                    delta = Delta(number, wake_word, material.base, found.step, found.threshold, gain)
                    records.keep_delta(number, encode(delta), at)
                    records.use(wake_word, number, "candidate", at)
                    records.say("learn", wake_word, number, "", at)
                    records.say("validate", wake_word, number, "", at)
                elif done and (last is None or last.why != why):
                    records.say("learn", wake_word, None, why, at)
        return found


def kept_anchors(home: DeviceHome, base: str, wake_word: str) -> Anchors | None:
    """Return the anchor set of a base that is on a device, of several the one that was used last.

    Where the base is adapters of groups, it is the set of the head that they change, as this device's group
    hears it: no set is of one group, so none tells the group of whoever fetches it.
    """
    from clients.runtime.published import models_of, open_adapters

    models = models_of(home)
    if (found := open_adapters(models, base)) is None:
        return _kept(models, base, wake_word)
    adapters, head, below = found
    public = _kept(models, below, wake_word)
    if public is None or not np.allclose(adapters.shape, temporal_shape(head), atol=1e-6):
        return None
    return public.adapted(group_step(adapters, models.fact(adapters.fact)), base)


def _kept(models: Models, base: str, wake_word: str) -> Anchors | None:
    for model in reversed(models.changing(base, "anchors")):
        try:
            found = anchor_sets.decode(model.content) if isinstance(model.content, bytes) else None
        except BadInput:
            continue
        if found is not None and (found.base, found.wake_word) == (base, wake_word):
            return found
    return None


def _free(conditions: Conditions) -> bool:
    """Return whether a device may learn: it is charging and idle, and nobody speaks. Unknown counts as no."""
    return conditions.charging is True and conditions.idle is True and conditions.speaking is False


def beside_hub(devices: Sequence[tuple[DeviceHome, StoredDevice]]) -> Work | None:
    """Return what learns beside a hub's devices; anchor sets are read in the directory of device.toml."""
    return partial(_look, [Learner(home, _folder(home), device.alone) for home, device in devices])


def beside_gateway(url: str, authority: Path | None) -> Beside:
    """Return what learns beside a device that connects to a gateway, and fetches anchor sets there.

    Its store is opened a second time, as for rollouts.
    """

    def start(devices: Sequence[tuple[DeviceHome, StoredDevice]]) -> Work | None:
        ((home, _),) = devices
        own = DeviceHome.open(home.folder, utc_now())
        through = Gateway(line(url, Records(home.store).identity(), authority))
        return partial(_look, [Learner(own, _folder(home) or through, nullcontext())])

    return start


def _folder(home: DeviceHome) -> Folder | None:
    published = home.config.models.published
    return Folder(home.folder / published) if published else None


def _look(learners: Sequence[Learner], stopped: threading.Event) -> None:
    """Look for what is due on every device until stopped."""
    while not stopped.wait(LOOK_SECONDS):
        for each in learners:
            try:
                each.look(utc_now)
            except (Unreachable, sqlcipher.Error):
                logger.info("what is published cannot be reached, or a store is busy; it will be tried again")
