"""The layout: every block in its place, with its bound, its share of the budget and its noise."""

from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest

from fa_core.errors import BadInput
from fa_core.layout import MAX_COHORT, _modulus_bits, compile_plan
from fa_core.plan import parse
from fa_core.privacy.accounting import gaussian_variance
from tests.metrics.samples import before

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
  misses: {kind: rate, of: {outcome: false_reject}, over: {}, expect: 0.25}
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


def shares_of(plan):
    layout = compile_plan(plan)
    sets = {(b.metric, b.grouping) for b in layout.blocks}
    return {s: sum(b.cost for b in layout.blocks if (b.metric, b.grouping) == s) / layout.cost for s in sets}


def test_a_coarser_grouping_gets_a_fifth_and_the_finest_the_rest():
    """`misses` reports three of the four groupings, so it has three quarters of the budget."""
    assert shares_of(plan_of()) == {
        ("misses", ()): Fraction(3, 20),
        ("misses", ("accent",)): Fraction(3, 20),
        ("misses", ("accent", "playback")): Fraction(9, 20),
        ("wakes", ()): Fraction(1, 4),
    }


def test_coarser_groupings_never_get_more_than_half_together():
    text = (
        PLAN.replace("MORE", "noise: central")
        .replace(
            "  playback: {event: playback, values: [true, false]}",
            "  app: {device: app_version, values: ['1']}\n  kind: {device: device_class, values: [phone]}",
        )
        .replace("[[], [accent], [accent, playback]]", "[[], [accent], [app], [kind], [accent, app, kind]]")
    )
    shares = shares_of(parse(text.encode(), "deep.yaml", today=date(2026, 1, 1)))
    assert shares["misses", ()] == Fraction(5, 6) / 8
    assert shares["misses", ("accent", "app", "kind")] == Fraction(5, 6) / 2


def test_groupings_that_nothing_contains_divide_the_rest_alike():
    text = PLAN.replace("MORE", "noise: central").replace("[accent, playback]", "[playback]")
    shares = shares_of(parse(text.encode(), "wide.yaml", today=date(2026, 1, 1)))
    assert shares["misses", ("accent",)] == shares["misses", ("playback",)] == Fraction(3, 10)


def test_the_author_shares_the_budget():
    """What is not named divides the rest as it would have."""
    more = "noise: central, shares: [{metric: misses, by: [playback, accent], share: 1/2}]"
    shares = shares_of(plan_of(more))
    assert shares["misses", ("accent", "playback")] == Fraction(1, 2)
    assert shares["misses", ()] == shares["misses", ("accent",)] == Fraction(1, 2) * Fraction(3, 11)
    assert shares["wakes", ()] == Fraction(1, 2) * Fraction(5, 11)


def test_plans_of_before_share_the_budget_alike():
    assert set(shares_of(before(plan_of())).values()) == {Fraction(1, 4)}


def test_bounds_follow_the_plan():
    layout = compile_plan(plan_of("noise: central, secure_aggregation: false, accounting: pure"))
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
    large = replace(compile_plan(plan_of()).blocks[0], l1=l1, linf=l1, variance=Fraction(10**6))
    assert _modulus_bits([large]) == bits
    assert (MAX_COHORT * l1 < 2**31) == (bits == 32)


def test_a_sum_that_reaches_the_sign_of_64_bits_is_refused():
    block = compile_plan(plan_of()).blocks[0]
    most = (2**63 - 2**32) // MAX_COHORT
    assert _modulus_bits([replace(block, linf=most, variance=Fraction(10**6))]) == 64
    for more in (2**63 // MAX_COHORT + 1, 2**64 // MAX_COHORT - 1):
        with pytest.raises(BadInput, match="does not fit 64 bits"):
            _modulus_bits([replace(block, linf=more, variance=Fraction(10**6))])


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
