"""Microphones of a device that may learn its owner: the model as it came and the adapted one hear them.

`Personal` uses the store: it chooses what is heard for a wake word, and takes the moments to learn from.
`Microphone` hears one stream and uses no store, so several may hear at once, in threads of their own.

Both models are heads over one stream of embeddings, so the second costs next to nothing, and one of the two
always scores beside the other: the candidate while it is tried out, the model as it came while an adapter
acts. Both are written down for each moment (`clients.runtime.shadow`), the adapted one as the version
`personal`.

**With a rollout.** While a rollout is in shadow or live on this device, its models are compared as they were
published: no adapter acts or scores, and nothing is collected. When it is over and the model that an adapter
changes acts, the adapter goes on; where another model acts from then on, the adapter is retired.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.device.owner import DeviceHome
from clients.device.personal import PersonalRecords
from clients.device.store import Store
from clients.models.head import EMBEDDING_SIZE, Head
from clients.models.kept import Models
from clients.personal import stages
from clients.personal.adapter import Windows, adapted, temporal_shape, windows_of
from clients.personal.collect import collect, source_of
from clients.personal.learn import AROUND
from clients.personal.moments import WANTED
from clients.personal.stages import Adapter
from clients.personal.watch import Heard
from clients.rollout.acting import Choice
from clients.runtime.detectors import SAMPLE_RATE, Detector, EmbeddingDetector, EmbeddingStream, Pcm
from clients.runtime.events import Detection
from clients.runtime.following import opened as opened_published
from clients.runtime.labels import Labelled
from clients.runtime.listening import Started
from clients.runtime.published import Loads, open_head, shipped
from clients.runtime.starting import Listens, listens
from clients.runtime.switching import Choose
from fa_core.publication.artefact import PERSONAL, is_hash

REMEMBERED: Final = 100
"""Windows that are in memory, the newest: 8 s of them, as long as a moment may last."""


class SharedStream:
    """One embedding stream that several detectors with equal hops hear; the newest windows stay in memory.

    Args:
        head: whose windows are remembered.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._shape = temporal_shape(head)
        self._stream = EmbeddingStream()
        self._taps: list[Tap] = []
        self._recent: NDArray[np.float32] = np.empty((0, EMBEDDING_SIZE), np.float32)
        self._samples = 0
        self._windows: deque[tuple[int, float, NDArray[np.float64]]] = deque(maxlen=REMEMBERED)

    def tap(self) -> "Tap":
        """Return what a detector hears the stream through."""
        self._taps.append(Tap(self))
        return self._taps[-1]

    def push(self, pcm: Pcm) -> None:
        """Take in samples, and hand their embeddings to every tap."""
        embeddings = self._stream.feed(pcm)
        for each in self._taps:
            each.waiting.append(embeddings)
        heard = np.concatenate([self._recent, embeddings])
        windows = windows_of(self._head, heard, self._shape)
        self._recent = heard[max(0, len(heard) - len(self._head.weights) + 1) :]
        for base, features in zip(windows.base, windows.features, strict=True):
            self._windows.append((self._samples, float(base), features))
        self._samples += pcm.size

    def since(self, seconds: float) -> Windows:
        """Return the remembered windows that ended in hops from so many seconds of the stream on."""
        found = [each for each in self._windows if each[0] >= round(seconds * SAMPLE_RATE)]
        features = [each for _, _, each in found]
        return Windows(np.array([base for _, base, _ in found]), np.reshape(features, (-1, EMBEDDING_SIZE)))

    def reset(self) -> None:
        """Return to the state of a new instance."""
        self._stream.reset()
        self._recent = self._recent[:0]
        self._samples = 0
        self._windows.clear()
        for each in self._taps:
            each.waiting.clear()


@dataclass(slots=True)
class Tap:
    """A detector's end of a shared stream. All taps are fed the same hops, and are reset together."""

    shared: SharedStream
    waiting: deque[NDArray[np.float32]] = field(default_factory=deque)

    def feed(self, pcm: Pcm) -> NDArray[np.float32]:
        """See `clients.runtime.detectors.Embeddings`."""
        if not self.waiting:
            self.shared.push(pcm)
        return self.waiting.popleft()

    def reset(self) -> None:
        """See `clients.runtime.detectors.Embeddings`."""
        self.shared.reset()


@dataclass(frozen=True)
class Heads:
    """What hears a wake word: the model as it came, its hex SHA-256, and the adapter, if one is heard."""

    head: Head
    base: str
    adapter: Adapter | None


@dataclass(frozen=True, slots=True)
class PersonalChoice(Choice):
    """A choice in which what this device learned, or may learn, has a part: `heads` are what it names."""

    heads: Heads = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True)
class LabelledMoment:
    """A moment whose label is learned from, on its way into the store.

    Attributes:
        candidate: what the detector that did not act made of it, None where the base heard alone.
        heads: what heard it. windows: the base's about its peak, at most three.
    """

    label: Labelled
    candidate: Detection | None
    heads: Heads
    windows: Windows


class Personal:
    """Chooses what is heard for a wake word (`clients.runtime.switching`), and learns from moments.

    Args:
        below: returns which model acts, as if nothing was ever learned here.
        own: hex SHA-256 of the model that acts where `below` names none.
        follows: whether `below` follows the device's rollouts. Where it does not, somebody asked for a model
            by hand, and no adapter is retired for that.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        wake_word: str,
        below: Choose,
        own: str,
        *,
        follows: bool,
    ) -> None:
        self._store = store
        self._models = models
        self._wake_word = wake_word
        self._below = below
        self._own = own
        self._follows = follows
        store.rules = store.rules.allowing("model_version", PERSONAL)

    def choose(self, now: datetime) -> Choice:
        """Return what acts and what scores beside it."""
        chosen = self._below(now)
        if chosen.shadow or chosen.compares or not PersonalRecords(self._store).allowed(now):
            return chosen
        base = chosen.acting.hex() if chosen.acting else self._own
        head = open_head(self._models, base)
        if head is None:
            return chosen
        adapter = self._fitting(base, now)
        heads, acting, name = Heads(head, base, adapter), bytes.fromhex(base), head.model_version
        if adapter is None:
            return PersonalChoice(acting, None, chosen.why, personal=True, heads=heads)
        number = adapter.used.number
        delta = _identity(adapter)
        if adapter.used.stage == "shadow":
            why = f"{name} acts: adapter {number} for you is tried out beside it"
            return PersonalChoice(acting, delta, why, personal=True, heads=heads)
        why = f"adapter {number} for you acts on {name}"
        return PersonalChoice(delta, acting, why, personal=True, heads=heads)

    def take(self, moment: LabelledMoment, now: datetime) -> None:
        """Keep a moment if it may be learned from, and compare the two that heard it.

        `now` is the device's clock when its label was known; without consent at that time nothing is kept.
        """
        label, heads, records = moment.label, moment.heads, PersonalRecords(self._store)
        source = source_of(label)
        with self._store.transaction(now):
            if not records.allowed(now):
                return
            kept = collect(records, label, heads.base, moment.windows, now)
            if moment.candidate is None or heads.adapter is None:
                return
            used = heads.adapter.used
            # A candidate is judged by moments under the caps alone; an adapter that acts by all, for to go
            # back is safe.
            if kept or used.stage == "active":
                woke = {
                    each.model_version == PERSONAL: each.accepted
                    for each in (label.detection, moment.candidate)
                }
                both = Heard(source in WANTED, base=woke[False], adapted=woke[True])
                stages.hear(self._store, self._wake_word, used.number, both, now)

    def _fitting(self, base: str, now: datetime) -> Adapter | None:
        """Return the adapter that is heard on a base; retire one whose base no longer acts."""
        adapter = stages.load(self._store, self._wake_word, now)
        if adapter is None:
            return None
        if adapter.delta.base != base:
            if self._follows or open_head(self._models, adapter.delta.base) is None:
                stages.retire(self._store, adapter, now)
            return None
        moved = stages.move_on(self._store, adapter, now)
        return moved if moved is not None and moved.used.stage in ("shadow", "active") else None


class Microphone:
    """One stream: opens what a choice of `Personal.choose` names, and hands on what may be learned from.

    It is the stream's `clients.runtime.session.Observer`.

    Args:
        take: is handed moments, with the device's clock; see `Personal.take`.
    """

    def __init__(self, models: Loads, take: Callable[[LabelledMoment, datetime], object]) -> None:
        self._models = models
        self._take = take
        self._heads: Heads | None = None
        self._stream: SharedStream | None = None
        self._start: datetime | None = None
        self._moments: dict[datetime, Windows] = {}

    def opened(self, chosen: Choice) -> tuple[Detector | None, Detector | None]:
        """Return the detectors of a choice: of what acts, and of what scores beside it."""
        self._heads, self._stream, self._start, self._moments = None, None, None, {}
        if not isinstance(chosen, PersonalChoice):
            return opened_published(self._models, chosen)
        self._heads, head, adapter = chosen.heads, chosen.heads.head, chosen.heads.adapter
        self._stream = SharedStream(head)
        own = EmbeddingDetector(head, self._stream.tap())
        if adapter is None:
            return own, None
        delta = adapter.delta
        changed = EmbeddingDetector(adapted(head, delta.step, delta.threshold, PERSONAL), self._stream.tap())
        return (own, changed) if adapter.used.stage == "shadow" else (changed, own)

    def began(self, at: datetime) -> None:
        """See `Observer.began`."""
        self._start = at

    def ended(self, at: datetime) -> None:
        """See `Observer.ended`."""
        if self._stream is not None and self._start is not None:
            self._moments[at] = self._stream.since((at - self._start).total_seconds()).peak(AROUND)

    def labelled(self, label: Labelled, candidate: Detection | None, now: datetime) -> None:
        """See `Observer.labelled`."""
        windows = self._moments.pop(label.detection.time, None)
        if self._heads is not None and windows is not None and source_of(label) is not None:
            self._take(LabelledMoment(label, candidate, self._heads, windows), now)


def hears(
    home: DeviceHome, models: Models, wake_word: str, model: str | None, policy: str | None = None
) -> tuple[Listens, Personal]:
    """Return what hears a wake word as `clients.runtime.starting.listens` says, and what this device learned
    on the model that acts. Raises BadInput and Refused as that does."""
    heard = listens(home, models, wake_word, model, policy)
    named = Choice(None, None, "it was asked for")
    below, follows = heard.choose or (lambda _: named), heard.choose is not None
    if model is not None and is_hash(model.lower()):
        own = model.lower()
    else:
        version = (heard.own().model_version, wake_word)
        own = next(key for key, each in shipped().items() if (each.version, each.wake_word) == version)
    personal = Personal(home.store, models, wake_word, below, own, follows=follows)
    return replace(heard, choose=personal.choose), personal


def started(
    home: DeviceHome, models: Models, wake_word: str, model: str | None, policy: str | None
) -> Started:
    """Return what starts a stream that one process hears alone; see `hears`."""
    heard, personal = hears(home, models, wake_word, model, policy)
    microphone = Microphone(models, personal.take)
    heard = replace(heard, opened=microphone.opened)
    return lambda start, now: heard.session(home.store, start, now, observer=microphone)


def _identity(adapter: Adapter) -> bytes:
    """Return bytes that name a delta and its stage in a `Choice`."""
    return f"{adapter.used.number} {adapter.used.stage}".encode()
