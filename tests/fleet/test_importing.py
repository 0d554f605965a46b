"""Bringing one's own tables: checked whole, written whole or not at all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clients.fleet.importing import Imported
from clients.fleet.importing import import_fleet as import_at
from clients.fleet.make import make_fleet
from clients.fleet.sources import Accepting
from clients.fleet.tables import read_fleet
from fa_core.errors import BadInput
from tests.fleet.small import small_bank

DEVICES = [
    {"device_id": "b", "accent": "en-US", "device_class": "phone", "app_version": "1"},
    {"device_id": "a", "accent": "en-GB", "device_class": "watch", "app_version": "1"},
]
WAKE = {
    "device_id": "a",
    "time": "2026-11-20T07:30:00.5Z",
    "wake_word": "okay_nabu",
    "model_version": "m1",
    "score": 0.9,
    "accepted": True,
    "outcome": "true_accept",
    "label_source": "follow_up",
    "snr_db": 20,
    "playback": False,
}
HOUR = {
    "device_id": "a",
    "time": "2026-11-20T09:00:00+02:00",
    "wake_word": "okay_nabu",
    "model_version": "m1",
    "snr_db": 20.0,
    "playback": False,
    "minutes": 60,
}
Rows = dict[str, list[dict[str, Any]]]
NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


def import_fleet(source: Path, out: Path, accepting: Accepting | None = None) -> Imported:
    return import_at(source, out, accepting or Accepting(), NOW)


def rows() -> Rows:
    later = {**WAKE, "time": "2026-11-20T07:45:00Z", "device_id": "b", "score": 0.2, "accepted": False}
    return {
        "devices": [dict(row) for row in DEVICES],
        "wake_events": [{**later, "outcome": "false_reject", "label_source": "retry"}, dict(WAKE)],
        "listening": [{**HOUR, "device_id": "b"}, dict(HOUR)],
    }


def write(folder: Path, tables: Rows) -> Path:
    folder.mkdir(exist_ok=True)
    for name, records in tables.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def refused(tmp_path: Path, tables: Rows) -> str:
    """Import the tables, which must fail and leave nothing; return the message."""
    source = write(tmp_path / "mine", tables)
    with pytest.raises(BadInput) as error:
        import_fleet(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    return str(error.value)


def test_json_lines_become_a_fleet_in_order(tmp_path: Path) -> None:
    source = write(tmp_path / "my home", rows())
    assert import_fleet(source, tmp_path / "out").rows == {"devices": 2, "wake_events": 2, "listening": 2}
    fleet = read_fleet(tmp_path / "out")
    assert fleet.population == "my home"
    assert not fleet.synthetic
    assert fleet.until == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert fleet.devices["device_id"].to_pylist() == ["a", "b"]
    assert fleet.tables["wake_events"]["device_id"].to_pylist() == ["a", "b"]
    assert fleet.tables["listening"]["time"].to_pylist() == [datetime(2026, 11, 20, 7, tzinfo=UTC)] * 2


def test_a_fleet_that_was_made_can_be_imported(tmp_path: Path) -> None:
    until = datetime(2026, 11, 22, tzinfo=UTC)
    made = tmp_path / "made"
    make_fleet(small_bank(), 30, made, seed=1, until=until, progress=lambda done, total: None)
    import_fleet(made, tmp_path / "out")
    before, after = read_fleet(made), read_fleet(tmp_path / "out")
    assert (after.population, after.until, after.synthetic) == ("synthetic", until, True)
    assert after.devices.equals(before.devices)
    for name, table in before.tables.items():
        assert after.tables[name].to_pylist() == table.to_pylist()


def test_metadata_beside_the_tables_is_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", rows())
    (source / "fleet.json").write_text('{"population": "homes", "until": "2026-11-21T00:00:00Z"}')
    import_fleet(source, tmp_path / "out")
    fleet = read_fleet(tmp_path / "out")
    assert (fleet.population, fleet.until) == ("homes", datetime(2026, 11, 21, tzinfo=UTC))


def with_wake(**values: object) -> Callable[[Rows], None]:
    return lambda tables: tables["wake_events"][0].update(values)


def with_hour(**values: object) -> Callable[[Rows], None]:
    return lambda tables: tables["listening"][1].update(values)


BAD: dict[str, tuple[Callable[[Rows], object], str]] = {
    "missing column": (
        lambda t: t["wake_events"][0].pop("score"),
        "wake_events.jsonl: score: this column is missing",
    ),
    "a column that must not be there": (
        with_wake(transcript="x"),
        "wake_events.jsonl: transcript: no such column",
    ),
    "text for a number": (with_wake(score="high"), "wake_events.jsonl: score: row 1: must be a number"),
    "true for a number": (with_wake(score=True), "wake_events.jsonl: score: row 1: must be a number"),
    "a number for true": (with_wake(playback=2), "wake_events.jsonl: playback: row 1: must be true or false"),
    "fraction for a count": (
        with_hour(minutes=1.5),
        "listening.jsonl: minutes: row 2: must be a whole number",
    ),
    "huge count": (with_hour(minutes=1 << 70), "listening.jsonl: minutes: row 2: must be a whole number"),
    "score over one": (with_wake(score=1.01), "wake_events.jsonl: score: row 1: must be within [0, 1]"),
    "score under zero": (with_wake(score=-0.01), "wake_events.jsonl: score: row 1: must be within [0, 1]"),
    "not a number": (with_wake(score=float("nan")), "wake_events.jsonl: score: row 1: must be a number"),
    "infinite noise": (with_wake(snr_db=float("inf")), "snr_db: row 1: must be a number"),
    "null": (with_wake(score=None), "wake_events.jsonl: score: row 1: has no value"),
    "outcome outside its domain": (with_wake(outcome="hit"), "outcome: row 1: must be one of true_accept"),
    "outcome against accepted": (with_wake(accepted=True), "outcome: row 1: contradicts `accepted`"),
    "unknown device": (with_wake(device_id="c"), "device_id: row 1: is no device of the devices table"),
    "no time zone": (
        with_wake(time="2026-11-20T07:45:00"),
        "time: row 1: has no time zone; add it, or give --assume",
    ),
    "no such day": (
        with_wake(time="2026-02-30T07:45:00Z"),
        "time: row 1: holds a date or hour that does not exist",
    ),
    "time as a number": (
        with_wake(time=1700000000),
        "time: row 1: is a number here and a time elsewhere in the column; write one kind",
    ),
    "listening off the hour": (
        with_hour(time="2026-11-20T07:30:00Z"),
        "time: row 2: must be the start of an hour",
    ),
    "more minutes than an hour has": (
        with_hour(minutes=61),
        "minutes: row 2: must be within [0, 60] minutes",
    ),
    "listening twice": (
        lambda t: t["listening"].append(dict(HOUR)),
        "listening.jsonl: time: row 3: repeat the device and time, wake_word, model_version, playback",
    ),
    "an event in no listened hour": (
        with_hour(time="2026-11-20T06:00:00Z"),
        "wake_events.jsonl: time: row 2: falls into no row of listening of",
    ),
    "a device twice": (
        lambda t: t["devices"].append(dict(DEVICES[0])),
        "devices.jsonl: device_id: row 3: repeats the device of an earlier row",
    ),
    "no devices file": (lambda t: t.pop("devices"), "devices.parquet: is not in"),
    "no device": (lambda t: t["devices"].clear(), "devices.jsonl: holds no device"),
    "no table": (
        lambda t: [t.pop(name) for name in ("wake_events", "listening")],
        "holds none of the tables wake_events, listening,",
    ),
}


@pytest.mark.parametrize("spoil", [pytest.param(*[value], id=name) for name, value in BAD.items()])
def test_bad_input_is_named_and_nothing_is_written(
    tmp_path: Path, spoil: tuple[Callable[[Rows], object], str]
) -> None:
    edit, message = spoil
    tables = rows()
    edit(tables)
    assert message in refused(tmp_path, tables)


@pytest.mark.parametrize("line", ["", "{", "[1]", "\xff", '"text"', "[" * 100_000])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    source = write(tmp_path / "mine", rows())
    with (source / "wake_events.jsonl").open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    with pytest.raises(BadInput, match=r"wake_events\.jsonl: row 3: is not one JSON object"):
        import_fleet(source, tmp_path / "out")


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    tables = rows()
    tables["wake_events"][0]["score"] = 7
    tables["wake_events"][1]["outcome"] = "hit"
    tables["listening"][0]["minutes"] = -1
    message = refused(tmp_path, tables)
    assert [line.split(": row")[0] for line in message.splitlines()] == [
        "wake_events.jsonl: score",
        "wake_events.jsonl: outcome",
        "listening.jsonl: minutes",
    ]


def test_the_same_table_in_two_formats_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", rows())
    (source / "wake_events.parquet").write_bytes(b"")
    with pytest.raises(BadInput, match=r"wake_events\.parquet too; keep one of the two"):
        import_fleet(source, tmp_path / "out")


def test_a_cut_parquet_file_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", rows())
    (source / "wake_events.jsonl").unlink()
    (source / "wake_events.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadInput, match=r"wake_events\.parquet: cannot be read as Parquet"):
        import_fleet(source, tmp_path / "out")


def test_rows_are_counted_across_the_pieces_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.fleet.sources.BATCH", 2)
    tables = rows()
    tables["listening"] = [
        {**HOUR, "time": f"2026-11-20T{hour:02}:00:00Z", "device_id": name}
        for hour in range(7, 12)
        for name in "ab"
    ]
    source = write(tmp_path / "good", tables)
    assert import_fleet(source, tmp_path / "fleet").rows["listening"] == 10
    assert pq.read_metadata(tmp_path / "fleet" / "listening.parquet").num_rows == 10
    for row in (4, 7):
        tables["listening"][row]["minutes"] = 99
    source = write(tmp_path / "bad", tables)
    with pytest.raises(BadInput, match=r"listening\.jsonl: minutes: rows 5, 8: must be within"):
        import_fleet(source, tmp_path / "out")
