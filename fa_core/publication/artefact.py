"""The manifest of an artefact that devices load: a detector's head, an adapter, thresholds and the like.

An artefact is named by the SHA-256 of its bytes. Its manifest is signed by a plan key and stands in the log
as an entry of kind `model` (`fa_core.publication.signed`); a device loads no bytes that no manifest names.
"""

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput

ArtefactKind = Literal["head", "adapter", "thresholds", "policy", "anchors"]


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
            whole = found.document() == document and _is_hash(found.sha256)
        except (ValueError, TypeError, RecursionError):
            raise BadInput("these bytes are no manifest of an artefact") from None
        if not whole or found.kind not in get_args(ArtefactKind) or (found.base and not _is_hash(found.base)):
            raise BadInput("these bytes are no manifest of an artefact")
        return found


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(each in "0123456789abcdef" for each in text)
