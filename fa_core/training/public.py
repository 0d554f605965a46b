"""Public speech that a training plan needs: none of it is from a device, so nothing here is private.

One .npz of windows as an adapter sees them (`clients.personal.adapter`), clip by clip, in four kinds: the
wake word, human speech without it, near misses, and phrases that training never sees, by which a hidden
phrase is noticed. `group` says of a clip of the wake word which of a plan's groups spoke, "" where nobody
knows.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from clients.personal.adapter import Windows
from clients.personal.anchors import Anchors
from clients.personal.features import vector_of
from fa_core.errors import BadInput
from fa_core.tables import VECTOR

Kind = Literal["wake", "human", "near", "phrase"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Clip:
    """One clip: what it is of, whose group spoke it, its windows."""

    kind: Kind
    group: str
    windows: Windows


@dataclass(frozen=True)
class PublicSpeech:
    """Every public clip, and the length of the human speech in seconds."""

    clips: tuple[Clip, ...]
    seconds: float

    def of(self, kind: Kind, group: str | None = None) -> tuple[Windows, ...]:
        """Return the windows of the clips of a kind, of one group where named."""
        return tuple(each.windows for each in self.clips if each.kind == kind and group in (None, each.group))

    def anchors(self) -> Anchors:
        """Return what must not wake the device: half is learned from, the threshold is set on the other."""
        return Anchors(self.of("human"), self.of("near"), self.seconds)

    def save(self, path: Path) -> None:
        """Write the clips as one .npz."""
        windows = [each.windows for each in self.clips]
        sizes = [len(each.base) for each in windows]
        np.savez_compressed(
            path,
            base=np.concatenate([each.base for each in windows]).astype("<f4"),
            features=np.concatenate([each.features for each in windows]).astype("<f4"),
            sizes=np.array(sizes, "<i4"),
            kinds=np.array([each.kind for each in self.clips]),
            groups=np.array([each.group for each in self.clips]),
            seconds=np.array(self.seconds),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises BadInput for anything else; no Python object is ever read."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                sizes, kinds, groups = (stored[name].tolist() for name in ("sizes", "kinds", "groups"))
                base, features = (stored[name].astype(np.float64) for name in ("base", "features"))
                ends = np.cumsum(sizes)[:-1]
                parts = zip(np.split(base, ends), np.split(features, ends), strict=True)
                windows = [Windows(*part) for part in parts]
                seconds = float(stored["seconds"])
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            raise BadInput(f"{path} is no public speech: an .npz of windows alone is expected") from None
        if features.shape != (len(base), VECTOR - 1) or not set(kinds) <= set(KINDS) or not len(base):
            raise BadInput(f"{path} is no public speech: its arrays do not fit together")
        if (missing := [each for each in KINDS if each not in kinds]) or len(kinds) != len(sizes):
            raise BadInput(f"{path} has no clip of kind {', '.join(missing)}; each is needed")
        clips = map(Clip, kinds, groups, windows)
        return cls(tuple(clips), seconds)


def center_of(clips: Iterable[Windows]) -> NDArray[np.float64]:
    """Return the mean vector of clips of the wake word, float64 (97,): the centre of a plan."""
    return np.asarray(np.mean([vector_of(each) for each in clips], axis=0), np.float64)
