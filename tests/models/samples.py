"""A tiny head of random weights, and the manifests of artefacts."""

from hashlib import sha256
from typing import Any

import numpy as np

from clients.models.formats import EMBEDDING_RUNTIME
from clients.models.head import Head
from fa_core.publication.artefact import ArtefactManifest


def random_head(frames: int = 4, version: str = "test-1") -> Head:
    """Return a head that is the same in every run."""
    weights = np.random.default_rng(15).normal(size=(frames, 96)).astype(np.float32)
    return Head("okay_nabu", version, 0.5, weights, -1.0)


def manifest_of(data: bytes, **changes: Any) -> ArtefactManifest:
    """Return the manifest of a head with these bytes."""
    facts: dict[str, Any] = {
        "kind": "head",
        "name": "okay_nabu",
        "version": "test-1",
        "wake_word": "okay_nabu",
        "runtime": EMBEDDING_RUNTIME,
        "base": "",
        "sha256": sha256(data).hexdigest(),
        "size": len(data),
        "licence": "Apache-2.0",
        "trained_by": "a test",
    }
    return ArtefactManifest(**(facts | changes))
