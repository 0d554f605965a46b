"""Hours of speech that says no wake word: recordings of people, and engines that read texts aloud.

Both are made into streams of minutes, which a device captures in noise and the frozen model embeds without a
reset, as it would hear them at home. The hours that count are those that have a score.

Recordings are those under a folder, of any form that PyAV reads; each folder of files is one voice, or one
language. What is silent before and after each is cut off, so the hours are of speech. Texts are the
documentation on the machine itself, so on another machine other sentences are read.
"""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal
from zlib import crc32

import av
import numpy as np
import soundfile
from scipy.signal import resample_poly

from clients.fleet.audio import DEVICE_CLASSES, Audio, capture, synthesise
from clients.fleet.voices import ACCENTS, HIBARI
from clients.runtime.detectors import SAMPLE_RATE
from scripts.bench.personal_voices.embedding import Embeddings, embeddings
from scripts.bench.personal_voices.speakers import SEED, VARIANTS

Kind = Literal["people", "synthetic"]

STREAM_S: Final = 300
LEAST_S: Final = 10
"""The longest and the shortest stream."""
SNR_DB: Final = (5.0, 30.0)
TEXTS: Final = Path("/usr/share/doc")
LONGEST_TEXT: Final = 200_000
FESTIVAL: Final = Path("/usr/share/festival/voices")
FLITE_VOICES: Final = ("awb", "kal16", "rms", "slt")
FESTIVAL_VOICES: Final = (
    "kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts", "lp_diphone", "pc_diphone", "suo_fi_lj_diphone",
    "hy_fi_mv_diphone",
)  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """Some minutes of one voice: the files that are joined, or the sentences that an engine reads.

    `voice` is a folder of recordings, or the engine's voice.
    """

    kind: Kind
    engine: str
    voice: str
    files: tuple[Path, ...] = ()
    text: str = ""

    @property
    def key(self) -> str:
        """What the stream is called in a cache, and drawn by."""
        said = self.text or "|".join(each.name for each in self.files)
        return sha256(f"{self.engine}|{self.voice}|{said}".encode()).hexdigest()[:24]


def recordings(folder: Path) -> Iterator[Stream]:
    """Yield the streams of the recordings under a folder, voice by voice, files in the order of their names.

    A file that cannot be read is left out.
    """
    every = sorted(each for each in folder.rglob("*") if each.is_file())
    for voice in dict.fromkeys(each.parent for each in every):
        files: list[Path] = []
        seconds = 0.0
        for file in (each for each in every if each.parent == voice):
            length = _seconds(file)
            if seconds + length > STREAM_S and files:
                yield Stream("people", "recorded", str(voice.relative_to(folder)), tuple(files))
                files, seconds = [], 0.0
            if length > 0:
                files.append(file)
                seconds += length
        if seconds >= LEAST_S:
            yield Stream("people", "recorded", str(voice.relative_to(folder)), tuple(files))


def _seconds(file: Path) -> float:
    """Return how long a recording is, as its container has it; 0 where it is none."""
    try:
        with av.open(str(file)) as container:
            return (container.duration or 0) / 1e6 if container.streams.audio else 0.0
    except (av.error.FFmpegError, UnicodeDecodeError):
        return 0.0


def synthetic(hours: float) -> tuple[list[Stream], list[str]]:
    """Return about so many hours of engines that read, in equal shares, and the engines that are not here."""
    voices = engines()
    here = {engine: some for engine, some in voices.items() if some}
    number = round(hours * 3600 / STREAM_S / max(1, len(here)))
    said = iter(_texts(number * len(here)))
    found = [
        Stream("synthetic", engine, some[at % len(some)], text=next(said))
        for at in range(number)
        for engine, some in here.items()
    ]
    return found, sorted(voices.keys() - here.keys())


def engines() -> dict[str, tuple[str, ...]]:
    """Return each engine's voices on this machine. No user, anchor, or clip of training has one of them."""
    espeak = (accent.espeak + each for each in VARIANTS["others"] for accent in ACCENTS)
    installed = {each.name for each in FESTIVAL.glob("*/*")} if shutil.which("text2wave") else set()
    return {
        "espeak-ng": tuple(espeak) if shutil.which("espeak-ng") else (),
        "hibari": (HIBARI,),
        "flite": FLITE_VOICES if shutil.which("flite") else (),
        "festival": tuple(each for each in FESTIVAL_VOICES if each in installed),
    }


def _texts(number: int) -> Iterator[str]:
    """Yield so many texts, each for `STREAM_S` at 160 words a minute, of sentences in a drawn order."""
    sentences = _sentences()
    order = np.random.default_rng(SEED).permutation(len(sentences))
    at, words = 0, round(160 * STREAM_S / 60)
    for _ in range(number):
        said: list[str] = []
        while len(said) < words:
            said += sentences[order[at % len(order)]].split()
            at += 1
        yield " ".join(said)


@cache
def _sentences() -> tuple[str, ...]:
    """Return the plain sentences of this machine's documentation, in the order of the alphabet."""
    word = re.compile(r"[A-Za-z][a-z']*[,.;:!?]?")
    found: set[str] = set()
    for file in TEXTS.rglob("*"):
        if not file.is_file() or file.stat().st_size > LONGEST_TEXT:
            continue
        data = file.read_bytes()
        try:
            text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        for sentence in re.split(r"(?<=[.!?])\s", " ".join(text.split())):
            words = sentence.split()
            if 6 <= len(words) <= 30 and all(word.fullmatch(each) for each in words):
                found.add(sentence)
    return tuple(sorted(found))


def embed_streams(streams: Sequence[Stream], cache_folder: Path | None = None) -> list[Embeddings]:
    """Return the embeddings of each stream, (k, 96), made on every core or read from the cache's folder.

    The folder has all of them afterwards.
    """
    files = [None if cache_folder is None else cache_folder / f"{each.key}.npy" for each in streams]
    missing = [
        (stream, file) for stream, file in zip(streams, files, strict=True) if not (file and file.exists())
    ]
    made: dict[Stream, Embeddings] = {}
    if missing:
        if cache_folder is not None:
            cache_folder.mkdir(parents=True, exist_ok=True)
        with get_context("spawn").Pool() as pool:
            found = pool.starmap(_embedded, missing, chunksize=1)
        made = {stream: each for (stream, _), each in zip(missing, found, strict=True)}
    return [
        made[stream] if stream in made else np.load(str(file), allow_pickle=False)
        for stream, file in zip(streams, files, strict=True)
    ]


def _embedded(stream: Stream, file: Path | None) -> Embeddings:
    """Return a stream's embeddings; write them to a file as soon as they are there, for it takes hours."""
    drawn = crc32(stream.key.encode())
    randomness = np.random.default_rng([SEED, drawn])
    device = list(DEVICE_CLASSES.values())[drawn % len(DEVICE_CLASSES)]
    sound = _joined(stream.files) if stream.files else _read_aloud(stream)
    found = embeddings(capture(sound, device, randomness.uniform(*SNR_DB), randomness))
    if file is not None:
        written = file.with_suffix(f".{os.getpid()}.npy")
        np.save(written, found)
        written.replace(file)
    return found


def _joined(files: Sequence[Path]) -> Audio:
    return np.concatenate([_trimmed(_decoded(each)) for each in files])


def _decoded(file: Path) -> Audio:
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    try:
        with av.open(str(file)) as container:
            frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    except av.error.FFmpegError:
        return np.empty(0)
    frames += resampler.resample(None)
    return np.concatenate([np.empty(0), *(each.to_ndarray().reshape(-1) / 32_768.0 for each in frames)])


def _trimmed(sound: Audio) -> Audio:
    """Return a recording with its peak at 0.5, without the silence at both ends."""
    peak = np.abs(sound).max(initial=0.0)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * peak)
    return 0.5 / peak * sound[loud[0] : loud[-1] + 1] if loud.size else np.empty(0)


def _read_aloud(stream: Stream) -> Audio:
    if stream.engine == "espeak-ng":
        return synthesise(stream.voice, stream.text)
    if stream.engine == "hibari":
        sentences = re.findall(r"[^.!?]+[.!?]", stream.text)
        return np.concatenate([synthesise(HIBARI, each, pitch=at % 100) for at, each in enumerate(sentences)])
    with TemporaryDirectory() as folder:
        text, sound = Path(folder, "text"), Path(folder, "sound.wav")
        text.write_text(stream.text, "utf-8")
        command = (
            ["flite", "-voice", stream.voice, "-f", str(text), "-o", str(sound)]
            if stream.engine == "flite"
            else ["text2wave", "-eval", f"(voice_{stream.voice})", str(text), "-o", str(sound)]
        )
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = soundfile.read(sound)
    divisor = int(np.gcd(rate, SAMPLE_RATE))
    return _trimmed(resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor))
