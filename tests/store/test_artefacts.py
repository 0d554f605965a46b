"""Artefacts: kept once under their hash, in a backup, and found out when they are missing or changed."""

import base64
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.store import Store, open_store
from fa_core.store.artefacts import artefact_body
from fa_core.trust import checkpoint
from tests.store.samples import LOG_KEY, KeepingWitness
from tests.store.test_backup import elsewhere, pack, rows

__all__ = ["elsewhere"]

DATA = b"weights and a bias"


def entry_of(data: bytes, version: str = "1", **changes: object) -> tuple[str, bytes]:
    """Return the hash of a manifest and its log entry."""
    manifest = {"sha256": sha256(data).hexdigest(), "size": len(data), "version": version} | changes
    document = canonical(manifest)
    body = canonical({"document": document.decode(), "key": "", "signature": ""})
    return sha256(document).hexdigest(), checkpoint.entry("model", body)


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with one artefact that two manifests name."""
    for version in ("1", "2"):
        store.keep_artefact(*entry_of(DATA, version), DATA)
    store.checkpoint(LOG_KEY, KeepingWitness())
    return store


def spoil(store: Store, data: bytes | None) -> None:
    """Replace the artefact's bytes, or remove them."""
    name = artefact_body(sha256(DATA).hexdigest())
    folder = Path(store.name).parent / "releases" / name
    if folder.exists():
        folder.unlink() if data is None else folder.write_bytes(data)
        return
    with store._database.writing() as connection:
        change = "DELETE FROM bodies" if data is None else f"UPDATE bodies SET data = '\\x{data.hex()}'"
        connection.exec_driver_sql(f"{change} WHERE name = '{name}'")


def test_an_artefact_is_kept_once_and_read_back(filled: Store) -> None:
    first, second = filled.published("model")
    assert filled.keep_artefact(*entry_of(DATA), DATA) == first
    assert filled.published("model") == (first, second)
    assert filled.artefact(sha256(DATA).hexdigest()) == DATA
    assert filled.verify_log(LOG_KEY.public_key()) == []


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": 3}, {"sha256": "../" * 21 + "x"}])
def test_a_manifest_of_other_bytes_is_not_taken(store: Store, changes: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        store.keep_artefact(*entry_of(DATA, **changes), DATA)
    assert store.log_size() == 0


@pytest.mark.parametrize(
    ("data", "what"),
    [(None, "its bytes are gone"), (b"other bytes", "cut off or changed"), (DATA[:-1], "cut off or changed")],
)
def test_a_missing_or_changed_artefact_is_found(
    filled: Store, tmp_path: Path, data: bytes | None, what: str
) -> None:
    spoil(filled, data)
    (problem,) = filled.verify_log()
    assert problem.startswith(f"artefact {sha256(DATA).hexdigest()}: ")
    assert what in problem
    with pytest.raises(Refused, match=what):
        filled.backup(tmp_path / "backup")
    filled.keep_artefact(*entry_of(DATA), DATA)  # what is missing can be put back, from another copy
    assert filled.verify_log() == []


def test_a_name_that_is_no_hash_names_no_file(tmp_path: Path) -> None:
    with open_store(tmp_path / "store") as store:
        store.publish("model", *entry_of(DATA, sha256="/../../outside".ljust(64, "0")))
        assert store.verify_log() == ["log entry 0 is no manifest of an artefact"]


def test_artefacts_come_back_on_either_database(filled: Store, elsewhere: str, tmp_path: Path) -> None:
    contents = filled.backup(tmp_path / "backup")
    assert contents.parts == 1
    with open_store(elsewhere) as again:
        assert again.restore(tmp_path / "backup") == contents
        assert again.artefact(sha256(DATA).hexdigest()) == DATA
        assert again.published("model") == filled.published("model")


@pytest.mark.parametrize("what", ["changed", "missing", "renamed"])
def test_a_backup_without_its_artefact_is_refused(tmp_path: Path, what: str) -> None:
    with open_store(tmp_path / "store") as store:
        store.keep_artefact(*entry_of(DATA), DATA)
        store.backup(tmp_path / "backup")
    with tarfile.open(tmp_path / "backup") as archive:
        members = {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
    name = f"parts/{artefact_body(sha256(DATA).hexdigest())}"
    spoilers: dict[str, Callable[[], object]] = {
        "changed": lambda: members.update({name: b"other"}),
        "missing": lambda: members.pop(name),
        "renamed": lambda: rows(members, "log", lambda found: found[0].update(entry=_outside())),
    }
    spoilers[what]()
    with open_store(tmp_path / "again") as again, pytest.raises(BadInput):
        again.restore(pack(members, tmp_path / "spoiled"))
    assert not (tmp_path / "outside").exists()


def _outside() -> str:
    """Return, as a backup has it, a log entry that names a file out of the store's folder."""
    path = "/../../outside".ljust(64, "0")
    document = json.dumps({"sha256": path, "size": 1})
    return base64.b64encode(checkpoint.entry("model", canonical({"document": document}))).decode()
