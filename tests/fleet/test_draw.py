"""A drawn fleet: the same for the same seed, its tables fit each other, and its truth is the truth."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from clients.fleet.bank import MODEL_VERSIONS
from clients.fleet.habits import TELEVISION_HOURS
from clients.fleet.make import CHUNK, make_fleet
from clients.fleet.tables import Fleet, read_fleet
from clients.fleet.voices import ACCENTS
from fa_core.errors import BadInput
from fa_core.tables import LISTENING_KEY, OUTCOMES, SOURCES
from tests.fleet.small import small_bank

UNTIL = datetime(2026, 11, 22, tzinfo=UTC)
DEVICES = 1_500
KEY = ["device_id", *LISTENING_KEY]


def make(out: Path, devices: int = DEVICES, seed: int = 7) -> Path:
    make_fleet(small_bank(), devices, out, seed=seed, until=UNTIL, progress=lambda done, total: None)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fleet") / "drawn")


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Fleet:
    return read_fleet(folder)


@pytest.fixture(scope="module")
def wakes(fleet: Fleet) -> pd.DataFrame:
    return plain(fleet, "wake_events")


@pytest.fixture(scope="module")
def truth(folder: Path) -> pd.DataFrame:
    table = pd.read_parquet(folder / "truth.parquet")
    labels = table.select_dtypes("category").columns
    return table.astype(dict.fromkeys(labels, object))


def plain(fleet: Fleet, name: str) -> pd.DataFrame:
    table = fleet.tables[name].to_pandas()
    return table.astype(dict.fromkeys(table.select_dtypes("category").columns, object))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(folder: Path, tmp_path: Path) -> None:
    assert contents(make(tmp_path / "again")) == contents(folder)
    assert contents(make(tmp_path / "other", seed=8)) != contents(folder)


def test_a_fleet_says_what_it_is(fleet: Fleet, folder: Path) -> None:
    assert fleet.synthetic
    assert fleet.until == UNTIL
    assert len(fleet.devices) == DEVICES
    assert set(fleet.tables) == set(SOURCES) - {"detections"}
    assert set(fleet.devices["accent"].to_pylist()) <= {accent.label for accent in ACCENTS}
    assert {file.suffix for file in folder.iterdir()} == {".parquet", ".json"}


def test_everything_happened_within_seven_days(fleet: Fleet) -> None:
    for name in fleet.tables:
        times = plain(fleet, name)["time"]
        assert times.min() >= pd.Timestamp(UNTIL) - pd.Timedelta(days=7)
        assert times.max() < pd.Timestamp(UNTIL)


def test_weeks_are_alike_but_for_the_game_show_of_the_last(tmp_path: Path) -> None:
    out = tmp_path / "fleet"
    make_fleet(small_bank(), 300, out, seed=7, until=UNTIL, progress=lambda done, total: None, weeks=2)
    read_fleet(out)
    truth = pd.read_parquet(out / "truth.parquet")
    truth = truth[(truth["source"] == "wake_events") & (truth["model_version"] == MODEL_VERSIONS[0])]
    last = truth["time"] >= pd.Timestamp(UNTIL) - pd.Timedelta(days=7)
    assert truth["time"].min() < pd.Timestamp(UNTIL) - pd.Timedelta(days=13)
    # Two Poisson counts with the same mean: below 1e-9 over all seeds.
    first_wakes, last_wakes = truth[~last]["events"].sum(), truth[last]["events"].sum()
    assert abs(last_wakes - first_wakes) < 6.2 * math.sqrt(first_wakes + last_wakes)
    evening = truth["time"].dt.hour.isin(TELEVISION_HOURS)
    assert truth[evening & last]["false_accept"].mean() > 2 * truth[evening & ~last]["false_accept"].mean()
    assert (
        truth[~evening & last]["false_accept"].mean() < 1.5 * truth[~evening & ~last]["false_accept"].mean()
    )


def test_a_listening_key_is_there_once_and_every_event_has_its_own(fleet: Fleet, wakes: pd.DataFrame) -> None:
    listening = plain(fleet, "listening")
    assert not listening.duplicated(KEY).any()
    events = wakes.assign(moment=wakes["time"], time=wakes["time"].dt.floor("h"))
    joined = events.merge(listening, on=KEY, how="left", suffixes=("", "_heard"), validate="many_to_one")
    assert joined["minutes"].notna().all()
    assert (joined["snr_db"] == joined["snr_db_heard"]).all()
    assert ((joined["moment"] - joined["time"]).dt.total_seconds() < 60 * joined["minutes"]).all()


def test_both_models_score_the_same_utterances(wakes: pd.DataFrame) -> None:
    pair = ["device_id", "time", "wake_word"]
    a, b = (wakes[wakes["model_version"] == model] for model in MODEL_VERSIONS)
    pairs = a.merge(b, on=pair, suffixes=("_a", "_b"), validate="one_to_one")
    assert len(pairs) == len(a) == len(b)
    assert (pairs["snr_db_a"] == pairs["snr_db_b"]).all()
    meant = {"true_accept", "false_reject"}
    assert (pairs["outcome_a"].isin(meant) == pairs["outcome_b"].isin(meant)).all()
    assert (pairs["score_a"] != pairs["score_b"]).any()


def test_some_use_their_device_much_more_than_others(wakes: pd.DataFrame) -> None:
    meant = wakes[wakes["outcome"].isin(["true_accept", "false_reject"])]
    each = meant.groupby("device_id").size()
    assert each.quantile(0.95) > 3 * each.median()


def tolerance(expected: float, largest: float = 1.0) -> float:
    """Return t with P(|sum - expected| >= t) < 1e-9, for a sum of independent terms within [0, largest].

    Bernstein's inequality with variance at most largest * expected; it holds for Poisson counts too.
    """
    log = math.log(2 / 1e-9)
    return largest * log / 3 + math.sqrt((largest * log / 3) ** 2 + 2 * largest * expected * log)


def wake_sums(
    wakes: pd.DataFrame, truth: pd.DataFrame, fleet: Fleet, labelled_by: dict[str, str]
) -> Iterator[tuple[float, float]]:
    """Yield (recorded, expected) for each model, outcome, and all devices or one group of them."""
    devices = fleet.devices.to_pandas().assign(anything="all")
    wakes, truth = wakes.merge(devices, on="device_id"), truth.merge(devices, on="device_id")
    for model in MODEL_VERSIONS:
        happened = wakes[wakes["model_version"] == model]
        labelled = truth[(truth["source"] == "wake_events") & (truth["model_version"] == labelled_by[model])]
        for by in ("anything", "accent", "device_class", "snr_db", "playback", "app_version"):
            counted = happened.groupby([by, "outcome"]).size()
            means = labelled.groupby(by)[list(OUTCOMES)].sum()
            for group, row in means.iterrows():
                yield from ((counted.get((group, outcome), 0), row[outcome]) for outcome in OUTCOMES)


def test_what_happened_was_to_be_expected(fleet: Fleet, wakes: pd.DataFrame, truth: pd.DataFrame) -> None:
    """False-alarm rate: under 3e-7 over about 220 sums at 1e-9 each, by Bernstein's inequality."""
    labelled_by = {model: model for model in MODEL_VERSIONS}
    sums = list(wake_sums(wakes, truth, fleet, labelled_by))
    assert len(sums) > 100
    assert all(abs(recorded - expected) < tolerance(expected) for recorded, expected in sums)


def test_the_other_models_truth_is_found_out(fleet: Fleet, wakes: pd.DataFrame, truth: pd.DataFrame) -> None:
    labelled_by = dict(zip(MODEL_VERSIONS, reversed(MODEL_VERSIONS), strict=True))
    sums = wake_sums(wakes, truth, fleet, labelled_by)
    assert any(abs(recorded - expected) >= tolerance(expected) for recorded, expected in sums)


def capped(each: pd.DataFrame, cap: int) -> tuple[float, float]:
    """Return the sums of x and n over devices that weigh at most `cap` events (`clients.fleet.make`)."""
    weight = (cap / each["n"].clip(lower=1e-9)).clip(upper=1.0)
    return float((weight * each["x"]).sum()), float((weight * each["n"]).sum())


@pytest.mark.parametrize("cap", [8, 64])
def test_the_capped_estimand_is_what_capped_devices_send(
    wakes: pd.DataFrame, truth: pd.DataFrame, cap: int
) -> None:
    """False-alarm rate 1e-9, by Bernstein's inequality on the numerator; a cap only shrinks its terms."""
    labelled = truth[(truth["source"] == "wake_events") & (truth["model_version"] == "micro-1")]
    labelled = labelled.assign(
        x=labelled["false_reject"], n=labelled["true_accept"] + labelled["false_reject"]
    )
    happened = wakes[wakes["model_version"] == "micro-1"]
    happened = happened.assign(x=happened["outcome"] == "false_reject")
    happened = happened.assign(n=happened["x"] | (happened["outcome"] == "true_accept"))
    expected, of = capped(labelled.groupby("device_id")[["x", "n"]].sum(), cap)
    found, sent = capped(happened.groupby("device_id")[["x", "n"]].sum(), cap)
    assert abs(found / sent - expected / of) < tolerance(expected) / of


@pytest.mark.parametrize(
    ("source", "column", "largest"),
    [
        ("command_events", "corrected", 1),
        ("command_events", "succeeded", 1),
        ("dictation_events", "corrected", 1),
        ("dictation_events", "words", 20),
        ("dictation_events", "word_errors", 20),
    ],
)
def test_commands_and_dictation_were_to_be_expected(
    fleet: Fleet, truth: pd.DataFrame, source: str, column: str, largest: float
) -> None:
    """False-alarm rate 1e-9 each, as above."""
    labelled = truth[truth["source"] == source]
    happened = plain(fleet, source)
    assert labelled["events"].sum() == len(happened) > 0
    expected = labelled[column].sum()
    assert expected > 0
    assert abs(happened[column].sum() - expected) < tolerance(expected, largest)


def test_the_incident_shows_in_its_hours_class_and_playback_only(fleet: Fleet, wakes: pd.DataFrame) -> None:
    listening = plain(fleet, "listening").merge(fleet.devices.to_pandas(), on="device_id")
    listening["false_accepts"] = 0
    false_accepts = wakes[wakes["outcome"] == "false_accept"]
    counts = false_accepts.assign(time=false_accepts["time"].dt.floor("h")).groupby(KEY).size()
    listening = listening.join(counts.rename("found"), on=KEY).fillna({"found": 0})
    inside = (
        listening["time"].dt.hour.isin(TELEVISION_HOURS)
        & listening["playback"]
        & (listening["device_class"] == "speaker")
    )
    assert listening.loc[inside, "found"].mean() > 5 * listening.loc[~inside, "found"].mean()


def test_chunks_join_into_one_fleet(tmp_path: Path) -> None:
    fleet = read_fleet(make(tmp_path / "large", CHUNK + 3))
    assert len(fleet.devices) == CHUNK + 3
    assert len(set(fleet.devices["device_id"].to_pylist())) == CHUNK + 3


@pytest.mark.parametrize("devices", [0, -1])
def test_a_fleet_without_devices_is_refused(tmp_path: Path, devices: int) -> None:
    with pytest.raises(BadInput, match="at least one device"):
        make(tmp_path / "none", devices)
    assert not list(tmp_path.iterdir())


def test_one_device_is_a_fleet(tmp_path: Path) -> None:
    assert len(read_fleet(make(tmp_path / "one", 1)).devices) == 1


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    kept = tmp_path / "out" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(BadInput, match="already exists and is not empty"):
        make(kept.parent)
    assert kept.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_draw_that_stops_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_fleet(small_bank(), 3, tmp_path / "out", seed=1, until=UNTIL, progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_bank_with_empty_cells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lacks utterances"):
        make_fleet(
            small_bank().slice(0, 100), 3, tmp_path / "out", seed=1, until=UNTIL, progress=lambda *_: None
        )
    assert not list(tmp_path.iterdir())
