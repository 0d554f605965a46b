"""From a published model to a detector: what this program runs, what came with it, and what was verified."""

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import pymicro_wakeword

from clients.device.config import MODELS
from clients.device.owner import DeviceHome
from clients.models import head
from clients.models.adapters import Adapters
from clients.models.believe import Able, Model, RefusedModel, Shipped
from clients.models.formats import EMBEDDING_RUNTIME, MICRO_RUNTIME, POLICY_RUNTIME
from clients.models.head import Head
from clients.models.kept import Models
from clients.models.policy import Policy
from clients.models.sources import Folder, Source
from clients.models.thresholds import Thresholds
from clients.runtime.detectors import (
    WAKE_WORDS,
    Detector,
    EmbeddingDetector,
    check_shipped,
    open_detector,
    shipped_head,
)
from fa_core.errors import BadInput
from fa_core.publication.artefact import ArtefactKind

RUNTIMES: Mapping[ArtefactKind, frozenset[str]] = {
    "head": frozenset({EMBEDDING_RUNTIME}),
    "adapter": frozenset({EMBEDDING_RUNTIME}),
    "thresholds": frozenset({EMBEDDING_RUNTIME, MICRO_RUNTIME}),
    "policy": frozenset({POLICY_RUNTIME}),
    "anchors": frozenset({EMBEDDING_RUNTIME}),
}
"""What this program loads. Native code reads a network of microWakeWord, so only shipped ones are run."""


@cache
def shipped() -> Mapping[str, Shipped]:
    """Return the models that came with this program, by the SHA-256 of what `fa model add` keeps of them."""
    runtimes = {"micro-1": MICRO_RUNTIME, "embed-1": EMBEDDING_RUNTIME}
    return {
        sha256(shipped_bytes(version, wake_word)).hexdigest(): Shipped(version, wake_word, runtimes[version])
        for version, wake_words in WAKE_WORDS.items()
        for wake_word in wake_words
    }


def shipped_bytes(version: str, wake_word: str) -> bytes:
    """Return a model that came with this program as it is published. Raises BadInput where it did not."""
    check_shipped(version, wake_word)
    if version == "embed-1":
        return head.encode(shipped_head(wake_word))
    return (Path(pymicro_wakeword.__file__).parent / "models" / f"{wake_word}.tflite").read_bytes()


def models_of(home: DeviceHome, source: Source | None = None) -> Models:
    """Return the models of a device, read from `source`, else from the directory in device.toml."""
    config = home.config.models
    if source is None and config.published is not None:
        source = Folder(home.folder / config.published)
    able = Able(RUNTIMES, shipped(), config.space_mb << 20)
    return Models(home.folder / MODELS, home.store, home.config.pins(), able, source)


class Loads(Protocol):
    """What models are loaded from, as `clients.models.kept.Models`."""

    def load(self, sha256: str) -> Model | Shipped:
        """Return a model that is here, checked."""
        ...

    def fact(self, name: str) -> str | None:
        """Return the device's fact of this name, by which it chooses among adapters; None if not known."""
        ...


def open_published(models: Loads, digest: str) -> Detector:
    """Return a fresh detector of a model that is here, by the hex SHA-256 of its artefact.

    Raises RefusedModel where the model is not here or does not verify, BadInput where it is no detector.
    """
    found = models.load(digest)
    if isinstance(found, Shipped):
        return open_detector(found.version, found.wake_word)
    manifest, inside = found.manifest, found.content
    if manifest.kind == "head" and isinstance(inside, Head):
        return EmbeddingDetector(inside)
    if manifest.kind == "adapter" and isinstance(inside, Head):
        return EmbeddingDetector(_head(models, manifest.base).adapted(inside))
    if isinstance(inside, Adapters):
        return EmbeddingDetector(_own(models, inside, manifest.base))
    if isinstance(inside, Thresholds):
        detector = open_published(models, manifest.base)
        if detector.wake_word not in inside.by_wake_word:
            raise BadInput(f"the thresholds {manifest.version} have none for {detector.wake_word}")
        detector.threshold = inside.by_wake_word[detector.wake_word]
        detector.model_version = manifest.version
        return detector
    raise BadInput(f"{manifest.version} is no detector but {manifest.kind}")


def open_head(models: Loads, digest: str) -> Head | None:
    """Return the head of a model that is here, None where it is none or does not verify.

    Of the adapters of all groups it is the one that this device takes.
    """
    try:
        found = models.load(digest)
        if isinstance(found, Shipped):
            return _head(models, digest) if found.runtime == EMBEDDING_RUNTIME else None
        if isinstance(found.content, Adapters):
            return _own(models, found.content, found.manifest.base)
        return _head(models, digest) if isinstance(found.content, Head) else None
    except (RefusedModel, BadInput):
        return None


def open_adapters(models: Loads, digest: str) -> tuple[Adapters, Head, str] | None:
    """Return the adapters of all groups, the head that they change and its hex SHA-256; None where a model
    is none."""
    try:
        found = models.load(digest)
        if isinstance(found, Shipped) or not isinstance(found.content, Adapters):
            return None
        return found.content, _head(models, found.manifest.base), found.manifest.base
    except (RefusedModel, BadInput):
        return None


def open_policy(models: Loads, digest: str) -> Policy:
    """Return a policy that is here. Raises RefusedModel as above, BadInput where it is something else."""
    found = models.load(digest)
    if isinstance(found, Model) and isinstance(found.content, Policy):
        return found.content
    raise BadInput("this model is no policy")


def _own(models: Loads, adapters: Adapters, base: str) -> Head:
    """Return a base with the adapter that this device takes."""
    return _head(models, base).adapted(adapters.chosen(models.fact(adapters.fact)))


def _head(models: Loads, digest: str) -> Head:
    """Return the head of a model that is here, with its adapters."""
    found = models.load(digest)
    if isinstance(found, Shipped):
        return shipped_head(found.wake_word)
    manifest, inside = found.manifest, found.content
    if not isinstance(inside, Head):
        raise BadInput(f"{manifest.version} is no head but {manifest.kind}")
    return inside if manifest.kind == "head" else _head(models, manifest.base).adapted(inside)
