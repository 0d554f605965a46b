"""The manifest of an artefact that devices load: a detector's head, an adapter, thresholds and the like.

An artefact is named by the SHA-256 of its bytes. Its manifest is signed by a plan key and stands in the log
as an entry of kind `model` (`fa_core.publication.signed`); a device loads no bytes that no manifest names.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput

ArtefactKind = Literal["head", "adapter", "thresholds", "policy", "anchors"]

PERSONAL: Final = "personal"
"""The `model_version` in rows of what a device learned of its owner, the same on all: no artefact has it."""

MAX_SIZE = 16 << 20
"""Bytes of an artefact at most: what a device may have to fetch over a phone's connection."""

MAX_TEXT = 500
"""Characters of a manifest's text at most."""


@dataclass(frozen=True, slots=True)
class ArtefactManifest:
    """What an artefact is.

    Attributes:
        kind: what its bytes are. name, version: as `model_version` of events has it, and as people say it.
        wake_word: the one that it is for, "" for all.
        runtime: what must be on the device to run it, e.g. "livekit-embedding-1" or "micro-1".
        base: hex SHA-256 of the artefact that it changes, "" where it stands alone.
        sha256: hex SHA-256 of its bytes. size: their number.
        licence: SPDX identifier. trained_by: who made it, from what, in words.
    """

    kind: ArtefactKind
    name: str
    version: str
    wake_word: str
    runtime: str
    base: str
    sha256: str
    size: int
    licence: str
    trained_by: str

    def document(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return canonical(asdict(self))

    @classmethod
    def from_document(cls, document: bytes) -> "ArtefactManifest":
        """Return the manifest in signed bytes. Raises BadInput where they are none."""
        try:
            found = cls(**json.loads(document))
            whole = found.document() == document
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise BadInput("these bytes are no manifest of an artefact") from None
        if not whole or (what := found.wrong) is not None:
            raise BadInput("these bytes are no manifest of an artefact" + (f": {what}" if whole else ""))
        return found

    @property
    def wrong(self) -> str | None:
        """What is wrong with the manifest, None where nothing is."""
        texts = {name: value for name, value in asdict(self).items() if name != "size"}
        for name, value in texts.items():
            if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
                return f"its {name} is not one line of at most {MAX_TEXT} characters"
        for name in ("name", "version", "runtime", "licence", "trained_by"):
            if not texts[name].strip():
                return f"its {name} is empty"
        if PERSONAL in (self.name, self.version):
            return f'"{PERSONAL}" is no name for it: rows of what devices learned of their owners have that'
        if self.kind not in get_args(ArtefactKind):
            return f"its kind is none of {', '.join(get_args(ArtefactKind))}"
        if not is_hash(self.sha256) or (self.base and not is_hash(self.base)):
            return "an artefact is named by its SHA-256, 64 hexadecimal digits in lower case"
        if self.kind in ("adapter", "thresholds") and not self.base:
            return f"a manifest of kind {self.kind} names the artefact that it changes, as its base"
        if not isinstance(self.size, int) or isinstance(self.size, bool) or not 0 < self.size <= MAX_SIZE:
            return f"an artefact has 1 to {MAX_SIZE:,} bytes"
        return None


def is_hash(text: str) -> bool:
    """Return whether a text is a SHA-256 in hexadecimal digits, in lower case."""
    return len(text) == 64 and all(each in "0123456789abcdef" for each in text)
