"""A small form of the bench: the gate's false rollbacks and shipments, beside gates that are wrong.

Statistical, with fleets and noise by seed, so that no run fails by chance. Drawn anew, a sound gate would
fail where so many rollouts went wrong as a rate of 5% gives with probability below 1e-7, in each of five
figures; the rates of the controls (.6, .13 and .4 in the bench) and of what is seen (.98) are further than
five standard deviations from what is asked of them: false alarms below 1e-6 in all.
"""

from functools import cache

import numpy as np
import pytest

from fa_core.layout import bounds_of, shape_of
from fa_core.metrics.nested import Cut, consistent
from scripts.bench.rollout import SMALL_ACCENT, Case, Outcome, Rate, fails, simulate
from scripts.bench.rollouts.fleets import noise_of, noised, plan_of
from scripts.bench.rollouts.pools import drawn, exactly, labels, pool

POINT = 0.01


@cache
def at_the_boundary() -> Outcome:
    """Every accent one point worse, moments of a device alike by .5, 20,000 devices."""
    return simulate(Case(20_000, alike=1.0, worse=POINT), 500, ("gate", "naive", "alone", "added"))


def within(rate: Rate) -> bool:
    return rate.above(0.05) > 1e-7


def test_rollbacks_and_shipments_at_their_boundaries() -> None:
    found = at_the_boundary()
    assert within(found.rolled_back["gate"])
    assert within(found.shipped["gate"])


@pytest.mark.parametrize("control, least", [("naive", 0.20), ("alone", 0.05), ("added", 0.15)])
def test_gates_that_are_wrong_are_caught(control: str, least: float) -> None:
    rate = at_the_boundary().rolled_back[control]
    assert rate.share > least
    assert control == "alone" or fails(rate)


def test_a_worse_accent_is_rolled_back_and_an_equal_candidate_is_shipped() -> None:
    worse = simulate(Case(20_000, 0.05, worst={SMALL_ACCENT: (3 * POINT, 20.0)}), 200, ("gate",))
    assert worse.rolled_back["gate"].share > 0.9
    assert within(worse.shipped["gate"])
    equal = simulate(Case(20_000, 0.05), 200, ("gate",))
    assert equal.shipped["gate"].share > 0.9
    assert within(equal.rolled_back["gate"])


def test_an_equal_candidate_of_which_half_is_marked() -> None:
    found = simulate(Case(20_000, 0.05, marked=0.5, counted=True), 200, ("gate", "labelled"))
    assert within(found.rolled_back["gate"])
    assert fails(found.rolled_back["labelled"])


def test_pools_are_as_wished() -> None:
    random = np.random.default_rng(1)
    heard = drawn(random, 4.0, 4, 2 * POINT)
    made = pool(random, heard)
    n, t = made.adds[..., 1], made.adds[..., 2]
    assert made.truth == pytest.approx(2 * POINT, abs=1e-4)
    assert t.sum(axis=0) / n.sum(axis=0) == pytest.approx(made.truth)  # in every look
    half = pool(random, heard, 0.5)
    assert half.truth == made.truth
    assert (half.adds[..., 2] - half.adds[..., 6]).sum() == pytest.approx(t.sum())  # T − U is the truth
    with pytest.raises(ValueError, match="no moments are left"):
        exactly(random, heard, 2.0)


def test_noise_is_that_of_estimates_made_together() -> None:
    plan = plan_of(list(labels(None)), unlabelled=False)
    noise = noise_of(plan, 0.025)
    groups, together = noised(np.random.default_rng(3), noise, ())
    again = np.random.default_rng(3)
    root = np.linalg.cholesky(noise.group)
    share = np.trace(noise.everyone) / np.trace(noise.group)
    raw = again.normal(size=(noise.groups, 6)) @ root.T
    whole = again.normal(size=6) @ root.T * np.sqrt(share)
    axes = shape_of(plan, ("accent",)).axes
    cuts = consistent([Cut((), whole[None], noise.everyone), Cut(axes, raw, noise.group)], (1, 2))
    assert cuts[0].values[0] == pytest.approx(together)
    assert cuts[1].values == pytest.approx(groups)
    less = 1.0 - 1.0 / (noise.groups + share)
    assert cuts[1].covariance == pytest.approx(noise.group * less)
    assert cuts[0].covariance == pytest.approx(noise.group * noise.groups * share / (noise.groups + share))
    assert bounds_of(plan).max_events == 8
