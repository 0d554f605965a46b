"""A proposed bound keeps its promise on the very devices that it was not shown."""

from datetime import date

import numpy as np
import pytest

from fa_core.estimate.bounds import CLIPPED, proposals
from fa_core.metrics import PartSum
from fa_core.plan import parse

N, NOW = 64, 10
PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: weekly, revision: 1, owner: tests, question: Who is missed?, expires: 2099-01-01}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [a, b]}
  noise: {event: snr_db, edges: [8], labels: [noisy, quiet]}
group_by: [[accent], [noise]]
metrics:
  missed:
    {kind: rate, of: {outcome: false_reject}, over: {outcome: [false_reject, true_accept]}, expect: 0.05}
privacy: {epsilon: 4, delta: 1e-8, noise: central, secure_aggregation: false, max_events: 64, max_excess: 10,
  min_cohort: 50}
"""


def plan():
    return parse(PLAN.encode(), "weekly.yaml", today=date(2026, 1, 1))


def devices(seed, rates=(0.05, 0.2, 0.1), many=2000):
    """T in twentieths of an event, by group, of devices whose rates differ."""
    random = np.random.default_rng(seed)
    found = []
    for rate in rates:
        misses = random.binomial(N, random.beta(8 * rate, 8 * (1 - rate), many))
        found.append(20 * misses - N)
    return np.array(found)


def lost(t, bound):
    """What a bound takes off each group's numerator: the definition, one device at a time."""
    limit = 20 * bound
    return np.array([sum(max(0, x - limit) - max(0, -x - limit) for x in group) for group in t.tolist()])


def sums_of(t, noise=0.0, grouping=("accent",)):
    many = np.full(len(t), t.shape[1], float)
    return {
        ("missed", grouping, CLIPPED): PartSum(lost(t, NOW).astype(float), noise, False),
        ("missed", grouping, "size"): PartSum(N * many, noise, False),
        ("missed", grouping, "devices"): PartSum(many, noise, False),
    }


@pytest.mark.parametrize("width", [0.001, 0.01, 0.03, 0.1])
def test_the_bias_of_every_group_stays_under_the_width(width):
    for seed in range(5):
        t = devices(seed)
        (found,) = proposals(plan(), sums_of(t), width)
        true = lost(t, found.bound) / (20 * N * t.shape[1])
        assert np.abs(true).max() <= found.bias <= width
        assert found.now == NOW


def test_a_wider_width_takes_a_smaller_bound_and_none_clips_nothing():
    t = devices(1)
    bounds = [proposals(plan(), sums_of(t), width)[0].bound for width in (1e-9, 0.001, 0.01, 0.1, 1.0)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 61  # ⌈0.95·64⌉
    assert bounds[-1] < NOW < bounds[1]


def test_the_smallest_is_proposed():
    """One less and the bound on the bias, by the same rule, is over the width."""
    t = devices(2)
    (found,) = proposals(plan(), sums_of(t), 0.01)
    most, x = 61, lost(t, NOW).max()
    assert x * (most - found.bound) / (most - NOW) <= 0.01 * 20 * N * t.shape[1] * (1 + 1e-9)
    assert x * (most - found.bound + 1) / (most - NOW) > 0.01 * 20 * N * t.shape[1]


def test_noise_makes_it_cautious_and_groups_without_events_are_reported():
    t = devices(3)
    (exact,), (noisy,) = proposals(plan(), sums_of(t), 0.01), proposals(plan(), sums_of(t, 1e8), 0.01)
    assert noisy.bound > exact.bound
    assert noisy.untold == 0
    assert proposals(plan(), sums_of(t, 1e12), 0.01) == ()


def test_devices_on_both_sides_of_the_centre_get_no_proposal():
    """In groups by event one device's losses may be of both signs and hide each other."""
    assert proposals(plan(), sums_of(devices(4)[:2], grouping=("noise",)), 0.01) == ()


def test_a_rule_that_took_the_clipped_mass_for_all_there_is_would_break_the_promise():
    """The control: believing that a smaller bound takes no more than the present one is wrong."""
    t = devices(5)
    assert np.abs(lost(t, 2)).max() > 2 * np.abs(lost(t, NOW)).max()
