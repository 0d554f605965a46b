"""`fa fleet make` and `fa fleet import`, as a person types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.fleet import audio
from clients.fleet.bank import write_bank
from clients.fleet.tables import read_fleet
from fa_core.cli.fleet import app
from fa_core.errors import BadInput
from tests.fleet.small import small_bank

run = CliRunner().invoke


def test_make_says_how_far_it_is_and_what_it_wrote(tmp_path: Path) -> None:
    write_bank(small_bank(), tmp_path / "bank.parquet")
    out = tmp_path / "fleet"
    result = run(
        app,
        [
            "make",
            "--devices",
            "12",
            "--weeks",
            "2",
            "--out",
            str(out),
            "--bank",
            str(tmp_path / "bank.parquet"),
        ],
    )
    assert result.exit_code == 0
    assert f"{out}: 12 devices, 14 days until" in result.output.replace("\n", "")
    assert "devices drawn: 12 of 12" in result.output
    assert len(read_fleet(out).devices) == 12


@pytest.mark.parametrize("devices", ["0", "-3"])
def test_make_refuses_no_devices_before_anything_is_built(tmp_path: Path, devices: str) -> None:
    bank = tmp_path / "bank.parquet"
    result = run(app, ["make", "--devices", devices, "--out", str(tmp_path / "out"), "--bank", str(bank)])
    assert isinstance(result.exception, BadInput)
    assert "--devices: a fleet has at least one device" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_make_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "HUMAN_SPEECH", tmp_path / "nothing")
    bank = tmp_path / "bank.parquet"
    result = run(app, ["make", "--devices", "1", "--out", str(tmp_path / "out"), "--bank", str(bank)])
    assert isinstance(result.exception, BadInput)
    assert "sudo apt-get install asterisk-core-sounds-en-g722" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_import_reports_the_rows(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    device = {"device_id": "a", "accent": "x", "device_class": "phone", "app_version": "1"}
    (source / "devices.jsonl").write_text(json.dumps(device) + "\n")
    (source / "wake_events.jsonl").write_text("")
    result = run(app, ["import", str(source), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "1 devices, 0 wake_events" in result.output.replace("\n", "")


def own(folder: Path, outcome: str = "true_accept") -> Path:
    folder.mkdir()
    (folder / "devices.csv").write_text("device_id,accent,device_class,app_version\n1,x,phone,1\n")
    header = "device_id,ts,wake_word,model_version,score,accepted,outcome,label_source,playback,extra"
    row = f"1,2026-11-20 07:30:00,okay,1,0.9,1,{outcome},retry,0,x"
    (folder / "wake_events.csv").write_text(f"{header}\n{row}\n")
    return folder


def test_import_takes_names_zones_and_extra_columns_from_its_options(tmp_path: Path) -> None:
    arguments = ["import", str(own(tmp_path / "mine")), "--out", str(tmp_path / "out")]
    result = run(app, [*arguments, "--rename", "wake_events.ts=time", "--assume-utc", "--drop-extra"])
    assert result.exit_code == 0
    assert "note: wake_events.csv: extra: no column of the table, and left out" in result.output
    assert len(read_fleet(tmp_path / "out").tables["wake_events"]) == 1


@pytest.mark.parametrize("rename", ["ts=time", "wake_events.ts", "wake_events.=time", "wake_events.ts="])
def test_a_rename_is_refused_unless_it_names_table_and_columns(tmp_path: Path, rename: str) -> None:
    arguments = ["import", str(own(tmp_path / "mine")), "--out", str(tmp_path / "out"), "--rename", rename]
    assert "write TABLE.THEIRS=OURS" in str(run(app, arguments).exception)


@pytest.mark.parametrize("terminal", [True, False])
def test_values_are_shown_on_a_terminal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr("fa_core.cli.fleet._is_terminal", lambda: terminal)
    source = own(tmp_path / "mine", outcome="secret")
    options = ["--rename", "wake_events.ts=time", "--assume-utc", "--drop-extra"]
    result = run(app, ["import", str(source), "--out", str(tmp_path / "out"), *options])
    message = str(result.exception)
    assert "wake_events.csv: outcome: row 2: must be one of true_accept" in message
    assert ("secret" in message) == terminal
    assert ("on a terminal the values are shown too" in message) != terminal
