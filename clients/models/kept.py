"""The models that a device holds: fetched, verified, kept in a folder, and verified again at each load.

The folder has the names of a publication directory. A model that came with the program is always there and
is never written, so whatever is refused or lost, there is a baseline. A model's version comes from a signed
manifest, so events may carry it as a label from the moment that it is kept.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from threading import Lock

from clients.device.records import Records
from clients.device.store import Store
from clients.device.trust import Pins
from clients.models.believe import (
    Able,
    Model,
    Reason,
    RefusedModel,
    Shipped,
    check_base,
    check_fits,
    logged,
    read_artefact,
    signed_manifest,
)
from clients.models.sources import Source
from fa_core.errors import BadInput
from fa_core.publication import directory
from fa_core.publication.artefact import ArtefactKind, ArtefactManifest, is_hash
from fa_core.publication.proofs import Seen

DEEPEST = 3
"""How many bases there may be below a model: thresholds of an adapted head have two."""

NOTHING: frozenset[str] = frozenset()


class Models:
    """The models of one device.

    Args:
        folder: where they are kept; made at the first.
        store: open. It gets the log as seen, the journal's entries and the labels of versions; nobody else
            uses its connection during a call. `load` uses none, and may be called from any thread.
        source: where models are fetched, None where nowhere.
    """

    def __init__(self, folder: Path, store: Store, pins: Pins, able: Able, source: Source | None) -> None:
        self._folder = folder
        self._store = store
        self._records = Records(store)
        self._pins = pins
        self._able = able
        self._source = source
        self._refused: set[tuple[str, Reason, date]] = set()
        self._labels = Lock()
        for name in self.kept():
            with suppress(RefusedModel):
                self._allow_label(self._manifest(name, None)[0].version)

    def kept(self) -> tuple[str, ...]:
        """Return the hashes of the artefacts that are kept, the one that was used longest ago first."""
        found = [each for each in (self._folder / "artefacts").glob("*") if is_hash(each.name)]
        return tuple(
            each.name for each in sorted(found, key=lambda each: (each.stat().st_mtime_ns, each.name))
        )

    def fact(self, name: str) -> str | None:
        """Return a fact of this device, by which it chooses among adapters; None where it is not known."""
        return self._store.facts().get(name)

    def here(self) -> frozenset[str]:
        """Return the hashes of the models that would load now, those that were shipped among them."""
        found = set(self._able.shipped)
        for name in self.kept():
            with suppress(RefusedModel):
                self._load(name, DEEPEST)
                found.add(name)
        return frozenset(found)

    def changing(self, base: str, kind: ArtefactKind) -> list[Model]:
        """Return the kept models of a kind that name this base and would load now, the one that was used
        longest ago first; none counts as used."""
        found = []
        for name in self.kept():
            with suppress(RefusedModel):
                if isinstance(each := self._load(name, DEEPEST), Model):
                    found.append(each)
        return [each for each in found if (each.manifest.base, each.manifest.kind) == (base, kind)]

    def obtain(self, sha256: str, now: datetime, keep: Collection[str] = NOTHING) -> Model | Shipped:
        """Return a model, from the folder or else from the source, and keep it.

        Args:
            now: the device's clock. keep: hashes of models that are not removed to make room.
        Raises:
            RefusedModel: it was refused; the journal has the reason, once a day.
            Unreachable: the source did not answer.
        """
        try:
            return self._used(self._obtain(sha256, now, frozenset(keep) | {sha256}, DEEPEST))
        except RefusedModel as refused:
            self._note_refusal(sha256, refused.reason, now)
            raise

    def load(self, sha256: str) -> Model | Shipped:
        """Return a model that is here, after checking all of it but the dates of the signer's key again.

        Raises RefusedModel where it is not here, its key was revoked since, or it was damaged.
        """
        return self._used(self._load(sha256, DEEPEST))

    def _obtain(self, sha256: str, now: datetime, keep: frozenset[str], depth: int) -> Model | Shipped:
        try:
            return self._load(sha256, depth)
        except RefusedModel:
            if self._source is None:
                raise
        manifest, signer, publication = self._fetch_manifest(self._source, sha256, now)
        check_fits(manifest, self._able)
        if manifest.base:
            self._check_base(manifest, keep, now, depth)
        data = self._source.read(directory.artefact_name(sha256), manifest.size)
        if data is None:
            raise RefusedModel(Reason.MISSING)
        found = Model(manifest, read_artefact(manifest, data), signer)
        self._make_room(manifest.size, keep | {manifest.base})
        try:
            directory.write(self._folder, directory.model_name(sha256), publication)
            directory.write(self._folder, directory.artefact_name(sha256), data)
        except BadInput:
            raise RefusedModel(Reason.SPACE) from None
        body = {
            "model": sha256,
            "kind": manifest.kind,
            "version": manifest.version,
            "wake_word": manifest.wake_word,
            "signer": signer,
        }
        with self._store.transaction(now):
            self._store.append(now, "model_kept", body)
        return found

    def _fetch_manifest(
        self, source: Source, sha256: str, now: datetime
    ) -> tuple[ArtefactManifest, str, bytes]:
        """Return a manifest with its signer and the publication that shows it, and write the log as seen."""
        name = directory.model_name(sha256)
        data = source.read(name, directory.most_bytes(name))
        if data is None:
            raise RefusedModel(Reason.MISSING)
        invited = self._records.seen()
        found = logged(data, self._pins, self._records.publication_seen(), Seen(invited.size, invited.root))
        with self._store.transaction(now):
            self._records.see_publication(found.seen)
        return *self._only(found.entries, sha256, now), data

    def _only(
        self, entries: tuple[bytes, ...], sha256: str, now: datetime | None
    ) -> tuple[ArtefactManifest, str]:
        if len(entries) != 1:
            raise RefusedModel(Reason.MALFORMED)
        return signed_manifest(entries[0], sha256, self._pins, now)

    def _check_base(
        self, manifest: ArtefactManifest, keep: frozenset[str], now: datetime, depth: int
    ) -> None:
        if not depth:
            raise RefusedModel(Reason.BASE)
        try:
            base = self._obtain(manifest.base, now, keep | {manifest.base}, depth - 1)
        except RefusedModel:
            raise RefusedModel(Reason.BASE) from None
        check_base(manifest, base if isinstance(base, Shipped) else base.manifest)

    def _load(self, sha256: str, depth: int) -> Model | Shipped:
        if sha256 in self._able.shipped:
            return self._able.shipped[sha256]
        manifest, signer = self._manifest(sha256, None)
        check_fits(manifest, self._able)
        if manifest.base:
            if not depth:
                raise RefusedModel(Reason.BASE)
            base = self._load(manifest.base, depth - 1)
            check_base(manifest, base if isinstance(base, Shipped) else base.manifest)
        data = directory.read(self._folder, directory.artefact_name(sha256))
        if data is None:
            raise RefusedModel(Reason.MISSING)
        return Model(manifest, read_artefact(manifest, data), signer)

    def _used(self, found: Model | Shipped) -> Model | Shipped:
        """Return a model, let events carry its version, and write that it was used now."""
        if isinstance(found, Shipped):
            self._allow_label(found.version)
        else:
            self._allow_label(found.manifest.version)
            os.utime(self._file(found.manifest.sha256))
        return found

    def _manifest(self, sha256: str, now: datetime | None) -> tuple[ArtefactManifest, str]:
        """Return the manifest that is kept of an artefact, checked, and its signer."""
        data = directory.read(self._folder, directory.model_name(sha256))
        if data is None:
            raise RefusedModel(Reason.MISSING)
        return self._only(logged(data, self._pins, Seen(), Seen()).entries, sha256, now)

    def _make_room(self, size: int, keep: frozenset[str]) -> None:
        """Remove what was used longest ago until so many more bytes fit. `keep` and their bases stay."""
        keep = frozenset(below for name in keep for below in self._below(name))
        sizes = {name: self._file(name).stat().st_size for name in self.kept()}
        free = self._able.space - sum(sizes.values())
        for name, held in sizes.items():
            if free >= size:
                break
            if name not in keep:
                self.remove(name)
                free += held
        if free < size:
            raise RefusedModel(Reason.SPACE)

    def _below(self, sha256: str) -> set[str]:
        """Return a model's hash, and those of the kept models that it changes."""
        found: set[str] = set()
        while sha256 not in found:
            found.add(sha256)
            with suppress(RefusedModel):
                sha256 = self._manifest(sha256, None)[0].base
        return found

    def remove(self, sha256: str) -> None:
        """Remove a model from the folder."""
        self._file(sha256).unlink(missing_ok=True)
        (self._folder / directory.model_name(sha256)).unlink(missing_ok=True)

    def _file(self, sha256: str) -> Path:
        return self._folder / directory.artefact_name(sha256)

    def _allow_label(self, version: str) -> None:
        with self._labels:
            if version not in self._store.rules.labels.get("model_version", ()):
                self._store.rules = self._store.rules.allowing("model_version", version)

    def _note_refusal(self, sha256: str, reason: Reason, now: datetime) -> None:
        if (sha256, reason, now.date()) in self._refused:
            return
        self._refused.add((sha256, reason, now.date()))
        with self._store.transaction(now):
            self._store.append(now, "model_refused", {"model": sha256, "why": reason.value})
