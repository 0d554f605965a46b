"""Wake events from logs: times by whatever a line has of them, detections, and hours of listening."""

from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from clients.fleet.importing import import_fleet
from clients.fleet.logs import Detection, read_log
from clients.fleet.sources import Accepting
from clients.fleet.tables import read_fleet
from fa_core.cli.fleet import app
from fa_core.errors import BadInput

NOW = datetime(2026, 11, 28, tzinfo=UTC)
ESPHOME = """\
INFO ESPHome 2026.10.1
[23:40:10.250][D][micro_wake_word:195]: State changed from STARTING_MICROPHONE to DETECTING_WAKE_WORD
\x1b[0;36m[23:58:04.120][D][micro_wake_word:370]: Detected 'Okay Nabu' with sliding average probability is 0.97 and max probability is 1.00\x1b[0m
[23:58:04.090][D][voice_assistant:512]: State changed from IDLE to START_PIPELINE
[00:10:00.000][D][light:036]: 'Lamp' Setting:
[00:31:05.000][D][micro_wake_word:370]: Detected 'Okay Nabu' with sliding average probability is 0.91 and max probability is 0.99
[01:05:00.000][D][sensor:093]: 'Uptime': Sending state 4000 s
"""  # noqa: E501 - as the device prints it
HOME_ASSISTANT = """\
2026-11-20 07:31:04.123 DEBUG (MainThread) [homeassistant.components.esphome] kitchen: [D][micro_wake_word:162]: The 'alexa' model sliding average probability is 0.998 and most recent probability is 1.000
2026-11-20 07:31:04.124 DEBUG (MainThread) [homeassistant.components.esphome] kitchen: [D][micro_wake_word:123]: Wake Word 'alexa' Detected
2026-11-20 07:45:00.000 DEBUG (MainThread) [homeassistant.components.esphome] kitchen: [D][micro_wake_word:123]: Wake Word 'alexa' Detected
"""  # noqa: E501 - as Home Assistant prints it


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_log_with_the_time_of_day_alone_is_read_across_midnight() -> None:
    log = read_log(ESPHOME.splitlines(), "a.log", ZoneInfo("UTC"), date(2026, 11, 20))
    assert log is not None
    assert (log.first, log.last) == (at("2026-11-20T23:40:10.250"), at("2026-11-21T01:05:00"))
    assert log.detections == (
        Detection(at("2026-11-20T23:58:04.120"), "Okay Nabu", 0.97),
        Detection(at("2026-11-21T00:31:05"), "Okay Nabu", 0.91),
    )
    assert [(start.hour, minutes) for start, minutes in log.hours()] == [(23, 19), (0, 60), (1, 5)]


def test_a_log_with_days_is_read_in_its_zone_and_without_a_score_where_it_has_none() -> None:
    log = read_log(HOME_ASSISTANT.splitlines(), "ha.log", ZoneInfo("Europe/Berlin"), None)
    assert log is not None
    assert log.detections == (
        Detection(at("2026-11-20T06:31:04.124"), "alexa", 0.998),
        Detection(at("2026-11-20T06:45:00"), "alexa", None),
    )


def test_a_zone_in_the_line_is_its_own() -> None:
    line = "2026-11-20T08:31:04+0100 Detected 'x' with sliding average probability is 0.9 and max"
    log = read_log([line], "a.log", None, None)
    assert log is not None
    assert log.detections == (Detection(at("2026-11-20T07:31:04"), "x", 0.9),)


@pytest.mark.parametrize(
    ("line", "zone", "day", "message"),
    [
        ("2026-11-20 07:31:04 x", None, None, "a.log:1: this time has no zone; say which with --zone"),
        ("[07:31:04][D] x", "UTC", None, "a.log:1: this line has the time of day alone; say the first day"),
        ("2026-02-30 07:31:04 x", "UTC", None, "a.log:1: there is no such day or hour"),
        ("Wake Word 'x' Detected", "UTC", None, "a.log:1: a detection before any line has a time"),
        ("2026-11-20T07:31:04Z Wake Word 'a\u202eb' Detected", None, None, "the wake word holds the control"),
    ],
)
def test_a_time_that_cannot_be_known_is_refused(
    line: str, zone: str | None, day: date | None, message: str
) -> None:
    with pytest.raises(BadInput) as error:
        read_log([line], "a.log", ZoneInfo(zone) if zone else None, day)
    assert message in str(error.value)


def test_a_log_without_any_time_is_none() -> None:
    assert read_log(["INFO ESPHome"], "a.log", None, None) is None


def test_logs_become_tables_that_are_imported(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "kitchen.log").write_text(ESPHOME)
    (logs / "hall.txt").write_text("[10:00:00][D] quiet\n[11:00:00][D] quiet\n")
    arguments = ["import-log", str(logs), "--out", str(tmp_path / "mine"), "--zone", "UTC"]
    result = CliRunner().invoke(app, [*arguments, "--date", "2026-11-20", "--model-version", "nabu-2"])
    assert result.exit_code == 0, result.output
    assert "2 devices, 2 detections, 5 listening" in result.output.replace("\n", "")
    import_fleet(tmp_path / "mine", tmp_path / "fleet", Accepting(), NOW)
    fleet = read_fleet(tmp_path / "fleet")
    assert fleet.devices["device_id"].to_pylist() == ["hall", "kitchen"]
    assert fleet.tables["detections"]["score"].to_pylist() == [0.97, 0.91]
    assert fleet.tables["listening"]["minutes"].to_pylist() == [60, 1, 19, 60, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such file or directory"),
        (["."], "holds no log, .log or .txt"),
        (["quiet.log"], "no line says that micro_wake_word detected a wake word"),
        (["quiet.log", "--zone", "Mars"], "--zone Mars: write a time zone such as Europe/Berlin"),
    ],
)
def test_what_is_no_log_of_wakes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "quiet.log":
        Path("quiet.log").write_text("2026-11-20T07:31:04Z quiet\n")
    result = CliRunner().invoke(app, ["import-log", *arguments, "--out", "mine"])
    assert isinstance(result.exception, BadInput)
    assert message in str(result.exception)
    assert not Path("mine").exists()
