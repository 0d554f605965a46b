"""Who speaks in the benches of personalisation, what they say, and what the frozen embeddings are of it.

A speaker is an espeak-ng variant of an accent. Sets share no variant, and none of them trained the base:
`anchors` say the near misses of the public anchor set, `development` chooses constants, `users` are
personalised, `others` are only measured. Development and users speak the accents that the base hears worst.
Near misses are in two halves: an anchor set has the one; the other is measured, and attacked with. Every clip
is spoken, captured by a device in noise and embedded; the audio is then gone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from clients.fleet.audio import DEVICE_CLASSES, HUMAN_SPEECH, SEGMENT_SECONDS, capture, synthesise
from clients.fleet.phrases import NEAR_MISSES, TELEVISION_LINES, WAKE_PHRASES
from clients.fleet.voices import ACCENTS
from clients.runtime.detectors import SAMPLE_RATE
from scripts.bench.personal_voices.embedding import Embeddings, embeddings

Set = Literal["anchors", "development", "users", "others", "fleet", "test"]

SEED: Final = 20261128
LEAD_S, TAIL_S = 1.7, 0.6
SNR_DB: Final = (8.0, 30.0)

HARD: Final = ("es-en", "it-en", "nl-en", "en-029", "de-en", "en-GB-rp")
"""Accents that the base hears worst, of `ACCENTS`."""

VARIANTS: Final[dict[Set, tuple[str, ...]]] = {
    "anchors": ("+m2", "+m6", "+m8", "+f5", "+Andrea", "+Andy", "+linda", "+Mike", "+quincy", "+steph"),
    "development": ("+Annie", "+david", "+Hugo"),
    "users": (
        "+john", "+belinda", "+Lee", "+edward", "+Denis", "+pablo", "+paul", "+victor", "+robert", "+Mario",
        "+sandro", "+caleb", "+adam", "+Alex", "+Alicia", "+antonio", "+boris", "+Diogo", "+gustave",
        "+Henrique", "+kaukovalta", "+marcelo", "+miguel", "+michel", "+norbert", "+pedro", "+shelby",
        "+travis", "+zac", "+Jacky", "+iven", "+Nguyen",
    ),
    "others": ("+max", "+Michael", "+rob", "+steph2", "+benjamin"),
}  # fmt: skip
"""Each is a set of formants, bandwidths, pitch and voice quality that espeak-ng's authors named as a speaker.
Of those that they made in a row (edward, edward2) at most one is in use, and none that is a robot or
whispers."""

LINES: Final = (*NEAR_MISSES, *TELEVISION_LINES)
ANCHOR_LINES, MEASURED_LINES = LINES[::2], LINES[1::2]
TAKES: Final = 50
"""How often each user says the wake word."""


@dataclass(frozen=True)
class Spoken:
    """One clip: who says what, in which of its takes. `wake`: it holds the wake word."""

    group: Set
    accent: str
    voice: str
    text: str
    take: int
    wake: bool

    @property
    def key(self) -> str:
        """What the clip is called in a cache, and drawn by."""
        return f"{self.voice}|{self.text}|{self.take}"


@dataclass(frozen=True)
class Recorded:
    """A segment of recorded human speech without a wake word, 8 s: of which voice's folder, and which."""

    folder: Path
    number: int

    @property
    def key(self) -> str:
        """What the segment is called in a cache, and drawn by."""
        return f"{self.folder.name}|{self.number}"

    @property
    def trained_on(self) -> bool:
        """Whether the base was trained on it: on every other segment of the English voice."""
        return self.folder.name == HUMAN_SPEECH.name and self.number % 2 == 0


@dataclass(frozen=True)
class Said:
    """A recording of a person who says the wake word: 16 kHz, mono."""

    file: Path

    @property
    def key(self) -> str:
        """What the recording is called in a cache, and drawn by."""
        return f"person|{self.file.name}"


Clip = Spoken | Recorded | Said


def script(takes: int = TAKES) -> Iterator[Spoken]:
    """Yield everything that the speakers say, in a fixed order."""
    for group, variants in VARIANTS.items():
        own = group in ("development", "users")
        for accent in ACCENTS:
            if own and accent.label not in HARD:
                continue
            for number, variant in enumerate(variants):
                voice = accent.espeak + variant
                wakes = [(WAKE_PHRASES[take % 2], take, True) for take in range(takes if own else 0)]
                lines = ANCHOR_LINES[number % 3 :: 3] if group == "anchors" else MEASURED_LINES
                near = [(text, take, False) for take in range(2 if own else 1) for text in lines]
                for text, take, wake in (*wakes, *near):
                    yield Spoken(group, accent.label, voice, text, take, wake)


def recorded(sounds: Path = HUMAN_SPEECH.parent) -> tuple[Recorded, ...]:
    """Return the segments of every voice in Debian's folder of asterisk-core-sounds."""
    folders = sorted(each for each in sounds.iterdir() if any(each.glob("*.g722")))
    return tuple(Recorded(folder, at) for folder in folders for at in range(len(_segments(folder))))


@cache
def _segments(folder: Path) -> NDArray[np.int16]:
    clips = []
    for path in sorted(folder.rglob("*.g722")):
        with av.open(str(path), format="g722") as container:
            clips += [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    speech = np.concatenate(clips)
    length = SEGMENT_SECONDS * SAMPLE_RATE
    return speech[: speech.size // length * length].reshape(-1, length)


def embed_all(clips: Sequence[Clip], cache_file: Path | None = None) -> list[Embeddings]:
    """Return the embeddings of each clip, (k, 96), made on every core or read from the cache file, which has
    all of them afterwards."""
    known = {} if cache_file is None or not cache_file.exists() else _read(cache_file)
    missing = [each for each in clips if each.key not in known]
    if missing:
        with get_context("spawn").Pool() as pool:
            found = pool.map(embed, missing, chunksize=8)
        known |= {each.key: embeddings for each, embeddings in zip(missing, found, strict=True)}
        if cache_file is not None:
            np.savez(cache_file, keys=np.array(list(known)), sizes=[len(each) for each in known.values()],
                     embeddings=np.concatenate(list(known.values())))  # fmt: skip
    return [known[each.key] for each in clips]


def _read(path: Path) -> dict[str, Embeddings]:
    with np.load(path, allow_pickle=False) as stored:
        pieces = np.split(stored["embeddings"], np.cumsum(stored["sizes"])[:-1])
        return dict(zip(stored["keys"].tolist(), pieces, strict=True))


def embed(clip: Clip) -> Embeddings:
    """Speak or read a clip, capture it with a device and embed it."""
    drawn = crc32(clip.key.encode())
    randomness = np.random.default_rng([SEED, drawn])
    device = list(DEVICE_CLASSES.values())[drawn % len(DEVICE_CLASSES)]
    if isinstance(clip, Recorded):
        sound = _segments(clip.folder)[clip.number] / 32_768.0
        return embeddings(capture(sound, device, randomness.uniform(5, 30), randomness))
    if isinstance(clip, Said):
        speech = soundfile.read(clip.file)[0]
    else:
        pace, pitch = randomness.uniform(0.85, 1.15), int(randomness.integers(35, 65))
        speech = synthesise(clip.voice, clip.text, pace, pitch)
    snr = randomness.uniform(*SNR_DB)
    return embeddings(capture(speech, device, snr, randomness, lead_s=LEAD_S, tail_s=TAIL_S))
