"""A recording as bytes of one of four lengths, and as a WAV file. Samples only: no tag of a file is kept.

Padded form: length of the text (u32), length of the samples (u32), text (UTF-8), samples, zeros; big-endian.
"""

import io
import struct
import wave
from dataclasses import dataclass, field
from typing import Final

from fa_core.errors import BadInput

SAMPLE_RATE: Final = 16_000
LONGEST_SECONDS: Final = 30
LONGEST_TEXT: Final = 200
"""Characters of what the owner writes beside a sample."""

LENGTHS: Final = (1 << 17, 1 << 18, 1 << 19, 1 << 20)
"""Bytes of a padded recording: up to 4, 8, 16 and 32 seconds. The vault sees which."""

_HEAD: Final = struct.Struct(">II")
_BYTES_A_SECOND: Final = 2 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Recording:
    """What is donated.

    Attributes:
        samples: 16 kHz mono, signed 16 bit, little-endian. said: the owner's words on it, "" for none.
    """

    samples: bytes = field(repr=False)
    said: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.samples) <= LONGEST_SECONDS * _BYTES_A_SECOND or len(self.samples) % 2:
            raise BadInput(f"a sample has some audio, and at most {LONGEST_SECONDS} seconds of it")
        if len(self.said) > LONGEST_TEXT or not (self.said.isprintable() or self.said == ""):
            raise BadInput(f"what is said of a sample is one line of at most {LONGEST_TEXT} characters")

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / _BYTES_A_SECOND

    def padded(self) -> bytes:
        """Return the padded form, whose length is one of LENGTHS."""
        words = self.said.encode()
        plain = _HEAD.pack(len(words), len(self.samples)) + words + self.samples
        return plain.ljust(next(length for length in LENGTHS if len(plain) <= length), b"\0")

    @classmethod
    def unpadded(cls, data: bytes) -> "Recording":
        """Return what `padded` wrote. Raises BadInput for anything else."""
        try:
            words, samples = _HEAD.unpack_from(data)
            end = _HEAD.size + words
            found = cls(data[end : end + samples], data[_HEAD.size : end].decode())
        except (struct.error, ValueError):
            raise BadInput("this is no recording: its form is another") from None
        if found.padded() != data:
            raise BadInput("this is no recording: its form is another")
        return found

    def wav(self) -> bytes:
        """Return the samples as a WAV file."""
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(SAMPLE_RATE)
            writer.writeframes(self.samples)
        return file.getvalue()
