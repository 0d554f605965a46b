"""Intervals of the groups that are worst served: broken microphones, a dispersed accent, rates near a half.

Each fleet has several groups alike, so that one release tests several intervals. Statistical: a fleet fails
where so few intervals hold as a coverage of 94% gives with probability below 5e-8, by exact binomial tails of
the intervals counted (groups of one release share next to nothing); twelve such bounds, so that false alarms
stay below 1e-6 even for fleets drawn anew. Fleets and noise come by seed: no run fails by chance.
Each of the two defects that an audit found is put back and must fail the same test.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import bounds_of, compile_plan, groupings, shape_of
from fa_core.metrics import PartSum, centred, joint_ratio
from fa_core.metrics.count import Count
from fa_core.metrics.intervals import lean_on_others
from fa_core.metrics.joint import Domain, mapped, matrix
from fa_core.metrics.kind import Axis, Bounds, Reading, Shape, Units
from fa_core.metrics.rate import Rate
from fa_core.plan import Plan, parse

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ALARM = 5e-8
NOISE = 1e8
"""Standard deviation of the noise on a sum of squared excesses, as large as any of those sums."""

MOST = 24


@dataclass(frozen=True)
class Fleet:
    """Groups of devices alike: `size` devices in each, and what each device's own rate is drawn from.

    `calm` more groups of as many devices at a rate of .1 stand beside them and are not looked at. `counters`
    is how the counts are sent.
    """

    groups: int
    size: int
    rate: Callable[[np.random.Generator, int], Floats]
    truth: float
    releases: int
    calm: int = 0
    epsilon: float = 2.0
    counters: str = "joint"


def broken_microphones(random: np.random.Generator, devices: int) -> Floats:
    """3% of the devices miss 97%, the others 2%."""
    return np.where(random.random(devices) < 0.03, 0.97, 0.02)


def spread_out(p: float, kappa: float) -> Callable[[np.random.Generator, int], Floats]:
    return lambda random, devices: random.beta(kappa * p, kappa * (1 - p), devices)


FLEETS = {
    "broken microphones": Fleet(8, 4000, broken_microphones, 0.03 * 0.97 + 0.97 * 0.02, 60),
    "two kinds of devices, half and half": Fleet(
        8, 2000, lambda random, devices: random.choice([0.2, 0.7], devices), 0.45, 60
    ),
    "an accent unlike the others": Fleet(1, 100, spread_out(0.3, 1.0), 0.3, 120, calm=10, epsilon=20.0),
    "an accent unlike the others, in blocks": Fleet(
        1, 100, spread_out(0.3, 1.0), 0.3, 400, calm=10, epsilon=20.0, counters="blocks"
    ),
}
every_fleet = pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS)


def plan_of(fleet: Fleet) -> Plan:
    names = ", ".join(f"a{index:02d}" for index in range(fleet.groups + fleet.calm - 1))
    text = f"""
apiVersion: fa/v1
kind: EvalPlan
metadata: {{name: worst, revision: 1, owner: tests, question: Who is worst served?, expires: 2099-01-01}}
source: wake_events
window: 7d
segments: {{accent: {{device: accent, values: [{names}]}}}}
group_by: [[], [accent]]
metrics: {{m: {{kind: rate, of: {{accepted: false}}, over: {{}}, expect: 0.1}}}}
privacy:
  {{epsilon: {fleet.epsilon}, noise: central, counters: {fleet.counters}, max_events: {MOST}, min_cohort: 50}}
"""
    return parse(text.encode(), "worst.yaml", today=date(2026, 1, 1), policy=None)


@dataclass(frozen=True)
class Found:
    """Intervals of the groups looked at: how many there were, held the truth, and missed on either side."""

    shown: int
    held: int
    under: int
    over: int

    def reaches(self, least: float) -> bool:
        """Whether as many hold as chance allows for a coverage of `least`."""
        return self.held >= stats.binom.ppf(ALARM, self.shown, least)


def look(fleet: Fleet, seed: int = 3) -> Found:
    plan, random = plan_of(fleet), np.random.default_rng(seed)
    layout, metric, bounds = compile_plan(plan), plan.metrics["m"], bounds_of(plan)
    everyone, (groups, devices) = fleet.groups + fleet.calm, (fleet.groups, fleet.size)
    owner = np.arange(everyone * devices)
    group = owner // devices
    found = np.zeros(4, np.int64)
    for _ in range(fleet.releases):
        rate = np.concatenate(
            (fleet.rate(random, groups * devices), random.beta(2, 18, fleet.calm * devices))
        )
        n = np.minimum(1 + random.poisson(random.lognormal(3.0, 0.6, len(owner))), MOST)
        units = {"units": Units(None, owner, owner, {"count": random.binomial(n, rate), "size": n})}  # type: ignore[arg-type]
        sums, blocks = {}, iter(layout.blocks)
        for grouping in groupings(metric, plan):
            of = (lambda unit: group) if grouping else (lambda unit: 0 * unit.device)
            counts = metric.count(units, of, shape_of(plan, grouping), bounds, len(owner))
            for values, block in zip(counts.values(), blocks, strict=False):
                variance = float(block.variance)
                noise = np.rint(random.normal(0.0, variance**0.5, block.cells))
                sums["m", grouping, block.part] = PartSum(values.sum(axis=0) + noise, variance, False)
        results = [each for each in estimates_of_sums(plan, sums, len(owner)) if each.group]
        for result in results[:groups]:
            if result.low is not None and result.high is not None:
                under, over = fleet.truth < result.low, fleet.truth > result.high
                found += (1, not (under or over), under, over)
    return Found(*found.tolist())


@every_fleet
def test_intervals_hold_for_the_worst_served(fleet: Fleet) -> None:
    found = look(fleet)
    assert found.shown > 0.9 * fleet.groups * fleet.releases
    assert found.reaches(0.94), found
    # Guardrails rest on one side at a time: at most 3.5% beyond either, of a nominal 2.5%.
    for side in (found.under, found.over):
        assert side <= stats.binom.isf(ALARM, found.shown, 0.035), found


class TestDefectsPutBack:
    """What an audit found in the sums of before, put back: the test above must fail."""

    def test_squares_of_counts_clipped_at_half_of_what_they_may_be(self) -> None:
        """No device seems to miss more than it may by half: more devices do not help."""
        with clipped_squares():
            assert not look(replace(FLEETS["broken microphones"], releases=25)).reaches(0.94)

    def test_a_variance_shrunk_towards_that_of_calm_groups(self) -> None:
        with shrunk():
            assert not look(FLEETS["an accent unlike the others, in blocks"]).reaches(0.94)


@contextmanager
def clipped_squares() -> Iterator[None]:
    """Measure how much devices differ from counts that are clipped at half of their bound around .1."""

    def clipped(name: Any, domain: Domain, n: Ints, r: Ints) -> Ints:
        half = 0.9 * domain.units / 2
        near = 0.1 * n + np.clip(r - 0.1 * n, -half, half)
        u = np.stack([n > 0, n, r, n * n, n * near, near * near], axis=-1)
        found: Ints = np.rint(u @ np.array(matrix(name, domain)).T).astype(np.int64)
        return found

    with patch.object(joint_ratio, "mapped", clipped):
        yield


@contextmanager
def shrunk() -> Iterator[None]:
    """Let each group's variance lean on the others' (empirical Bayes), as it did."""

    with patch.object(centred, "own_or_more", lean_on_others):
        yield


def test_the_clip_that_is_put_back_is_the_only_change() -> None:
    """The control's map is the real one where no device is clipped."""
    domain, draw = Domain(MOST, 1, 1, False), np.random.default_rng(5)
    n = draw.integers(0, MOST + 1, 200)
    r = draw.binomial(n, 0.05)
    with clipped_squares():
        near = joint_ratio.mapped("rate", domain, n, r)
    np.testing.assert_array_equal(near, mapped("rate", domain, n, r))


def test_a_count_that_is_unlike_the_others_keeps_its_own_variance() -> None:
    """Calm groups beside it make its interval no narrower than groups like it, save in plans of before."""

    def half_width(others: float, counters: str | None) -> float:
        metric, shape = Count(of={}), Shape(6, 1, (Axis("accent", 6, "device"),))
        sums = {
            "events": PartSum(np.full(6, 4000.0), 100.0, laplace=False),
            "devices": PartSum(np.full(6, 1000.0), 100.0, laplace=False),
            "squares": PartSum(np.array([*[others] * 5, 60_000.0]), 20_000.0**2, laplace=False),
        }
        bounds = Bounds(MOST, None, counters)
        found = metric.estimate(sums, shape, bounds, Reading(0.95, 50, 6000)).numbers
        return float(found.high[5] - found.low[5])

    assert half_width(5000.0, "joint") == pytest.approx(half_width(60_000.0, "joint"), rel=1e-9)
    assert half_width(5000.0, None) < 0.8 * half_width(60_000.0, None)


def test_a_variance_that_noise_hides_is_not_believed_under_pure_accounting() -> None:
    """One group's came out far too low, and those of the others are known to be small."""

    def half_width(measured: float) -> float:
        hidden = np.array([0.0, 0.0, 0.0, measured])
        sums = {
            "excess": PartSum(np.zeros(4), 1.0, laplace=True),
            "size": PartSum(np.full(4, 20_000.0), 1.0, laplace=True),
            "devices": PartSum(np.full(4, 1_000.0), 1.0, laplace=True),
            "excess_squared": PartSum(hidden, NOISE**2, laplace=True),
            "excess_size": PartSum(np.zeros(4), 1.0, laplace=True),
            "size_squared": PartSum(np.full(4, 400_000.0), 1.0, laplace=True),
        }
        shape = Shape(4, 1, (Axis("accent", 4, "device"),))
        rate = Rate(of={"outcome": "false_reject"}, over={}, expect=Fraction(1, 10))
        found = rate.estimate(sums, shape, Bounds(MOST, None, "blocks"), Reading(0.95, 50, 4_000)).numbers
        return float(found.high[3] - found.low[3]) / 2

    b = 10  # the excess counts b·r − a·n
    least = np.sqrt(centred.MEASURED * NOISE / b**2) / 20_000
    assert half_width(-NOISE) > 1.96 * least
    with patch.object(centred, "MEASURED", 0.0):
        assert half_width(-NOISE) < 1.96 * least
