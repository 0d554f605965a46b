"""The models that a test set scores: those that came with this program, and heads from files."""

from hashlib import sha256
from pathlib import Path

import pymicro_wakeword

from clients.runtime import detectors
from clients.runtime.detectors import MODELS, Detector, EmbeddingDetector, Head, open_detector
from fa_core.errors import BadInput


def open_model(text: str, wake_word: str) -> tuple[Detector, str]:
    """Return a fresh detector for a wake word, and the hex SHA-256 of the model's bytes.

    Args:
        text: a version that came with this program, or the path of a head's .npz.
    Raises:
        BadInput: where there is no such model, or it listens for another wake word.
    """
    if text in MODELS:
        return open_detector(text, wake_word), sha256(_shipped(text, wake_word).read_bytes()).hexdigest()
    path = Path(text)
    if not path.is_file():
        raise BadInput(f"{text} is no model: one of {', '.join(MODELS)} or a head's file is expected")
    try:
        head = Head.load(path)
    except (OSError, ValueError, KeyError):
        raise BadInput(f"{path} is no head: an .npz that training wrote is expected") from None
    if head.wake_word != wake_word:
        raise BadInput(f"{path} listens for {head.wake_word}, the test set is for {wake_word}")
    return EmbeddingDetector(head), sha256(path.read_bytes()).hexdigest()


def _shipped(version: str, wake_word: str) -> Path:
    if version == "micro-1":
        return Path(pymicro_wakeword.__file__).parent / "models" / f"{wake_word}.tflite"
    return Path(detectors.__file__).with_name(f"embed_{wake_word}.npz")
