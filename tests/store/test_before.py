"""A store that the version before joint counters made: what it released loads, shows, verifies and exports.

The fixture holds four releases of 240 made-up devices: with central noise and a clip, with shares of noise,
of the other kinds, and under pure accounting. `printed.json` is what `fa run --json` printed of each.
"""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.estimate import estimate
from fa_core.estimate.compare import UNLIKE, compare, unlike_metrics
from fa_core.layout import bounds_of, compile_plan, shape_of
from fa_core.plan import Plan, canonical, from_canonical
from fa_core.plan.completed import default_shares
from fa_core.store import open_store
from fa_core.store.files import read_release, release_bytes
from fa_core.values import Release

FIXTURE = Path(__file__).parent / "fixtures" / "before_joint_counters"
PRINTED: dict[str, Any] = json.loads((FIXTURE / "printed.json").read_text())
every_release = pytest.mark.parametrize("release", PRINTED, ids=[each["plan"] for each in PRINTED.values()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "store"))


def fa(folder: Path, *arguments: str) -> str:
    ran = CliRunner().invoke(build(), [*arguments, "--store", str(folder)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


def near(value: Any) -> Any:
    """Return a JSON value with its floats compared to 1e-9: the last digits are the machine's."""
    if isinstance(value, dict):
        return {key: near(each) for key, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value


def kept(printed: Any, shown: Any) -> Any:
    """Return of what is shown today the keys that were printed then: more may be said since."""
    if isinstance(printed, dict):
        return {key: kept(each, shown[key]) for key, each in printed.items()}
    if isinstance(printed, list) and len(printed) == len(shown):
        return [kept(one, other) for one, other in zip(printed, shown, strict=True)]
    return shown


@every_release
def test_what_was_printed_is_shown(folder: Path, release: str) -> None:
    """Numbers that were released do not change, whatever the estimator learned since."""
    shown = kept(PRINTED[release], json.loads(fa(folder, "results", "show", release, "--json")))
    assert shown == near(PRINTED[release])
    assert shown != near(PRINTED[release] | {"plan": "another"})


@every_release
def test_it_can_be_estimated_again(folder: Path, release: str) -> None:
    """From the same sums come the same numbers and verdicts; their intervals are today's."""
    with open_store(folder, create=False) as store:
        stored, now = store.estimates(release), estimate(store.release(release))
    assert len(stored.results) == len(PRINTED[release]["metrics"])
    for old, new in zip(stored.results, now.results, strict=True):
        assert new.group == old.group
        for one, other in zip((old, *old.cells), (new, *new.cells), strict=True):
            assert (other.estimate, other.suppressed) == (near(one.estimate), one.suppressed)
            if other.estimate is not None:
                assert other.low is not None
                assert other.high is not None
                assert other.low <= other.estimate <= other.high
    assert [each.verdict for each in now.judgements] == [each.verdict for each in stored.judgements]


@every_release
def test_its_plan_compiles_to_its_layout(folder: Path, release: str) -> None:
    """The bounds, costs and noise that the release was made with, to the last digit."""
    with open_store(folder, create=False) as store:
        made = store.release(release)
    plan = from_canonical(made.plan)
    assert plan.privacy.counters is None
    assert canonical(plan) == made.plan
    assert compile_plan(plan) == made.layout
    assert all(block.linf == block.l1 for block in made.layout.blocks)


def test_it_is_listed_verified_reported_and_exported(folder: Path, tmp_path: Path) -> None:
    assert {
        each["release"] for each in json.loads(fa(folder, "results", "list", "--json"))["releases"]
    } == set(PRINTED)
    assert "was within budget" in fa(folder, "ledger", "verify")
    assert "history, checkpoints, catalogue and files agree" in fa(folder, "log", "verify")
    for release, printed in PRINTED.items():
        file = tmp_path / f"{release}.parquet"
        fa(folder, "results", "export", release, "--format", "parquet", "--out", str(file))
        rows = pq.read_table(io.BytesIO(file.read_bytes())).to_pylist()
        assert sum(row["cell"] is None for row in rows) == len(printed["metrics"])
        assert printed["question"] in fa(folder, "results", "show", release)


@every_release
def test_it_is_written_again_as_it_is(folder: Path, release: str) -> None:
    """A copy or a restored backup may write the file anew, with the columns of today."""
    with open_store(folder, create=False) as store:
        made = store.release(release)
    again = read_release(release_bytes(made), "again")
    np.testing.assert_array_equal(again.sums, made.sums)
    assert (again.layout, again.plan) == (made.layout, made.plan)


def test_it_is_compared_with_a_release_of_today(folder: Path) -> None:
    """Metrics, groups and units are the same, whatever the layouts: differences come of the estimates."""
    release = next(each for each, printed in PRINTED.items() if printed["plan"] == "before-distributed")
    with open_store(folder, create=False) as store:
        old = store.release(release)
    before, after = estimate(old), estimate(_today(old))
    found = compare(before, after)
    assert [each.group for each in found] == [each.group for each in before.results]
    everyone = found[0]
    assert everyone.difference == pytest.approx(-(everyone.before or 0.0), abs=1e-6)
    assert everyone.low is not None
    assert everyone.high is not None
    assert everyone.low < everyone.difference < everyone.high


def test_a_ratio_is_not_compared_with_one_that_scales_events_as_a_whole(folder: Path) -> None:
    """Both numbers stand, without a difference and with the reason; other metrics have their difference."""
    release = next(each for each, printed in PRINTED.items() if printed["plan"] == "before-kinds")
    with open_store(folder, create=False) as store:
        old = store.release(release)
    new = _today(old)
    unlike = unlike_metrics(json.loads(old.plan), json.loads(new.plan))
    assert unlike == {"word_errors"}
    assert not unlike_metrics(json.loads(old.plan), json.loads(old.plan))
    found = compare(estimate(old), estimate(new), unlike=unlike)
    for each in found:
        assert (each.reason == UNLIKE) == (each.metric in unlike)
        assert each.metric not in unlike or (each.difference, each.low, each.change) == (
            None,
            None,
            "not enough evidence",
        )
    assert any(each.kind == "mean" and each.difference is not None for each in found)


def test_the_command_says_why_there_is_no_difference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = next(each for each, printed in PRINTED.items() if printed["plan"] == "before-kinds")
    alike = json.loads(fa(folder, "compare", release, release, "--json"))["differences"]
    assert UNLIKE not in {each["reason"] for each in alike}
    monkeypatch.setattr("fa_core.cli.compare.unlike_metrics", lambda before, after: {"word_errors"})
    across = json.loads(fa(folder, "compare", release, release, "--json"))["differences"]
    assert {each["metric"] for each in across if each["reason"] == UNLIKE} == {"word_errors"}


def _today(old: Release) -> Release:
    """Return a release of today with the plan's own guess of everything, noise left out."""
    plan: Plan = from_canonical(old.plan)
    shares = default_shares({name: metric.group_by or ((),) for name, metric in plan.metrics.items()})
    changes = {"counters": "joint", "shares": shares, "max_excess": None}
    plan = plan.model_copy(update={"privacy": plan.privacy.model_copy(update=changes)})
    layout = compile_plan(plan)
    sums = []
    for metric in plan.metrics.values():
        for grouping in metric.group_by or ((),):
            expected = metric.expected(shape_of(plan, grouping), bounds_of(plan), 2000.0, 16.0)
            sums += [expected[part.name] for part in metric.parts(shape_of(plan, grouping), bounds_of(plan))]
    return replace(
        old,
        layout=layout,
        plan=canonical(plan),
        sums=np.rint(np.concatenate(sums)).astype(np.int64),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=np.array([float(block.variance) for block in layout.blocks]),
    )
