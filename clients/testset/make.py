"""From a recipe to clips: synthetic voices, rooms, noise and programmes, the same for the same seed.

What is said draws its pace and pitch, its rooms' echo and its noise from the recipe's seed and its number.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import numpy as np

from clients.fleet.audio import DEVICE_CLASSES, HUMAN_SPEECH, DeviceClass, capture, synthesise
from clients.fleet.bank import LEAD_S
from clients.fleet.make import require_empty
from clients.fleet.voices import ACCENTS, wake_speakers
from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.testset.clips import MANIFEST, Clip, ClipKind, ControlledSet, digest, write_clip
from clients.testset.recipe import Recipe
from clients.testset.sounds import programme
from fa_core.errors import BadInput

SEGMENT = 30 * SAMPLE_RATE
"""Samples of one clip of a programme."""

Progress = Callable[[int, int], None]


def make(recipe: Recipe, beside: Path, out: Path, progress: Progress) -> ControlledSet:
    """Make a set in the new directory `out`, whole or not at all, and return it.

    Args:
        beside: the folder that the recipe's files are named in.
    Raises:
        BadInput: where `out` is not empty, a file cannot be read, or the synthesiser or people's speech is
            needed and missing.
    """
    require_empty(out)
    _require_sources(recipe)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        clips = []
        total = _count(recipe)
        for number, (clip, pcm) in enumerate(_clips(recipe, beside)):
            name = f"{number:05d}.wav"
            write_clip(building, name, pcm)
            clips.append(replace(clip, file=name, seconds=pcm.size / SAMPLE_RATE, sha256=digest(pcm)))
            progress(number + 1, total)
        made = ControlledSet(out, recipe, tuple(clips))
        (building / MANIFEST).write_bytes(made.document())
        if out.exists():
            out.rmdir()
        building.chmod(0o755)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return made


def _require_sources(recipe: Recipe) -> None:
    spoken = recipe.wake_phrases or recipe.near_misses or recipe.phrases
    if (spoken or any(each.lines for each in recipe.programmes)) and shutil.which("espeak-ng") is None:
        raise BadInput("espeak-ng speaks this recipe, and is not here: sudo apt-get install espeak-ng")
    people = "babble" in recipe.noise or any(each.human for each in recipe.programmes)
    if people and not any(HUMAN_SPEECH.glob("*.g722")):
        package = "asterisk-core-sounds-en-g722"
        raise BadInput(f"this recipe needs the speech of {package}: sudo apt-get install {package}")


def _count(recipe: Recipe) -> int:
    hearings = len(recipe.rooms) * len(recipe.noise) * len(recipe.snr_db)
    voices = len(recipe.accents) * recipe.speakers * recipe.takes
    others = len(recipe.near_misses) + len(recipe.phrases)
    spoken = voices * len(recipe.wake_phrases) * hearings + len(recipe.accents) * others * recipe.takes
    return spoken + sum(_segments(each.minutes) for each in recipe.programmes)


def _clips(recipe: Recipe, beside: Path) -> Iterator[tuple[Clip, Pcm]]:
    """Yield every clip without its file, length and hash, and its samples."""
    ways = list(product(recipe.rooms, recipe.noise, recipe.snr_db))
    turn = 0
    for number, (kind, text, accent, voice, hearings) in enumerate(_lines(recipe)):
        randomness = np.random.default_rng([recipe.seed, 0, number])
        pace, pitch = randomness.uniform(0.88, 1.12), int(randomness.integers(38, 62))
        speech = synthesise(voice, text, pace, pitch)
        for hearing in range(hearings):
            room, noise, snr = ways[hearing] if hearings > 1 else ways[turn % len(ways)]
            turn += 1
            pcm = capture(speech, _device(room, noise), snr, randomness, lead_s=LEAD_S)
            yield Clip("", kind, text, accent, voice, room, noise, snr, 0.0, ""), pcm
    for number, each in enumerate(recipe.programmes):
        randomness = np.random.default_rng([recipe.seed, 1, number])
        sound = programme(each, beside, randomness)
        for segment in range(_segments(each.minutes)):
            places = np.arange(segment * SEGMENT, (segment + 1) * SEGMENT)
            room, noise, snr = ways[segment % len(ways)]
            part = np.take(sound, places, mode="wrap")
            pcm = capture(part, _device(room, noise), snr, randomness, lead_s=0.0, tail_s=0.0)
            yield Clip("", "programme", each.name, "", "", room, noise, snr, 0.0, ""), pcm


def _lines(recipe: Recipe) -> Iterator[tuple[ClipKind, str, str, str, int]]:
    """Yield what is said: kind, text, accent, voice, and in how many ways it is heard.

    The wake word is heard in every way from every voice; anything else is said once in every accent, by one
    of its voices and in one way, which take turns.
    """
    every = len(recipe.rooms) * len(recipe.noise) * len(recipe.snr_db)
    chosen = [each for each in ACCENTS if each.label in recipe.accents]
    for accent, text in product(chosen, recipe.wake_phrases):
        for voice, _ in product(islice(wake_speakers(accent), recipe.speakers), range(recipe.takes)):
            yield "wake", text, accent.label, voice, every
    others: tuple[tuple[ClipKind, tuple[str, ...]], ...] = (
        ("near_miss", recipe.near_misses),
        ("phrase", recipe.phrases),
    )
    for kind, texts in others:
        for (a, accent), (t, text), take in product(enumerate(chosen), enumerate(texts), range(recipe.takes)):
            voice = wake_speakers(accent)[(a + t + take) % recipe.speakers]
            yield kind, text, accent.label, voice, 1


def _device(room: str, noise: str) -> DeviceClass:
    return replace(DEVICE_CLASSES[room], babble=1.0 if noise == "babble" else 0.0)


def _segments(minutes: int) -> int:
    return minutes * 60 * SAMPLE_RATE // SEGMENT
