"""`fa results coverage` and the proposals of `fa plan preview`, from an earlier release, by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import canonical
from fa_core.store import open_store
from tests.estimate.test_bounds import PLAN, devices, lost, plan
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


def test_preview_proposes_a_bound_from_the_release_before(tmp_path: Path) -> None:
    text, counts = tmp_path / "weekly.yaml", devices(4)
    text.write_text(PLAN)
    layout = compile_plan(plan())
    sums = np.zeros(layout.length, np.int64)
    for block in layout.blocks:
        if block.grouping == ("accent",):
            found = {"clipped": lost(counts, 10), "size": [64 * 2000] * 3, "devices": [2000] * 3}
            sums[block.slice] = found.get(block.part, 0)
    release = replace(
        counted({("accent",): [0, 0, 0]}), plan=canonical(plan()), layout=layout, sums=sums,
        scales=np.ones(len(layout.blocks), np.int64), noise_variance=np.ones(len(layout.blocks)),
    )  # fmt: skip
    asked = ("plan", "preview", str(text), "--store", str(tmp_path / "store"))
    assert "max_excess" not in fa(*asked)
    with open_store(tmp_path / "store") as store:
        run(store, release, replace(make_estimates(), release=release.id))
    loose, tight = (
        json.loads(fa(*asked, "--width", width, "--json"))["max_excess"] for width in ("0.05", "0.005")
    )
    assert loose["release"] == tight["release"] == release.id
    assert 10 <= loose["proposals"][0]["bound"] < tight["proposals"][0]["bound"] <= 64
    printed = fa(*asked, "--width", "0.05")
    assert f"max_excess {loose['proposals'][0]['bound']} keeps the bias of every group under 0.05" in printed
    assert "you decide" in printed
