"""What a trained head has to go by, of synthetic speech alone: windows of speech, for the loop's demo.

Three sets of clips, each captured once and embedded; the audio is thrown away:

* *bank*: every hearing of the bank that a wake word detector judges, captured again as the bank was, so that
  an adapted head has a score for it too;
* *takes*: the wake word as a device's owner said it at another time, in the same voice. None is in the bank;
* *public*: voices of nobody's device. They say the wake word in the accents alone that the head was trained
  with, near misses, and phrases that training never sees; and half of the recorded human speech.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.fleet.audio import (
    DEVICE_CLASSES,
    SEGMENT_SECONDS,
    capture,
    human_segment,
    human_speech,
    require_speech,
    synthesise,
)
from clients.fleet.bank import (
    LEAD_S,
    MODEL_VERSIONS,
    SEED,
    SNR_LEVELS,
    Utterance,
    bank_name,
    default_bank_path,
    thresholds,
)
from clients.fleet.bank import script as bank_script
from clients.fleet.draw import Judged
from clients.fleet.moments import Takes
from clients.fleet.phrases import NEAR_MISSES, TELEVISION_LINES, WAKE_PHRASES, WAKE_WORD
from clients.fleet.voices import ACCENTS, TRAINING_ACCENTS, VARIANTS, wake_speakers
from clients.models.adapters import OTHER, Adapters
from clients.models.head import EMBEDDING_SIZE
from clients.personal.adapter import SCALE, Windows, windows_of
from clients.personal.features import vector_of
from clients.personal.learn import logit
from clients.runtime.detectors import EmbeddingStream, shipped_head
from fa_core.tables import VECTOR

TAKES: Final = 6
"""How often a speaker says the wake word in the set `takes`, on each class of device."""

PUBLIC_TAKES: Final = 8
PUBLIC_VARIANTS: Final = ("+Annie", "+david", "+Hugo")
"""Speakers of public speech, of no device and of no training."""

PHRASE_VARIANTS: Final = ("+john", "+Lee")
"""Speakers of the phrases that training never sees."""

JUDGED: Final = ("wake", "near_miss", "television", "human")
"""Kinds of the bank's utterances that a wake word detector judges, the first of its script."""

FORMAT: Final = 1
Progress = Callable[[int, int], None]
Kind = Literal["bank", "take", "wake", "human", "near", "phrase"]


@dataclass(frozen=True, slots=True)
class Said:
    """An utterance, which set it is for, and the accent of who says it, "" where nobody knows."""

    kind: Kind
    accent: str
    utterance: Utterance


@cache
def script() -> tuple[Said, ...]:
    """Return everything that is said, in a fixed order; numbers of the bank's utterances are the bank's."""
    judged = [each for each in bank_script() if each.kind in JUDGED]
    bank = [Said("bank", each.accent, each) for each in judged]
    return (*bank, *_numbered(_takes(), 1_000_000), *_numbered(_public(), 2_000_000))


_Line = tuple[Kind, str, int, str, str, tuple[tuple[str, float], ...]]


def _numbered(lines: Iterator[_Line], first: int) -> Iterator[Said]:
    for number, (kind, accent, speaker, voice, text, hearings) in enumerate(lines, first):
        said = "human" if kind == "human" else "wake"
        yield Said(kind, accent, Utterance(said, accent, speaker, voice, text, hearings, number))


def _takes() -> Iterator[_Line]:
    """Yield the takes of each voice: each on every class of device, in noise that takes turns."""
    for accent in ACCENTS:
        for (speaker, voice), take in product(enumerate(wake_speakers(accent)), range(TAKES)):
            hearings = tuple(
                (name, SNR_LEVELS[(take + n) % len(SNR_LEVELS)]) for n, name in enumerate(DEVICE_CLASSES)
            )
            yield "take", accent.label, speaker, voice, WAKE_PHRASES[take % len(WAKE_PHRASES)], hearings


def _public() -> Iterator[_Line]:
    classes, near = tuple(DEVICE_CLASSES), (*NEAR_MISSES, *TELEVISION_LINES)

    def hearing(number: int) -> tuple[tuple[str, float], ...]:
        return ((classes[number % 3], SNR_LEVELS[number // 3 % 3]),)

    spoken = [each for each in ACCENTS if each.espeak in TRAINING_ACCENTS]
    for accent, variant, take in product(spoken, PUBLIC_VARIANTS, range(PUBLIC_TAKES)):
        yield "wake", accent.label, 0, accent.espeak + variant, WAKE_PHRASES[take % 2], hearing(take)
    kinds: tuple[tuple[Kind, tuple[str, ...]], ...] = (("near", PUBLIC_VARIANTS), ("phrase", PHRASE_VARIANTS))
    for kind, variants in kinds:
        for a, (accent, variant) in enumerate(product(ACCENTS, variants)):
            for n, text in enumerate(near[a % 3 :: 3]):
                yield kind, accent.label, 0, accent.espeak + variant, text, hearing(a + n)
    for number in range(0, len(human_speech()), 2):
        yield "human", "", 0, "", str(number), hearing(number // 2)


@dataclass(frozen=True)
class Hearings:
    """Every hearing of `script`, in its order, as an adapter sees it.

    Attributes:
        windows: of each hearing. kinds, accents: of each, (N,).
    """

    windows: tuple[Windows, ...]
    kinds: tuple[Kind, ...]
    accents: tuple[str, ...]

    def of(self, *kinds: Kind) -> list[int]:
        """Return the places of hearings of these kinds, in order."""
        return [at for at, kind in enumerate(self.kinds) if kind in kinds]

    def takes(self) -> NDArray[np.int64]:
        """Return the places of the takes, int64 (accents, speakers, device classes, TAKES)."""
        shape = (len(ACCENTS), len(VARIANTS), TAKES, len(DEVICE_CLASSES))
        return np.array(self.of("take")).reshape(shape).swapaxes(2, 3)

    @property
    def seconds(self) -> float:
        """Length of the public human speech."""
        return float(len(self.of("human")) * SEGMENT_SECONDS)

    def save(self, path: Path) -> None:
        """Write the windows; everything else follows from the script."""
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_name(f".{os.getpid()}-{path.name}")  # ends in .npz, as savez wants
        np.savez(
            making,
            base=np.concatenate([each.base for each in self.windows]).astype("<f4"),
            features=np.concatenate([each.features for each in self.windows]).astype("<f2"),
            sizes=np.array([len(each.base) for each in self.windows]),
        )
        making.replace(path)

    @classmethod
    def load(cls, path: Path, said: Sequence[Said]) -> Self:
        """Read what `save` wrote of `said`."""
        with np.load(path, allow_pickle=False) as stored:
            ends = np.cumsum(stored["sizes"])[:-1]
            base, features = (np.split(stored[name], ends) for name in ("base", "features"))
        return cls.made(said, [Windows(*pair) for pair in zip(base, features, strict=True)])

    @classmethod
    def made(cls, said: Sequence[Said], windows: Sequence[Windows]) -> Self:
        """Return the hearings of a script."""
        each = [one for one in said for _ in one.utterance.hearings]
        return cls(tuple(windows), tuple(one.kind for one in each), tuple(one.accent for one in each))


def takes_of(hearings: Hearings, base: str) -> Takes:
    """Return what devices keep as moments of the takes. `base`: hex SHA-256 of the head that heard them."""
    places = hearings.takes()
    vectors = np.array([vector_of(hearings.windows[at]) for at in places.ravel()], np.float32)
    return Takes(base, vectors.reshape(*places.shape, VECTOR))


def judged(table: pa.Table, hearings: Hearings, adapters: Adapters) -> Judged:
    """Return the trained head (live) and its adapters on the rows of a bank.

    Devices of an accent score by its adapter, moved so that each wakes over 0.5: the groups have thresholds
    of their own. Rows that no wake word detector judges have 0.
    """
    version, every = MODEL_VERSIONS[1], hearings.of("bank")
    scores = np.zeros((2, len(table), len(ACCENTS)))
    scores[0] = np.nan_to_num(table["score_b"].to_numpy())[:, None]
    for accent, each in enumerate(ACCENTS):
        at = adapters.groups.index(each.label if each.label in adapters.groups else OTHER)
        direction, limit = adapters.directions[at] * SCALE, logit(float(adapters.thresholds[at]))
        found = (hearings.windows[row] for row in every)
        logits = [(one.base + one.features @ direction).max(initial=-50.0) for one in found]
        moved = np.array(logits) + float(adapters.biases[at]) - limit
        scores[1, : len(every), accent] = 0.5 * (1.0 + np.tanh(0.5 * moved))
    return Judged((version, adapters.model_version), (thresholds(table)[version], 0.5), scores)


def hear(said: Said) -> list[Windows]:
    """Say an utterance and return what the head hears of each capture of it."""
    utterance = said.utterance
    # The bank's own randomness, in its order: its captures are the same, to the sample.
    randomness = np.random.default_rng([SEED, utterance.number])
    if utterance.kind == "human":
        speech = human_segment(int(utterance.text))
    else:
        pace, pitch = randomness.uniform(0.88, 1.12), int(randomness.integers(38, 62))
        speech = synthesise(utterance.voice, utterance.text, pace, pitch)
    head, found = shipped_head(WAKE_WORD), []
    for name, snr in utterance.hearings:
        pcm = capture(speech, DEVICE_CLASSES[name], snr, randomness, lead_s=LEAD_S)
        found.append(windows_of(head, EmbeddingStream().feed(pcm)))
    return found


def open_hearings(progress: Progress) -> Hearings:
    """Return the hearings kept in this user's cache; made on every core where they are not (minutes)."""
    said, path = script(), default_bank_path().with_name(_name())
    if path.exists():
        return Hearings.load(path, said)
    require_speech()
    windows: list[Windows] = []
    with get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for done, heard in enumerate(pool.imap(hear, said, chunksize=4), start=1):
            windows.extend(heard)
            progress(done, len(said))
    made = Hearings.made(said, windows)
    made.save(path)
    return Hearings.load(path, said)


def _name() -> str:
    digest = hashlib.sha256(
        repr((FORMAT, bank_name(), EMBEDDING_SIZE, TAKES, PUBLIC_TAKES, PUBLIC_VARIANTS)).encode()
    )
    digest.update(repr(PHRASE_VARIANTS).encode())
    return f"hearings-{digest.hexdigest()[:12]}.npz"
