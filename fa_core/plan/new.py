"""The text of a new plan, with a comment at whatever its author should think about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction

from fa_core.metrics import PRESETS, exact_text
from fa_core.tables import DEVICE_FACTS

QUESTIONS: Mapping[str, str] = {
    "false_reject_rate": "How often is the wake word missed",
    "false_accepts_per_hour": "How often does a device wake by itself",
    "det": "What would another threshold cost, in misses and in false wakes",
    "intent_confusion": "Which commands are taken for which",
    "correction_rate": "How often do people correct a command",
    "command_success_rate": "How often does a command do what was asked",
    "word_error_rate": "How many words does dictation get wrong",
    "insertion_rate": "How many words does dictation add that nobody said",
    "deletion_rate": "How many words does dictation leave out",
    "substitution_rate": "How many words does dictation take for others",
    "hallucinated_words": "How many words does dictation recognise in a recording in which nobody spoke",
    "hallucination_rate": "How often does dictation recognise words where nobody spoke",
    "wakes_per_hour": "How often does a device wake, rightly or not",
    "detection_scores": "With which scores do devices wake",
}
"""The question that each preset answers, to start from."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What an author has decided.

    Attributes:
        metrics: names of presets, at least one.
        fact, values: the fact of the device to group by and its values; "" and none for everyone together.
        limit: a guardrail's `max`, None for no guardrail. It is on the first metric.
        schedule: "daily", "weekly" or "monthly", "" for none.
    """

    name: str
    owner: str
    question: str
    metrics: tuple[str, ...]
    fact: str
    values: tuple[str, ...]
    window: str
    epsilon: Fraction
    min_cohort: int
    expires: date
    limit: Fraction | None = None
    schedule: str = ""


def question_of(metrics: Sequence[str], fact: str) -> str:
    """Return a question to start from.

    >>> question_of(["false_reject_rate"], "accent")
    'How often is the wake word missed, and for whom by accent?'
    """
    by = f", and for whom by {fact.replace('_', ' ')}" if fact else ""
    return f"{QUESTIONS[metrics[0]]}{by}?"


def plan_text(answers: Answers) -> str:
    """Return the YAML text of a plan. It is checked by whoever writes it: an answer may be wrong."""
    one_line = replace(answers, question=" ".join(answers.question.split()))
    return "\n".join(line for part in _parts(one_line) for line in part) + "\n"


def _parts(answers: Answers) -> list[list[str]]:
    sources = {PRESETS[name]["source"] for name in answers.metrics}
    return [
        [f"# {answers.question}"],
        [
            "#",
            "# Written by `fa plan new`. `fa plan check` says what is wrong with it, and `fa plan preview`",
            "# how wide its intervals will be.",
        ],
        ["apiVersion: fa/v1", "kind: EvalPlan"],
        _metadata(answers),
        [f"source: {sources.pop()}"] if len(sources) == 1 else [],
        [f"window: {answers.window}  # how far back from the run events count"],
        _groupings(answers),
        ["metrics:"],
        [f"  {name}: {{preset: {name}}}" for name in answers.metrics],
        _privacy(answers),
        _guardrails(answers),
    ]


def _metadata(answers: Answers) -> list[str]:
    lines = [
        "metadata:",
        f"  name: {answers.name}",
        "  revision: 1  # counts up whenever the plan changes",
        f"  owner: {_text(answers.owner)}",
        f"  question: {_text(answers.question)}",
        f"  expires: {answers.expires}  # no device answers after that day",
    ]
    if answers.schedule:
        lines.append(f"  schedule: {answers.schedule}  # `fa schedule --run` asks it once in each period")
    return lines


def _groupings(answers: Answers) -> list[str]:
    if not answers.fact:
        return ["group_by: [[]]  # everyone together"]
    assert answers.fact in DEVICE_FACTS
    values = ", ".join(map(_text, answers.values))
    return [
        "segments:",
        f"  {answers.fact}: {{device: {answers.fact}, values: [{values}]}}  # anything else is `other`",
        f"group_by: [[], [{answers.fact}]]  # everyone, and each group; each grouping shares the budget",
    ]


def _privacy(answers: Answers) -> list[str]:
    return [
        "eligibility: {require: [unmetered_network, charging, idle], consent: quality_metrics}",
        "privacy:",
        f"  epsilon: {exact_text(answers.epsilon)}  # smaller is more private, and makes intervals wider",
        "  delta: 1e-8",
        "  max_events: 24  # of one device; more events mean more noise",
        f"  min_cohort: {answers.min_cohort}  # a group of fewer devices is not shown",
    ]


def _guardrails(answers: Answers) -> list[str]:
    if answers.limit is None:
        return []
    by = f", by: {answers.fact}" if answers.fact else ""
    metric, limit = answers.metrics[0], exact_text(answers.limit)
    if metric == "det":
        return ["guardrails:", f"  - {{metric: det{by}, at: {{false_accepts_per_hour: 0.5}}, max: {limit}}}"]
    side = "min" if metric == "command_success_rate" else "max"
    return ["guardrails:", f"  - {{metric: {metric}{by}, {side}: {limit}}}"]


def _text(text: str) -> str:
    """Return a text in quotes, as JSON has it, which is YAML too."""
    return json.dumps(text, ensure_ascii=False)
