"""Models on a set's clips: one peak for each utterance, every score of a programme.

An utterance is heard after a reset. The clips of a programme follow one another as one stream, so that no
model loses time to warm up in each; a wake there is counted as the runtime counts it, once in its refractory
time. Of adapters by accent the head of its accent hears an utterance; a programme is heard by all, and that
which wakes most often counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.runtime.detectors import SAMPLE_RATE, Detector, peak_score
from clients.runtime.events import REFRACTORY
from clients.testset.clips import Clip, ControlledSet
from clients.testset.groups import GroupDetector
from clients.testset.models import Opened

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one model gave a set's clips.

    Attributes:
        version, sha256, bases, threshold: the model's, as in `Opened`.
        hop: samples between two scores of a stream.
        peaks: highest score of each utterance, by the clip's file.
        streams: all scores of each programme, in order, by its name; float64 (k,).
    """

    version: str
    sha256: str
    bases: tuple[str, ...]
    threshold: float
    hop: int
    peaks: Mapping[str, float]
    streams: Mapping[str, NDArray[np.float64]]

    def accepts(self, clip: Clip) -> bool:
        """Say whether an utterance woke the model."""
        return self.peaks[clip.file] > self.threshold


def score(models: Sequence[Opened], tested: ControlledSet, progress: Progress) -> list[Scored]:
    """Score a set by models; those that have their scores from one artefact are run once.

    Raises BadInput for a clip that is gone or was changed.
    """
    detectors = {each.scored_as: each.detector for each in models}
    peaks: dict[str, dict[str, float]] = {each: {} for each in detectors}
    parts: dict[str, dict[str, list[NDArray[np.float64]]]] = {each: {} for each in detectors}
    programme = ""
    for done, clip in enumerate(tested.clips, start=1):
        pcm = tested.samples(clip)
        for name, detector in detectors.items():
            if clip.kind != "programme":
                own = detector.of(clip.accent) if isinstance(detector, GroupDetector) else detector
                peaks[name][clip.file] = peak_score(own, pcm)
                continue
            if clip.text != programme:
                detector.reset()
            parts[name].setdefault(clip.text, []).append(detector.feed(pcm))
        programme = clip.text if clip.kind == "programme" else ""
        progress(done, len(tested.clips))
    streams = {
        name: {text: _most_wakes(np.concatenate(scores), detectors[name]) for text, scores in found.items()}
        for name, found in parts.items()
    }
    return [
        Scored(
            each.detector.model_version,
            each.sha256,
            each.bases,
            each.detector.threshold,
            each.detector.hop,
            peaks[each.scored_as],
            streams[each.scored_as],
        )
        for each in models
    ]


def _most_wakes(scores: NDArray[np.float64], of: Detector | GroupDetector) -> NDArray[np.float64]:
    """Return a stream's scores: of several heads', (k, groups), those of the head that wakes most often."""
    if scores.ndim == 1:
        return scores
    return max(scores.T, key=lambda each: (wakes(each, of.hop, of.threshold), float(each.max(initial=0.0))))


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
