"""The models of a store: signed, logged, kept, and published as files that devices can check."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput, Refused
from fa_core.publication import directory
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.proofs import LoggedEntry, Publication
from fa_core.publication.signed import SignedDocument
from fa_core.store import LogEntry, Store
from fa_core.trust.checkpoint import parse

_LEAST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Model:
    """One model in the log: its entry, its manifest, and who signed it (raw Ed25519, 32 bytes)."""

    entry: LogEntry
    manifest: ArtefactManifest
    signer: bytes


def models(store: Store) -> tuple[Model, ...]:
    """Return every model in the log, oldest first. Raises BadInput for an entry that nobody signed."""
    return tuple(map(_model, store.published("model")))


def newest(found: Sequence[Model]) -> tuple[Model, ...]:
    """Return for each artefact the last of its manifests, in the order of these."""
    last = {each.manifest.sha256: each for each in found}
    return tuple(sorted(last.values(), key=lambda each: each.entry.index))


def find(store: Store, text: str, wake_word: str | None = None) -> Model:
    """Return the model meant by a version or the first digits of its artefact's hash; the newest manifest.

    Args:
        wake_word: that it must be for; None for any.

    Raises BadInput where none is meant, or more than one.
    """
    every = [
        each
        for each in newest(models(store))
        if wake_word is None or each.manifest.wake_word in ("", wake_word)
    ]
    found = [each for each in every if each.manifest.version == text]
    if not found and len(text) >= _LEAST_PREFIX:
        found = [each for each in every if each.manifest.sha256.startswith(text.lower())]
    if not found:
        for_word = f" for {wake_word}" if wake_word else ""
        raise BadInput(f"no model{for_word} is called {text}; `fa model list` shows those there are")
    if len(found) > 1:
        names = ", ".join(f"{each.manifest.sha256[:12]} ({each.manifest.wake_word})" for each in found)
        raise BadInput(f"more than one model is meant by {text}: {names}; give the digits of one")
    return found[0]


def add(store: Store, manifest: ArtefactManifest, data: bytes, key: Ed25519PrivateKey) -> Model:
    """Sign a manifest, put it in the log and keep the artefact's bytes. The same again changes nothing.

    Raises:
        BadInput: the manifest cannot be, or its base is not in this store.
        Refused: another artefact has this version already, and events could not tell the two apart; or this
            artefact is something else already.
    """
    if (what := manifest.wrong) is not None:
        raise BadInput(f"this is no manifest of an artefact: {what}")
    before = models(store)
    if manifest.base:
        _check_base(manifest, [each.manifest for each in before if each.manifest.sha256 == manifest.base])
    for each in before:
        _check_one_name(manifest, each.manifest)
    signed = SignedDocument.sign("model", manifest.document(), key)
    store.note_key("plan", signed.key)
    return _model(store.keep_artefact(signed.hash.hex(), signed.entry(), data))


def _check_one_name(manifest: ArtefactManifest, before: ArtefactManifest) -> None:
    """Raise Refused unless one version means one artefact, and one artefact one thing."""
    names = [(each.wake_word, each.version) for each in (manifest, before)]
    facts = [
        (each.kind, each.wake_word, each.version, each.runtime, each.base) for each in (manifest, before)
    ]
    if names[0] == names[1] and manifest.sha256 != before.sha256:
        raise Refused(
            f"{manifest.version} of {manifest.wake_word or 'all wake words'} is artefact "
            f"{before.sha256[:12]} already; another artefact needs another version"
        )
    if manifest.sha256 == before.sha256 and facts[0] != facts[1]:
        raise Refused(
            f"artefact {before.sha256[:12]} is {before.version} already, {before.kind} on {before.runtime}; "
            "the same bytes are one model"
        )


def _check_base(manifest: ArtefactManifest, found: Sequence[ArtefactManifest]) -> None:
    if not found:
        raise BadInput(f"there is no artefact {manifest.base} here to be the base; add that one first")
    base = found[-1]
    if (base.runtime, base.wake_word) != (manifest.runtime, manifest.wake_word):
        raise BadInput(
            f"its base {base.version} is for {base.wake_word or 'all wake words'} on {base.runtime}, "
            f"this for {manifest.wake_word or 'all wake words'} on {manifest.runtime}; they must be the same"
        )


def publication(
    store: Store,
    entries: Sequence[LogEntry],
    replaced: Collection[bytes] = (),
    note: bytes | None = None,
) -> Publication:
    """Return entries with their proofs under a checkpoint, by default the newest. Raises BadInput where it is
    older.

    Args:
        replaced: files that stood in the place of this one and its like: who read them can follow.
    """
    while True:
        proofs = [store.prove(each.index, note) for each in entries]
        notes = {each.note for each in proofs}
        if len(notes) == 1:
            break  # else a checkpoint was made in between
    (note,) = notes
    logged = tuple(LoggedEntry(each.entry.index, each.entry.entry, each.proof) for each in proofs)
    also = {found for each in replaced if (found := _size(each)) is not None}
    return Publication(note, store.publication_proofs(parse(note).size, also), logged)


def _size(file: bytes) -> int | None:
    """Return the size of the log that a published file stands under, None where it was damaged."""
    try:
        return parse(Publication.decode(file).note).size
    except BadInput:
        return None


def covered(store: Store, found: Sequence[Model]) -> bool:
    """Return whether the newest checkpoint covers these models."""
    note = store.note()
    return note is not None and all(each.entry.index < parse(note).size for each in found)


def publish(store: Store, folder: Path) -> tuple[Model, ...]:
    """Write every model into a publication directory, under the newest checkpoint, and return them.

    Models that are there already are written anew: a device that has seen a later checkpoint takes no
    earlier one. Raises BadInput where bytes are gone or were changed, or no checkpoint covers a model.
    """
    found = newest(models(store))
    names = (directory.model_name(each.manifest.sha256) for each in found)
    replaced = {old for name in names if (old := directory.read(folder, name)) is not None}
    for each in found:
        digest = each.manifest.sha256
        data = store.artefact(digest)
        if directory.read(folder, directory.artefact_name(digest)) != data:
            directory.write(folder, directory.artefact_name(digest), data)
        made = publication(store, [each.entry], replaced)
        directory.write(folder, directory.model_name(digest), made.encode())
    return found


def _model(entry: LogEntry) -> Model:
    signed = SignedDocument.from_entry("model", entry.entry)
    if not signed.holds:
        raise BadInput(f"log entry {entry.index}: the signature of the model's manifest does not hold")
    return Model(entry, ArtefactManifest.from_document(signed.document), signed.key)
