"""The models that a test set scores: those that came with this program, and artefacts from files."""

import json
from hashlib import sha256
from pathlib import Path

from clients.models import head, thresholds
from clients.models.formats import published_form
from clients.models.head import Head
from clients.runtime.detectors import MODELS, Detector, EmbeddingDetector, open_detector, shipped_head
from clients.runtime.published import shipped
from fa_core.errors import BadInput


def open_model(text: str, wake_word: str) -> tuple[Detector, str]:
    """Return a fresh detector for a wake word, and the hex SHA-256 of its artefact as it is published.

    Args:
        text: a version that came with this program, the path of a head (.npz or published), or MODEL+FILE for
            a model with the thresholds in a file.
    Raises:
        BadInput: where there is no such model, or it listens for another wake word.
    """
    model, plus, file = text.rpartition("+")
    if plus and not Path(text).is_file():
        detector, _ = open_model(model, wake_word)
        return _with_thresholds(detector, Path(file))
    if text in MODELS:
        detector = open_detector(text, wake_word)
        digests = {(each.version, each.wake_word): digest for digest, each in shipped().items()}
        return detector, digests[text, wake_word]
    if not Path(text).is_file():
        raise BadInput(
            f"{text} is no model: one of {', '.join(MODELS)}, a head's file or MODEL+THRESHOLDS is expected"
        )
    found = open_head(text, wake_word)
    return EmbeddingDetector(found), sha256(head.encode(found)).hexdigest()


def open_head(text: str, wake_word: str) -> Head:
    """Return a head for a wake word: embed-1, or the one in a file (.npz or published). Raises BadInput."""
    if text == "embed-1":
        return shipped_head(open_detector(text, wake_word).wake_word)
    path = Path(text)
    if not path.is_file():
        raise BadInput(f"{text} is no head: embed-1 or a head's file is expected")
    found = head.decode(published_form("head", path, ""))
    if found.wake_word != wake_word:
        raise BadInput(f"{path} listens for {found.wake_word}, the test set is for {wake_word}")
    return found


def _with_thresholds(detector: Detector, path: Path) -> tuple[Detector, str]:
    """Return a detector with the thresholds in a file, and the hash of these as they are published."""
    try:
        said = json.loads(path.read_bytes())
        data = thresholds.encode(said["version"], said["thresholds"])
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        right = '{"thresholds": {"WAKE WORD": "0.5"}, "version": "NAME"}'
        raise BadInput(f"{path}: {right} is expected") from None
    found = thresholds.decode(data)
    if detector.wake_word not in found.by_wake_word:
        raise BadInput(f"{path} has no threshold for {detector.wake_word}")
    detector.threshold, detector.model_version = found.by_wake_word[detector.wake_word], found.version
    return detector, sha256(data).hexdigest()
