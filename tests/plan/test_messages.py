"""What an author is told to write instead (FIELD 18), and what is refused with a sentence."""

from datetime import date

import pytest

from fa_core.metrics import ALIASES, PRESETS
from fa_core.plan import canonical, from_canonical, parse
from tests.plan.samples import GOOD, TODAY, broken, complaints, good

SMALL = """\
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: small, revision: 1, owner: us, question: How often?, expires: 2027-03-31}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-US]}
group_by: [[], [accent]]
metrics: {m: {kind: rate, of: {outcome: false_reject}, over: {outcome: [true_accept, false_reject]}}}
privacy: {epsilon: 1}
guardrails: [{metric: m, by: accent, max: 0.1}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("expires: 2027-03-31", "expires: 2027-1-31", "; write 2027-01-31"),
        ("expires: 2027-03-31", "expires: 2027-02-30", "; write a date that exists"),
        ("expires: 2027-03-31", "expires: 2027-03-31 12:00", "; write 2027-03-31"),
        (
            "group_by: [[], [accent]]",
            "group_by: []",
            "no grouping is written here; write `[[]]`",
        ),
        ("group_by: [[], [accent]]", "group_by: [accent]", "`accent` is text; write `[[accent]]`"),
        ("group_by: [[], [accent]]", "group_by: accent", "`accent` is text; write `[[accent]]`"),
        ("epsilon: 1}", "epsilon: '4,0'}", "; write 4: a point separates the decimals"),
        ("privacy: {epsilon: 1}", "privacy:\n  epsilon: 4,0", "; write 4.0: a point separates the decimals"),
        ("privacy: {epsilon: 1}", "privacy:\n  epsilon: 1,000", "; write 1000, without separators"),
        ("max: 0.1}", "max: 10%}", "; write 0.1: a share, not a percentage"),
        ("max: 0.1}", "max: '2.5 %'}", "; write 0.025: a share, not a percentage"),
        ("metrics: {m:", "metrics: {a: FRR, m:", "unknown preset `FRR`; did you mean `false_reject_rate`?"),
        ("metrics: {m:", "metrics: {a: FA/h, m:", "did you mean `false_accepts_per_hour`?"),
        ("metrics: {m:", "metrics: {a: WER, m:", "did you mean `word_error_rate`?"),
        ("metrics: {m:", "metrics: {a: {kind: wer}, m:", "did you mean `preset: word_error_rate`?"),
        (
            "metrics: {m:",
            "metrics: {a: {preset: false_reject_rate, source: command_events}, m:",
            "the preset `false_reject_rate` reads `wake_events`; take `source` out",
        ),
        (
            ", over: {outcome: [true_accept, false_reject]}",
            "",
            "this rate does not say what it is a share of; add `over:`",
        ),
        (
            "segments:\n",
            "segments:\n  kind: {device: device_class, values: [phone]}\n",
            "`kind` is in no grouping; add `[kind]` to `group_by`",
        ),
        (
            "over: {outcome: [true_accept, false_reject]}",
            "over: {}, group_by: []",
            "no grouping is written here; write `[[]]`",
        ),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(old: str, new: str, message: str) -> None:
    found = complaints(broken(old, new, SMALL))
    assert any(message in line for line in found), found


def test_the_sample_itself_is_good() -> None:
    assert complaints(SMALL) == []
    assert complaints(GOOD) == []


def test_a_rate_of_all_events_says_so() -> None:
    assert complaints(broken("over: {outcome: [true_accept, false_reject]}", "over: {}", SMALL)) == []


@pytest.mark.parametrize("alias", ["frr", "FAR", "wer", "fa/h", "Miss-Rate", "EER"])
def test_a_usual_name_leads_to_its_preset(alias: str) -> None:
    (line,) = complaints(f"{SMALL.partition('metrics')[0]}metrics: [{alias}]\nprivacy: {{epsilon: 1}}\n")[:1]
    assert "did you mean `" in line


def test_every_alias_leads_to_a_preset() -> None:
    assert set(ALIASES.values()) <= set(PRESETS)
    assert not set(ALIASES) & set(PRESETS)


def test_a_guardrail_on_a_usual_name_is_led_to_the_metric() -> None:
    found = complaints(broken("false_reject_rate, by: accent, max:", "FRR, by: accent, max:"))
    assert any("did you mean `false_reject_rate`?" in line for line in found), found


def test_a_plan_that_was_released_may_say_what_is_refused_in_a_file() -> None:
    """Its bytes were signed and charged: an unused segment in them changes nothing."""
    plan = good(SMALL)
    unused = parse(
        broken("group_by: [[], [accent]]", "group_by: [[accent]]", SMALL).encode(), "x", today=TODAY
    )
    body = canonical(unused).replace(
        b'"segments":{', b'"segments":{"a":{"device":"app_version","values":["1"]},'
    )
    assert list(from_canonical(body).segments) == ["a", "accent"]
    assert plan.metadata.expires == date(2027, 3, 31)
