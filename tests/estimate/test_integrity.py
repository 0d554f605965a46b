"""What one device moves: never more than is said, and about as much as is said where it is at its bounds."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fa_core.estimate.integrity import about_difference, about_integrity, moves
from fa_core.metrics import MetricSpec
from fa_core.metrics.count import Count
from fa_core.metrics.histogram import Histogram
from fa_core.metrics.kind import Bounds
from fa_core.metrics.mean import Mean
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.metrics.rate import Rate
from fa_core.metrics.rate_per_hour import RatePerHour
from fa_core.metrics.ratio import Ratio
from fa_core.plan import from_canonical
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.privacy.zcdp import conversion
from fa_core.values import Judgement
from tests.rounds.small import World, small_plan

N = 16
BOUNDS = Bounds(N, counters="joint")
KINDS: dict[str, tuple[MetricSpec, int, int, int]] = {
    # a kind; the most of its size in one device; the least and the most of its count for a size of one
    "rate": (Rate.model_validate({"expect": "1/20", "of": {}}), N, 0, 1),
    "rate around a half": (Rate.model_validate({"of": {}}), N, 0, 1),
    "paired": (
        PairedDifference.model_validate({"of": {}, "compare": {"baseline": "1", "candidate": "2"}}),
        N,
        -1,
        1,
    ),
    "mean": (Mean.model_validate({"field": "score", "clip": {"from": 10, "to": 20}}), N, 0, 1000),
    "ratio": (Ratio.model_validate({"of": "word_errors", "over": "words", "max_over": 1}), N, 0, 32),
    "per hour": (RatePerHour.model_validate({"of": {}, "max_hours": 3}), 180, 0, 4),
}


def shown(metric: MetricSpec, count: float, size: float) -> float:
    offset, factor, _, _ = metric.display()  # type: ignore[attr-defined]
    return float(offset + factor * count / size)


def largest(name: str, seed: int) -> tuple[float, float]:
    """(the largest share of the figure that a random device moved, and that a device at its bounds did)."""
    metric, most, low, high = KINDS[name]
    random = np.random.default_rng(seed)
    sizes = random.integers(0, most, 60, endpoint=True)
    if name == "per hour":  # four events an hour, whatever part of it was heard
        counts = random.integers(0, 4 * np.ceil(sizes / 60), endpoint=True)
    else:
        counts = random.integers(low * sizes, high * sizes, endpoint=True)
    size, count = {"per hour": (3, 12)}.get(name, (most, high * most))  # every event in its first minute
    sizes, counts = np.append(sizes, size), np.append(counts, count)
    number, total = shown(metric, counts.sum(), sizes.sum()), float(sizes.sum())
    figure = metric.one_device(BOUNDS, number, total)
    assert figure is not None
    moved = [
        abs(number - shown(metric, counts.sum() - count, sizes.sum() - size))
        for count, size in zip(counts, sizes, strict=True)
    ]
    return max(moved) / figure, moved[-1] / figure


@pytest.mark.parametrize("name", KINDS)
def test_no_device_moves_a_number_by_more_than_is_said(name: str) -> None:
    for seed in range(50):
        assert largest(name, seed)[0] <= 1 + 1e-9


@pytest.mark.parametrize("name", KINDS)
def test_a_device_at_its_bounds_moves_a_good_part_of_it(name: str) -> None:
    """The control: with a third of the figure the test above fails for each kind."""
    assert max(largest(name, seed)[1] for seed in range(50)) > 1 / 3


def test_a_share_and_a_count() -> None:
    histogram = Histogram.model_validate({"field": "score", "edges": {"from": 0, "to": 1, "bins": 5}})
    assert histogram.one_device(BOUNDS, 0.25, 1016.0) == pytest.approx(16 * 0.75 / 1000)
    assert histogram.one_device(BOUNDS, 0.25, 10.0) == 1.0
    assert Count.model_validate({}).one_device(BOUNDS, 500.0, 60.0) == 16.0
    rate, *_ = KINDS["rate"]
    assert rate.one_device(BOUNDS, 0.1, 10.0) == 1.0


def test_the_sentence_stands_beside_verdicts_with_its_number(tmp_path: Path) -> None:
    world = World.make(tmp_path, 10)
    release, estimates = world.run(small_plan(cohort=6))
    world.store.close()
    plan = from_canonical(release.plan)
    (first, *_) = estimates.results
    known = replace(first, estimate=0.1, low=0.05, high=0.15, denominator=1616.0, suppressed=False, reason="")
    judged = Judgement("misses", (), "max 0.08", "met", None, None, None, "every group is at most 0.08")
    told = replace(estimates, results=(known,), judgements=(judged,))
    # 16 events, 0.95 of them off the centre of 0.05, and 0.05 more: 16 of 1,600
    assert [each.by for each in moves(plan, told)] == [pytest.approx(0.01)]
    text = about_integrity(plan, told)
    assert text == (
        "Integrity assumes honest devices: one within its bounds moves misses by at most 1.0 points "
        "(everyone); a dishonest one can move any number as far as all devices together could."
    )
    assert "misses by at most 2 points (everyone)" in about_difference([(plan, told), (plan, told)])
    assert about_integrity(None, told) == (
        "Integrity assumes honest devices: a dishonest one can move any number as far as all devices "
        "together could."
    )


def test_how_many_spoiled_rounds_use_up_a_year() -> None:
    """docs/threat-model.md says these numbers of the default budgets."""
    policy = DEFAULT_POLICIES["zcdp"]
    said = {4: (8, 1), 2: (31, 3), 1: (116, 14)}
    for epsilon, numbers in said.items():
        found = conversion(Fraction(epsilon), Fraction(1, 10**8))
        assert found is not None
        assert (policy.year // found[0], policy.week // found[0]) == numbers
