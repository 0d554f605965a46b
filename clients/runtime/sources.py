"""Where 16 kHz audio comes from: a file, a folder, or a stream of raw samples. Only samples are read.

A container's tags (title, artist, place) are never looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from clients.runtime.detectors import SAMPLE_RATE, Pcm
from fa_core.errors import BadInput

PIECE = SAMPLE_RATE // 10
"""Samples read at a time: 0.1 s."""

SUFFIXES = frozenset({".wav", ".flac", ".ogg"})


def file_pieces(path: Path) -> Iterator[Pcm]:
    """Yield a file's samples, int16 of shape (k,), k <= 1,600. Raises BadInput if it is not 16 kHz mono."""
    with _opened(path) as sound:
        while (piece := sound.read(PIECE, dtype="int16")).size:
            yield piece


def file_seconds(path: Path) -> float:
    """Return the length of a file, as its header has it. Raises BadInput if it is not 16 kHz mono."""
    with _opened(path) as sound:
        return float(sound.frames) / SAMPLE_RATE


def folder_files(path: Path) -> list[Path]:
    """Return the audio files of a folder in the order of their names. Raises BadInput where there is none."""
    files = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
    if not files:
        raise BadInput(f"{path} holds no audio file ({', '.join(sorted(SUFFIXES))})")
    return files


def stream_pieces(stream: BinaryIO) -> Iterator[Pcm]:
    """Yield the samples of a raw stream (signed 16 bit, little-endian, mono, 16 kHz) until it ends."""
    rest = b""
    while chunk := stream.read(2 * PIECE):
        data = rest + chunk
        whole = len(data) & ~1
        rest = data[whole:]
        yield np.frombuffer(data[:whole], "<i2").astype(np.int16)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with soundfile.SoundFile(path) as sound:
            if (sound.samplerate, sound.channels) != (SAMPLE_RATE, 1):
                raise BadInput(
                    f"{path} has {sound.samplerate} Hz and {sound.channels} channels; 16000 Hz, 1 is expected"
                )
            yield sound
    except soundfile.LibsndfileError:
        raise BadInput(f"{path} is not an audio file that can be read (WAV, FLAC or Ogg)") from None
