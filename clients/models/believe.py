"""Why a device believes a model: pinned keys, the log, its witness, and what the device can run. Pure.

Every check must pass before a byte of an artefact is read as anything. The order decides only which reason
the owner reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from clients.device.trust import Pins
from clients.models.formats import Content, content
from fa_core.errors import BadInput, Refused
from fa_core.publication.artefact import ArtefactKind, ArtefactManifest
from fa_core.publication.proofs import Publication, Seen, Verified, verified
from fa_core.publication.signed import SignedDocument


class Reason(StrEnum):
    """Why a device refused a model, in fixed words, for the owner's journal."""

    MISSING = "the model or its bytes are neither here nor published"
    MALFORMED = "what is published is not in the form of a model's manifest with its proofs"
    NOT_LOGGED = "the model is not shown to be in the transparency log"
    LOG_FORKED = "the transparency log does not agree with what this device saw before"
    OLDER = "what is published is older than what this device saw before"
    REVOKED = "the model is signed by a key that was revoked"
    SIGNATURE = "the model is not signed by a key that this device trusts"
    OTHER = "the manifest is of another model than the one that was asked for"
    SIZE = "the model is larger than this device takes"
    RUNTIME = "this device has not what runs the model"
    BASE = "the model changes one that this device does not have, or another than it names"
    BYTES = "the model's bytes are not those that its manifest names"
    FORM = "the model's bytes are not in the form of its kind"
    SPACE = "there is no room for the model"


class RefusedModel(Exception):
    """A device does not take a model, or no longer loads it. Carries a fixed reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model that came with the device's program: it is always there, and needs no signature."""

    version: str
    wake_word: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Able:
    """What a device can run and hold.

    Attributes:
        runtimes: for each kind the runtimes that load it here.
        shipped: what came with the program, by the hex SHA-256 of its bytes.
        space: bytes that all kept artefacts may have together.
    """

    runtimes: Mapping[ArtefactKind, frozenset[str]]
    shipped: Mapping[str, Shipped]
    space: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that passed every check: its manifest, what its bytes hold, and the pinned signer's name."""

    manifest: ArtefactManifest
    content: Content
    signer: str


def logged(data: bytes, pins: Pins, published: Seen, invited: Seen) -> Verified:
    """Return the entries of a publication. Raises RefusedModel with the first check that fails.

    Args:
        published: the log as publications showed it before. An older one is refused.
        invited: the log as invitations showed it. A publication may be older than an invitation; one that is
            not must extend it.
    """
    try:
        publication = Publication.decode(data)
    except BadInput:
        raise RefusedModel(Reason.MALFORMED) from None
    try:
        found = verified(publication, pins.log, pins.witness, Seen())
    except Refused:
        raise RefusedModel(Reason.NOT_LOGGED) from None
    if found.seen.size < published.size:
        raise RefusedModel(Reason.OLDER)
    for seen in (published, invited):
        if seen.size > found.seen.size:
            continue
        try:
            verified(publication, pins.log, pins.witness, seen)
        except Refused:
            raise RefusedModel(Reason.LOG_FORKED) from None
    return found


def signed_manifest(
    entry: bytes, asked: str, pins: Pins, now: datetime | None
) -> tuple[ArtefactManifest, str]:
    """Return the manifest in a log's entry, and the name of the pinned key that signed it.

    Args:
        asked: hex SHA-256 of the artefact. now: the device's clock; None where the model was taken in time.
    """
    try:
        signed = SignedDocument.from_entry("model", entry)
    except BadInput:
        raise RefusedModel(Reason.MALFORMED) from None
    if signed.key in pins.revoked:
        raise RefusedModel(Reason.REVOKED)
    signers = [
        each.name
        for each in pins.plan_keys
        if each.key == signed.key and (now is None or each.start <= now < each.end)
    ]
    if not signers or not signed.holds:
        raise RefusedModel(Reason.SIGNATURE)
    try:
        manifest = ArtefactManifest.from_document(signed.document)
    except BadInput:
        raise RefusedModel(Reason.MALFORMED) from None
    if manifest.sha256 != asked:
        raise RefusedModel(Reason.OTHER)
    return manifest, signers[0]


def check_fits(manifest: ArtefactManifest, able: Able) -> None:
    """Raise RefusedModel where this device cannot run or hold what the manifest names."""
    if manifest.size > able.space:
        raise RefusedModel(Reason.SIZE)
    if manifest.runtime not in able.runtimes.get(manifest.kind, frozenset()):
        raise RefusedModel(Reason.RUNTIME)


def check_base(manifest: ArtefactManifest, base: ArtefactManifest | Shipped) -> None:
    """Raise RefusedModel where a model is for another runtime or wake word than its base."""
    if (base.runtime, base.wake_word) != (manifest.runtime, manifest.wake_word):
        raise RefusedModel(Reason.BASE)


def read_artefact(manifest: ArtefactManifest, data: bytes) -> Content:
    """Return what the bytes hold, if they are those that the manifest names and in the form of its kind."""
    if len(data) != manifest.size or sha256(data).hexdigest() != manifest.sha256:
        raise RefusedModel(Reason.BYTES)
    try:
        return content(manifest, data)
    except BadInput:
        raise RefusedModel(Reason.FORM) from None
