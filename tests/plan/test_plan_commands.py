"""`fa plan`, as a person uses it."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fa_core.cli.plan import app
from fa_core.errors import BadInput
from fa_core.plan import SignedPlan, load
from fa_core.plan.editor import schema_text
from tests.plan.samples import broken

runner = CliRunner()
LASTING = broken("expires: 2027-03-31", "expires: 9999-12-31")


@pytest.fixture
def good_plan(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(LASTING)
    return path


@pytest.fixture
def bad_plan(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(broken("window: 7d", "window: soon", LASTING))
    return path


def test_check_says_which_plans_are_good(good_plan: Path) -> None:
    result = runner.invoke(app, ["check", str(good_plan)])
    assert result.exit_code == 0
    assert result.output.startswith(f"{good_plan}: good, wake-word-weekly@3")


def test_check_looks_at_every_plan_before_it_fails(good_plan: Path, bad_plan: Path) -> None:
    result = runner.invoke(app, ["check", str(bad_plan), str(good_plan), str(bad_plan)])
    assert f"{good_plan}: good" in result.output
    assert isinstance(result.exception, BadInput)
    assert str(result.exception).count("`soon` is text") == 2


def test_check_looks_at_every_plan_of_a_directory(good_plan: Path, bad_plan: Path) -> None:
    (good_plan.parent / "notes.txt").write_text("no plan")
    result = runner.invoke(app, ["check", str(good_plan.parent)])
    table = [line.split() for line in result.output.splitlines()]
    assert table[1:] == [
        ["bad.yaml", "1", "problem"],
        ["good.yaml", "wake-word-weekly@3", "9999-12-31", load(good_plan).hash[:12], "good"],
    ]
    assert isinstance(result.exception, BadInput)
    assert str(result.exception).startswith(f"{bad_plan}:11:9: ")
    as_json = runner.invoke(app, ["check", "--json", str(good_plan.parent)])
    assert as_json.exit_code == 2
    assert [row["good"] for row in json.loads(as_json.output)] == [False, True]
    bad_plan.unlink()
    assert runner.invoke(app, ["check", str(good_plan.parent)]).exit_code == 0


def test_a_directory_without_plans_is_refused(tmp_path: Path) -> None:
    result = runner.invoke(app, ["check", str(tmp_path)])
    assert "there is no plan in this directory" in str(result.exception)


def test_check_can_be_read_by_a_program(good_plan: Path, bad_plan: Path) -> None:
    result = runner.invoke(app, ["check", "--json", str(good_plan), str(bad_plan), "missing.yaml"])
    assert result.exit_code == 2
    good, bad, missing = json.loads(result.output)
    assert (good["good"], bad["good"], missing["good"]) == (True, False, False)
    assert (bad["problems"][0]["line"], bad["problems"][0]["column"]) == (11, 9)


def test_check_asks_whether_a_fleet_can_fill_the_groups(good_plan: Path) -> None:
    result = runner.invoke(app, ["check", "--devices", "1000", str(good_plan)])
    assert "makes 12 groups of at least 100 devices" in str(result.exception)


def test_show_is_for_people_and_its_json_is_what_is_signed(good_plan: Path) -> None:
    shown = runner.invoke(app, ["show", str(good_plan)]).output
    assert "Does any accent or device class" in shown
    assert "outcome is false_reject or true_accept" in shown
    body = runner.invoke(app, ["show", "--json", str(good_plan)]).output
    assert hashlib.sha256(body.encode()).hexdigest() == load(good_plan).hash
    assert load(good_plan).hash in shown


def test_show_reads_a_plan_that_has_expired(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(broken("expires: 2027-03-31", "expires: 2020-01-01"))
    assert runner.invoke(app, ["show", str(path)]).exit_code == 0
    assert "expired on 2020-01-01" in str(runner.invoke(app, ["check", str(path)]).exception)


def test_schema_prints_the_schema() -> None:
    assert runner.invoke(app, ["schema"]).output == schema_text()


def test_a_key_is_made_and_signs(tmp_path: Path, good_plan: Path) -> None:
    key = tmp_path / "team.key"
    assert runner.invoke(app, ["keygen", str(key)]).exit_code == 0
    assert key.stat().st_mode & 0o077 == 0
    assert runner.invoke(app, ["sign", str(good_plan), "--key", str(key)]).exit_code == 0
    signature = good_plan.with_name("good.yaml.sig")
    signed = SignedPlan.from_text(signature.read_text(), "x")
    assert signed.signs(load(good_plan))
    assert signed.key.hex() == (tmp_path / "team.key.pub").read_text().strip()


def test_no_secret_is_printed(tmp_path: Path) -> None:
    key = tmp_path / "team.key"
    output = runner.invoke(app, ["keygen", str(key)]).output
    assert key.read_text().strip() not in output


def test_keys_are_never_overwritten_nor_taken_from_anything(tmp_path: Path, good_plan: Path) -> None:
    key = tmp_path / "team.key"
    runner.invoke(app, ["keygen", str(key)])
    before = key.read_text()
    assert isinstance(runner.invoke(app, ["keygen", str(key)]).exception, BadInput)
    assert key.read_text() == before
    result = runner.invoke(app, ["sign", str(good_plan), "--key", str(good_plan)])
    assert isinstance(result.exception, BadInput)
    assert not good_plan.with_name("good.yaml.sig").exists()


def test_a_bad_plan_is_not_signed(tmp_path: Path, bad_plan: Path) -> None:
    key = tmp_path / "team.key"
    runner.invoke(app, ["keygen", str(key)])
    assert isinstance(runner.invoke(app, ["sign", str(bad_plan), "--key", str(key)]).exception, BadInput)
    assert not bad_plan.with_name("bad.yaml.sig").exists()
