"""Reading a fleet directory: what is wrong is named by file, column and row, and never by value."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clients.evaluate import places_in
from clients.fleet.make import make_fleet
from clients.fleet.tables import read_fleet
from fa_core.errors import BadInput
from tests.fleet.small import small_bank


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    out = tmp_path / "fleet"
    until = datetime(2026, 11, 22, tzinfo=UTC)
    make_fleet(small_bank(), 20, out, seed=1, until=until, progress=lambda done, total: None)
    return out


def change(file: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(edit(pq.read_table(file)), file)


def replaced(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    kind = pa.string() if pa.types.is_dictionary(table[name].type) else table[name].type
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind))


def test_what_was_written_is_read(fleet: Path) -> None:
    found = read_fleet(fleet)
    assert found.population == "synthetic"
    assert found.until == datetime(2026, 11, 22, tzinfo=UTC)
    for name, table in found.tables.items():
        assert table.to_pylist() == pq.read_table(fleet / f"{name}.parquet").to_pylist()


def test_a_table_that_was_not_recorded_is_absent(fleet: Path) -> None:
    (fleet / "dictation_events.parquet").unlink()
    assert "dictation_events" not in read_fleet(fleet).tables


def test_an_empty_table_is_a_table(fleet: Path) -> None:
    change(fleet / "command_events.parquet", lambda table: table.slice(0, 0))
    assert len(read_fleet(fleet).tables["command_events"]) == 0


def test_plain_strings_are_as_good_as_dictionaries(fleet: Path) -> None:
    before = read_fleet(fleet).tables["wake_events"]
    change(fleet / "wake_events.parquet", lambda t: replaced(t, "outcome", 0, t["outcome"][0].as_py()))
    assert read_fleet(fleet).tables["wake_events"]["outcome"].to_pylist() == before["outcome"].to_pylist()


def test_no_directory_and_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such directory"):
        read_fleet(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"it has no fleet\.json; .* `fa fleet import .* --out DIR`"):
        read_fleet(tmp_path)
    (tmp_path / "fleet.json").write_text("{}")
    with pytest.raises(BadInput, match=r"not a fleet directory: it has no devices\.parquet"):
        read_fleet(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "must hold one JSON object"),
        ('{"synthetic": true, "until": "2026-11-22T00:00:00Z"}', "population: must be a name"),
        ('{"population": "p", "until": "2026-11-22T00:00:00Z"}', "synthetic: must be true or false"),
        ('{"population": "p", "synthetic": true}', "until: must be a whole hour in UTC"),
        ('{"population": "p", "synthetic": true, "until": "soon"}', "until: must be a whole hour in UTC"),
        ('{"population": "p", "synthetic": true, "until": "2026-11-22T00:00:00"}', "until: must be"),
        ('{"population": "p", "synthetic": true, "until": "2026-11-22T00:30:00Z"}', "until: must be"),
    ],
)
def test_bad_metadata_is_refused(fleet: Path, text: str, message: str) -> None:
    (fleet / "fleet.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_fleet(fleet)


@pytest.mark.parametrize("name", ["devices", "wake_events"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PAR1"]
)
def test_a_cut_file_is_named(fleet: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = fleet / f"{name}.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadInput, match=rf"^{name}\.parquet: cannot be read as Parquet .*is it cut short\?"):
        read_fleet(fleet)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            "wake_events",
            lambda t: t.drop_columns(["score"]),
            "wake_events.parquet: score: this column is missing",
        ),
        (
            "wake_events",
            lambda t: t.append_column("transcript", pa.array(["hello"] * len(t))),
            "wake_events.parquet: transcript: no such column; there are: device_id, time,",
        ),
        (
            "wake_events",
            lambda t: t.set_column(4, "score", pc.greater(t["score"], 0.5)),
            "wake_events.parquet: score: is of type bool; it must be a number",
        ),
        (
            "wake_events",
            lambda t: replaced(t, "score", 2, 1.25),
            "wake_events.parquet: score: row 3: must be within [0, 1]",
        ),
        (
            "wake_events",
            lambda t: replaced(t, "snr_db", 0, float("nan")),
            "wake_events.parquet: snr_db: row 1: must be a finite number dB",
        ),
        ("wake_events", lambda t: replaced(t, "playback", 1, None), "playback: row 2: has no value"),
        (
            "wake_events",
            lambda t: replaced(t, "outcome", 5, "maybe"),
            "wake_events.parquet: outcome: row 6: must be one of true_accept, false_reject,",
        ),
        ("wake_events", lambda t: replaced(t, "model_version", 1, ""), "model_version: row 2: is empty"),
        (
            "wake_events",
            lambda t: replaced(t, "device_id", 0, "stranger"),
            "wake_events.parquet: device_id: row 1: has no row in devices.parquet",
        ),
        (
            "wake_events",
            lambda t: t.take(list(range(len(t) - 1, -1, -1))),
            "must be in the order of devices.parquet",
        ),
        (
            "listening",
            lambda t: replaced(t, "minutes", 0, 61),
            "minutes: row 1: must be within [0, 60] minutes",
        ),
        (
            "command_events",
            lambda t: replaced(t, "retries", 0, -1),
            "retries: row 1: must be finite and at least 0",
        ),
        ("devices", lambda t: t.slice(0, 0), "devices.parquet: holds no device"),
        (
            "devices",
            lambda t: replaced(t, "device_id", 1, "device-000000"),
            "devices.parquet: device_id: row 2: repeats the device of the row above",
        ),
        (
            "devices",
            lambda t: t.take([1, 0, *range(2, len(t))]),
            "devices.parquet: device_id: row 2: must be sorted",
        ),
        ("devices", lambda t: replaced(t, "accent", 0, None), "devices.parquet: accent: row 1: has no value"),
    ],
)
def test_a_wrong_table_is_named_by_file_column_and_row(
    fleet: Path, name: str, edit: Callable[[pa.Table], pa.Table], message: str
) -> None:
    change(fleet / f"{name}.parquet", edit)
    with pytest.raises(BadInput) as error:
        read_fleet(fleet)
    assert message in str(error.value)


def test_no_value_of_a_device_is_in_the_error(fleet: Path) -> None:
    change(fleet / "wake_events.parquet", lambda t: replaced(t, "outcome", 0, "secret-label"))
    change(fleet / "command_events.parquet", lambda t: replaced(t, "latency_ms", 0, -123.456))
    with pytest.raises(BadInput) as error:
        read_fleet(fleet)
    assert "outcome: row 1" in str(error.value)
    assert "latency_ms: row 1" in str(error.value)
    assert "secret-label" not in str(error.value)
    assert "123.456" not in str(error.value)


def test_the_errors_are_bounded(fleet: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        scores = pa.array([2.0] * len(table))
        return table.set_column(table.schema.get_field_index("score"), "score", scores)

    change(fleet / "wake_events.parquet", spoil)
    with pytest.raises(BadInput) as error:
        read_fleet(fleet)
    rows = pq.read_metadata(fleet / "wake_events.parquet").num_rows
    assert (
        str(error.value)
        == f"wake_events.parquet: score: rows 1, 2, 3 and {rows - 3:,} more: must be within [0, 1]"
    )


@pytest.mark.parametrize("name", ["devices", "wake_events"])
def test_text_that_is_no_utf_8_is_named(fleet: Path, name: str) -> None:
    file = fleet / f"{name}.parquet"
    change(file, spoil_a_name)
    with pytest.raises(BadInput, match=rf"{name}\.parquet"):
        read_fleet(fleet)


def spoil_a_name(table: pa.Table) -> pa.Table:
    names = [each.encode() for each in table["device_id"].to_pylist()]
    names[0] = b"\xe4" + names[0]
    return table.set_column(0, "device_id", pa.array(names, pa.binary()).view(pa.string()))


def test_a_column_whose_name_is_no_utf_8_is_a_damaged_file(fleet: Path) -> None:
    file = fleet / "devices.parquet"
    file.write_bytes(file.read_bytes().replace(b"app_version", b"\xe4pp_version"))
    with pytest.raises(BadInput, match=r"devices\.parquet: cannot be read"):
        read_fleet(fleet)


def test_metadata_without_an_end_is_no_metadata(fleet: Path) -> None:
    (fleet / "fleet.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="not a JSON file"):
        read_fleet(fleet)


def test_metadata_says_that_voices_are_synthetic(fleet: Path) -> None:
    metadata = json.loads((fleet / "fleet.json").read_text())
    assert metadata["synthetic"] is True
    assert metadata["devices"] == 20
    assert all(text.startswith("synthetic voice: ") for text in metadata["accents"].values())


def test_places_of_rows_in_chunks_of_any_kind() -> None:
    """Chunks with one dictionary, with others, with entries that no row has, plain text, and no chunk."""
    known = pa.chunked_array([["b", "a"], ["c"]])
    shared = pa.array(["a", "b", "nobody"])
    mixed = [
        pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), shared),
        pa.DictionaryArray.from_arrays(pa.array([0, None, 2], pa.int32()), shared),
        pa.DictionaryArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a", "c"])),
    ]
    assert places_in(pa.chunked_array(mixed), known).tolist() == [0, 1, 1, -1, -1, 2]
    assert places_in(pa.chunked_array([["c"], ["d", None]]), known).tolist() == [2, -1, -1]
    assert places_in(pa.chunked_array([], pa.dictionary(pa.int32(), pa.string())), known).tolist() == []


def test_one_dictionary_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary as large as the fleet in each of a hundred chunks would be looked up a hundred times."""
    looked_up = []

    def index_in(values: pa.ChunkedArray, **options: object) -> pa.ChunkedArray:
        looked_up.append(len(values))
        return pc.index_in(values, **options)

    monkeypatch.setattr("clients.evaluate.pc", SimpleNamespace(index_in=index_in))
    names = pa.array([str(number) for number in range(50)])
    chunks = [pa.DictionaryArray.from_arrays(pa.array([each], pa.int32()), names) for each in range(20)]
    assert places_in(pa.chunked_array(chunks), pa.chunked_array([names])).tolist() == list(range(20))
    assert looked_up == [50]
