"""The layout: every block in its place, with its bound, its share of the budget and its noise."""

from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest

from fa_core.errors import BadInput
from fa_core.layout import MAX_COHORT, _modulus_bits, compile_plan
from fa_core.plan import parse
from fa_core.privacy.accounting import gaussian_variance

PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: laid-out, revision: 1, owner: tests, question: Where?, expires: 2099-01-01}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [a, b, c]}
  playback: {event: playback, values: [true, false]}
group_by: [[], [accent], [accent, playback]]
metrics:
  misses: {kind: rate, of: {outcome: false_reject}, expect: 0.25}
  wakes: {kind: rate_per_hour, of: {outcome: false_accept}, expect: 0.5, group_by: [[]]}
privacy: {epsilon: 2, delta: 1e-8, max_events: 16, min_cohort: 100, MORE}
"""


def plan_of(more="noise: central, secure_aggregation: false"):
    return parse(PLAN.replace("MORE", more).encode(), "laid-out.yaml", today=date(2026, 1, 1))


def block(layout, metric, grouping, part):
    return next(b for b in layout.blocks if (b.metric, b.grouping, b.part) == (metric, grouping, part))


def test_the_whole_budget_is_spent_and_no_more():
    layout = compile_plan(plan_of())
    plan = plan_of()
    assert layout.cost == sum(b.cost for b in layout.blocks) == plan.privacy.rho == Fraction("0.063940445673")


def test_every_grouping_of_every_metric_gets_an_equal_share():
    layout = compile_plan(plan_of())
    sets = {(b.metric, b.grouping) for b in layout.blocks}
    shares = {s: sum(b.cost for b in layout.blocks if (b.metric, b.grouping) == s) for s in sets}
    assert set(shares.values()) == {layout.cost / 4}


def test_bounds_follow_the_plan():
    layout = compile_plan(plan_of())
    assert block(layout, "misses", ("accent",), "excess").l1 == 16 * 3  # expect 1/4: max(a, b − a) = 3
    assert block(layout, "misses", ("accent",), "size").l1 == 16
    assert block(layout, "misses", ("accent",), "devices").l1 == 1
    touched = block(layout, "misses", ("accent", "playback"), "devices")
    assert (touched.l1, touched.l2_squared, touched.cells) == (3, 3, 12)


def test_every_block_has_the_noise_that_its_cost_buys():
    for b in compile_plan(plan_of()).blocks:
        assert b.variance == gaussian_variance(b.l2_squared, b.cost)


@pytest.mark.parametrize(("l1", "bits"), [(21_474, 32), (21_475, 64), (42_949, 64), (2**40, 64)])
def test_the_ring_is_signed_and_holds_the_largest_cohort(l1, bits):
    """100,000 devices of 21,474 each are below 2^31; from there on a 32-bit ring would wrap at its sign."""
    large = replace(compile_plan(plan_of()).blocks[0], l1=l1, variance=Fraction(10**6))
    assert _modulus_bits([large]) == bits
    assert (MAX_COHORT * l1 < 2**31) == (bits == 32)


def test_the_same_plan_lays_out_the_same_vector():
    assert compile_plan(plan_of()) == compile_plan(plan_of())


def test_auto_says_why_and_a_pure_ledger_gets_geometric_noise():
    assert compile_plan(plan_of()).mechanism == "discrete_gaussian"
    pure = compile_plan(plan_of("noise: central, secure_aggregation: false, accounting: pure"))
    assert (pure.mechanism, pure.accounting, pure.cost, pure.delta) == ("geometric", "pure", 2, 0)
    assert "pure epsilon" in pure.reason


@pytest.mark.parametrize(
    "more",
    [
        "noise: central, secure_aggregation: false, mechanism: geometric",
        "noise: central, secure_aggregation: false, accounting: pure, mechanism: discrete_gaussian",
    ],
)
def test_a_mechanism_that_its_ledger_cannot_count_is_refused(more):
    with pytest.raises(BadInput):
        compile_plan(plan_of(more))
