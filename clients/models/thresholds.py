"""Thresholds as an artefact: for each wake word the score over which its model wakes.

    {"thresholds":{"okay_nabu":"0.935"},"version":"embed-2-t1"}

Numbers are text with at most six digits, so that everybody reads the same ones. The version makes thresholds
of two models two artefacts, whatever their numbers.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput

THRESHOLD = re.compile(r"0\.[0-9]{1,6}")
MAX_WAKE_WORDS = 64


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds of one version by wake word, each in (0, 1)."""

    version: str
    by_wake_word: Mapping[str, float]


def encode(version: str, thresholds: Mapping[str, str]) -> bytes:
    """Return the canonical bytes of thresholds by wake word. Raises BadInput for one that is none."""
    data = canonical({"thresholds": dict(thresholds), "version": version})
    decode(data)
    return data


def decode(data: bytes) -> Thresholds:
    """Return the thresholds in canonical bytes. Raises BadInput for anything else."""
    try:
        said = json.loads(data)
        found: dict[str, str] = said["thresholds"]
        version = said["version"]
        good = canonical(said) == data and len(said) == 2 and 0 < len(found) <= MAX_WAKE_WORDS
        good = good and isinstance(version, str) and version != ""
        good = good and all(wake_word and THRESHOLD.fullmatch(text) for wake_word, text in found.items())
        values = {wake_word: float(text) for wake_word, text in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        good, version, values = False, "", {}
    if not good or not all(value > 0 for value in values.values()):
        raise BadInput(
            'these are no thresholds: {"thresholds": {"WAKE WORD": "0.5"}} is expected, each as text, over 0 '
            "and below 1, with at most six digits"
        )
    return Thresholds(version, values)
