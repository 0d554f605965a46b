"""The page that a review board files: whole, escaped, and from nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

from fa_core.cli import report as reports
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import canonical
from fa_core.store import open_store
from tests.metrics.samples import SAMPLES, plan_with
from tests.store.samples import make_estimates, make_release, run

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def store(tmp_path):
    plan = plan_with(
        {"false_reject_rate": {**SAMPLES["rate"].body, "group_by": [[], ["accent"]]}}, "wake_events", "noise"
    )
    layout = compile_plan(plan)
    blocks = len(layout.blocks)
    release = replace(
        make_release(1), plan=canonical(plan), layout=layout, population=EVIL,
        sums=np.full(layout.length, 500), scales=np.ones(blocks, np.int64), noise_variance=np.ones(blocks),
    )  # fmt: skip
    with open_store(tmp_path / "store") as opened:
        run(opened, release, replace(make_estimates(1), release=release.id))
    return tmp_path / "store", release


def test_the_page_holds_what_a_board_asks_and_nothing_runs(store, tmp_path):
    folder, release = store
    reports.report("latest", tmp_path / "r.html", False, str(folder))
    text = (tmp_path / "r.html").read_text()
    for expected in (
        "SIMULATION", "synthetic voice", release.id, release.layout.plan_hash, str(release.layout.cost),
        "fewer than 100 devices", "5.0%", "rho 0.", "differentially private", "fa log prove", "signature",
        "en-IN misses more than 8 in 100", "SHA-256 of the estimates",
    ):  # fmt: skip
        assert expected in text, expected
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "src=" not in text
    assert "http" not in text


def test_without_a_browser_pdf_is_a_clear_error_and_writes_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setattr(reports.shutil, "which", lambda _: None)
    with pytest.raises(BadInput, match="needs Chromium"):
        reports.report("latest", tmp_path / "r.pdf", True, str(store[0]))
    assert not (tmp_path / "r.pdf").exists()
