"""Guardrails say what the evidence says, and never more; and what is not shown is not shown for a reason."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fa_core.estimate import gap, judge
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import PartSum
from fa_core.plan import Guardrail, Plan
from fa_core.values import Estimate
from tests.metrics.samples import plan_of

LIMIT = Fraction(8, 100)


def plan(**limits: Fraction) -> Plan:
    guardrail = Guardrail.model_validate({"metric": "metric", "by": ["accent"], **limits})
    return plan_of("rate").model_copy(update={"guardrails": (guardrail,)})


def number(label: str, low: float | None, high: float | None, devices: float = 500.0) -> Estimate:
    """A group whose simultaneous interval is [low, high], inside which its own is half as wide."""
    shown = low is not None and high is not None
    middle = (low + high) / 2 if low is not None and high is not None else None
    quarter = (high - low) / 4 if low is not None and high is not None else 0.0
    return Estimate(
        metric="metric",
        kind="rate",
        unit="",
        group=(("accent", label),),
        estimate=middle,
        low=None if middle is None else middle - quarter,
        high=None if middle is None else middle + quarter,
        simultaneous_low=low,
        simultaneous_high=high,
        noise_low=None,
        noise_high=None,
        level=0.95,
        suppressed=not shown,
        reason="" if shown else "fewer than 20 devices",
        denominator=None,
        noise_sd=None,
        devices=devices,
        devices_sd=5.0,
        variance_source="group",
    )


def verdict(*results: Estimate, **limits: Fraction) -> str:
    (judgement,) = judge(plan(**limits), results)
    return judgement.verdict


class TestAMaximum:
    def test_is_met_when_every_own_upper_bound_is_under_it(self) -> None:
        """An intersection-union test: simultaneous bounds, here 0.09, would ask for more than is owed."""
        good = number("en-GB", 0.01, 0.05), number("en-IN", 0.02, 0.09), number("other", 0.0, 0.03)
        assert verdict(*good, max=LIMIT) == "met"
        assert verdict(*good[:2], number("other", 0.02, 0.12), max=LIMIT) == "not_enough_evidence"

    def test_is_broken_by_one_lower_bound_over_it_whatever_is_hidden(self) -> None:
        results = number("en-GB", 0.01, 0.05), number("en-IN", 0.09, 0.2), number("other", None, None)
        assert verdict(*results, max=LIMIT) == "broken"
        assert verdict(*results[:2], number("zz", None, None), max=LIMIT) == "broken"

    def test_is_open_while_any_interval_crosses_it(self) -> None:
        assert (
            verdict(number("en-GB", 0.01, 0.05), number("en-IN", 0.05, 0.13), max=LIMIT)
            == "not_enough_evidence"
        )

    def test_is_open_while_a_planned_group_is_hidden(self) -> None:
        """The control: without this rule the worst group could hide by being small."""
        results = number("en-GB", 0.01, 0.05), number("en-IN", None, None)
        assert verdict(*results, max=LIMIT) == "not_enough_evidence"
        assert verdict(results[0], number("en-IN", 0.01, 0.05), max=LIMIT) == "met"

    def test_is_not_broken_by_the_interval_of_one_group_alone(self) -> None:
        """Its own bounds, 0.0825 to 0.0975, are over the limit; those that hold for all groups are not."""
        result = number("en-IN", 0.075, 0.105)
        assert result.low is not None
        assert result.low > LIMIT
        assert verdict(number("en-GB", 0.01, 0.05), result, max=LIMIT) == "not_enough_evidence"

    def test_leftovers_too_few_to_show_do_not_hold_it_up(self) -> None:
        assert verdict(number("en-GB", 0.01, 0.05), number("other", None, None), max=LIMIT) == "met"

    def test_says_which_group(self) -> None:
        (judgement,) = judge(
            plan(max=LIMIT), (number("en-GB", 0.1, 0.2), number("en-IN", 0.15, 0.25), number("other", 0, 0.1))
        )
        assert judgement.worst == (("accent", "en-IN"),)
        assert judgement.sentence == "en-IN, en-GB are above 0.08", "all that are, most evidence first"
        (judgement,) = judge(plan(max=LIMIT), (number("en-GB", 0.09, 0.2), number("en-IN", 0.0, 0.9)))
        assert judgement.sentence == "en-GB is above 0.08", "not the highest estimate, of which less is known"

    def test_of_nothing_at_all_is_not_met(self) -> None:
        assert verdict(max=LIMIT) == "not_enough_evidence"
        assert verdict(number("other", None, None), max=LIMIT) == "not_enough_evidence"


class TestTheErrorRates:
    """Over 5,000 fleets of ten groups with normal estimates, some truly at the limit.

    A count of a binomial of the nominal rate exceeds the bounds asserted with probability below 1e-7.
    """

    FLEETS, GROUPS, SD = 5_000, 10, 0.01

    def fleets(self, truth: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        return np.random.default_rng(7).normal(truth, self.SD, (self.FLEETS, self.GROUPS))

    def verdicts(self, truth: "np.ndarray[Any, Any]") -> list[str]:
        own, wide, made, found = 1.96 * self.SD, 2.807 * self.SD, plan(max=LIMIT), []
        for fleet in self.fleets(truth).tolist():
            groups = [
                replace(number(f"g{i}", x - wide, x + wide), low=x - own, high=x + own)
                for i, x in enumerate(fleet)
            ]
            (judgement,) = judge(made, groups)
            found.append(judgement.verdict)
        return found

    def test_met_is_wrong_at_most_once_in_forty(self) -> None:
        """One group at the limit and the others far below: the hardest case for `met`."""
        truth = np.zeros(self.GROUPS)
        truth[3] = float(LIMIT)
        wrong = self.verdicts(truth).count("met") / self.FLEETS
        assert 0.01 < wrong < 0.025 + 6 * (0.025 * 0.975 / self.FLEETS) ** 0.5

    def test_broken_is_wrong_at_most_once_in_twenty(self) -> None:
        """Every group at the limit: the hardest case for `broken`."""
        truth = np.full(self.GROUPS, float(LIMIT))
        wrong = self.verdicts(truth).count("broken") / self.FLEETS
        assert wrong < 0.05 + 6 * (0.05 * 0.95 / self.FLEETS) ** 0.5
        uncorrected = (self.fleets(truth) - 1.96 * self.SD > float(LIMIT)).any(axis=1)
        assert uncorrected.mean() > 0.15, "the control: each group's own bound would err far more often"


class TestAGap:
    def test_has_the_bounds_of_the_design(self) -> None:
        found = gap((number("a", 0.01, 0.04), number("b", 0.06, 0.12), number("c", 0.03, 0.05)))
        assert found is not None
        assert found.low == pytest.approx(0.06 - 0.04)
        assert found.high == pytest.approx(0.105 - 0.0175), "of each group's own bounds"
        assert (found.highest.group[0][1], found.lowest.group[0][1]) == ("b", "a")

    def test_is_said_of_the_groups_that_prove_it(self) -> None:
        """`c` has the highest estimate and an interval that leaves everything open."""
        groups = number("a", 0.01, 0.03), number("b", 0.2, 0.24), number("c", 0.0, 0.9)
        (judgement,) = judge(plan(max_gap=LIMIT), groups)
        assert judgement.sentence == "the gap between b and a is more than 0.08"
        assert judgement.worst == (("accent", "b"),)

    def test_is_never_negative(self) -> None:
        found = gap((number("a", 0.01, 0.2), number("b", 0.02, 0.19)))
        assert found is not None
        assert found.low == 0.0

    def test_of_one_group_is_none(self) -> None:
        assert gap((number("a", 0.01, 0.2), number("b", None, None))) is None

    def test_verdicts(self) -> None:
        wide = number("en-GB", 0.0, 0.02), number("en-IN", 0.12, 0.2)
        assert verdict(*wide, max_gap=LIMIT) == "broken"
        near = number("en-GB", 0.03, 0.05), number("en-IN", 0.04, 0.07)
        assert verdict(*near, max_gap=LIMIT) == "met"
        assert verdict(*near, number("zz", None, None), max_gap=LIMIT) == "not_enough_evidence"
        assert verdict(near[0], number("en-IN", 0.04, 0.16), max_gap=LIMIT) == "not_enough_evidence"
        assert verdict(near[0], max_gap=LIMIT) == "not_enough_evidence"


def read(fleet: float, by: tuple[str, ...] = ("accent",), **changes: tuple[float, float]) -> list[Estimate]:
    """Estimates of a rate by accent, sent in blocks: 3 groups alike, each of `fleet` devices with 20 events,
    10% misses.

    `changes` replace (value of every cell, variance of its noise) of a part.
    """
    made = plan_of("rate", min_cohort=100, accounting="pure", delta=0)
    metric, sums = made.metrics["metric"], {}
    a, b = metric.centre()  # type: ignore[attr-defined]
    n = 20 * fleet
    exact = {
        "excess": 0.1 * n * b - a * n,
        "size": n,
        "devices": fleet,
        "excess_squared": 3 * b * b * 0.09 * n,
        "excess_size": 0.0,
        "size_squared": 400 * fleet,
    }
    for grouping in groupings(metric, made):
        shape = shape_of(made, grouping)
        for part in metric.parts(shape, bounds_of(made)):
            value, variance = changes.get(part.name, (exact[part.name], 1.0))
            sums["metric", grouping, part.name] = PartSum(np.full(part.cells, value), variance, False)
    return [r for r in estimates_of_sums(made, sums, 3000) if tuple(name for name, _ in r.group) == by]


class TestSuppression:
    def test_shows_what_is_large_enough(self) -> None:
        for result in read(500.0):
            assert not result.suppressed
            assert result.estimate == pytest.approx(0.1)
            assert result.reason == ""

    def test_hides_fewer_devices_than_the_cohort_by_the_noisy_count(self) -> None:
        for result in read(500.0, devices=(99.5, 25.0)):
            assert result.suppressed
            assert result.reason == "fewer than 100 devices with events (noisy count, ± 5)"
            assert result.devices == 99.5
            for value in (result.estimate, result.low, result.high, result.denominator, result.noise_sd):
                assert value is None
            assert result.simultaneous_low is None
            assert result.noise_low is None
        assert not read(500.0, devices=(100.0, 25.0))[0].suppressed  # the control, on the line

    def test_says_of_everyone_that_there_was_nothing_to_divide_by(self) -> None:
        """3,000 devices were counted; of a group it is not known how many there are."""
        (everyone,) = read(500.0, by=(), devices=(-3.0, 25.0))
        assert everyone.reason == "no events to divide by: of 3,000 devices counted, none had any"
        (few,) = read(500.0, by=(), devices=(40.0, 25.0))
        assert few.reason.startswith("fewer than 100 devices with events")
        assert read(500.0, devices=(-3.0, 25.0))[0].reason.startswith("fewer than 100 devices with events")

    def test_hides_what_cannot_be_distinguished_from_the_noise(self) -> None:
        for result in read(500.0, size=(10_000.0, 9e7)):
            assert result.suppressed
            assert "privacy noise" in result.reason

    def test_hides_an_interval_outside_all_that_is_possible(self) -> None:
        """It is never shown as [0, 1] or cut to nothing: that would count as covered."""
        for result in read(500.0, excess=(-40_000.0, 1.6e7)):
            assert result.suppressed
            assert "outside the possible range" in result.reason

    def test_a_rate_that_noise_took_below_nothing_is_shown_from_0(self) -> None:
        """Where the truth is 0, one group in forty would be hidden as too noisy."""
        for result in read(500.0, excess=(-20_000.0, 1.6e7)):
            assert not result.suppressed
            assert (result.estimate, result.low, result.noise_low) == (0.0, 0.0, 0.0)
            assert result.high is not None
            assert 0.02 < result.high < 0.2

    def test_bounds_are_kept_to_what_is_possible(self) -> None:
        for result in read(500.0, excess=(-9500.0, 1e6)):
            assert result.low == 0.0
            assert result.high is not None
            assert 0 < result.high < 1

    def test_intervals_for_all_groups_together_are_wider(self) -> None:
        for result in read(500.0):
            assert result.simultaneous_low is not None
            assert result.low is not None
            assert result.high is not None
            assert result.simultaneous_high is not None
            assert result.simultaneous_low < result.low < result.high < result.simultaneous_high


def test_a_judgement_needs_every_label_of_its_grouping() -> None:
    """A group of another metric or grouping takes no part."""
    stranger = replace(number("en-GB", 0.5, 0.6), metric="another")
    everyone = replace(number("en-GB", 0.5, 0.6), group=())
    good = number("en-GB", 0.01, 0.05), number("en-IN", 0.02, 0.05)
    assert verdict(*good, stranger, everyone, max=LIMIT) == "met"
