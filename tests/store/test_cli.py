"""What a person and a program get from `fa results`, `compare`, `ledger` and `log`."""

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from fa_core.cli import compare, ledger, log, render, results
from fa_core.errors import BadInput, Refused, UnheardError
from fa_core.privacy.guarantee import guarantee
from fa_core.store import open_store
from tests.store.samples import (
    DAY,
    LOG_KEY,
    NOW,
    WITNESS_KEY,
    KeepingWitness,
    make_estimates,
    make_release,
    plan,
    release_id,
    run,
)

FIELDS = {
    "metric",
    "kind",
    "group",
    "estimate",
    "low",
    "high",
    "level",
    "suppressed",
    "reason",
    "denominator",
}


def app() -> typer.Typer:
    whole = typer.Typer()
    for noun, module in (("results", results), ("ledger", ledger), ("log", log)):
        whole.add_typer(module.app, name=noun)
    whole.command("compare")(compare.compare)
    return whole


def fa(folder: Path, *arguments: str) -> str:
    """Run a command over a store; return what it prints. An error of ours is raised."""
    ran = CliRunner().invoke(app(), [*arguments, "--store", str(folder)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


def fa_json(folder: Path, *arguments: str) -> Any:
    return json.loads(fa(folder, *arguments, "--json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with three releases, a failure and a checkpoint."""
    witness = KeepingWitness()
    with open_store(tmp_path / "store") as store:
        for number in range(3):
            release = make_release(number, at=NOW + number * DAY)
            run(store, release, replace(make_estimates(number), release=release.id))
        store.fail(release_id(9), plan(), "homes", "masked", "too few devices were left", NOW + 3 * DAY)
        store.checkpoint(LOG_KEY, witness)
    return tmp_path / "store"


def test_the_object_of_a_release_has_what_the_design_says(folder: Path) -> None:
    printed = fa_json(folder, "results", "show", "latest")
    assert {"release", "plan", "engine", "simulated", "devices", "privacy", "metrics"} <= set(printed)
    assert (printed["release"], printed["plan"]) == (release_id(2), "wake-word-weekly")
    assert printed["devices"] == {"invited": 1000, "joined": 900, "dropped": 20, "counted": 880}
    privacy = printed["privacy"]
    assert (privacy["unit"], privacy["accounting"], privacy["epsilon"]) == ("device", "zcdp", 1.0)
    assert (privacy["rho"], privacy["cost"], privacy["delta"]) == (1 / 64, "1/64", 1e-8)
    assert 0 < privacy["epsilon_pld_approximation"] < 1
    assert all(set(metric) >= FIELDS for metric in printed["metrics"])
    assert printed["metrics"][1]["group"] == {"accent": "en-US"}
    assert printed["metrics"][2]["estimate"] is None
    cells = printed["metrics"][3]["cells"]
    assert cells[1]["labels"] == {"score": "0.1"}
    assert set(cells[1]) >= FIELDS - {"metric", "kind", "group"}


def test_numbers_that_are_not_finite_are_null() -> None:
    wide = replace(make_estimates().results[0], high=float("inf"), low=float("nan"))
    estimates = replace(make_estimates(), results=(wide,))
    (metric,) = render.release_object(make_release(), estimates, synthetic=False)["metrics"]
    assert (metric["low"], metric["high"]) == (None, None)


def test_a_person_reads_numbers_intervals_reasons_and_what_is_promised(folder: Path) -> None:
    shown = fa(folder, "results", "show", release_id(2)[:6])
    for text in (
        "wake-word-weekly@1: Is any accent missed more?",
        "880 devices counted of 1,000 invited (900 joined, 20 dropped out)",
        "SIMULATION",
        "synthetic voice",
        "95 % interval",
        "5.0%",
        "4.0–6.0%",
        "Each group's own 95% interval decides whether a limit is met.",
        "321 ± 4.5",
        "not shown",
        "fewer than 100 devices",
        "BROKEN",
        "(1, 1e-08)-differentially private for every device",
        "holds against readers of the release only; the server sees the exact sum",
        "Secure aggregation was off: the server saw what each device sent",
    ):
        assert text in shown


def test_a_real_unnoised_promise_is_not_made_for_distributed_noise() -> None:
    release = make_release()
    layout = replace(release.layout, noise="distributed")
    printed = " ".join(guarantee(replace(release, layout=layout, secure_aggregation=True)))
    assert "readers of the release only" not in printed
    assert "was off" not in printed


def test_releases_are_listed_newest_first_by_page_with_failures(folder: Path) -> None:
    printed = fa_json(folder, "results", "list", "--limit", "2")
    assert [each["release"] for each in printed["releases"]] == [release_id(2), release_id(1)]
    assert printed["total"] == 3
    assert printed["failures"][0]["reason"] == "too few devices were left"
    second = fa_json(folder, "results", "list", "--limit", "2", "--page", "2")
    assert [each["release"] for each in second["releases"]] == [release_id(0)]
    assert fa_json(folder, "results", "list", "--plan", "nothing")["releases"] == []
    shown = fa(folder, "results", "list")
    assert "3 releases" in shown
    assert "too few devices were left" in shown


def test_exports_have_a_row_for_each_number(folder: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(fa(folder, "results", "export", "latest"))))
    assert len(rows) == 7
    assert (rows[1]["group"], rows[1]["synthetic_voice"]) == ('{"accent": "en-US"}', "true")
    out = tmp_path / "out"
    fa(folder, "results", "export", "latest", "--format", "parquet", "--out", str(out))
    assert pq.read_table(out)["estimate"].to_pylist()[:2] == [0.05, 0.04]
    fa(folder, "results", "export", "latest", "--format", "json", "--out", str(out))
    assert json.loads(out.read_text()) == fa_json(folder, "results", "show", "latest")
    with pytest.raises(BadInput, match="cannot be written"):
        fa(folder, "results", "export", "latest", "--out", str(tmp_path / "no" / "such"))


def test_two_releases_are_compared(folder: Path) -> None:
    with open_store(folder) as store:
        worse = make_release(5, at=NOW + 5 * DAY)
        run(store, worse, make_estimates(5, worse=0.2))
    printed = fa_json(folder, "compare", release_id(0), "latest", "--margin", "5%")
    changes = {json.dumps(each["group"]): each for each in printed["differences"] if not each["cell"]}
    assert changes["{}"]["change"] == "worse"
    assert changes["{}"]["difference"] == pytest.approx(0.2)
    assert changes['{"accent": "es-en"}']["change"] == "not enough evidence"
    shown = fa(folder, "compare", release_id(0), "latest", "--higher-is-better", "false_reject_rate")
    assert "+20 points" in shown
    assert "better" in shown
    with pytest.raises(BadInput, match="at least 0 is expected"):
        fa(folder, "compare", "latest", "latest", "--margin", "many")


def test_the_ledger_shows_what_is_left_and_three_views_of_what_was_spent(folder: Path) -> None:
    (printed,) = fa_json(folder, "ledger", "show")["populations"]
    assert (printed["population"], printed["accounting"], printed["charges"]) == ("homes", "zcdp", 3)
    spent = printed["spent"]
    assert spent["total"] == "3/64"
    assert spent["epsilon_pld_approximation"] < spent["epsilon"] <= spent["ceiling_epsilon"]
    assert [each["release"] for each in printed["newest"]] == [release_id(n) for n in (2, 1, 0)]
    shown = fa(folder, "ledger", "show")
    assert "not enforced" in shown
    assert "outer ceiling" in shown
    with pytest.raises(BadInput, match="'nowhere' has no ledger; there are: homes"):
        fa(folder, "ledger", "show", "--population", "nowhere")


def test_budgets_are_declared_and_the_log_keeps_it(folder: Path) -> None:
    assert "week 3" in fa(folder, "ledger", "declare", "homes", "--week", "3", "--year", "5/2")
    with open_store(folder) as store:
        declared = store.declaration("homes")
        assert declared is not None
        assert (declared.policy.week, declared.policy.year) == (Fraction(3), Fraction(5, 2))
    assert "week 3" in fa(folder, "log", "show")
    assert "epsilon" in fa(folder, "ledger", "declare", "lab", "--accounting", "pure")
    with pytest.raises(Refused, match="cannot become"):
        fa(folder, "ledger", "declare", "lab", "--accounting", "zcdp")
    with pytest.raises(BadInput, match="exact number is expected"):
        fa(folder, "ledger", "declare", "homes", "--week", "some")


def test_ledger_and_log_verify_until_something_is_changed(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "note"
    kept.write_text(fa(folder, "log", "show", "--checkpoint"))
    keys = [LOG_KEY.public_key().public_bytes_raw().hex(), WITNESS_KEY.public_key().public_bytes_raw().hex()]
    pins = ("--log-key", keys[0], "--witness-key", keys[1], "--earlier", str(kept))
    assert fa_json(folder, "ledger", "verify")["good"]
    assert fa_json(folder, "log", "verify", *pins)["good"]
    assert "history, checkpoints, catalogue and files agree" in fa(folder, "log", "verify")
    with pytest.raises(BadInput, match="not cosigned by the witness"):
        fa(folder, "log", "verify", "--witness-key", keys[0])
    with pytest.raises(BadInput, match="64 hex digits is expected"):
        fa(folder, "log", "verify", "--log-key", "12")
    next((folder / "releases").glob("*.parquet")).write_bytes(b"")
    with pytest.raises(UnheardError, match="it was cut off or changed") as found:
        fa(folder, "log", "verify")
    assert found.value.exit_code == 2


def test_an_entry_is_proved_by_number_or_release(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "note"
    kept.write_text(fa(folder, "log", "show", "--checkpoint"))
    printed = fa_json(folder, "log", "prove", release_id(1)[:8], "--since", str(kept))
    assert json.loads(printed["entry"].split("\n")[2])["release"] == release_id(1)
    assert printed["consistency"] == {"from": 11, "proof": []}
    assert fa_json(folder, "log", "prove", "0")["index"] == 0
    with pytest.raises(BadInput, match="covers entries 0 to 10; 5000 is not"):
        fa(folder, "log", "prove", "5000")


@pytest.mark.parametrize(
    "command", [("results", "list"), ("ledger", "show"), ("log", "show"), ("compare", "latest", "latest")]
)
def test_without_a_store_every_command_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="there is no store in"):
        fa(tmp_path / "none", *command)


def test_of_a_confusion_the_mistakes_are_shown_and_of_a_det_some_thresholds() -> None:
    cell = make_estimates().results[3].cells[0]
    words = ("stop", "play", "other")
    pairs = [(a, b) for a in words for b in words]
    cells = tuple(replace(cell, labels=(("actual", a), ("predicted", b))) for a, b in pairs)
    confusion = replace(make_estimates().results[3], kind="confusion", cells=cells)
    shown = {tuple(label for _, label in each.labels) for each in results._most_informative(confusion)}
    assert shown == {(a, b) for a, b in pairs if a != b}
    many = tuple(replace(cell, labels=(("threshold", str(place)),)) for place in range(50))
    thresholds = [
        each.labels[0][1] for each in results._most_informative(replace(confusion, kind="det", cells=many))
    ]
    assert thresholds == [str(place) for place in range(0, 50, 5)]


def test_many_groups_without_a_number_are_counted_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    shown = make_estimates().results[0]
    gone = replace(shown, suppressed=True, estimate=None, low=None, high=None, reason="fewer than 50 devices")
    group = [(("accent", f"accent-{number}"),) for number in range(13)]
    few = [replace(gone, group=each) for each in group[:10]]
    results._print_results(
        "misses", ("accent",), [replace(shown, group=group[12]), *few], "of all", "fa results show 1 --json"
    )
    assert "accent-9" in capsys.readouterr().out
    many = [replace(gone, group=each) for each in group[:11]]
    results._print_results(
        "misses", ("accent",), [replace(shown, group=group[12]), *many], "of all", "fa results show 1 --json"
    )
    printed = capsys.readouterr().out
    assert "accent-12" in printed
    assert "accent-9" not in printed
    assert "11 of 12 groups are not shown (`fa results show 1 --json` names them)" in printed
    assert "  11: fewer than 50 devices" in printed
