"""Lower limits, and guardrails on a DET curve: at a threshold, and at a number of false accepts per hour."""

from dataclasses import replace

import pytest

from fa_core.estimate import judge
from fa_core.estimate.sentences import about_limit, about_verdict
from fa_core.plan import Plan, canonical, from_canonical
from fa_core.plan.prose import describe
from fa_core.values import Cell, Estimate, Judgement
from tests.estimate.test_judge import number
from tests.plan.samples import broken, complaints, good

DET = """\
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: det, revision: 1, owner: us, question: At which threshold?, expires: 2027-03-31}
source: wake_events
window: 7d
segments: {accent: {device: accent, values: [en-GB, en-IN]}}
group_by: [[accent]]
metrics:
  det: {kind: det, edges: {from: 0, to: 1, bins: 4}}
  success: {preset: command_success_rate}
privacy: {epsilon: 1}
guardrails:
  - {metric: det, by: accent, AT}
  - {metric: success, by: accent, min: 0.8}
"""


def plan(at: str) -> Plan:
    return good(DET.replace("AT", at))


def curve(label: str, rejects: list[float], accepts: list[float], half: float = 0.01) -> Estimate:
    """A group's curve at the thresholds 0.25, 0.5 and 0.75; its own intervals are half as wide as bands."""
    cells = []
    for axis, values in (("false_reject_rate", rejects), ("false_accepts_per_hour", accepts)):
        for threshold, value in zip(("0.25", "0.5", "0.75"), values, strict=True):
            cells.append(
                Cell(
                    labels=(("axis", axis), ("threshold", threshold)),
                    estimate=value,
                    low=value - half / 2,
                    high=value + half / 2,
                    simultaneous_low=value - half,
                    simultaneous_high=value + half,
                    suppressed=False,
                    reason="",
                    denominator=None,
                    noise_sd=None,
                )
            )
    shown = number(label, 0.0, 0.0)
    return replace(shown, metric="det", kind="det", estimate=None, cells=tuple(cells))


GOOD = curve("en-GB", [0.02, 0.05, 0.30], [2.0, 0.4, 0.1])
BAD = curve("en-IN", [0.05, 0.20, 0.60], [2.0, 0.9, 0.4])
HIDDEN = replace(number("other", None, None), metric="det", kind="det")


def judged(at: str, *results: Estimate) -> Judgement:
    found = judge(plan(at), results)
    return next(each for each in found if each.metric == "det")


@pytest.mark.parametrize(
    ("at", "results", "verdict", "sentence"),
    [
        ("at: {threshold: 0.5}, max: 0.1", [GOOD, HIDDEN], "met", "every group is at most 0.1"),
        ("at: {threshold: 0.5}, max: 0.1", [GOOD, BAD], "broken", "en-IN is above 0.1"),
        (
            "at: {threshold: 0.5}, max: 0.05",
            [GOOD],
            "not_enough_evidence",
            "not enough evidence yet for en-GB",
        ),
        (
            "at: {threshold: 0.5, axis: false_accepts_per_hour}, max: 0.5",
            [GOOD, BAD],
            "broken",
            "en-IN is above 0.5",
        ),
        (
            "at: {threshold: 0.5}, max_gap: 0.1",
            [GOOD, BAD],
            "broken",
            "the gap between en-IN and en-GB is more than 0.1",
        ),
        (
            "at: {false_accepts_per_hour: 0.5}, max: 0.1",
            [GOOD, HIDDEN],
            "met",
            "every group has such a threshold",
        ),
        (
            "at: {false_accepts_per_hour: 0.5}, max: 0.1",
            [GOOD, BAD],
            "broken",
            "en-IN has no such threshold",
        ),
        (
            "at: {false_accepts_per_hour: 0.4}, max: 0.05",
            [GOOD],
            "not_enough_evidence",
            "not enough evidence yet for en-GB",
        ),
        ("at: {false_reject_rate: 0.1}, max: 0.5", [GOOD], "met", "every group has such a threshold"),
        ("at: {false_reject_rate: 0.1}, max: 0.5", [BAD], "broken", "en-IN has no such threshold"),
    ],
)
def test_a_curve_is_judged_at_its_point(
    at: str, results: list[Estimate], verdict: str, sentence: str
) -> None:
    found = judged(at, *results)
    assert found.verdict == verdict
    assert found.sentence.startswith(sentence)


def test_at_an_operating_point_the_bands_decide() -> None:
    """The threshold is chosen after looking: each one's own interval, half as wide, would err too often."""
    at = "at: {false_accepts_per_hour: 0.4}, max: 0.1"
    edge = curve("en-GB", [0.02, 0.05, 0.30], [2.0, 0.394, 0.1])
    assert judged(at, edge).verdict == "not_enough_evidence"
    assert judged(at, curve("en-GB", [0.02, 0.05, 0.30], [2.0, 0.389, 0.1])).verdict == "met"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.85, 0.9, "met"), (0.78, 0.9, "met"), (0.7, 0.79, "broken"), (0.7, 0.85, "not_enough_evidence")],
)
def test_a_lower_limit_is_the_mirror_image_of_an_upper_one(low: float, high: float, verdict: str) -> None:
    result = replace(number("en-GB", low, high), metric="success")
    found = judge(plan("at: {threshold: 0.5}, max: 0.1"), [result])
    (own,) = [each for each in found if each.metric == "success"]
    assert (own.verdict, own.limit) == (verdict, "min 0.8")
    assert about_limit(own, "rate", "") == "at least 80%"


@pytest.mark.parametrize(
    ("at", "limit"),
    [
        ("at: {threshold: 0.5}, max: 0.1", "false reject rate at threshold 0.5: at most 10%"),
        (
            "at: {threshold: 0.5, axis: false_accepts_per_hour}, max: 0.5",
            "false accepts per hour at threshold 0.5: at most 0.5 per hour",
        ),
        (
            "at: {false_accepts_per_hour: 0.1}, max: 0.1",
            "false reject rate at 0.1 false accepts per hour: at most 10%",
        ),
        (
            "at: {false_reject_rate: 0.1}, max: 0.5",
            "false accepts per hour at a false reject rate of 0.1: at most 0.5 per hour",
        ),
        ("at: {threshold: 0.5}, max_gap: 0.1", "false reject rate at threshold 0.5: gap at most 10 points"),
    ],
)
def test_limits_are_written_in_the_unit_of_what_is_judged(at: str, limit: str) -> None:
    found = judged(at, GOOD, BAD)
    assert about_limit(found, "det", "") == limit
    assert about_verdict(found, "det", "")


def test_verdicts_on_a_curve_carry_units() -> None:
    assert about_verdict(judged("at: {threshold: 0.5}, max: 0.1", GOOD, BAD), "det", "") == (
        "en-IN is above 10%"
    )


def test_plans_without_them_keep_their_bytes() -> None:
    plain = canonical(good())
    assert b'"min"' not in plain
    assert b'"at"' not in plain
    whole = plan("at: {false_accepts_per_hour: 0.5}, max: 0.1")
    assert b'"at":{"false_accepts_per_hour":"0.5"}' in canonical(whole)
    assert from_canonical(canonical(whole)) == whole
    assert "det, false reject rate at false accepts per hour 0.5 by accent: at most 0.1" in describe(whole)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("AT}", "max: 0.1}", "a DET curve is judged at one point; add `at: {false_accepts_per_hour: 0.5}`"),
        ("AT}", "at: {}, max: 0.1}", "this is not one point of a DET curve; give one of `threshold`"),
        (
            "AT}",
            "at: {threshold: 0.5, false_reject_rate: 0.1}, max: 0.1}",
            "this is not one point of a DET curve",
        ),
        (
            "AT}",
            "at: {threshold: 0.6}, max: 0.1}",
            "0.6 is no threshold of this curve; write 0.5: thresholds are",
        ),
        ("AT}", "at: {threshold: 0.5}, min: 0.1}", "fewer misses or false wakes break nothing; write `max`"),
        (
            "AT}",
            "at: {threshold: 0.5}, max: 2}",
            "2 is no limit for this det; write at least 0 and",
        ),
        (
            "AT}",
            "at: {false_accepts_per_hour: -1}, max: 0.1}",
            "-1 is no false accepts per hour; write at least 0",
        ),
        (
            "AT}",
            "at: {false_reject_rate: 0.1}, max_gap: 0.1}",
            "each group is judged at its own threshold",
        ),
        (
            "AT}",
            "at: {false_reject_rate: 0.1, axis: false_reject_rate}, max: 1}",
            "`axis` goes with",
        ),
        ("min: 0.8", "min: 0", "0 is no limit for this rate; write more than 0 and at most 1"),
        ("min: 0.8", "min: 0.8, max: 0.7", "min 0.8 is not below max 0.7"),
        ("min: 0.8", "min: 0.8, at: {threshold: 0.5}", "a rate has no thresholds; take `at` out"),
        ("min: 0.8", "at: {threshold: 0.5}", "this guardrail has no limit; give `max`, `min` or `max_gap`"),
    ],
)
def test_a_wrong_guardrail_is_named(old: str, new: str, message: str) -> None:
    text = broken(old, new, DET).replace("AT}", "at: {threshold: 0.5}, max: 0.1}")
    found = complaints(text)
    assert any(message in line for line in found), found
