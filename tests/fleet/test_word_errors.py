"""Dictation with insertions, deletions and substitutions apart, and recordings in which nobody spoke."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.evaluate import cohort_of_fleet, device_vectors
from clients.fleet.importing import import_fleet
from clients.fleet.problems import BadTables
from clients.fleet.sources import Accepting
from clients.fleet.tables import Fleet, read_fleet
from fa_core.layout import compile_plan
from fa_core.plan import load, parse
from tests.fleet.test_own_data import DEVICES, Rows, write

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SAID = {
    "device_id": "a",
    "time": "2026-11-20T07:30:00Z",
    "model_version": "m1",
    "words": 10,
    "word_errors": 4,
    "corrected": False,
    "insertions": 1,
    "deletions": 0,
    "substitutions": 3,
}
UNKNOWN = {
    name: value for name, value in SAID.items() if name not in ("insertions", "deletions", "substitutions")
}
SILENT = UNKNOWN | {"words": 0, "word_errors": 2}


def fleet_of(tmp_path: Path, rows: Rows) -> Fleet:
    source = write(tmp_path / "mine", {"devices": DEVICES, "dictation_events": rows})
    import_fleet(source, tmp_path / "out", Accepting(), NOW)
    return read_fleet(tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "row", "words"),
    [
        ({"deletions": None}, 1, "give all three or none"),
        ({"insertions": 2}, 1, "do not add up to `word_errors`"),
        ({"words": 2}, 1, "than|said"),
        ({"insertions": -1, "deletions": 2}, 1, "must be"),
    ],
)
def test_kinds_that_cannot_be_are_named_by_row(
    tmp_path: Path, changed: dict[str, Any], row: int, words: str
) -> None:
    with pytest.raises(BadTables, match=words) as error:
        fleet_of(tmp_path, [SAID, SAID | changed])
    assert f"row {row + 1}" in str(error.value) or f"rows {row + 1}" in str(error.value)


def test_rows_with_and_without_the_kinds_stand_in_one_table(tmp_path: Path) -> None:
    found = fleet_of(tmp_path, [SAID, UNKNOWN, SILENT]).tables["dictation_events"]
    assert sorted(found["insertions"].to_pylist(), key=str) == [1, None, None]


def test_each_metric_counts_its_own_words(tmp_path: Path) -> None:
    """The three rates read utterances of known kinds, the other two recordings in which nobody spoke."""
    rows = [SAID, UNKNOWN, SILENT, SILENT | {"word_errors": 0}, SAID | {"device_id": "b", "words": 8}]
    fleet = fleet_of(tmp_path, rows)
    metrics = "[insertion_rate, deletion_rate, substitution_rate, hallucinated_words, hallucination_rate]"
    text = (
        "apiVersion: fa/v1\nkind: EvalPlan\n"
        "metadata: {name: words, revision: 1, owner: t, question: How?, expires: 2099-01-01}\nwindow: 1d\n"
        f"metrics: {metrics}\nprivacy: {{epsilon: 2, max_events: 8, min_cohort: 50, counters: blocks}}\n"
    )
    plan = parse(text.encode(), "words.yaml", policy=None)
    layout = compile_plan(plan)
    cohort = cohort_of_fleet(fleet.devices, fleet.tables)
    vectors = device_vectors(plan, layout, cohort, NOW)
    size = {b.metric: vectors[:, b.slice].ravel().tolist() for b in layout.blocks if b.part == "size"}
    rates = ("insertion_rate", "deletion_rate", "substitution_rate")
    assert [size[name] for name in rates] == [[10, 8]] * 3
    assert size["hallucinated_words"] == size["hallucination_rate"] == [2, 0]
    excess = {b.metric: vectors[:, b.slice].ravel() for b in layout.blocks if b.part == "excess"}
    # b·r − a·n, for the presets' public guesses a/b.
    assert excess["insertion_rate"].tolist() == [20 * 1 - 10, 20 * 1 - 8]
    assert excess["deletion_rate"].tolist() == [0 - 10, 0 - 8]
    assert excess["substitution_rate"].tolist() == [5 * 3 - 10, 5 * 3 - 8]
    assert excess["hallucination_rate"].tolist() == [10 * 1 - 2, 0]
    assert excess["hallucinated_words"].tolist() == [1000 * 2 // 20 - 2 * 50, 0]


def test_the_shipped_plan_leaves_silence_out_of_its_rates(tmp_path: Path) -> None:
    plan = load(Path("eval_plans/dictation-errors-apart.yaml"), today=NOW.date())
    vectors = {}
    for name, rows in {
        "with": [SAID, SILENT | {"insertions": 2, "deletions": 0, "substitutions": 0}],
        "without": [SAID],
    }.items():
        fleet = fleet_of(tmp_path / name, rows)
        vectors[name] = device_vectors(
            plan, compile_plan(plan), cohort_of_fleet(fleet.devices, fleet.tables), NOW
        )
    differ = np.flatnonzero((vectors["with"] != vectors["without"]).any(axis=0))
    blocks = {
        block.metric
        for block in compile_plan(plan).blocks
        for cell in differ
        if block.slice.start <= cell < block.slice.stop
    }
    assert blocks == {"hallucination_rate"}
