"""A test set on disk: a folder of 16 kHz WAV files, and `testset.json`, which names each with its SHA-256.

The set's own hash is that of the canonical text of `testset.json`: recipe, seed and every sample.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile

from clients.runtime.detectors import SAMPLE_RATE, Pcm
from clients.runtime.sources import file_pieces
from clients.testset.recipe import Recipe
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput

MANIFEST = "testset.json"
FORMAT = 1

ClipKind = Literal["wake", "near_miss", "phrase", "programme"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of a set.

    Attributes:
        file: its name in the folder. kind: of what is heard; only `wake` holds the wake word.
        text: the phrase that is said, or the programme's name. accent, voice: "" in a programme.
        room, noise, snr_db: how it was heard. seconds: its length.
        sha256: hex, of its samples, little-endian signed 16 bit.
    """

    file: str
    kind: ClipKind
    text: str
    accent: str
    voice: str
    room: str
    noise: str
    snr_db: float
    seconds: float
    sha256: str


@dataclass(frozen=True, slots=True)
class ControlledSet:
    """A set: its folder, its recipe and its clips, in the order in which they were made."""

    folder: Path
    recipe: Recipe
    clips: tuple[Clip, ...]

    def document(self) -> bytes:
        """Return the canonical JSON of `testset.json`."""
        body = {
            "format": FORMAT,
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
            "clips": [asdict(each) for each in self.clips],
        }
        return canonical(body)

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the set."""
        return sha256(self.document()).hexdigest()

    def samples(self, clip: Clip) -> Pcm:
        """Return a clip's samples, int16. Raises BadInput where they are gone or were changed."""
        path = self.folder / clip.file
        pcm = np.concatenate([*file_pieces(path), np.empty(0, np.int16)])
        if digest(pcm) != clip.sha256:
            raise BadInput(f"{path} is not the clip that {MANIFEST} names: it was changed")
        return pcm


def digest(pcm: Pcm) -> str:
    """Return the hex SHA-256 of samples."""
    return sha256(pcm.astype("<i2").tobytes()).hexdigest()


def write_clip(folder: Path, name: str, pcm: Pcm) -> None:
    """Write samples as a WAV file."""
    soundfile.write(folder / name, pcm, SAMPLE_RATE, subtype="PCM_16")


def read_set(folder: Path) -> ControlledSet:
    """Return the set in a folder. Raises BadInput where there is none."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; `fa testset make` makes a set") from None
    try:
        body: Any = json.loads(data)
        clips = tuple(Clip(**each) for each in body["clips"])
        found = ControlledSet(folder, Recipe.model_validate(body["recipe"]), clips)
        whole = body["format"] == FORMAT and found.document() == data
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole or any("/" in each.file or each.file.startswith(".") for each in clips):
        raise BadInput(f"{path} is not the manifest of a test set that this version reads")
    return found
