"""`fa model`: an artefact is added, listed, verified, and published with proofs that hold."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from clients.models import head
from fa_core.cli import build
from fa_core.errors import BadInput, Refused
from fa_core.publication import directory
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.proofs import Publication, Seen, verified
from fa_core.publication.signed import SignedDocument
from fa_core.rounds.keys import keys_folder, local_keys
from fa_core.store import open_store
from fa_core.trust.enrolment import write_key
from tests.models.samples import random_head

ABOUT = ("--licence", "Apache-2.0", "--trained-by", "us, from synthetic voices")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def run(*arguments: object) -> Any:
    """Run `fa model` and return what --json printed."""
    done = CliRunner().invoke(build(), ["model", *map(str, arguments), "--json"], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(done.stdout)


def add(store: str, file: Path, version: str, *more: object) -> Any:
    return run("add", file, "--version", version, *ABOUT, "--store", store, *more)


def added_head(store: str, tmp_path: Path, version: str = "test-1", *more: object) -> Any:
    random_head(version=version).save(tmp_path / "head.npz")
    return add(store, tmp_path / "head.npz", version, "--wake-word", "okay_nabu", *more)


def test_a_model_is_added_listed_shown_and_verified(store: str, tmp_path: Path) -> None:
    found = added_head(store, tmp_path)
    assert found["sha256"] == sha256(head.encode(random_head())).hexdigest()
    assert added_head(store, tmp_path)["entry"] == found["entry"]  # the same again changes nothing
    (tmp_path / "t").write_text('{"thresholds": {"okay_nabu": "0.9"}}')
    limits = add(
        store, tmp_path / "t", "test-1-t", "--kind", "thresholds", "--base", "test-1",
        "--wake-word", "okay_nabu",
    )  # fmt: skip
    assert limits["base"] == found["sha256"]
    assert [each["version"] for each in run("list", "--store", store)["models"]] == ["test-1", "test-1-t"]
    assert run("show", found["sha256"][:8], "--store", store) == found
    assert run("verify", "--store", store)["good"]
    with open_store(store) as opened:
        assert opened.verify_log() == []


def test_what_is_published_is_what_a_device_can_verify(store: str, tmp_path: Path) -> None:
    out = tmp_path / "published"
    first = added_head(store, tmp_path)
    run("publish", out, "--store", store)
    keys = local_keys(keys_folder(store))
    log, witness = (each.public_key().public_bytes_raw() for each in (keys.log, keys.witness))
    before = directory.read(out, directory.model_name(first["sha256"]))
    assert before is not None
    seen = verified(Publication.decode(before), log, witness, Seen()).seen
    added_head(store, tmp_path, "test-2")
    assert len(run("publish", out, "--store", store)["models"]) == 2
    again = directory.read(out, directory.model_name(first["sha256"]))
    assert again is not None
    (entry,) = verified(Publication.decode(again), log, witness, seen).entries  # a later checkpoint, proved
    manifest = ArtefactManifest.from_document(SignedDocument.from_entry("model", entry).document)
    data = directory.read(out, directory.artefact_name(manifest.sha256))
    assert data is not None
    assert sha256(data).hexdigest() == first["sha256"]
    with open_store(store) as opened:
        size = opened.log_size()
    run("publish", out, "--store", store)
    with open_store(store) as opened:
        assert opened.log_size() == size  # what is covered needs no new checkpoint


def test_an_artefact_that_nobody_could_load_is_not_added(store: str, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(BadInput, match="no head"):
        add(store, tmp_path / "junk", "v")
    with pytest.raises(BadInput, match='"personal" is no name for it'):
        added_head(store, tmp_path, "personal")
    with pytest.raises(BadInput, match="its manifest of alexa"):
        added_head(store, tmp_path, "v", "--wake-word", "alexa")
    with pytest.raises(BadInput, match="cannot be read"):
        add(store, tmp_path / "none", "v")
    (tmp_path / "t").write_text('{"thresholds": {"okay_nabu": "0.9"}}')
    with pytest.raises(BadInput, match="as its base"):
        add(store, tmp_path / "t", "v", "--kind", "thresholds")
    with pytest.raises(BadInput, match="no model is called nothing"):
        add(store, tmp_path / "t", "v", "--kind", "thresholds", "--base", "nothing")
    with pytest.raises(BadInput, match="junk: these bytes are no anchor set"):
        add(store, tmp_path / "junk", "v", "--kind", "anchors")
    (tmp_path / "p").write_text('{"rules": [{"action": "confirm"}]}')
    with pytest.raises(BadInput, match="its licence is empty"):
        run(
            "add", tmp_path / "p", "--kind", "policy", "--version", "v", "--store", store,
            "--licence", "", "--trained-by", "x",
        )  # fmt: skip
    with open_store(store) as opened:
        assert opened.log_size() == 0


def test_a_version_means_one_artefact(store: str, tmp_path: Path) -> None:
    added_head(store, tmp_path)
    random_head(frames=5).save(tmp_path / "head.npz")
    with pytest.raises(Refused, match="another artefact needs another version"):
        add(store, tmp_path / "head.npz", "test-1", "--wake-word", "okay_nabu")


def test_the_same_bytes_are_one_model(store: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_text('{"rules": [{"action": "confirm"}]}')
    first = add(store, tmp_path / "p", "p-1", "--kind", "policy")
    assert first["runtime"] == "policy-1"
    with pytest.raises(Refused, match="the same bytes are one model"):
        add(store, tmp_path / "p", "p-2", "--kind", "policy")
    added_head(store, tmp_path)
    (tmp_path / "t").write_text('{"thresholds": {"okay_nabu": "0.9"}}')
    with pytest.raises(BadInput, match="they must be the same"):
        add(store, tmp_path / "t", "t", "--kind", "thresholds", "--base", "test-1")


def test_verify_finds_a_missing_artefact_and_another_signer(store: str, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    write_key(tmp_path / "plan.key", key)
    (tmp_path / "good.pub").write_text(key.public_key().public_bytes_raw().hex())
    (tmp_path / "other.pub").write_text("00" * 32)
    found = added_head(store, tmp_path, "test-1", "--key", tmp_path / "plan.key")
    assert run("verify", "--store", store, "--key", tmp_path / "good.pub")["good"]
    with pytest.raises(BadInput, match="another key"):
        run("verify", "--store", store, "--key", tmp_path / "other.pub")
    (Path(store) / "releases" / f"artefact-{found['sha256']}").unlink()
    with pytest.raises(BadInput, match=f"artefact {found['sha256']}: its bytes are gone"):
        run("verify", "--store", store)
    with pytest.raises(BadInput, match="its bytes are gone"):
        run("publish", tmp_path / "published", "--store", store)


def test_a_log_that_another_key_signs_is_not_signed_here(store: str, tmp_path: Path) -> None:
    added_head(store, tmp_path)
    with open_store(store) as opened:
        opened.note_key("log", bytes(32))
    with pytest.raises(BadInput, match="--log-key and --witness"):
        run("publish", tmp_path / "published", "--store", store)


def test_a_head_is_quantised_and_its_loss_printed(tmp_path: Path) -> None:
    whole = random_head()
    whole.save(tmp_path / "head.npz")
    randomness = np.random.default_rng(4)
    for name in ("wake", "other"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(3):
            clip = 0.1 * randomness.normal(size=(6, 96)).astype(np.float32)
            np.save(tmp_path / "clips" / name / f"{number}.npy", clip)
    arguments = ("quantise", tmp_path / "head.npz", "--out", tmp_path / "q", "--version", "test-1-q8")
    found = run(*arguments, "--clips", tmp_path / "clips")
    assert (found["wake"], found["other"]) == (3, 3)
    assert 0 < found["mean"] <= found["largest"] < 0.05
    assert found["bytes"] < 0.4 * found["bytes_before"]
    assert head.decode((tmp_path / "q").read_bytes()).model_version == "test-1-q8"
    (tmp_path / "clips" / "wake" / "x.npy").write_bytes(b"no array")
    with pytest.raises(BadInput, match="no array of numbers"):
        run(*arguments, "--clips", tmp_path / "clips")
