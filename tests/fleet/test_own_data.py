"""Own data as people have it: any format, other names and types, and what is said where it is wrong."""

import csv
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from clients.evaluate import cohort_of_fleet, device_vectors
from clients.fleet.importing import Imported, import_fleet
from clients.fleet.problems import BadTables
from clients.fleet.sources import Accepting
from clients.fleet.tables import read_fleet
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import parse

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
DEVICES = [
    {"device_id": name, "accent": "en-GB", "device_class": "phone", "app_version": "1"} for name in ("a", "b")
]
WAKE: dict[str, Any] = {
    "device_id": "a",
    "time": "2026-11-20T07:30:00Z",
    "wake_word": "okay_nabu",
    "model_version": "m1",
    "score": 0.9,
    "accepted": True,
    "outcome": "true_accept",
    "label_source": "follow_up",
    "snr_db": 20.5,
    "playback": False,
}
HOUR = {name: WAKE[name] for name in ("device_id", "wake_word", "model_version", "snr_db", "playback")}
HOUR |= {"time": "2026-11-20T07:00:00Z", "minutes": 60}
COMMAND = {
    "device_id": "a",
    "time": "2026-11-20T07:30:00Z",
    "model_version": "m1",
    "intent_predicted": "turn_on",
    "intent_actual": "turn_on",
    "corrected": False,
    "succeeded": True,
    "retries": 0,
    "cancelled": False,
    "latency_ms": 12.5,
}
Rows = list[dict[str, Any]]


def tables(**changed: Rows) -> dict[str, Rows]:
    return {"devices": DEVICES, "wake_events": [WAKE], "listening": [HOUR]} | changed


def write_csv(file: Path, rows: Rows, separator: str = ",") -> None:
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def write(folder: Path, given: Mapping[str, Rows], suffix: str = "jsonl") -> Path:
    folder.mkdir(parents=True)
    for name, rows in given.items():
        file = folder / f"{name}.{suffix}"
        if suffix == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        elif suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        else:
            write_csv(file, rows, "," if suffix == "csv" else "\t")
    return folder


def imported(
    tmp_path: Path, given: Mapping[str, Rows], suffix: str = "jsonl", accepting: Accepting | None = None
) -> Imported:
    return import_fleet(
        write(tmp_path / "mine", given, suffix), tmp_path / "out", accepting or Accepting(), NOW
    )


def refused(folder: Path, accepting: Accepting | None = None) -> BadTables:
    out = folder.parent / "out"
    with pytest.raises(BadTables) as error:
        import_fleet(folder, out, accepting or Accepting(), NOW)
    assert not out.exists()
    return error.value


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_every_format_makes_the_same_fleet(tmp_path: Path, suffix: str) -> None:
    given = tables(command_events=[COMMAND])
    if suffix == "parquet":
        for rows in given.values():
            rows[:] = [
                {k: datetime.fromisoformat(v) if k == "time" else v for k, v in row.items()} for row in rows
            ]
    found = imported(tmp_path, given, suffix)
    assert found.rows == {"devices": 2, "wake_events": 1, "listening": 1, "command_events": 1}
    assert found.notes == ()
    fleet = read_fleet(tmp_path / "out")
    assert fleet.until == datetime(2026, 11, 20, 8, tzinfo=UTC)
    (wake,) = fleet.tables["wake_events"].to_pylist()
    assert wake == WAKE | {"time": datetime(2026, 11, 20, 7, 30, tzinfo=UTC)}
    (hour,) = fleet.tables["listening"].to_pylist()
    assert (hour["minutes"], hour["snr_db"]) == (60, 20.5)
    for name, table in found.fleet.tables.items():
        assert table.to_pylist() == fleet.tables[name].to_pylist()


ACCEPTED: dict[str, tuple[dict[str, Rows], tuple[str, str, object]]] = {
    "minutes with a fraction of nothing": (
        tables(listening=[HOUR | {"minutes": 60.0}]),
        ("listening", "minutes", 60),
    ),
    "a device without a policy": (
        tables(command_events=[COMMAND | {"confirmation": None}]),
        ("command_events", "confirmation", None),
    ),
    "minutes as text": (tables(listening=[HOUR | {"minutes": "60.0"}]), ("listening", "minutes", 60)),
    "a count with a sign": (
        tables(command_events=[COMMAND | {"retries": "+2"}]),
        ("command_events", "retries", 2),
    ),
    "unknown noise": (tables(wake_events=[WAKE | {"snr_db": None}]), ("wake_events", "snr_db", None)),
    "no column of noise": (
        tables(wake_events=[{k: v for k, v in WAKE.items() if k != "snr_db"}]),
        ("wake_events", "snr_db", None),
    ),
    "0 and 1 for truth": (
        tables(wake_events=[WAKE | {"playback": 0, "accepted": 1}]),
        ("wake_events", "accepted", True),
    ),
    "truth in capitals": (
        tables(wake_events=[WAKE | {"accepted": "TRUE"}]),
        ("wake_events", "accepted", True),
    ),
    "truth as a word": (
        tables(wake_events=[WAKE | {"accepted": "yes", "playback": "No"}]),
        ("wake_events", "accepted", True),
    ),
    "truth as 1.0": (tables(wake_events=[WAKE | {"accepted": 1.0}]), ("wake_events", "accepted", True)),
    "milliseconds since 1970": (
        tables(wake_events=[WAKE | {"time": 1795159800123}]),
        ("wake_events", "time", datetime(2026, 11, 20, 7, 30, 0, 123000, tzinfo=UTC)),
    ),
    "another zone": (
        tables(wake_events=[WAKE | {"time": "2026-11-20 08:30:00+0100"}]),
        ("wake_events", "time", datetime(2026, 11, 20, 7, 30, tzinfo=UTC)),
    ),
    "a whole score": (tables(wake_events=[WAKE | {"score": 1}]), ("wake_events", "score", 1.0)),
    "a score as text": (tables(wake_events=[WAKE | {"score": "5e-1"}]), ("wake_events", "score", 0.5)),
    "a version as a number": (
        tables(wake_events=[WAKE | {"model_version": 2}], listening=[HOUR | {"model_version": 2}]),
        ("wake_events", "model_version", "2"),
    ),
    "spaces around a label": (
        tables(wake_events=[WAKE | {"outcome": " true_accept "}]),
        ("wake_events", "outcome", "true_accept"),
    ),
    "accents apart": (
        tables(wake_events=[WAKE | {"wake_word": "cafe\u0301"}], listening=[HOUR | {"wake_word": "café"}]),
        ("wake_events", "wake_word", "café"),
    ),
    "a joiner between letters": (
        tables(command_events=[COMMAND | {"intent_actual": "می\u200cخواهم"}]),
        ("command_events", "intent_actual", "می\u200cخواهم"),
    ),
}


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("case", ACCEPTED)
def test_what_means_the_same_is_accepted(tmp_path: Path, case: str, suffix: str) -> None:
    given, (table, column, value) = ACCEPTED[case]
    imported(tmp_path, given, suffix)
    read = read_fleet(tmp_path / "out").tables[table]
    assert read[column].to_pylist() == [value]


@pytest.mark.parametrize("ids", [[1, 2], pa.array([1, 2], pa.int32())])
def test_devices_may_have_whole_numbers_for_names(tmp_path: Path, ids: Any) -> None:
    source = write(
        tmp_path / "mine", {"wake_events": [WAKE | {"device_id": 2}], "listening": [HOUR | {"device_id": 2}]}
    )
    devices = pa.Table.from_pylist(DEVICES).set_column(0, "device_id", pa.array(ids))
    pq.write_table(devices, source / "devices.parquet")
    import_fleet(source, tmp_path / "out", Accepting(), NOW)
    assert read_fleet(tmp_path / "out").devices["device_id"].to_pylist() == ["1", "2"]


def test_times_without_a_zone_are_taken_only_where_a_person_says_so(tmp_path: Path) -> None:
    given = tables(wake_events=[WAKE | {"time": "2026-11-20T07:30:00"}])
    source = write(tmp_path / "mine", given)
    assert "wake_events.jsonl: time: row 1: has no time zone; add it, or give --assume-utc" in str(
        refused(source)
    )
    import_fleet(source, tmp_path / "out", Accepting(assume_utc=True), NOW)
    (time,) = read_fleet(tmp_path / "out").tables["wake_events"]["time"].to_pylist()
    assert time == datetime(2026, 11, 20, 7, 30, tzinfo=UTC)


def test_a_naive_column_of_parquet_too(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables())
    (source / "wake_events.jsonl").unlink()
    naive = WAKE | {"time": datetime(2026, 11, 20, 7, 30)}
    pq.write_table(pa.Table.from_pylist([naive]), source / "wake_events.parquet")
    assert "wake_events.parquet: time: has no time zone" in str(refused(source))
    import_fleet(source, tmp_path / "out", Accepting(assume_utc=True), NOW)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_nanoseconds_are_cut_and_it_is_said(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "mine", tables())
    row = WAKE | {"time": "2026-11-20T07:30:00.123456789Z"}
    (source / "wake_events.jsonl").unlink()
    if suffix == "parquet":
        at = pa.array([1795159800123456789]).cast(pa.timestamp("ns", "UTC"))
        pq.write_table(pa.Table.from_pylist([row]).set_column(1, "time", at), source / "wake_events.parquet")
    elif suffix == "csv":
        write_csv(source / "wake_events.csv", [row])
    else:
        (source / "wake_events.jsonl").write_text(json.dumps(row))
    found = import_fleet(source, tmp_path / "out", Accepting(), NOW)
    assert found.notes == (f"wake_events.{suffix}: time: finer than a microsecond, and cut to it",)
    (time,) = found.fleet.tables["wake_events"]["time"].to_pylist()
    assert time == datetime(2026, 11, 20, 7, 30, 0, 123456, tzinfo=UTC)


def test_zeros_beyond_the_microsecond_are_no_loss(tmp_path: Path) -> None:
    found = imported(tmp_path, tables(wake_events=[WAKE | {"time": "2026-11-20T07:30:00.100000000Z"}]))
    assert found.notes == ()


def test_columns_are_renamed_and_what_is_over_is_left_out(tmp_path: Path) -> None:
    row = {("ts" if name == "time" else name): value for name, value in WAKE.items()} | {
        "firmware": "9",
        "x": 1,
    }
    source = write(tmp_path / "mine", tables(wake_events=[row]))
    message = str(refused(source))
    assert "wake_events.jsonl: time: this column is missing" in message
    assert "wake_events.jsonl: ts, firmware, x: no such column; there are: device_id, time," in message
    accepting = Accepting(rename={("wake_events", "ts"): "time"}, drop_extra=True)
    found = import_fleet(source, tmp_path / "out", accepting, NOW)
    assert found.notes == (
        "wake_events.jsonl: firmware: no column of the table, and left out",
        "wake_events.jsonl: x: no column of the table, and left out",
    )


def test_a_column_that_is_nearly_right_is_suggested(tmp_path: Path) -> None:
    row = {("scores" if name == "score" else name): value for name, value in WAKE.items()}
    message = str(refused(write(tmp_path / "mine", tables(wake_events=[row]))))
    assert (
        "wake_events.jsonl: scores: no such column; did you mean `score`?; --rename wake_events." in message
    )


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({("wake_event", "ts"): "time"}, "no table wake_event; did you mean `wake_events`?"),
        ({("wake_events", "ts"): "tmie"}, "no column tmie; did you mean `time`?"),
    ],
)
def test_a_rename_to_nothing_is_refused(rename: dict[tuple[str, str], str], message: str) -> None:
    with pytest.raises(BadInput) as error:
        Accepting(rename=rename)
    assert message in str(error.value)


def test_a_rename_of_nothing_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables())
    message = str(refused(source, Accepting(rename={("wake_events", "scor"): "score"})))
    assert "--rename wake_events.scor=score: no such column; did you mean `score`?" in message
    message = str(refused(source, Accepting(rename={("dictation_events", "w"): "words"})))
    assert "--rename dictation_events.w: " in message


# Directories


def test_partitioned_directories_are_read(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", {"devices": DEVICES})
    rows = [
        COMMAND | {"time": f"2026-11-20T0{hour}:00:00Z", "model_version": f"m{hour % 2}"} for hour in range(6)
    ]
    ds.write_dataset(
        pa.Table.from_pylist(rows),
        source / "command_events",
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("model_version", pa.string())]), flavor="hive"),
        basename_template="part-{i}.parquet",
    )
    (source / "command_events" / "_SUCCESS").write_text("")
    (source / "command_events" / "model_version=m0" / ".part-0.parquet.crc").write_bytes(b"crc")
    found = import_fleet(source, tmp_path / "out", Accepting(), NOW)
    assert found.rows["command_events"] == 6
    versions = read_fleet(tmp_path / "out").tables["command_events"]["model_version"].to_pylist()
    assert versions == ["m0", "m1", "m0", "m1", "m0", "m1"]


def test_a_problem_in_a_part_is_named_by_its_file_and_row(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", {"devices": DEVICES})
    for day, retries in (("20", 0), ("21", -1)):
        folder = source / "command_events" / f"date=2026-11-{day}"
        folder.mkdir(parents=True)
        write_csv(folder / "part-0.csv", [COMMAND, COMMAND | {"retries": retries, "device_id": f"x{day}"}])
    (source / "command_events" / "notes.txt").write_text("")
    assert "command_events/notes.txt: is none of .parquet, .jsonl" in str(refused(source))
    (source / "command_events" / "notes.txt").unlink()
    assert "command_events/date=2026-11-20/part-0.csv: date: no such column" in str(refused(source))
    message = str(refused(source, Accepting(drop_extra=True)))
    assert message == (
        "command_events/date=2026-11-21/part-0.csv: retries: row 3: must be finite and at least 0"
    )
    write_csv(folder / "part-0.csv", [COMMAND])
    message = str(refused(source, Accepting(drop_extra=True)))
    assert message == (
        "command_events/date=2026-11-20/part-0.csv: device_id: row 3: is no device of the devices table"
    )


def test_an_empty_directory_is_no_table(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables())
    (source / "command_events").mkdir()
    assert "command_events: holds no file of the table" in str(refused(source))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wake_event.parquet", "wake_event.parquet: is no table: did you mean `wake_events.parquet`?"),
        ("comand_events", "comand_events: is no table: did you mean `command_events`?"),
        ("command_events.xlsx", "command_events.xlsx: is no table: write command_events.parquet,"),
        ("zebra.csv", "zebra.csv: is no table: the tables are devices, wake_events,"),
    ],
)
def test_an_entry_that_is_no_table_is_refused(tmp_path: Path, name: str, message: str) -> None:
    source = write(tmp_path / "mine", tables())
    (source / name).mkdir() if "." not in name else (source / name).write_bytes(b"")
    assert message in str(refused(source))


def test_a_table_of_another_name_is_all_that_is_wrong(tmp_path: Path) -> None:
    """Once its name is right there may be no table missing."""
    source = write(tmp_path / "mine", {"devices": DEVICES, "wakes": [WAKE]}, "csv")
    assert str(refused(source)) == "wakes.csv: is no table: did you mean `wake_events.csv`?"


def test_a_systems_own_files_and_a_readme_are_no_tables(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables())
    for name in (".DS_Store", "_SUCCESS", "README.md", "truth.parquet"):
        (source / name).write_text("x")
    import_fleet(source, tmp_path / "out", Accepting(), NOW)


# CSV


def test_rows_of_csv_are_numbered_as_a_spreadsheet_does(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables(wake_events=[WAKE, WAKE | {"score": 7}]), "csv")
    assert str(refused(source)) == "wake_events.csv: score: row 3: must be within [0, 1]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device_id;accent;device_class;app_version\na;b;c;d\n", "has its columns separated by ';'"),
        (
            "device_id,accent,device_class,app_version\na,b,c\n",
            "row 2: does not have the 4 cells of the header",
        ),
        ("device_id,accent,device_class,app_version\n\na,b,c,d\n", "row 2: is blank"),
        ('device_id,accent,device_class,app_version\na,"b,c,d\n', "is not CSV"),
        ("device_id,accent,device_class,app_version\na,\xff,c,d\n", "holds text that is not UTF-8"),
        ("", "device_id: this column is missing"),
    ],
)
def test_csv_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    source = write(tmp_path / "mine", {"wake_events": [WAKE]})
    (source / "devices.csv").write_bytes(text.encode("latin-1"))
    assert message in str(refused(source))


def test_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """With a byte order mark, Windows line ends, spaces, quotes and an empty line at the end."""
    source = write(tmp_path / "mine", {"wake_events": [WAKE], "listening": [HOUR]}, "csv")
    text = '\ufeffdevice_id, accent,device_class,app_version\r\na, "en, GB" ,phone,1\r\n'.replace(
        ', "', ',"'
    ).replace('" ,', '",')
    (source / "devices.csv").write_text(text + "\r\n", "utf-8", newline="")
    import_fleet(source, tmp_path / "out", Accepting(), NOW)
    assert read_fleet(tmp_path / "out").devices["accent"].to_pylist() == ["en, GB"]


# What is refused, and what is said of it


def test_values_are_shown_apart_and_never_in_the_error(tmp_path: Path) -> None:
    rows = [WAKE | {"outcome": "false_rejects"}, WAKE | {"score": "se\u202ecret"}]
    error = refused(write(tmp_path / "mine", tables(wake_events=rows)))
    assert "false_rejects" not in str(error)
    assert "cret" not in str(error)
    assert "(here: `false_rejects`, did you mean `false_reject`?)" in error.shown
    assert "(here: `se\\u202ecret`)" in error.shown
    assert "false_rejects" not in repr(error)


def test_a_repeated_device_is_named_by_its_own_row(tmp_path: Path) -> None:
    devices = [DEVICES[0] | {"device_id": f"d{index}"} for index in range(40)]
    devices.append(devices[3])
    source = write(tmp_path / "mine", tables(devices=devices))
    assert "devices.jsonl: device_id: row 41: repeats the device of an earlier row" in str(refused(source))


BEYOND = [
    ("0001-01-01T00:00:00Z", "time: row 1: lies outside 2000-01-01 to 2100-01-01"),
    ("1999-12-31T23:59:59Z", "time: row 1: lies outside"),
    ("2100-01-01T00:00:00Z", "time: row 1: lies outside"),
    (
        "2099-01-01T00:00:00Z",
        "time: row 1: lies more than a day ahead of this computer's clock, 2026-11-21 06:30",
    ),
    (
        "1795159800",
        "time: row 1: is a whole number, so it is read as milliseconds since 1970, and lies outside",
    ),
    ("99999999999999999999", "time: row 1: is not a time with its zone"),
]


@pytest.mark.parametrize(("time", "message"), BEYOND)
def test_a_time_that_no_run_could_use_is_refused(tmp_path: Path, time: str, message: str) -> None:
    source = write(tmp_path / "mine", {"devices": DEVICES, "command_events": [COMMAND | {"time": time}]})
    assert f"command_events.jsonl: {message}" in str(refused(source))


@pytest.mark.parametrize("year", [1, 1600, 9999])
def test_a_time_of_parquet_that_no_run_could_use_is_refused(tmp_path: Path, year: int) -> None:
    source = write(tmp_path / "mine", {"devices": DEVICES})
    for unit in ("s", "ms", "us"):
        at = pa.array([datetime(year, 1, 1, tzinfo=UTC)], pa.timestamp(unit, "UTC"))
        pq.write_table(
            pa.Table.from_pylist([COMMAND]).set_column(1, "time", at), source / "command_events.parquet"
        )
        assert "outside 2000-01-01 to 2100-01-01" in str(refused(source))


def test_a_device_that_is_a_little_ahead_moves_no_window(tmp_path: Path) -> None:
    ahead = (NOW + timedelta(hours=20)).isoformat()
    found = imported(tmp_path, {"devices": DEVICES, "command_events": [COMMAND, COMMAND | {"time": ahead}]})
    assert found.fleet.until == datetime(2026, 11, 21, 7, tzinfo=UTC)


def test_an_end_ahead_of_the_clock_is_refused_unless_the_fleet_is_synthetic(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables())
    for synthetic in (False, True):
        described = {"until": "2026-12-24T00:00:00Z", "synthetic": synthetic}
        (source / "fleet.json").write_text(json.dumps(described))
        if synthetic:
            import_fleet(source, tmp_path / "out", Accepting(), NOW)
        else:
            with pytest.raises(BadInput, match="until: lies ahead of this computer's clock"):
                import_fleet(source, tmp_path / "out", Accepting(), NOW)


WRONG_LABELS = [
    ("x" * 5000, "has 5000 characters; write at most 64"),
    ("a\x00b", "holds the control or invisible character U+0000; take it out"),
    ("a\u202eb", "holds the control or invisible character U+202E; take it out"),
    ("", "is empty; write something"),
    ("  ", "is empty; write something"),
]


@pytest.mark.parametrize(("label", "message"), WRONG_LABELS)
def test_text_that_is_no_label_is_refused(tmp_path: Path, label: str, message: str) -> None:
    source = write(tmp_path / "mine", tables(command_events=[COMMAND, COMMAND | {"intent_actual": label}]))
    assert str(refused(source)) == f"command_events.jsonl: intent_actual: row 2: {message}"


def test_a_device_may_have_a_long_name(tmp_path: Path) -> None:
    name = "sha256:" + "0" * 64
    given = {"devices": [DEVICES[0] | {"device_id": name}], "command_events": [COMMAND | {"device_id": name}]}
    assert imported(tmp_path, given).rows["devices"] == 1


@pytest.mark.parametrize("other", ["Turn_On", "turn\u00a0on"])
def test_labels_that_look_alike_are_refused(tmp_path: Path, other: str) -> None:
    first = COMMAND | {
        "intent_predicted": "turn on" if "\u00a0" in other else "turn_on",
        "intent_actual": "x",
    }
    source = write(tmp_path / "mine", tables(command_events=[first, first | {"intent_actual": other}]))
    error = refused(source)
    assert "command_events.jsonl: intent_actual: row 2: looks like another label: only case, width" in str(
        error
    )
    assert other not in str(error)


def test_devices_whose_names_differ_by_case_are_two(tmp_path: Path) -> None:
    given = {"devices": [DEVICES[0], DEVICES[0] | {"device_id": "A"}], "command_events": [COMMAND]}
    assert imported(tmp_path, given).rows["devices"] == 2


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    source = write(tmp_path / "mine", tables(command_events=[COMMAND | {"intent_actual": "\ud800"}]))
    assert "intent_actual: holds text that is not Unicode" in str(refused(source))


@pytest.mark.parametrize("value", [1e16, -math.inf])
def test_a_measure_that_no_plan_could_compare_is_refused(tmp_path: Path, value: float) -> None:
    source = write(tmp_path / "mine", {"devices": DEVICES})
    pq.write_table(pa.Table.from_pylist([COMMAND | {"latency_ms": value}]), source / "command_events.parquet")
    assert "latency_ms: row 1: must be finite and at least 0" in str(
        refused(source, Accepting(assume_utc=True))
    )


def test_a_dictionary_may_hold_more_than_its_column(tmp_path: Path) -> None:
    """As a filtered categorical has it. What import accepts, every run accepts."""
    source = write(tmp_path / "mine", {"devices": DEVICES})
    rows = [COMMAND, COMMAND | {"device_id": "gone", "intent_actual": "Turn_on"}]
    table = pa.Table.from_pylist(rows)
    for name in ("device_id", "intent_actual"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    pq.write_table(table.slice(0, 1), source / "command_events.parquet")
    import_fleet(source, tmp_path / "out", Accepting(), NOW)
    fleet = read_fleet(tmp_path / "out")
    assert cohort_of_fleet(fleet.devices, fleet.tables).ids == ("a", "b")
    assert cohort_of_fleet(fleet.devices, {"command_events": table.slice(0, 1)}).ids == ("a", "b")
    with pytest.raises(BadInput, match="a row belongs to no device"):
        cohort_of_fleet(fleet.devices, {"command_events": table})


UNKNOWN_NOISE = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: noise, revision: 1, owner: tests, question: How many?, expires: 2099-01-01}
source: wake_events
window: 1d
segments: {noise: {event: snr_db, edges: [10], labels: [loud, quiet]}}
group_by: [[noise]]
metrics: {all: {kind: count}, not_loud: {kind: count, where: {snr_db: {ge: 10}}}}
privacy: {epsilon: 2, max_events: 8}
"""


def test_unknown_noise_is_other_in_a_segment_and_meets_no_condition(tmp_path: Path) -> None:
    rows = [WAKE, WAKE | {"snr_db": None}, WAKE | {"snr_db": 3}]
    fleet = imported(tmp_path, tables(wake_events=rows)).fleet
    plan = parse(UNKNOWN_NOISE.encode(), "noise.yaml", policy=None)
    layout = compile_plan(plan)
    vectors = device_vectors(plan, layout, cohort_of_fleet(fleet.devices, fleet.tables), fleet.until)
    found = {block.metric: vectors[0, block.slice].tolist() for block in layout.blocks}
    assert found == {"all": [1, 1, 1], "not_loud": [0, 1, 0]}
