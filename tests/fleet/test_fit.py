"""How plans fit a fleet at hand, and what is known of its quality: exact, in words of the plan's own."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from clients.evaluate import cohort_of_fleet
from clients.fleet.fit import Fit, fit
from clients.fleet.quality import quality
from clients.fleet.tables import Fleet
from fa_core.cli.fleet import app
from fa_core.cli.preview import preview
from fa_core.engines.launch import Order, launch
from fa_core.errors import BadInput
from fa_core.plan import Plan, parse
from fa_core.tables import COMMAND_EVENTS, DICTATION_EVENTS, LISTENING, WAKE_EVENTS
from tests.fleet.test_own_data import COMMAND, DEVICES, HOUR, WAKE, write_csv
from tests.rounds.small import write_fleet, write_plan

DEVICES_OF_SMALL = 200
UNTIL = datetime(2026, 11, 21, tzinfo=UTC)
PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: fits, revision: 1, owner: tests, question: How?, expires: 2099-01-01}
source: wake_events
window: 7d
where: {wake_word: [okay_nabu, hey_jarvis]}
segments:
  accent: {device: accent, values: [en-GB, en-IN, en-US], aliases: {en-IN: [indian english]}}
  version: {event: model_version, values: [m1, m2]}
group_by: [[accent], [version]]
metrics:
  misses: {kind: rate, of: {outcome: false_reject}, over: {outcome: [true_accept, false_reject]}}
  wakes: {kind: rate_per_hour, of: {outcome: false_accept}, max_hours: 2, group_by: [[accent]]}
privacy: {epsilon: 2, max_events: 4, min_cohort: 2}
"""


def plan(text: str = PLAN) -> Plan:
    return parse(text.encode(), "fits.yaml", policy=None)


def fleet(**changed: Any) -> Fleet:
    """Return 6 devices: 4 say en-GB, 1 en-IN by another name, 1 something else; 5 listened and woke."""
    accents = ["en-GB"] * 4 + ["indian english", "scots"]
    devices = [DEVICES[0] | {"device_id": str(index), "accent": each} for index, each in enumerate(accents)]
    start = datetime(2026, 11, 20, tzinfo=UTC)
    hours = [
        HOUR | {"device_id": str(device), "time": start + timedelta(hours=hour)}
        for device in range(5)
        for hour in range(4)
    ]
    wakes = [
        WAKE | {"device_id": str(device), "time": start + timedelta(minutes=minute)}
        for device in range(5)
        for minute in range(8 if device == 0 else 3)
    ]
    tables = {
        source.name: pa.Table.from_pylist(rows, schema=source.arrow_schema(device_id=True))
        for source, rows in ((WAKE_EVENTS, wakes), (LISTENING, hours))
    }
    found = Fleet("homes", UNTIL, False, pa.Table.from_pylist(devices), MappingProxyType(tables))
    return replace(found, **changed)


def fitted(given: Fleet, asked: Plan | None = None) -> Fit:
    return fit(asked or plan(), cohort_of_fleet(given.devices, given.tables), given.until)


def test_a_fit_says_what_no_device_has_what_is_clipped_and_what_is_small() -> None:
    found = fitted(fleet())
    assert found.unknown == (("accent", "en-US"), ("version", "m2"))
    assert found.unmet == (("wake_word", "hey_jarvis"),)
    assert found.in_window == 5
    assert found.clipped == pytest.approx({"misses": 4 / 20, "wakes": 0.5})
    assert [(each.metric, each.grouping, each.small, each.groups) for each in found.small] == [
        ("misses", ("accent",), (("en-IN",), ("en-US",)), 3),
        ("misses", ("version",), (("m2",),), 2),
        ("wakes", ("accent",), (("en-IN",), ("en-US",)), 3),
    ]
    assert list(found.sentences()) == [
        "no row in the window has wake_word `hey_jarvis`, which the plan's filter asks for",
        "segment accent: no device has the label `en-US`",
        "segment version: no device has the label `m2`",
        "misses: the caps of the plan leave out 20% of what the devices have",
        "wakes: the caps of the plan leave out 50% of what the devices have",
        "misses, by accent: 2 of 3 groups have fewer than 2 devices with something to count: en-IN, en-US",
        "misses, by version: 1 of 2 groups have fewer than 2 devices with something to count: m2",
        "wakes, by accent: 2 of 3 groups have fewer than 2 devices with something to count: en-IN, en-US",
    ]


def test_a_fit_of_a_plan_that_fits_says_nothing() -> None:
    text = PLAN.replace("[okay_nabu, hey_jarvis]", "okay_nabu").replace("max_events: 4", "max_events: 8")
    text = text.replace("[en-GB, en-IN, en-US], aliases: {en-IN: [indian english]}", "[en-GB]")
    text = text.replace("[m1, m2]", "[m1]").replace("max_hours: 2", "max_hours: 4")
    assert list(fitted(fleet(), plan(text)).sentences()) == []


def test_sizes_over_their_cap_are_clipped_too() -> None:
    rows = [
        {"device_id": "a", "time": UNTIL - timedelta(hours=1), "model_version": "m", "words": words}
        | {"word_errors": 3, "corrected": False}
        for words in (30, 10)
    ]
    schema = DICTATION_EVENTS.arrow_schema(device_id=True)
    given = fleet(
        devices=pa.Table.from_pylist(DEVICES),
        tables={"dictation_events": pa.Table.from_pylist(rows, schema=schema)},
    )
    text = PLAN[: PLAN.index("source:")] + (
        "window: 7d\nsource: dictation_events\n"
        "metrics: {wer: {kind: ratio, of: word_errors, over: words, max_over: 15}}\n"
        "privacy: {epsilon: 2, min_cohort: 2}\n"
    )
    assert fitted(given, plan(text)).clipped == pytest.approx({"wer": 15 / 40})


def test_a_table_that_is_missing_is_all_that_is_said() -> None:
    found = fitted(fleet(tables={"wake_events": fleet().tables["wake_events"]}))
    assert list(found.sentences()) == ["the plan reads listening, which the fleet does not have"]


def test_few_devices_in_the_window_are_a_warning() -> None:
    empty = fitted(fleet(until=UNTIL - timedelta(days=30)))
    assert empty.in_window == 0
    assert next(empty.warnings()).startswith(
        "fewer than min_cohort = 2 devices have a row in the window of 7d"
    )
    devices = [DEVICES[0] | {"device_id": f"{index:02}"} for index in range(30)]
    rows = [COMMAND | {"device_id": f"{index:02}", "time": UNTIL - timedelta(days=1)} for index in range(14)]
    table = pa.Table.from_pylist(rows, schema=COMMAND_EVENTS.arrow_schema(device_id=True))
    given = fleet(devices=pa.Table.from_pylist(devices), tables={"command_events": table})
    text = PLAN[: PLAN.index("source:")] + (
        "source: command_events\nwindow: 7d\nmetrics: [correction_rate]\n"
        "privacy: {epsilon: 2, min_cohort: 2}\n"
    )
    assert next(fitted(given, plan(text)).warnings()) == (
        "less than half of the devices have a row in the window of 7d"
    )


def test_quality_counts_clocks_silence_and_labels_that_no_plan_names() -> None:
    found = quality(fleet(until=datetime(2026, 11, 20, 3, tzinfo=UTC)), [plan()], [])
    assert (found.clocks.recent, found.clocks.silent, found.clocks.late) == (5, 1, 5)
    assert found.unnamed == {"accent": {"scots": 1}}
    assert list(found.sentences()) == [
        "rows from 2026-11-20 00:00 to 2026-11-20 03:00 UTC; a run's window ends at 2026-11-20 03:00, "
        "and 5 of 6 devices have a row in the week before",
        "devices without any row: 1",
        "rows after the end of the window, which no run counts: 5",
        "accent: labels that no plan names: `scots` (1 devices)",
    ]


def test_without_listening_nothing_is_measured_per_hour() -> None:
    found = quality(fleet(tables={"wake_events": fleet().tables["wake_events"]}), [], [])
    assert "warning: there is no listening table, so nothing can be measured per hour" in found.sentences()


def own(tmp_path: Path) -> tuple[Path, Path]:
    """Return a directory of own tables and a plan."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, rows in (("devices", DEVICES), ("wake_events", [WAKE]), ("listening", [HOUR])):
        write_csv(mine / f"{name}.csv", rows)
    asked = tmp_path / "fits.yaml"
    asked.write_text(PLAN.replace("min_cohort: 2", "min_cohort: 50"))
    return mine, asked


def test_import_says_how_a_plan_fits(tmp_path: Path) -> None:
    mine, asked = own(tmp_path)
    arguments = ["import", str(mine), "--out", str(tmp_path / "out"), "--plan", str(asked)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "fits@1: segment accent: no device has the label `en-IN`" in result.output


def test_import_says_it_in_json(tmp_path: Path) -> None:
    mine, asked = own(tmp_path)
    arguments = ["import", str(mine), "--out", str(tmp_path / "out"), "--plan", str(asked), "--json"]
    shown = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert shown["rows"] == {"devices": 2, "wake_events": 1, "listening": 1}
    assert shown["clocks"]["until"] == "2026-11-20T08:00:00+00:00"
    assert shown["fits"][0]["unknown"] == [["accent", "en-IN"], ["accent", "en-US"], ["version", "m2"]]
    assert "fits@1: segment accent: no device has the label `en-IN`" in shown["sentences"]


def small_plan(folder: Path, **options: Any) -> Path:
    return write_plan(folder, groups="[[], [accent]]", secure=False, **options)


def test_preview_says_how_a_plan_fits_a_fleet_at_hand(tmp_path: Path) -> None:
    write_fleet(tmp_path / "fleet", DEVICES_OF_SMALL)
    commands = typer.Typer()
    commands.command()(preview)
    asked = small_plan(tmp_path)
    asked.write_text(asked.read_text().replace("en-US", "en-029"))
    arguments = [str(asked), "--fleet", str(tmp_path / "fleet"), "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 0, result.output
    assert f"In {tmp_path / 'fleet'}: segment accent: no device has the label `en-029`." in result.output
    listed = json.loads(CliRunner().invoke(commands, [*arguments, "--json"]).stdout)
    assert any("no device has the label `en-029`" in line for line in listed["fleet"])


def test_a_run_warns_before_it_charges(tmp_path: Path) -> None:
    folder = write_fleet(tmp_path / "fleet", DEVICES_OF_SMALL)
    asked = small_plan(tmp_path)
    asked.write_text(asked.read_text().replace("en-US", "en-029"))
    said: list[str] = []

    class Stopped(Exception):
        pass

    def stop(text: str) -> None:
        said.append(text)
        raise Stopped

    with pytest.raises(Stopped):
        launch(Order(asked, folder, "local", 1, str(tmp_path / "store")), warn=stop)
    assert said == ["segment accent: no device has the label `en-029`"]
    assert not (tmp_path / "store").exists()


def described(folder: Path, **changes: object) -> None:
    file = folder / "fleet.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_run_over_an_empty_window_is_refused_before_it_charges(tmp_path: Path) -> None:
    folder = write_fleet(tmp_path / "fleet", DEVICES_OF_SMALL)
    described(folder, until="2026-10-01T00:00:00Z")
    with pytest.raises(
        BadInput, match=r"no device has a row that the plan could count .* nothing was charged"
    ):
        launch(Order(small_plan(tmp_path), folder, "local", 1, str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()


def test_a_run_over_a_window_ahead_of_the_clock_is_refused(tmp_path: Path) -> None:
    folder = write_fleet(tmp_path / "fleet", DEVICES_OF_SMALL)
    described(folder, until="2099-01-01T00:00:00Z", synthetic=False)
    with pytest.raises(BadInput, match="ahead of this computer's clock"):
        launch(Order(small_plan(tmp_path), folder, "local", 1, str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()
