"""What is published is believed only with every proof, and is read in one form only."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput, Refused
from fa_core.merkle import Tree, leaf_hash
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.proofs import LoggedEntry, Publication, Seen, verified
from fa_core.publication.rollout import RolloutManifest
from fa_core.publication.signed import SignedDocument
from fa_core.trust import checkpoint
from fa_core.trust.grants import Grant

LOG, WITNESS, PLAN = (Ed25519PrivateKey.generate() for _ in range(3))
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
ARTEFACT = ArtefactManifest(
    "head", "okay_nabu", "embed-2", "okay_nabu", "livekit-embedding-1", "", "ab" * 32, 12, "Apache-2.0", "us"
)
MANIFEST = RolloutManifest(
    bytes(32), "default", "okay_nabu", 3, "live", 1, Fraction(1, 10), b"a" * 32, b"b" * 32,
    NOW, NOW + timedelta(days=7), b"c" * 32, b"",
)  # fmt: skip


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def published(entries: list[bytes], since: tuple[int, ...] = ()) -> Publication:
    tree = Tree([leaf_hash(each) for each in entries])
    note = checkpoint.sign(tree.size, tree.root, LOG)
    note += checkpoint.cosign(note, None, (), LOG.public_key(), WITNESS, NOW)
    return Publication(
        note,
        {size: tree.consistency(size) for size in since},
        tuple(LoggedEntry(at, each, tree.inclusion(at)) for at, each in enumerate(entries)),
    )


ENTRIES = [SignedDocument.sign("model", ARTEFACT.document(), PLAN).entry(), MANIFEST.entry()]


def test_a_publication_is_verified_and_read_back() -> None:
    publication = Publication.decode(published(ENTRIES).encode())
    found = verified(publication, public(LOG), public(WITNESS), Seen())
    signed = SignedDocument.from_entry("model", found.entries[0])
    assert signed.holds
    assert ArtefactManifest.from_document(signed.document) == ARTEFACT
    assert RolloutManifest.from_entry(found.entries[1]) == MANIFEST
    assert (found.witnessed, found.seen.size) == (NOW, 2)


def test_every_missing_proof_is_refused() -> None:
    sound = published(ENTRIES)
    other = published([ENTRIES[0], b"another"])
    text, _, _ = sound.note.partition(b"\n\n")
    lines = sound.note.splitlines(keepends=True)
    for bad, reason in [
        (replace(sound, note=b"".join(lines[:-1])), "not cosigned"),
        (replace(sound, note=b"".join([*lines[:-2], lines[-1]])), "not signed by the log"),
        (replace(sound, note=text), "cannot be read"),
        (replace(sound, entries=other.entries), "not in the log"),
        (replace(sound, entries=(replace(sound.entries[0], index=1),)), "not in the log"),
    ]:
        with pytest.raises(Refused, match=reason):
            verified(bad, public(LOG), public(WITNESS), Seen())


def test_a_log_that_forks_or_shrinks_is_refused() -> None:
    before = verified(published(ENTRIES[:1]), public(LOG), public(WITNESS), Seen()).seen
    verified(published(ENTRIES, since=(1,)), public(LOG), public(WITNESS), before)
    for forked in (published([b"x", *ENTRIES], since=(1,)), published(ENTRIES)):
        with pytest.raises(Refused, match="does not extend"):
            verified(forked, public(LOG), public(WITNESS), before)


def test_a_signature_is_over_its_kind_and_document() -> None:
    signed = SignedDocument.sign("rollout", b'{"a":1}', PLAN)
    assert signed.holds
    assert not replace(signed, kind="model").holds
    assert not replace(signed, document=b'{"a":2}').holds
    assert not replace(signed, key=public(LOG)).holds
    with pytest.raises(BadInput):
        SignedDocument.from_entry("model", signed.entry())


def test_a_grant_is_for_one_stage_of_one_rollout() -> None:
    made = Grant.sign(MANIFEST.asked, NOW, NOW + timedelta(days=7), WITNESS)
    granted = replace(MANIFEST, grant=made.encode())
    assert granted.granted(public(WITNESS))
    assert replace(granted, sequence=9, expires=NOW + timedelta(days=9)).granted(public(WITNESS))
    for other in (
        replace(granted, rollout=b"x" * 32),
        replace(granted, stage=2),
        replace(granted, share=Fraction(1, 2)),
        replace(granted, state="complete", share=Fraction(1)),
        replace(granted, grant=b""),
    ):
        assert not other.granted(public(WITNESS))


@pytest.mark.parametrize(
    "impossible",
    [
        {"share": Fraction(0)},
        {"share": Fraction(2)},
        {"state": "shadow"},
        {"state": "rolled_back"},
        {"state": "canary"},
        {"sequence": -1},
        {"expires": NOW},
        {"candidate": b"short"},
        {"grant": b"short"},
        {"grant": b"\1" + bytes(80)},
        {"grant": b"\2" + b"\xff" * 80},
    ],
)
def test_a_manifest_that_cannot_be_is_refused(impossible: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        RolloutManifest.from_entry(replace(MANIFEST, **impossible).entry())  # type: ignore[arg-type]


def test_bytes_in_another_order_are_refused() -> None:
    data = published(ENTRIES).encode()
    for bad in (data + b" ", data[:-1], b"[]", b"{}", data.replace(b'"index":0', b'"index":"0"')):
        with pytest.raises(BadInput):
            Publication.decode(bad)
