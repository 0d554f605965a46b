"""Who speaks in the bench of training, and what they say.

A speaker is an espeak-ng variant of an accent. Speakers are in four sets that share no variant, and none of
them trained the base: `fleet` are the owners of devices, `development` is public speech, `users` choose
constants, `test` is only measured. What is no wake word is in four lists that share no phrase: near misses
that the refit learns from (`NEAR`), phrases that hold a candidate (`PHRASES`), near misses that constants are
chosen by (`CHOSEN`), and those that are measured (`MEASURED`). Clips are spoken, captured by a device in
noise and embedded as in the bench of personalisation, and share its cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from clients.fleet.audio import SEGMENT_SECONDS
from clients.fleet.phrases import WAKE_PHRASES
from clients.fleet.voices import ACCENTS, TRAINING_ACCENTS
from clients.models.head import Head
from clients.personal.adapter import Windows, windows_of
from clients.runtime.detectors import shipped_head
from fa_core.training.public import Clip, PublicSpeech
from scripts.bench.personal_voices.speakers import (
    ANCHOR_LINES,
    MEASURED_LINES,
    VARIANTS,
    Set,
    Spoken,
    embed_all,
    recorded,
)

WAKE_WORD: Final = "okay_nabu"
LABELS: Final = tuple(accent.label for accent in ACCENTS)
PUBLIC: Final = frozenset(accent.label for accent in ACCENTS if accent.espeak in TRAINING_ACCENTS)
NEAR, MEASURED = ANCHOR_LINES, MEASURED_LINES
CHOSEN: Final = (
    "Okay, now listen.", "Okay, no problem.", "Okay, nothing new.", "Okay, not a bit.", "Okay, about noon.",
    "Okay, nap soon.", "Okay, know who?", "Okay, a new boot.", "Okay, now Andrew.",
)  # fmt: skip
PHRASES: Final = (
    "Okay, banana.", "Okay, Nabil.", "Okay, caribou.", "Okay, taboo.", "Okay, Malibu.", "Okay, tofu.",
    "Okay, peekaboo.", "Okay, bamboo.", "Hey, lamb stew.", "Turn on the light.",
)  # fmt: skip
LISTED: Final = PHRASES[0]
UNLISTED: Final = "Okay, tomato."
"""What attackers teach in place of the wake word: a phrase that holds a candidate, and one in no list."""

SPEAKERS: Final[dict[Set, tuple[str, ...]]] = {
    "fleet": VARIANTS["anchors"],
    "development": VARIANTS["development"],
    "users": VARIANTS["users"],
    "test": VARIANTS["others"],
}
TAKES: Final[dict[Set, int]] = {"fleet": 6, "development": 8, "users": 20, "test": 20}
"""How often each speaker says the wake word."""


@cache
def script() -> tuple[Spoken, ...]:
    """Return everything that anybody says, in a fixed order."""
    return tuple(_lines())


def _lines() -> Iterator[Spoken]:
    for group, variants in SPEAKERS.items():
        for accent in ACCENTS:
            for number, variant in enumerate(variants):
                voice = accent.espeak + variant
                heard = group != "development" or accent.label in PUBLIC
                for take in range(TAKES[group] if heard else 0):
                    yield Spoken(group, accent.label, voice, WAKE_PHRASES[take % 2], take, wake=True)
                for text in _unlike(group, number):
                    yield Spoken(group, accent.label, voice, text, 0, wake=False)


def _unlike(group: Set, number: int) -> Sequence[str]:
    """Return what the speaker of this number in a set says that is no wake word."""
    if group == "fleet":
        return (LISTED, UNLISTED) if number % 5 == 0 else ()
    if group == "development":
        return (*NEAR, *PHRASES[number % 2 :: 2])
    return CHOSEN if group == "users" else (*MEASURED, LISTED, UNLISTED)


@dataclass(frozen=True)
class Voices:
    """Who said what, what the base made of it, and recorded human speech."""

    said: tuple[Spoken, ...]
    heard: tuple[Windows, ...]
    human: tuple[Windows, ...]

    def of(self, group: Set, texts: Sequence[str], accent: str | None = None) -> list[Windows]:
        """Return the clips in which a set of speakers says one of these, of one accent where named."""
        return [
            windows
            for each, windows in zip(self.said, self.heard, strict=True)
            if each.group == group and each.text in texts and accent in (None, each.accent)
        ]

    def owners(self) -> dict[str, list[list[Windows]]]:
        """Return the moments of the owners of devices: accent to its voices, each a list of clips."""
        found: dict[str, dict[str, list[Windows]]] = {label: {} for label in LABELS}
        for each, windows in zip(self.said, self.heard, strict=True):
            if each.group == "fleet" and each.wake:
                found[each.accent].setdefault(each.voice, []).append(windows)
        return {label: list(voices.values()) for label, voices in found.items()}

    def public(self) -> PublicSpeech:
        """Return what is public: the wake word in the base's own accents, every other segment of the human
        speech, near misses, and the phrases that training never sees."""
        wake = [
            Clip("wake", label, each)
            for label in sorted(PUBLIC)
            for each in self.of("development", WAKE_PHRASES, label)
        ]
        human = [Clip("human", "", each) for each in self.human[::2]]
        near = [Clip("near", "", each) for each in self.of("development", NEAR)]
        phrases = [Clip("phrase", "", each) for each in self.of("development", PHRASES)]
        return PublicSpeech((*wake, *human, *near, *phrases), len(human) * float(SEGMENT_SECONDS))


def voices(sounds: Path, cached: Path | None, head: Head | None = None) -> Voices:
    """Return everything that was said, and the recorded human speech that the base was not trained on.

    It is spoken and embedded on every core (half an hour), or read from `cached`, which has all of it
    afterwards. `sounds`: Debian's folder of asterisk-core-sounds.
    """
    human = [each for each in recorded(sounds) if not each.trained_on]
    base = shipped_head(WAKE_WORD) if head is None else head
    every = [windows_of(base, each) for each in embed_all([*script(), *human], cached)]
    return Voices(script(), tuple(every[: len(script())]), tuple(every[len(script()) :]))
