"""A tiny head of random weights, who publishes it, and a device that is to load it."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.device import database
from clients.device.journal import sentence
from clients.device.store import Store
from clients.device.trust import PinnedKey, Pins
from clients.models import head
from clients.models.believe import Able, Shipped
from clients.models.formats import EMBEDDING_RUNTIME
from clients.models.head import Head
from clients.models.kept import Models
from clients.models.sources import Folder
from fa_core.merkle import Tree, leaf_hash
from fa_core.publication import directory
from fa_core.publication.artefact import ArtefactKind, ArtefactManifest
from fa_core.publication.proofs import LoggedEntry, Publication
from fa_core.publication.signed import SignedDocument
from fa_core.trust import checkpoint
from tests.device.setup import KEY, RULES


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


NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Publisher:
    """Who signs, logs and publishes models: a plan key, a log, its witness, and the directory."""

    folder: Path
    plan: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    witness: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    entries: list[bytes] = field(default_factory=lambda: [b"the first entry"])

    def pins(self, **changes: Any) -> Pins:
        """Return what a device trusts."""
        key = PinnedKey("quality", raw(self.plan), NOW - 30 * DAY, NOW + 30 * DAY)
        pins = Pins((key,), frozenset(), raw(self.log), raw(self.witness), bytes(32), DAY)
        return replace(pins, **changes)

    def publish(self, data: bytes, **changes: Any) -> str:
        """Sign, log and publish an artefact; return its hash."""
        manifest = manifest_of(data, **changes)
        self.entries.append(SignedDocument.sign("model", manifest.document(), self.plan).entry())
        directory.write(self.folder, directory.artefact_name(manifest.sha256), data)
        self.refresh()
        return manifest.sha256

    def refresh(self) -> None:
        """Publish every model under a checkpoint of the whole log, as `fa model publish` does."""
        for index, entry in enumerate(self.entries):
            if entry.startswith(checkpoint.entry("model", b"")):
                document = SignedDocument.from_entry("model", entry).document
                name = directory.model_name(json.loads(document)["sha256"])
                directory.write(self.folder, name, self.publication(index).encode())

    def publication(self, *indices: int) -> Publication:
        """Return some entries under a checkpoint of all, with the proofs from each shorter log."""
        tree = Tree([leaf_hash(each) for each in self.entries])
        note = checkpoint.sign(tree.size, tree.root, self.log)
        note += checkpoint.cosign(note, None, (), self.log.public_key(), self.witness, NOW)
        consistency = {size: tree.consistency(size) for size in range(1, tree.size)}
        logged = tuple(LoggedEntry(at, self.entries[at], tree.inclusion(at)) for at in indices)
        return Publication(note, consistency, logged)


@dataclass
class Device:
    """A device's store and its models."""

    folder: Path
    publisher: Publisher
    able: Able
    store: Store

    @classmethod
    def make(cls, folder: Path, publisher: Publisher, space: int = 1 << 20) -> "Device":
        """Make one that ships a head called `base-1`."""
        database.create(folder / "store.db", KEY)
        store = Store.open(folder / "store.db", KEY, RULES, NOW)
        every = frozenset({EMBEDDING_RUNTIME})
        shipped = {SHIPPED: Shipped("base-1", "okay_nabu", EMBEDDING_RUNTIME)}
        kinds = dict.fromkeys(get_args(ArtefactKind), every)
        return cls(folder, publisher, Able(kinds, shipped, space), store)

    def models(self, **changes: Any) -> Models:
        """Return its models, as after a restart, with other pins where given."""
        source = Folder(self.publisher.folder)
        return Models(self.folder / "models", self.store, self.publisher.pins(**changes), self.able, source)

    def journal(self) -> list[str]:
        """Return the sentences about models in its owner's journal."""
        return [sentence(each) for each in self.store.entries() if each.kind.startswith("model_")]


SHIPPED = sha256(head.encode(random_head(version="base-1"))).hexdigest()


def raw(key: Ed25519PrivateKey) -> bytes:
    """Return a key's public half, 32 bytes."""
    return key.public_key().public_bytes_raw()
