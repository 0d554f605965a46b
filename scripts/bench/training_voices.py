"""Who speaks in the bench of training, what they say, and what the frozen base makes of it.

A speaker is an espeak-ng variant of an accent. Speakers are in four sets that share no variant: `fleet` are
the owners of devices, `development` is public speech, `users` choose constants, `test` is only measured. None
of them trained the base. Every clip is spoken, captured by a device in noise and embedded; no audio is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from typing import Final, Literal

import numpy as np

from clients.fleet.audio import DEVICE_CLASSES, capture, human_segment, synthesise
from clients.fleet.phrases import NEAR_MISSES, TELEVISION_LINES, WAKE_PHRASES
from clients.fleet.voices import ACCENTS
from clients.personal.adapter import Windows, windows_of
from clients.runtime.detectors import EmbeddingStream, Pcm, shipped_head

SEED: Final = 20261128
LEAD_S, TAIL_S = 1.7, 0.6
SNR_DB: Final = (8.0, 30.0)
WAKE_WORD: Final = "okay_nabu"

Set = Literal["fleet", "development", "users", "test"]
VARIANTS: Final[dict[Set, tuple[str, ...]]] = {
    "fleet": ("+m2", "+m6", "+m8", "+f5", "+Andrea", "+Andy", "+linda", "+Mike", "+quincy", "+steph"),
    "development": ("+Annie", "+david", "+Hugo"),
    "users": ("+john", "+belinda", "+Lee"),
    "test": ("+max", "+Michael", "+rob", "+steph2", "+benjamin"),
}
TAKES: Final[dict[Set, int]] = {"fleet": 6, "development": 8, "users": 6, "test": 6}


@dataclass(frozen=True)
class Spoken:
    """One clip: who says what, and which of all clips it is. `wake`: it holds the wake word."""

    group: Set
    accent: str
    voice: str
    text: str
    wake: bool
    number: int


@cache
def script() -> tuple[Spoken, ...]:
    """Return everything that anybody says, in a fixed order."""
    return tuple(
        Spoken(group, accent, voice, text, wake, number)
        for number, (group, accent, voice, text, wake) in enumerate(_lines())
    )


def _lines() -> Iterator[tuple[Set, str, str, str, bool]]:
    near = (*NEAR_MISSES, *TELEVISION_LINES)
    for group, variants in VARIANTS.items():
        for number, (accent, variant) in enumerate(product(ACCENTS, variants)):
            voice = accent.espeak + variant
            for take in range(TAKES[group]):
                yield group, accent.label, voice, WAKE_PHRASES[take % 2], True
            for text in near[number % 3 :: 3]:
                yield group, accent.label, voice, text, False


def embed_all(clips: Sequence[Spoken], human: Sequence[int]) -> list[Windows]:
    """Return the windows of these clips, then of these segments of recorded human speech, on every core."""
    with get_context("spawn").Pool() as pool:
        return [*pool.map(embed, clips, chunksize=8), *pool.map(embed_human, human, chunksize=4)]


def embed(spoken: Spoken) -> Windows:
    """Speak, capture and embed one clip."""
    randomness = np.random.default_rng([SEED, spoken.number])
    pace, pitch = randomness.uniform(0.85, 1.15), int(randomness.integers(35, 65))
    speech = synthesise(spoken.voice, spoken.text, pace, pitch)
    device = list(DEVICE_CLASSES.values())[spoken.number % len(DEVICE_CLASSES)]
    snr = randomness.uniform(*SNR_DB)
    return _heard(capture(speech, device, snr, randomness, lead_s=LEAD_S, tail_s=TAIL_S))


def embed_human(number: int) -> Windows:
    """Capture and embed a segment of recorded human speech, 8 s."""
    randomness = np.random.default_rng([SEED, 1_000_000 + number])
    device = list(DEVICE_CLASSES.values())[number % len(DEVICE_CLASSES)]
    return _heard(capture(human_segment(number), device, randomness.uniform(5, 30), randomness))


def _heard(pcm: Pcm) -> Windows:
    return windows_of(shipped_head(WAKE_WORD), EmbeddingStream().feed(pcm))
