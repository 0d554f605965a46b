"""Adapters by accent on a test set: an utterance is heard by the head that devices of its accent run.

A programme is nobody's accent, so the heads of all groups hear it, over one stream of embeddings. Every
head's logit is moved so that it wakes over 0.5: groups have thresholds of their own, a test set shows one.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clients.models.adapters import OTHER, Adapters
from clients.models.head import EMBEDDING_SIZE, Head, head_scores
from clients.personal.learn import logit
from clients.runtime.detectors import EMBEDDING_HOP, EmbeddingDetector, EmbeddingStream, Pcm
from fa_core.errors import BadInput

THRESHOLD = 0.5


class GroupDetector:
    """The detectors of adapters by accent. Raises BadInput for adapters by another fact."""

    def __init__(self, adapters: Adapters, base: Head) -> None:
        if adapters.fact != "accent":
            raise BadInput(
                f"these are adapters by {adapters.fact}, and a test set has accents: `fa train head` writes "
                "the head of one group"
            )
        heads = {group: base.adapted(adapters.chosen(group)) for group in adapters.groups}
        self._heads: Mapping[str, Head] = {group: _at_half(head) for group, head in heads.items()}
        self._detectors = {group: EmbeddingDetector(head) for group, head in self._heads.items()}
        self._stream = EmbeddingStream()
        self._recent = np.empty((0, EMBEDDING_SIZE), np.float32)
        self.wake_word = adapters.wake_word
        self.model_version = adapters.model_version
        self.threshold = THRESHOLD
        self.hop = EMBEDDING_HOP

    def of(self, accent: str) -> EmbeddingDetector:
        """Return the detector that devices of an accent run."""
        return self._detectors[accent if accent in self._detectors else OTHER]

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        """Return the scores of every group's head, float64 (k, groups), as `Detector.feed` those of one."""
        embeddings = np.concatenate([self._recent, self._stream.feed(pcm)])
        frames = len(next(iter(self._heads.values())).weights)
        self._recent = embeddings[max(0, len(embeddings) - frames + 1) :]
        return np.stack([head_scores(head, embeddings) for head in self._heads.values()], axis=1)

    def reset(self) -> None:
        """See `Detector.reset`."""
        self._stream.reset()
        self._recent = np.empty((0, EMBEDDING_SIZE), np.float32)


def _at_half(head: Head) -> Head:
    return replace(head, threshold=THRESHOLD, bias=head.bias - logit(head.threshold))
