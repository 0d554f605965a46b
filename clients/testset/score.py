"""Models on a set's clips: one peak for each utterance, every score of a programme.

An utterance is heard after a reset. The clips of a programme follow one another as one stream, so that no
model loses time to warm up in each; a wake there is counted as the runtime counts it, once in its refractory
time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.runtime.detectors import SAMPLE_RATE, Detector, peak_score
from clients.runtime.events import REFRACTORY
from clients.testset.clips import Clip, ControlledSet

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one model gave a set's clips.

    Attributes:
        version, sha256, threshold: the model's; sha256 in hex.
        hop: samples between two scores of a stream.
        peaks: highest score of each utterance, by the clip's file.
        streams: all scores of each programme, in order, by its name; float64 (k,).
    """

    version: str
    sha256: str
    threshold: float
    hop: int
    peaks: Mapping[str, float]
    streams: Mapping[str, NDArray[np.float64]]

    def accepts(self, clip: Clip) -> bool:
        """Say whether an utterance woke the model."""
        return self.peaks[clip.file] > self.threshold


def score(
    detectors: Sequence[tuple[Detector, str]], tested: ControlledSet, progress: Progress
) -> list[Scored]:
    """Score a set by models, each given with the hex SHA-256 of its bytes.

    Raises BadInput for a clip that is gone or was changed.
    """
    peaks: list[dict[str, float]] = [{} for _ in detectors]
    parts: list[dict[str, list[NDArray[np.float64]]]] = [{} for _ in detectors]
    programme = ""
    for done, clip in enumerate(tested.clips, start=1):
        pcm = tested.samples(clip)
        for (detector, _), found, streams in zip(detectors, peaks, parts, strict=True):
            if clip.kind != "programme":
                found[clip.file] = peak_score(detector, pcm)
                continue
            if clip.text != programme:
                detector.reset()
            streams.setdefault(clip.text, []).append(detector.feed(pcm))
        programme = clip.text if clip.kind == "programme" else ""
        progress(done, len(tested.clips))
    return [
        Scored(
            detector.model_version,
            digest,
            detector.threshold,
            detector.hop,
            found,
            {name: np.concatenate(scores) for name, scores in streams.items()},
        )
        for (detector, digest), found, streams in zip(detectors, peaks, parts, strict=True)
    ]


def wakes(scores: NDArray[np.float64], hop: int, threshold: float) -> int:
    """Return how often a stream of scores wakes a device: over the threshold, once in the refractory time.

    >>> wakes(np.array([0.9, 0.9, 0.1, 0.9]), SAMPLE_RATE, 0.5)
    2
    """
    apart = -(-int(REFRACTORY.total_seconds() * SAMPLE_RATE) // hop)
    count, free = 0, 0
    for place in np.flatnonzero(scores > threshold).tolist():
        if place >= free:
            count, free = count + 1, place + apart
    return count
