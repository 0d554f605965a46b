"""A device that may learn its owner, and an owner whom it does not hear well; without audio or a network."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.device.owner import DeviceHome
from clients.device.personal import InUse, KeptMoment, PersonalRecords
from clients.device.records import Records
from clients.models import head as heads
from clients.models.sources import Folder
from clients.personal import anchors as anchor_sets
from clients.personal import hearing
from clients.personal.adapter import SCALE, Windows, temporal_shape, windows_of
from clients.personal.anchors import Anchors
from clients.personal.collect import session_of
from clients.personal.learning import Learner
from clients.personal.moments import encode
from clients.rollout.acting import Choice
from clients.runtime.detectors import EMBEDDING_HOP, EmbeddingDetector, Pcm, shipped_head
from clients.runtime.labels import Reaction
from clients.runtime.published import models_of
from clients.runtime.switching import SwitchingSession
from fa_core.publication import directory
from fa_core.publication.signed import SignedDocument
from tests.device.publishing import Publisher
from tests.device.setup import NOW, POPULATION, World
from tests.device.test_cli import example
from tests.models.samples import manifest_of

DAY = timedelta(days=1)
WORD = "okay_nabu"
HEAD = shipped_head(WORD)
BASE = sha256(heads.encode(HEAD)).hexdigest()
_SHAPE = temporal_shape(HEAD)
_FIRST = np.linalg.svd(HEAD.weights.astype(np.float64))[2][0]
_RANDOM = np.random.default_rng(16)
_TOWARDS = _RANDOM.normal(size=96)
OWNER = _TOWARDS - (_TOWARDS @ _FIRST) * _FIRST
OWNER /= np.linalg.norm(OWNER)
"""Where this owner's voice lies in the features, without any effect on the base's logit."""


def spoken(logit: float, towards: float = 1.0) -> NDArray[np.float32]:
    """Return embeddings (16, 96) of a phrase with this base logit, so far in the owner's direction."""
    found = (logit - HEAD.bias) * HEAD.weights / np.sum(HEAD.weights.astype(np.float64) ** 2)
    return (found + np.outer(_SHAPE, towards * SCALE * OWNER)).astype(np.float32)


PHRASES = {
    "missed": spoken(-1.7),
    "said again": spoken(2.0),
    "near miss": spoken(-1.7, -1.0),
    "other": spoken(0.0, -1.0),
}
"""`missed` is under the base's threshold, a logit of -1.29, and near it; `other` is over it, not the word."""

_TABLE = np.concatenate([np.zeros((1, 96), np.float32), *PHRASES.values()])


class WrittenStream:
    """An embedding stream whose audio is the numbers of embeddings in a table; 0 is silence."""

    def feed(self, pcm: Pcm) -> NDArray[np.float32]:
        """Return the embedding that each hop names."""
        return _TABLE[pcm[::EMBEDDING_HOP]]

    def reset(self) -> None:
        """Do nothing: it has no state."""


def clips(count: int, logit: float, towards: float) -> tuple[Windows, ...]:
    """Return clips of three windows about a logit and so far in the owner's direction."""
    return tuple(
        Windows(_RANDOM.normal(logit, 0.3, 3), towards * OWNER + _RANDOM.normal(0, 0.02, (3, 96)))
        for _ in range(count)
    )


ANCHORS = anchor_sets.encode(Anchors(clips(24, -6.0, 0.0), clips(24, -2.5, -0.5), 192.0, WORD, BASE))


@dataclass
class Owned:
    """A device's folder and clock, and what publishes for it."""

    folder: Path
    publisher: Publisher
    now: datetime = NOW
    home: DeviceHome = field(init=False)

    def __post_init__(self) -> None:
        self.home = DeviceHome.open(self.folder, self.now)

    @property
    def records(self) -> PersonalRecords:
        """What is kept of personalisation."""
        return PersonalRecords(self.home.store)

    def used(self) -> InUse | None:
        """Return the adapter in use."""
        return self.records.in_use(WORD)

    def stage(self) -> tuple[int, str] | None:
        """Return the number and stage of the adapter in use."""
        used = self.used()
        return None if used is None else (used.number, used.stage)

    def restart(self) -> None:
        """Open the store anew."""
        self.home.store.close()
        self.home = DeviceHome.open(self.folder, self.now)

    def conditions(self, **changes: bool) -> None:
        """Have the system say what it knows."""
        said = {"unmetered_network": True, "charging": True, "idle": True, "speaking": False} | changes
        (self.folder / "conditions.json").write_text(json.dumps({"at": self.now.isoformat(), **said}))

    def consent(self, days: int = 180) -> None:
        """Consent to what is kept of events and of personalisation."""
        for purpose in ("quality_metrics", "personalisation"):
            self.home.store.grant(purpose, self.now + days * DAY, self.now)

    def publish_anchors(self, data: bytes = ANCHORS) -> str:
        """Publish an anchor set, and return its hash."""
        manifest = manifest_of(data, kind="anchors", version="anchors-1", base=BASE)
        entry = SignedDocument.sign("model", manifest.document(), self.publisher.world.plan_key).entry()
        folder = self.folder / "published"
        directory.write(folder, directory.model_name(manifest.sha256), self.publisher.file(entry))
        directory.write(folder, directory.artefact_name(manifest.sha256), data)
        return manifest.sha256

    def fetch_anchors(self) -> None:
        """Publish the anchor set and keep it on the device."""
        models_of(self.home, Folder(self.folder / "published")).obtain(self.publish_anchors(), self.now)

    def learner(self) -> Learner:
        """Return what learns on the device."""
        return Learner(self.home, Folder(self.folder / "published"), nullcontext(), running=lambda: 0.0)

    def look(self) -> None:
        """Have the device look whether it may learn."""
        self.learner().look(lambda: self.now)

    def microphone(self, below: Choice | None = None, *, follows: bool = True) -> "Microphone":
        """Begin to listen."""
        return Microphone(self, below or Choice(None, None, "it came with the program"), follows=follows)

    def hear_missed(self, days: int, a_day: int = 2) -> None:
        """Let days pass on each of which the owner is missed so often, and says the word again."""
        for _ in range(days):
            self.now += DAY
            microphone = self.microphone()
            for _ in range(a_day):
                microphone.missed()
            microphone.session.finish(self.now)

    def remember(self, count: int = 6, source: str = "retry", phrase: str = "missed") -> None:
        """Keep moments of a phrase as if they had been heard, two a day, the newest an hour ago."""
        windows = windows_of(HEAD, PHRASES[phrase])
        with self.home.store.transaction(self.now):
            for at in range(count):
                time = self.now - at // 2 * DAY - (1 + at % 2) * timedelta(hours=1)
                kept = KeptMoment(time, WORD, BASE, session_of(time), source, encode(windows))
                self.records.keep_moment(kept, self.now)

    def learned(self) -> None:
        """Consent, remember and learn."""
        self.consent()
        self.fetch_anchors()
        self.remember()
        self.conditions()
        self.look()

    def journal(self) -> list[str]:
        """Return the steps that the journal has of personalisation."""
        entries = self.home.store.entries()
        return [str(each.body["step"]) for each in entries if each.kind == "personal"]


class Microphone:
    """A stream at a device's clock, which it moves on."""

    def __init__(self, owned: Owned, below: Choice, *, follows: bool) -> None:
        self.owned = owned
        store, models = owned.home.store, models_of(owned.home)
        self.below = below
        personal = hearing.Personal(store, models, WORD, lambda _: self.below, BASE, follows=follows)
        heard = hearing.Microphone(models, personal.take)
        self.session = SwitchingSession(
            personal.choose,
            heard.opened,
            EmbeddingDetector(HEAD),
            store,
            "quality_metrics",
            owned.now,
            owned.now,
            observer=heard,
        )
        self.woke: list[tuple[str, bool]] = []

    silence = np.zeros(EMBEDDING_HOP, np.int16)

    def hops(self, numbers: NDArray[np.int16]) -> None:
        """Play one hop a number."""
        for number in numbers:
            events = self.session.feed(np.full(EMBEDDING_HOP, number, np.int16), self.owned.now)
            self.woke += [(each.model_version, each.accepted) for each in events]
            self.owned.now += timedelta(seconds=EMBEDDING_HOP / 16_000)

    def say(self, phrase: str, silence: float = 3.0) -> None:
        """Play a phrase and seconds of silence."""
        start = 1 + 16 * list(PHRASES).index(phrase)
        self.hops(np.arange(start, start + 16, dtype=np.int16))
        self.hops(np.zeros(round(silence * 12.5), np.int16))

    def missed(self) -> None:
        """Say the word so that the base misses it, and say it again."""
        self.say("missed")
        self.say("said again")

    def reacted(self, phrase: str, kind: str) -> None:
        """Say a phrase and react to it."""
        self.say(phrase, 0.5)
        self.session.react(Reaction(self.owned.now, kind))  # type: ignore[arg-type]
        self.hops(np.zeros(125, np.int16))


def make(folder: Path, world: World) -> None:
    """Make an enrolled device that reads what is published in its folder."""
    pins, text = world.pins(), example()
    for name, key in (("log", pins.log), ("witness", pins.witness), ("authority", pins.authority)):
        text = text.replace(f'\n{name} = "{"0" * 64}"', f'\n{name} = "{key.hex()}"')
    text = text.replace(f'key = "{"0" * 64}"', f'key = "{pins.plan_keys[0].key.hex()}"')
    text = text.replace('"/srv/unheard/published"', '"published"').replace("quiet = ", "# quiet = ")
    (folder / "device.toml").write_text(text, "utf-8")
    home = DeviceHome.make(folder, NOW)
    with home.store.transaction(NOW):
        records = Records(home.store)
        public = records.key().public_key().public_bytes_raw()
        records.certify(world.authority.certify(public, POPULATION))
    home.store.close()
