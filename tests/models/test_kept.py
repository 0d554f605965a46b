"""What a device refuses to load, each refusal with a control: without that check alone it would be loaded."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clients.models import believe, head, kept, thresholds
from clients.models.believe import Model, Reason, RefusedModel
from clients.models.head import Head
from fa_core import merkle
from fa_core.publication import directory
from fa_core.publication.proofs import Seen, Verified
from fa_core.publication.signed import SignedDocument
from tests.models.samples import DAY, NOW, SHIPPED, Device, Publisher, random_head, raw

HEAD = head.encode(random_head())


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "published")


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Device:
    return Device.make(tmp_path, publisher)


def why(call: Callable[[], object]) -> str:
    """Return why a model was refused, "" if it was not."""
    try:
        call()
    except RefusedModel as refused:
        return refused.reason.name
    return ""


def obtained(device: Device, digest: str, **pins: object) -> str:
    return why(lambda: device.models(**pins).obtain(digest, NOW))


def test_a_published_head_is_kept_and_loaded_again(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    found = device.models().obtain(digest, NOW)
    assert isinstance(found, Model)
    assert isinstance(found.content, Head)
    np.testing.assert_array_equal(found.content.weights, random_head().weights)
    assert (found.signer, found.manifest.version) == ("quality", "test-1")
    for each in publisher.folder.rglob("*"):
        each.unlink() if each.is_file() else None  # what is kept needs no source
    assert device.models().load(digest).manifest == found.manifest  # type: ignore[union-attr]
    assert device.models().obtain(digest, NOW + 100 * DAY).manifest == found.manifest  # type: ignore[union-attr]
    assert device.models().here() == {SHIPPED, digest}
    assert device.models(plan_keys=()).here() == {SHIPPED}
    assert device.journal() == ["Took in the head test-1 for okay_nabu, signed by quality."]


def test_events_may_carry_the_version_of_a_kept_model(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    assert "test-1" not in device.store.rules.labels["model_version"]
    device.models().obtain(digest, NOW)
    assert "test-1" in device.store.rules.labels["model_version"]
    device.store.rules = replace(device.store.rules, labels={})
    device.models()  # as after a restart
    assert "test-1" in device.store.rules.labels["model_version"]


def test_what_came_with_the_program_needs_nothing(device: Device) -> None:
    assert device.models(plan_keys=()).obtain(SHIPPED, NOW) == device.able.shipped[SHIPPED]
    assert why(lambda: device.models().obtain("00" * 32, NOW)) == "MISSING"


# Who signed it.


def forge(publisher: Publisher, digest: str, change: Callable[[SignedDocument], SignedDocument]) -> None:
    """Publish a changed entry of the artefact with proofs that hold: the log and its witness collude."""
    signed = SignedDocument.from_entry("model", publisher.entries[-1])
    publisher.entries.append(change(signed).entry())
    name = directory.model_name(digest)
    directory.write(publisher.folder, name, publisher.publication(len(publisher.entries) - 1).encode())


@pytest.mark.parametrize("what", ["signature", "document", "key"])
def test_a_forged_signature_is_refused(
    device: Device, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    digest = publisher.publish(HEAD)
    changes: dict[str, Callable[[SignedDocument], SignedDocument]] = {
        "signature": lambda signed: replace(signed, signature=bytes(64)),
        "document": lambda signed: replace(signed, document=signed.document.replace(b"Apache", b"Apathe")),
        "key": lambda signed: SignedDocument.sign("model", signed.document, Ed25519PrivateKey.generate()),
    }
    forge(publisher, digest, changes[what])
    assert obtained(device, digest) == "SIGNATURE"
    if what != "key":  # the control: a device that does not check the signature takes it
        monkeypatch.setattr(SignedDocument, "holds", True)
        assert obtained(device, digest) == ""


def test_a_revoked_key_counts_for_nothing_before_and_after(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    revoked = frozenset({publisher.pins().plan_keys[0].key})
    assert obtained(device, digest, revoked=revoked) == "REVOKED"
    assert obtained(device, digest) == ""  # the control: nothing else was wrong with it
    assert why(lambda: device.models(revoked=revoked).load(digest)) == "REVOKED"
    assert obtained(device, digest, revoked=revoked) == "REVOKED"


def test_a_model_whose_key_was_revoked_comes_back_under_another(device: Device, publisher: Publisher) -> None:
    digest, revoked = publisher.publish(HEAD), frozenset({raw(publisher.plan)})
    assert obtained(device, digest) == ""
    publisher.plan = Ed25519PrivateKey.generate()
    assert obtained(device, digest, revoked=revoked) == "REVOKED"
    publisher.publish(HEAD)
    assert obtained(device, digest, revoked=revoked) == ""
    assert why(lambda: device.models(revoked=revoked).load(digest)) == ""


def test_a_key_counts_within_its_dates_where_a_model_is_new(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    for at in (NOW - 31 * DAY, NOW + 30 * DAY):
        assert why(lambda at=at: device.models().obtain(digest, at)) == "SIGNATURE"  # type: ignore[misc]
    assert obtained(device, digest) == ""
    device.models().obtain(digest, NOW + 31 * DAY)  # what was taken in time stays
    assert obtained(device, digest, plan_keys=()) == "SIGNATURE"


# The log.


def test_a_model_that_is_not_logged_is_refused(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    sound = publisher.publication(1)
    name = directory.model_name(digest)
    lines = sound.note.splitlines(keepends=True)
    for bad in (
        replace(sound, note=b"".join(lines[:-1])),
        replace(sound, note=b"".join([*lines[:-2], lines[-1]])),
        replace(sound, entries=(replace(sound.entries[0], index=0),)),
    ):
        directory.write(publisher.folder, name, bad.encode())
        assert obtained(device, digest) == "NOT_LOGGED"
    for malformed in (b"{}", b"", publisher.publication().encode(), publisher.publication(0, 1).encode()):
        directory.write(publisher.folder, name, malformed)
        assert obtained(device, digest) == "MALFORMED"
    directory.write(publisher.folder, name, sound.encode())
    assert obtained(device, digest) == ""


def forked(publisher: Publisher) -> Publisher:
    """Return the same people with another history, as long as theirs."""
    return replace(publisher, entries=[b"another history"] * len(publisher.entries))


def test_a_log_that_forks_or_rewinds_is_refused(
    device: Device, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewound = replace(publisher, folder=publisher.folder, entries=list(publisher.entries))
    device.models().obtain(publisher.publish(HEAD), NOW)
    publisher.publish(head.encode(random_head(5)))
    device.models().obtain(publisher.publish(head.encode(random_head(6))), NOW)
    for other, reason in ((rewound, "OLDER"), (forked(publisher), "LOG_FORKED")):
        digest = other.publish(head.encode(random_head(7)))
        assert obtained(device, digest) == reason
    assert device.journal()[-1].endswith("does not agree with what this device saw before.")
    logged = believe.logged

    def without_the_past(data: bytes, pins: object, published: Seen, invited: Seen) -> Verified:
        return logged(data, pins, Seen(), Seen())  # type: ignore[arg-type]

    monkeypatch.setattr(kept, "logged", without_the_past)
    assert obtained(device, digest) == ""  # the control


def test_a_publication_agrees_with_the_log_of_invitations(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    publication, pins = publisher.publication(1), publisher.pins()
    leaves = [merkle.leaf_hash(each) for each in publisher.entries]
    of_now, of_before = Seen(2, merkle.root(leaves)), Seen(1, merkle.root(leaves[:1]))

    def with_invitations(invited: Seen) -> str:
        return why(lambda: believe.logged(publication.encode(), pins, Seen(), invited))

    assert [with_invitations(each) for each in (of_now, of_before, Seen(9, b"x" * 32))] == ["", "", ""]
    assert with_invitations(Seen(2, b"x" * 32)) == with_invitations(Seen(1, b"x" * 32)) == "LOG_FORKED"
    assert obtained(device, digest) == ""


# What it is.


def test_another_manifest_than_was_asked_for_is_refused(device: Device, publisher: Publisher) -> None:
    digest, other = publisher.publish(HEAD), head.encode(random_head(5))
    second = publisher.publish(other)
    publication = directory.read(publisher.folder, directory.model_name(second))
    assert publication is not None
    directory.write(publisher.folder, directory.model_name(digest), publication)
    assert obtained(device, digest) == "OTHER"


def test_a_model_that_does_not_fit_is_not_fetched(device: Device, publisher: Publisher) -> None:
    large = publisher.publish(bytes((1 << 20) + 1), kind="anchors")
    elsewhere = publisher.publish(HEAD, runtime="another-runtime-2")
    (publisher.folder / directory.artefact_name(large)).unlink()
    (publisher.folder / directory.artefact_name(elsewhere)).unlink()
    assert (obtained(device, large), obtained(device, elsewhere)) == ("SIZE", "RUNTIME")


def test_control_a_device_that_checks_no_fit_would_fetch_it(
    device: Device, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "check_fits", lambda manifest, able: None)
    elsewhere = publisher.publish(HEAD, runtime="another-runtime-2")
    assert obtained(device, elsewhere) == ""


def test_thresholds_need_the_base_that_they_name(
    device: Device, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limits(value: str, **changes: object) -> str:
        data = thresholds.encode(f"t-{value}", {"okay_nabu": f"0.{value}"})
        return publisher.publish(data, kind="thresholds", version=f"t-{value}", **changes)

    on_shipped, nowhere = limits("91", base=SHIPPED), limits("92", base="ab" * 32)
    other_runtime = limits("93", base=publisher.publish(HEAD), runtime="micro-1")
    other_word = limits("94", base=SHIPPED, wake_word="")
    device.able = replace(
        device.able,
        runtimes={**device.able.runtimes, "thresholds": frozenset({"livekit-embedding-1", "micro-1"})},
    )
    found = [obtained(device, each) for each in (on_shipped, nowhere, other_runtime, other_word)]
    assert found == ["", "BASE", "BASE", "BASE"]
    monkeypatch.setattr(kept, "check_base", lambda manifest, base: None)
    assert [obtained(device, each) for each in (nowhere, other_runtime, other_word)] == ["BASE", "", ""]


def test_a_base_is_fetched_before_what_changes_it(device: Device, publisher: Publisher) -> None:
    base = publisher.publish(HEAD)
    adapter = head.encode(random_head(version="a-1"), "adapter")
    digest = publisher.publish(adapter, kind="adapter", base=base, version="a-1")
    assert obtained(device, digest) == ""
    assert set(device.models().kept()) == {base, digest}
    device.models().remove(base)
    assert why(lambda: device.models().load(digest)) == "MISSING"


def test_bases_that_go_round_in_a_circle_end(device: Device, publisher: Publisher) -> None:
    one, two = (thresholds.encode("test-1", {"okay_nabu": f"0.{number}"}) for number in (1, 2))
    names = [sha256(each).hexdigest() for each in (one, two)]
    publisher.publish(one, kind="thresholds", base=names[1])
    publisher.publish(two, kind="thresholds", base=names[0])
    assert obtained(device, names[0]) == "BASE"


# Its bytes.


@pytest.mark.parametrize("data", [HEAD[:-1], HEAD + b"x", HEAD[:-1] + b"x", b""])
def test_other_bytes_are_refused(device: Device, publisher: Publisher, data: bytes) -> None:
    digest = publisher.publish(HEAD)
    directory.write(publisher.folder, directory.artefact_name(digest), data)
    assert obtained(device, digest) in ("BYTES", "MISSING")  # more than the manifest names are not read
    assert device.models().kept() == ()


def test_control_bytes_that_nobody_hashes_would_be_loaded(
    device: Device, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publisher.publish(HEAD)
    other = head.encode(replace(random_head(), bias=7.0))
    directory.write(publisher.folder, directory.artefact_name(digest), other)
    assert obtained(device, digest) == "BYTES"
    monkeypatch.setattr(kept, "read_artefact", believe.content)
    found = device.models().obtain(digest, NOW)
    assert isinstance(found, Model)
    assert isinstance(found.content, Head)
    assert found.content.bias == 7.0


def test_bytes_in_another_form_are_refused_though_signed(device: Device, publisher: Publisher) -> None:
    npz = publisher.folder.parent / "head.npz"
    random_head().save(npz)
    for data in (npz.read_bytes(), b"\x80\x04N.", HEAD + b"0000"):
        assert obtained(device, publisher.publish(data)) == "FORM"
    assert obtained(device, publisher.publish(HEAD, version="another")) == "FORM"


def test_what_is_kept_is_checked_at_every_load_and_mended(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD)
    device.models().obtain(digest, NOW)
    file = device.folder / "models" / directory.artefact_name(digest)
    for damage in (HEAD[:-4], HEAD[:-4] + b"\0\0\0\0"):
        file.write_bytes(damage)
        assert why(lambda: device.models().load(digest)) == "BYTES"
        assert obtained(device, digest) == ""
        assert file.read_bytes() == HEAD


def test_room_is_made_of_what_was_used_longest_ago_and_never_of_what_is_in_use(
    device: Device, publisher: Publisher
) -> None:
    heads = [head.encode(random_head(frames, f"v-{frames}")) for frames in (4, 5, 6)]
    device.able = replace(device.able, space=len(heads[1]) + len(heads[2]))
    first, second, third = (
        publisher.publish(data, version=f"v-{frames}") for frames, data in zip((4, 5, 6), heads, strict=True)
    )
    for each in (first, second):
        device.models().obtain(each, NOW)
    with pytest.raises(RefusedModel, match="no room"):
        device.models().obtain(third, NOW, keep={first, second})
    assert set(device.models().kept()) == {first, second}
    device.models().load(first)
    device.models().obtain(third, NOW, keep={second})
    assert set(device.models().kept()) == {second, third}


def test_a_refusal_is_in_the_journal_once_a_day(device: Device, publisher: Publisher) -> None:
    digest = publisher.publish(HEAD, runtime="another-runtime-2")
    models = device.models()
    for hours in (0, 1, 2, 30):
        with pytest.raises(RefusedModel):
            models.obtain(digest, NOW + hours * DAY / 24)
    line = f"Refused the model {digest[:12]}: {Reason.RUNTIME.value}."
    assert device.journal() == [line, line]


@pytest.mark.parametrize("name", ["../../store.db", "models/../../store", "AB" * 32, "", "ab" * 31])
def test_a_name_that_is_no_hash_leads_nowhere(device: Device, publisher: Publisher, name: str) -> None:
    assert obtained(device, name) == "MISSING"


def test_reasons_are_sentences_of_their_own() -> None:
    assert len({each.value for each in Reason}) == len(Reason)
