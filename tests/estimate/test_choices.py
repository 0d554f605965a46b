"""A preview proposes what comes true, says where nothing would be shown, and takes a fleet's own events."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from typer.testing import CliRunner

from clients.evaluate import Cohort, fleet_sum, seeded_randomness
from fa_core.cli import build
from fa_core.cli.pilot import pilot_of
from fa_core.estimate.choices import Choice
from fa_core.estimate.expect import noise_variance
from fa_core.estimate.preview import Preview, choices_of, preview
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import compile_plan, shares_of_budget
from fa_core.metrics import PartSum
from fa_core.plan import Plan, parse
from scripts.bench.tables import ACCENTS, UNTIL, cohort

RARE = {"kind": "rate", "of": {"label_source": "retry"}, "over": {"outcome": "true_reject"}, "expect": 0.3}
"""A rate over one event in twenty."""
MISSES = {"kind": "rate", "of": {"outcome": "false_reject"}, "over": {}}
DEVICES = 3_000


def plan_of(
    metric: dict[str, object], accents: int = 3, source: str = "wake_events", **privacy: object
) -> Plan:
    """Return a plan of one metric, for everyone and by accent, at epsilon 2."""
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {"name": "p", "revision": 1, "owner": "t", "question": "?", "expires": "2027-03-31"},
        "source": source,
        "window": "7d",
        "segments": {"accent": {"device": "accent", "values": ACCENTS[:accents]}},
        "group_by": [[], ["accent"]],
        "metrics": {"metric": metric},
        "privacy": {"epsilon": 2, "delta": 1e-8, "noise": "central", **privacy},
    }
    return parse(json.dumps(body).encode(), "p", today=date(2026, 11, 22), policy=None)


def half_widths(found: Preview) -> dict[tuple[str, ...], float | None]:
    return {each.grouping: each.half_width for each in found.expectations}


def choices(plan: Plan, devices: int, events: float) -> tuple[Choice, ...]:
    return choices_of(plan, preview(plan, devices, events))


class TestChoices:
    plan = plan_of(MISSES, max_events=24)

    def test_come_true(self) -> None:
        """What is promised of a limit is what the plan with that limit is promised."""
        found = preview(self.plan, 3_000, 40)
        tried = [each for each in choices_of(self.plan, found) if each.key == "privacy.max_events"]
        assert [each.value for each in tried if each.current] == ["24"]
        for each in tried:
            privacy = self.plan.privacy.model_copy(update={"max_events": int(each.value)})
            then = preview(self.plan.model_copy(update={"privacy": privacy}), 3_000, 40)
            assert [item.grouping for item in each.expectations] == [("accent",)], "the finest alone"
            assert each.expectations[0].half_width == pytest.approx(half_widths(then)["accent",], rel=0.05)

    def test_propose_the_narrowest_for_the_size_of_the_fleet(self) -> None:
        """A small fleet should take fewer events of each device, a large one more."""
        many, few = (plan_of(MISSES, max_events=limit, epsilon=0.5) for limit in (96, 24))
        small = next(each for each in choices(many, 1_500, 60) if each.proposed)
        large = next(each for each in choices(few, 400_000, 60) if each.proposed)
        assert int(small.value) < 96
        assert int(large.value) > 24
        assert small.factor is not None
        assert small.factor < 0.97

    def test_shares_keep_the_budget_whole(self) -> None:
        found = [each for each in choices(self.plan, 3_000, 20) if each.key == "privacy.shares"]
        assert [each.value for each in found if each.current] == ["0.2 to coarser groupings"]
        widths = [{e.grouping: e.half_width for e in each.expectations} for each in found]
        everyone, accents = ([each[key] for each in widths] for key in ((), ("accent",)))
        assert everyone == sorted(everyone, reverse=True), "more of the budget, narrower"
        assert accents == sorted(accents)
        assert sum(shares_of_budget(self.plan).values()) == 1

    def test_of_hours_and_of_sizes_are_tried_where_a_kind_has_them(self) -> None:
        hours = plan_of({"kind": "rate_per_hour", "of": {"outcome": "false_accept"}, "max_hours": 12})
        tried = {each.key: each for each in choices(hours, 3_000, 20)}
        assert "max_hours: " in tried["metrics.metric"].value
        assert "privacy.max_events" not in tried, "it moves nothing"
        words = {"kind": "ratio", "of": "word_errors", "over": "words", "max_of": 6, "max_over": 12}
        ratio = plan_of(words, source="dictation_events", max_events=4)
        values = [each.value for each in choices(ratio, 3_000, 4) if each.key == "metrics.metric"]
        assert "max_of: 4, max_over: 8" in values


class TestSelectiveFilters:
    plan = plan_of(RARE, max_events=16, min_cohort=20, epsilon=4)

    def test_are_warned_of_unless_the_events_are_given(self) -> None:
        (filtered, spread) = preview(self.plan, DEVICES).warnings
        assert "events are filtered by outcome" in filtered
        assert "--events" in filtered
        assert "--fleet" in filtered
        assert "evenly" in spread
        assert preview(self.plan, DEVICES, 1).warnings == ()

    def test_are_known_to_a_fleet(self) -> None:
        """Its promise is what another fleet's release gives; the guess of twenty events is far off."""
        found = half_widths(preview(self.plan, DEVICES, None, None, pilot_of(devices(1), UNTIL).sources))
        guess = half_widths(preview(self.plan, DEVICES))
        released = released_widths(self.plan, devices(2))
        for grouping, promised in found.items():
            assert promised == pytest.approx(released[grouping], rel=0.10), grouping
            assert guess[grouping] is not None
            assert promised is not None
            assert guess[grouping] < 0.6 * promised

    def test_that_leave_nothing_to_show_are_said_to(self) -> None:
        few = pilot_of(devices(1).part(0, 400), UNTIL).sources
        found = preview(plan_of(RARE, accents=10, max_events=16), 400, fleet=few)
        by_accent = next(each for each in found.expectations if each.grouping)
        assert (by_accent.half_width, by_accent.shown) == (None, 0.0)
        assert by_accent.reason.startswith("fewer than 100 devices with events")


def devices(seed: int) -> Cohort:
    return cohort(DEVICES, 16, 8, seed)


def released_widths(plan: Plan, fleet: Cohort) -> dict[tuple[str, ...], float]:
    """Mean half-widths of eight releases of a fleet, with noise by seed."""
    layout, rng = compile_plan(plan), np.random.default_rng(3)
    exact = fleet_sum(plan, layout, fleet, UNTIL, seeded_randomness(5)).astype(float)
    found: dict[tuple[str, ...], list[float]] = {}
    for _ in range(8):
        sums = {}
        for block, variance in zip(layout.blocks, noise_variance(plan, layout, len(fleet)), strict=True):
            noised = exact[block.slice] + rng.normal(0.0, variance**0.5, block.cells)
            sums[block.metric, block.grouping, block.part] = PartSum(noised, float(variance), False)
        for each in estimates_of_sums(plan, sums, len(fleet)):
            if each.low is not None and each.high is not None:
                width = (each.high - each.low) / 2
                found.setdefault(tuple(name for name, _ in each.group), []).append(width)
    return {grouping: float(np.mean(each)) for grouping, each in found.items()}


def test_what_would_be_shown_comes_before_what_would_be_narrower() -> None:
    """Of 240 devices in seven groups of which each needs fifty, only fewer groups show anything more."""
    plan = plan_of(MISSES, accents=6, min_cohort=50)
    found = preview(plan, 240, 20)
    assert found.expectations[-1].half_width is None
    best = found.suggestions[0]
    assert best.change == "merge the values of accent into half as many"
    assert best.shown > best.shown_now
    assert "of the numbers shown" in replace(best, factor=None).gain


def test_the_command_prints_choices_and_notes_and_the_same_as_json(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plan = "eval_plans/wake-word-weekly.yaml"
    asked = ["plan", "preview", plan, "--devices", "2000", "--store", str(tmp_path)]
    shown = CliRunner().invoke(build(), asked)
    assert shown.exit_code == 0, shown.output
    for text in (
        "Numbers of false_reject_rate are of at most ",
        "Note: events are filtered by",
        "Half-widths for other values of privacy.max_events:",
        "Half-widths for other values of privacy.shares:",
        "points",
        "per hour",
        "now",
    ):
        assert text in shown.output
    found = json.loads(CliRunner().invoke(build(), [*asked, "--json"]).output)
    assert {each["key"] for each in found["choices"]} >= {"privacy.max_events", "privacy.shares"}
    assert all(each["estimand"].startswith("of at most") for each in found["expectations"])
    assert len(found["warnings"]) == 3
    refused = CliRunner().invoke(build(), [*asked, "--events", "9", "--fleet", str(tmp_path)])
    assert "give one of them" in str(refused.exception)
