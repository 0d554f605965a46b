"""Detections without ground truth: wakes per hour of listening, and how their scores are distributed."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from clients.evaluate import cohort_of_fleet, device_vectors
from fa_core.estimate.preview import preview
from fa_core.layout import compile_plan
from fa_core.metrics.presets import PRESETS
from fa_core.plan import Plan, parse
from fa_core.tables import DETECTIONS, LISTENING

UNTIL = datetime(2026, 11, 21, tzinfo=UTC)
PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: wakes, revision: 1, owner: tests, question: How often?, expires: 2099-01-01}
window: 1d
metrics: METRICS
privacy: {epsilon: 2, max_events: 8, min_cohort: 50, counters: blocks}
"""
AT = {"wake_word": "okay_nabu", "model_version": "m1", "playback": False}


def plan(metrics: str = "[wakes_per_hour, detection_scores]") -> Plan:
    return parse(PLAN.replace("METRICS", metrics).encode(), "wakes.yaml", policy=None)


def table(source: object, rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=source.arrow_schema(device_id=True))  # type: ignore[attr-defined]


def counts(detections: list[dict[str, object]]) -> dict[tuple[str, str], list[list[int]]]:
    """Return each device's counts by metric and part, for two devices that listened for two hours each."""
    start = UNTIL - timedelta(hours=5)
    hours = [
        {"device_id": name, "time": start + timedelta(hours=hour), "snr_db": None, "minutes": 60} | AT
        for name in ("a", "b")
        for hour in (0, 1)
    ]
    rows = [AT | {"snr_db": None, "device_id": "a"} | row for row in detections]
    devices = pa.table({"device_id": ["a", "b"]})
    cohort = cohort_of_fleet(
        devices, {"detections": table(DETECTIONS, rows), "listening": table(LISTENING, hours)}
    )
    asked = plan()
    layout = compile_plan(asked)
    vectors = device_vectors(asked, layout, cohort, UNTIL)
    return {(block.metric, block.part): vectors[:, block.slice].tolist() for block in layout.blocks}


def at(minutes: float, score: float | None) -> dict[str, object]:
    return {"time": UNTIL - timedelta(hours=5) + timedelta(minutes=minutes), "score": score}


def test_wakes_are_counted_in_the_hours_of_listening_that_they_fall_into() -> None:
    """At most four an hour count; one that falls into no hour of listening counts nowhere."""
    found = counts([*(at(minute, 0.9) for minute in range(6)), at(61, 0.8), at(150, 0.9)])
    size = [[120], [120]]
    assert found["wakes_per_hour", "size"] == size
    per_minute = 1 / 120  # the centre: 0.5 an hour
    (excess_a,), (excess_b,) = found["wakes_per_hour", "excess"]
    assert (excess_a, excess_b) == pytest.approx((120 * (5 - 120 * per_minute), -120))


def test_scores_fall_into_bins_and_an_unknown_score_into_none() -> None:
    found = counts([at(1, 0.97), at(2, 0.52), at(3, None)])
    cells = found["detection_scores", "cells"]
    assert [index for index, count in enumerate(cells[0]) if count] == [10, 19]
    assert sum(cells[1]) == 0


def test_both_presets_are_previewed() -> None:
    found = preview(plan(), 5000, 20.0, None)
    assert {item.metric for item in found.expectations} == {"wakes_per_hour", "detection_scores"}
    assert all(item.half_width is not None for item in found.expectations if item.metric == "wakes_per_hour")


def test_outcomes_are_no_column_of_detections() -> None:
    with pytest.raises(Exception, match="has no column `outcome`"):
        plan("{wakes: {kind: rate_per_hour, source: detections, of: {outcome: false_accept}}}")


def test_the_presets_name_their_table() -> None:
    assert {name for name, body in PRESETS.items() if body["source"] == "detections"} == {
        "wakes_per_hour",
        "detection_scores",
    }
