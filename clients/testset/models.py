"""The models that a test set scores: those that came with this program, from files, and from a store's log.

However a model is named, it is opened as a device opens it, and it is called by the SHA-256 of what
`fa model add` keeps of it: so a result is about exactly the models that a rollout names.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from clients.models import head, thresholds
from clients.models.adapters import Adapters
from clients.models.believe import Model, Shipped
from clients.models.formats import EMBEDDING_RUNTIME, published_form
from clients.models.head import Form, Head
from clients.models.thresholds import Thresholds
from clients.runtime.detectors import MODELS, Detector, shipped_head
from clients.runtime.published import open_head as published_head
from clients.runtime.published import open_published, shipped
from clients.testset.groups import GroupDetector
from fa_core.errors import BadInput
from fa_core.publication.artefact import ArtefactManifest


class Registry(Protocol):
    """The models of a store's log."""

    def find(self, text: str, wake_word: str) -> str:
        """Return the hex SHA-256 of the model for a wake word that is meant by a version or by digits of its
        hash. Raises BadInput where there is none."""
        ...

    def load(self, sha256: str) -> Model:
        """Return a model, checked. Raises BadInput where it is missing or was changed."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that is to be scored.

    Attributes:
        detector: fresh; of adapters by accent those of all groups.
        sha256: hex, of its artefact as it is published.
        bases: hex SHA-256 of what it changes, the nearest first; none for a head.
        scored_as: hex SHA-256 of the artefact that gives its scores: of thresholds that of their base, so
            that models which differ in a threshold alone are scored once.
    """

    detector: Detector | GroupDetector
    sha256: str
    bases: tuple[str, ...]
    scored_as: str


def open_model(text: str, wake_word: str, registry: Registry | None = None) -> Opened:
    """Return a model for a wake word.

    Args:
        text: the path of a head (.npz or published), a version that came with this program, or one of the
            registry or digits of its hash; and MODEL+FILE for one with the thresholds or the adapter in a
            file, as often as wanted.
    Raises:
        BadInput: where there is no such model, it is no detector, or it listens for another wake word.
    """
    return _Opening(wake_word, registry).open(text)


def open_head(text: str, wake_word: str) -> Head:
    """Return a head for a wake word: embed-1, or the one in a file (.npz or published). Raises BadInput."""
    if text == "embed-1":
        return shipped_head(wake_word)
    path = Path(text)
    if not path.is_file():
        raise BadInput(f"{text} is no head: embed-1 or a head's file is expected")
    found = head.decode(published_form("head", path, None))
    if found.wake_word != wake_word:
        raise BadInput(f"{path} listens for {found.wake_word}, the test set is for {wake_word}")
    return found


class _Opening:
    """The models that one text names, by their hashes; also where `open_published` finds them."""

    def __init__(self, wake_word: str, registry: Registry | None) -> None:
        self._wake_word = wake_word
        self._registry = registry
        self._from_files: dict[str, Model] = {}

    def open(self, text: str) -> Opened:
        digest = self._digest(text)
        detector = self._detector(digest)
        if detector.wake_word != self._wake_word:
            raise BadInput(f"{text} listens for {detector.wake_word}, the test set is for {self._wake_word}")
        chain, scored_as = [digest], ""
        while isinstance(found := self.load(chain[-1]), Model) and found.manifest.base:
            if found.manifest.kind != "thresholds":
                scored_as = scored_as or chain[-1]
            chain.append(found.manifest.base)
        return Opened(detector, digest, tuple(chain[1:]), scored_as or chain[-1])

    def _detector(self, digest: str) -> Detector | GroupDetector:
        found = self.load(digest)
        if not (isinstance(found, Model) and isinstance(found.content, Adapters)):
            return open_published(self, digest)
        base = published_head(self, found.manifest.base)
        if base is None:
            raise BadInput(f"the base of {found.manifest.version} is no head that is here")
        return GroupDetector(found.content, base)

    def load(self, sha256: str) -> Model | Shipped:
        if sha256 in self._from_files:
            return self._from_files[sha256]
        if sha256 in shipped():
            return shipped()[sha256]
        if self._registry is None:
            raise BadInput(f"there is no model {sha256[:12]} here")
        return self._registry.load(sha256)

    def fact(self, name: str) -> str | None:
        raise BadInput(f"thresholds of adapters by {name} are for no one head: a test set has every group's")

    def _digest(self, text: str) -> str:
        model, plus, file = text.rpartition("+")
        path = Path(text)
        if path.is_file():
            return self._keep("head", path, None)
        if plus:
            return self._keep(_form_of(Path(file)), Path(file), self._digest(model))
        for digest, each in shipped().items():
            if (each.version, each.wake_word) == (text, self._wake_word):
                return digest
        if self._registry is None:
            raise BadInput(f"{text} is no file, and none of {', '.join(MODELS)}")
        try:
            return self._registry.find(text, self._wake_word)
        except BadInput as error:
            raise BadInput(f"{text} is no file, none of {', '.join(MODELS)}, and {error}") from None

    def _keep(self, kind: Form | None, path: Path, base: str | None) -> str:
        """Take in a file's head or adapter, or without `kind` its thresholds; return its hash.

        Args:
            base: what an adapter or thresholds change.
        """
        data = published_form(kind or "thresholds", path, None)
        below = self.load(base) if base else None
        about = below.manifest if isinstance(below, Model) else below
        inside: Head | Thresholds
        if kind is None:
            inside = thresholds.decode(data)
            assert about is not None
            version, wake_word, runtime = inside.version, about.wake_word, about.runtime
        else:
            inside = head.decode(data, kind)
            version, wake_word, runtime = inside.model_version, inside.wake_word, EMBEDDING_RUNTIME
        if about is not None and (about.wake_word, about.runtime) != (wake_word, runtime):
            raise BadInput(
                f"{path} changes a model for {wake_word} on {runtime}, and {about.version} is one for "
                f"{about.wake_word} on {about.runtime}"
            )
        digest = sha256(data).hexdigest()
        manifest = ArtefactManifest(
            kind or "thresholds", version, version, wake_word, runtime, base or "", digest, len(data), "", ""
        )
        self._from_files[digest] = Model(manifest, inside, "")
        return digest


def _form_of(path: Path) -> Form | None:
    """Return the form of a file that changes a model: an adapter; None for thresholds, which are JSON."""
    try:
        with path.open("rb") as file:
            return None if file.read(64).lstrip().startswith(b"{") else "adapter"
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
