"""What people are shown of the tables is what the tables are."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.fleet.columns import markdown, rows, write_template
from clients.fleet.importing import import_fleet
from clients.fleet.sources import Accepting
from clients.fleet.tables import read_fleet
from fa_core.cli.fleet import app
from fa_core.errors import BadInput
from fa_core.tables import FACTS, SOURCES

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_the_page_in_docs_is_generated() -> None:
    """After a change to the tables: `fa fleet columns --markdown > docs/data.md`."""
    assert (ROOT / "docs" / "data.md").read_text("utf-8") == markdown()


def test_every_column_says_why_it_is_there_and_has_an_example() -> None:
    for source in SOURCES.values():
        assert source.row
        for name, column in (source.columns | FACTS).items():
            assert column.why, name
            assert column.example, name


def test_every_column_is_listed() -> None:
    found = {(row["table"], row["column"]) for row in rows()}
    assert found >= {(source.name, name) for source in SOURCES.values() for name in source.columns}
    assert json.loads(CliRunner().invoke(app, ["columns", "--json"]).output) == rows()
    assert CliRunner().invoke(app, ["columns", "--markdown"]).output == markdown()


def test_the_sample_is_imported_as_it_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["template", str(tmp_path / "mine")])
    assert result.exit_code == 0
    found = import_fleet(tmp_path / "mine", tmp_path / "out", Accepting(), NOW)
    assert found.rows == {"devices": 2} | dict.fromkeys(SOURCES, 2)
    assert found.notes == ()
    snr = read_fleet(tmp_path / "out").tables["wake_events"]["snr_db"].to_pylist()
    assert snr == [18.5, None]
    assert (tmp_path / "mine" / "README.md").exists()


def test_a_sample_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        write_template(tmp_path)
    assert (tmp_path / "devices.csv").read_text() == "mine"
