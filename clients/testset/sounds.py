"""Sound without a wake word: jingles and music made with numpy, recordings, and people's speech.

16 kHz float64 in units of full scale, as `clients.fleet.audio` has it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clients.fleet.audio import Audio, human_speech, synthesise
from clients.fleet.voices import ACCENTS
from clients.runtime.detectors import SAMPLE_RATE
from clients.runtime.sources import file_pieces
from clients.testset.recipe import Programme
from fa_core.errors import BadInput

_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
"""A major scale, in semitones."""


def programme(said: Programme, folder: Path, randomness: np.random.Generator) -> Audio:
    """Return a programme's sound once through. Raises BadInput for a file that is none, or is silent.

    Where lines are spoken, each is said once over the sound, or on its own, with pauses.
    """
    if said.file is not None:
        sound = np.concatenate([*file_pieces(folder / said.file), np.empty(0, np.int16)]) / 32_768.0
    elif said.human is not None:
        sound = human_speech().reshape(-1) / 32_768.0
    elif said.synthetic is not None:
        sound = jingle(randomness) if said.synthetic == "jingle" else music(randomness)
    else:
        sound = np.zeros(0)
    if said.lines:
        sound = _under(_spoken(said.lines, randomness), sound)
    if not np.abs(sound).max(initial=0.0) > 0:
        raise BadInput(f"the programme {said.name} is silent")
    return sound + 1e-5 * randomness.normal(size=sound.size)  # a pause has no level to set noise against


def jingle(randomness: np.random.Generator) -> Audio:
    """Return ten seconds of a short melody of bells, twice, and a pause."""
    root = 440.0 * 2 ** (randomness.integers(-6, 7) / 12)
    sound = np.zeros(10 * SAMPLE_RATE)
    steps = randomness.choice(_SCALE, size=6)
    for repeat in (0.0, 4.0):
        for place, step in enumerate(steps):
            _add(sound, _bell(root * 2 ** (step / 12), 1.5), repeat + 0.35 * place)
    return _half_scale(sound)


def music(randomness: np.random.Generator) -> Audio:
    """Return half a minute of chords with a beat of noise."""
    sound = np.zeros(30 * SAMPLE_RATE)
    root = 220.0 * 2 ** (randomness.integers(-5, 6) / 12)
    for bar in range(15):
        degree = randomness.choice((0, 5, 7, 9))
        for step in (degree, degree + 4, degree + 7):
            _add(sound, _bell(root * 2 ** (step / 12), 2.0), 2.0 * bar)
        for beat in range(4):
            hit = randomness.normal(size=800) * 10 ** (-3 * np.arange(800) / 800)
            _add(sound, 0.4 * hit, 2.0 * bar + 0.5 * beat)
    return _half_scale(sound)


def _half_scale(sound: Audio) -> Audio:
    return sound * (0.5 / float(np.abs(sound).max()))


def _bell(hertz: float, seconds: float) -> Audio:
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    partials = sum(np.sin(2 * np.pi * hertz * n * at) / n**2 for n in (1, 2, 3, 5))
    tone: Audio = partials * np.exp(-3 * at / seconds)
    return tone


def _add(sound: Audio, part: Audio, second: float) -> None:
    start = round(second * SAMPLE_RATE)
    fits = part[: max(0, sound.size - start)]
    sound[start : start + fits.size] += fits


def _spoken(lines: Sequence[str], randomness: np.random.Generator) -> Audio:
    voices = [each.espeak for each in ACCENTS]
    parts = []
    for line in lines:
        voice, pace = voices[int(randomness.integers(len(voices)))], randomness.uniform(0.9, 1.1)
        pause = np.zeros(round(randomness.uniform(0.8, 1.6) * SAMPLE_RATE))
        parts += [synthesise(voice, line, pace), pause]
    return np.concatenate(parts)


def _under(speech: Audio, sound: Audio) -> Audio:
    """Return speech with a sound under it, 10 dB lower, as long as the speech."""
    if not sound.size:
        return speech
    bed = np.resize(sound, speech.size)
    return speech + bed * 10 ** (-10 / 20)
