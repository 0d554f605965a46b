"""The publication directory: a closed grammar of names, files that are whole, and nothing outside."""

from pathlib import Path

import pytest

from fa_core.errors import BadInput
from fa_core.publication import directory

HASH = "ab" * 32
OUTSIDE = [
    "",
    "artefacts/",
    "artefacts/..",
    f"artefacts/../artefacts/{HASH}",
    f"../artefacts/{HASH}",
    f"/artefacts/{HASH}",
    f"artefacts//{HASH}",
    f"artefacts/{HASH}.json",
    f"artefacts/{HASH.upper()}",
    f"artefacts/{HASH}\n",
    f"artefacts/{HASH}\0",
    f"models/{HASH}",
    f"models/{HASH}.json/..",
    f"models/%2e%2e/{HASH}.json",
    "models/../../etc/passwd",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_outside_the_grammar_names_nothing(tmp_path: Path, name: str) -> None:
    assert not directory.is_name(name)
    assert directory.read(tmp_path, name) is None


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    name = directory.artefact_name(HASH)
    for data in (b"first", b"second"):
        directory.write(tmp_path, name, data)
        assert directory.read(tmp_path, name) == data
    assert [each.name for each in (tmp_path / "artefacts").iterdir()] == [HASH]
    with pytest.raises(BadInput, match="cannot be written"):
        directory.write(tmp_path / "artefacts" / HASH, name, b"x")


def test_what_is_no_plain_file_or_too_large_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "models").mkdir()
    (tmp_path / directory.model_name(HASH)).symlink_to(tmp_path / "secret")
    assert directory.read(tmp_path, directory.model_name(HASH)) is None
    (tmp_path / directory.model_name("00" * 32)).mkdir()
    assert directory.read(tmp_path, directory.model_name("00" * 32)) is None
    directory.write(tmp_path, directory.artefact_name(HASH), b"12345")
    monkeypatch.setattr(directory, "MAX_SIZE", 4)
    assert directory.read(tmp_path, directory.artefact_name(HASH)) is None
