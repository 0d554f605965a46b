"""`fa results coverage` what an earlier release tells, by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.errors import BadInput
from fa_core.store import open_store
from tests.estimate.test_registry import release as counted
from tests.store.samples import make_estimates, run


def fa(*arguments: str) -> str:
    ran = CliRunner().invoke(build(), list(arguments))
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    """A store whose one release counted 600 devices of accent a, 300 of b and 100 others."""
    release = counted({("accent",): [600, 300, 100]}, 5)
    with open_store(tmp_path / "store") as store:
        run(store, release, replace(make_estimates(), release=release.id))
    return tmp_path / "store"


def test_who_is_rarer_than_registered_is_warned_of(homes: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry.json"
    registry.write_text('{"accent": {"a": 0.4, "b": 0.5}}')
    printed = fa("results", "coverage", "--registry", str(registry), "--store", str(homes))
    assert "1,000 devices counted of 1,000 invited" in printed
    assert "WARNING: accent b is under-represented: about 30.0% of the devices counted" in printed
    found = json.loads(
        fa("results", "coverage", "--registry", str(registry), "--store", str(homes), "--json")
    )
    assert [each["under"] for each in found["labels"]] == [False, True, False]
    assert len(found["warnings"]) == 1


def test_without_a_registry_nothing_is_claimed(homes: Path) -> None:
    printed = fa("results", "coverage", "--store", str(homes))
    assert "no claim is made" in printed
    assert "WARNING" not in printed


def test_a_registry_that_is_not_there_is_bad_input(homes: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        fa("results", "coverage", "--registry", str(tmp_path / "none"), "--store", str(homes))
