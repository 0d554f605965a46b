"""A ratio of long utterances is the ratio of what they hold, not of what two clips leave of it."""

from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from clients.evaluate import cohort_of_fleet, fleet_sum, seeded_randomness
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import compile_plan
from fa_core.metrics import PartSum, centred
from fa_core.metrics.intervals import simultaneous_level
from fa_core.metrics.kind import Axis, Bounds, Reading, Shape
from fa_core.metrics.ratio import Ratio
from fa_core.plan import Plan, parse

UNTIL = datetime(2026, 5, 4, tzinfo=UTC)
FILE = "eval_plans/dictation-word-error-rate.yaml"
DEVICES = 400


def shipped() -> Plan:
    """The shipped plan, on the day that its window of the tests ends."""
    with open(FILE, "rb") as file:
        return parse(file.read(), FILE, today=UNTIL.date(), policy=None)


def of_before(plan: Plan) -> Plan:
    """The same plan as it was canonical before counters had a name: each column clipped by itself."""
    privacy = plan.privacy.model_copy(update={"counters": None, "shares": None})
    return plan.model_copy(update={"privacy": privacy})


def released(plan: Plan, words: list[int], errors: list[int]) -> float:
    """The ratio of everyone that a release without noise shows: every device has these utterances."""
    each = len(words)
    devices = [f"d{i:04d}" for i in range(DEVICES)]
    table = pa.table(
        {
            "device_id": np.repeat(devices, each),
            "time": pa.array([UNTIL - timedelta(hours=1)] * (DEVICES * each), pa.timestamp("us", tz="UTC")),
            "model_version": ["1"] * (DEVICES * each),
            "words": pa.array(words * DEVICES, pa.int64()),
            "word_errors": pa.array(errors * DEVICES, pa.int64()),
            "corrected": [False] * (DEVICES * each),
        }
    )
    facts = pa.table({"device_id": devices, "accent": ["en-US"] * DEVICES})
    cohort, layout = cohort_of_fleet(facts, {"dictation_events": table}), compile_plan(plan)
    sums = fleet_sum(plan, layout, cohort, UNTIL, seeded_randomness(3)).astype(np.float64)
    parts = {
        (block.metric, block.grouping, block.part): PartSum(sums[block.slice], 1e-9, False)
        for block in layout.blocks
    }
    (everyone,) = (each for each in estimates_of_sums(plan, parts, DEVICES) if not each.group)
    assert everyone.estimate is not None
    return everyone.estimate


def test_three_errors_in_thirty_words_are_a_tenth() -> None:
    """2,400 utterances; rounding 1.2 errors at random leaves a standard error of .0007."""
    assert released(shipped(), [30] * 6, [3] * 6) == pytest.approx(0.1, abs=6 * 0.0007)


def test_clipping_each_column_by_itself_says_a_quarter() -> None:
    """The control: what plans of before make of the same utterances, and still do."""
    assert released(of_before(shipped()), [30] * 6, [3] * 6) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("words", "errors", "expected"),
    [
        ([10], [2], 0.2),  # within both bounds: as it is
        ([24], [24], 1.0),  # both over by the same factor
        ([10], [30], 3.0),  # more errors than words: insertions
        ([12, 48], [3, 0], 3 / 24),  # a long utterance weighs as one of 12 words
        ([0, 12], [0, 6], 0.5),
    ],
)
def test_an_utterance_is_scaled_as_a_whole(words: list[int], errors: list[int], expected: float) -> None:
    assert released(shipped(), words, errors) == pytest.approx(expected, rel=0.02)


MANY = 20_000


def missed(size_in_sds: float) -> tuple[int, int]:
    """Return how many of `MANY` groups are shown, and of how many the upper one-sided 95% bound is under the
    truth: groups whose size is so many standard deviations of its noise, .45 errors a word."""
    random, sd, ratio = np.random.default_rng(9), 1000.0, 0.45
    size = size_in_sds * sd
    a, b = 1, 10
    excess = b * (ratio * size + 3 * np.sqrt(size) * random.normal(size=MANY)) - a * size
    spread = 9 * b * b * size * np.ones(MANY)
    nothing = np.zeros(MANY)
    sums = {
        "excess": PartSum(excess + 200 * b * random.normal(size=MANY), (200.0 * b) ** 2, False),
        "size": PartSum(size + sd * random.normal(size=MANY), sd**2, False),
        "devices": PartSum(nothing + 150.0, 1.0, False),
        "excess_squared": PartSum(spread, 1.0, False),
        "excess_size": PartSum(nothing, 1.0, False),
        "size_squared": PartSum(nothing, 1.0, False),
    }
    metric = Ratio(kind="ratio", source="dictation_events", of="word_errors", over="words", expect="0.1")
    shape = Shape(MANY, 1, (Axis("accent", MANY, "device"),))
    # Simultaneous over so many groups, which are to stand for six.
    with patch.object(centred, "simultaneous_level", lambda level, cells: simultaneous_level(level, 6)):
        found = metric.estimate(sums, shape, Bounds(12, None, "blocks"), Reading(0.9, 100, 1000)).numbers
    return int((~found.suppressed).sum()), int((found.high < ratio).sum())


@pytest.mark.parametrize("size_in_sds", [2.0, 2.5, 3.0, 3.5, 4.0, 6.0])
def test_bounds_of_groups_of_an_uncertain_size_miss_no_more_where_they_are_shown(size_in_sds: float) -> None:
    """At most 6.5% of one-sided 95% bounds, given shown; false alarms below 1e-7."""
    shown, under = missed(size_in_sds)
    assert under <= (stats.binom.isf(1e-8, shown, 0.065) if shown else 0)
    assert shown > 0.9 * MANY or size_in_sds < 4.0


def test_groups_that_are_shown_where_their_noise_is_lucky_are_seen() -> None:
    with patch.object(centred, "well_measured", lambda size, *rest: size > 0):
        shown, under = missed(2.0)
    assert under > stats.binom.isf(1e-8, shown, 0.065)
