"""Plans and rows of the vectors: one of each kind, and tables that reach every rule of counting."""

from hashlib import sha256
from typing import Any

from fa_core.conformance.world import NOW, seconds
from fa_core.plan import Plan, parse

Json = dict[str, Any]
Rows = dict[str, list[Json]]
HOUR = 3_600_000_000
FACTS = {"accent": "scottish english", "device_class": "speaker"}

HEAD = """apiVersion: fa/v1
kind: EvalPlan
metadata: {name: NAME, revision: 1, owner: devices, question: Does it count right?, expires: 2026-12-31}
source: SOURCE
window: 1d
"""

PLANS = {
    "a rate by accent": HEAD.replace("NAME", "by-accent").replace("SOURCE", "wake_events")
    + """segments:
  accent: {device: accent, values: [en-US, en-GB-scotland], aliases: {en-GB-scotland: [scottish english]}}
group_by: [[], [accent]]
metrics:
  misses: {kind: rate, of: {outcome: false_reject}, over: {outcome: [false_reject, true_accept]}, expect: 0.05}
privacy: {epsilon: 1}
""",
    "a preset, filters, a guardrail and letters beyond ASCII": HEAD.replace("NAME", "filters").replace(
        "SOURCE", "wake_events"
    )
    + """where: {wake_word: "h\u00e9 nabu \U0001f399", snr_db: {ge: 2.5, lt: 30}, playback: {not: true}}
segments:
  hour: {event: hour, edges: [8, 18], labels: [night, day, evening]}
group_by: [[hour]]
metrics: [frr]
privacy: {epsilon: 0.3, delta: 1e-9, shares: [{metric: false_reject_rate, by: hour, share: 1}]}
guardrails: [{metric: false_reject_rate, by: hour, max: 0.4}]
""".replace("metrics: [frr]", "metrics: [false_reject_rate]"),
    "pure accounting": HEAD.replace("NAME", "pure").replace("SOURCE", "command_events")
    + """metrics: {commands: {kind: count}}
privacy: {epsilon: 1/3, delta: 0, accounting: pure, noise: central}
""".replace("1/3", "0.3"),
}

TOO_LARGE = (
    HEAD.replace("NAME", "large").replace("SOURCE", "dictation_events")
    + """metrics: {words: {kind: ratio, of: word_errors, over: words, expect: 0.001, max_of: 10000, max_over: 10000}}
privacy: {epsilon: 1}
"""
)

SEGMENTS = """segments:
  accent: {device: accent, values: [en-US, en-GB-scotland], aliases: {en-GB-scotland: [scottish english]}}
  loud: {event: snr_db, edges: [5, 15.5], labels: [quiet, fair, loud]}
  playback: {event: playback, values: [true]}
"""

METRICS: dict[str, tuple[str, str]] = {
    "rate": (
        "wake_events",
        "{kind: rate, of: {outcome: false_reject}, over: {outcome: [false_reject, true_accept]}, expect: 0.05}",
    ),
    "rate_per_hour": (
        "wake_events",
        "{kind: rate_per_hour, of: {outcome: false_accept}, max_hours: 3, max_per_hour: 2, expect: 0.2}",
    ),
    "paired_difference": (
        "wake_events",
        "{kind: paired_difference, of: {outcome: false_reject}, compare: {baseline: micro-1, candidate: micro-2}}",
    ),
    "count": ("wake_events", "{kind: count, of: {score: {ge: 0.3}}}"),
    "histogram": (
        "wake_events",
        "{kind: histogram, field: score, edges: {from: 0, to: 1, bins: 10}, by: outcome}",
    ),
    "det": (
        "wake_events",
        "{kind: det, edges: {from: 0.1, to: 0.9, bins: 4}, max_hours: 3, max_per_hour: 1}",
    ),
    "mean": ("command_events", "{kind: mean, field: latency_ms, clip: {from: 100, to: 1500}, expect: 333.3}"),
    "confusion": ("command_events", "{kind: confusion, labels: [turn_on, turn_off]}"),
    "ratio": (
        "dictation_events",
        "{kind: ratio, of: word_errors, over: words, expect: 0.15, max_of: 3, max_over: 8}",
    ),
}


def plan(name: str, source: str, metric: str, privacy: str, segments: str = "", groups: str = "[[]]") -> Plan:
    """Return a plan of one metric."""
    text = HEAD.replace("NAME", name).replace("SOURCE", source)
    text += f"{segments}group_by: {groups}\nmetrics: {{m: {metric}}}\nprivacy: {privacy}\n"
    return parse(text.encode(), "plan.yaml", today=NOW.date(), policy=None)


def kinds() -> dict[str, Plan]:
    """Return a plan of each kind, with joint counters and under pure accounting, and of other forms."""
    joint = "{epsilon: 1, max_events: 6}"
    blocks = "{epsilon: 1, max_events: 6, counters: blocks}"
    pure = "{epsilon: 2, delta: 0, max_events: 6, accounting: pure, noise: central}"
    found = {}
    for kind, (source, metric) in METRICS.items():
        events = source == "wake_events"
        groups = "[[], [accent], [playback, loud]]" if events else "[[], [accent]]"
        if kind in ("histogram", "det"):
            groups = "[[accent, playback]]"
        segments = SEGMENTS if events else SEGMENTS.split("  loud")[0]
        if kind in ("histogram", "det"):
            segments = "".join(line for line in SEGMENTS.splitlines(True) if "loud" not in line)
        for form, privacy in (("joint", joint), ("pure", pure)):
            found[f"{kind}, {form}"] = plan("kind", source, metric, privacy, segments, groups)
    found["rate, blocks under zCDP"] = plan("kind", *METRICS["rate"], blocks)
    found["mean, the middle of the range"] = plan(
        "kind", "dictation_events", "{kind: mean, field: words, clip: {from: -0.5, to: 8}}", joint
    )
    found["count, much noise wanted"] = plan("kind", *METRICS["count"], "{epsilon: 20, max_events: 1}")
    found["f and γ large"] = plan("kind", *METRICS["count"], "{epsilon: 1, dropout: 0.2, corrupt: 0.25}")
    found |= {"one_shot_means": training("one_shot_means"), "norm_histogram": training("norm_histogram")}
    return found


def summed() -> Plan:
    """Return a plan that two aggregators sum."""
    privacy = "{epsilon: 1, max_events: 6, sum: two_aggregators, kappa: 0.5}"
    return plan("summed", *METRICS["rate"], privacy, SEGMENTS, "[[], [accent], [playback, loud]]")


def training(method: str) -> Plan:
    """Return a training plan."""
    means = method == "one_shot_means"
    center = ", ".join(f"{(place % 5) / 8}" for place in range(97))
    clip = "clip: 0.5\n" if means else ""
    segments = "segments: {accent: {device: accent, values: [en-US, scottish english]}}\n" if means else ""
    text = f"""apiVersion: fa/v1
kind: TrainPlan
metadata: {{name: training, revision: 1, owner: devices, question: Where is it?, expires: 2026-12-31}}
window: 7d
base: {{wake_word: okay_nabu, version: embed-1, sha256: {BASE}}}
adapter: frame1
method: {method}
center: [{center}]
{clip}{segments}eligibility: {{consent: personalisation}}
privacy: {{epsilon: 2, max_events: 3, min_cohort: 100}}
"""
    return parse(text.encode(), "plan.yaml", today=NOW.date(), policy=None)


BASE = sha256(b"a head").hexdigest()


def counting(plan_text: str, rows: Rows, facts: dict[str, str], name: str) -> Json:
    """Return the question for a vector, with a number for every draw that there can be."""
    purposes = ("events", "hours", "fires", "scale", "scale size", "moments")
    metric = "features" if "TrainPlan" in plan_text else "m"
    draws = {
        f"{metric}/{purpose}": [
            str(int.from_bytes(sha256(f"{name}/{purpose}/{place}".encode()).digest()[:8], "big"))
            for place in range(30)
        ]
        for purpose in purposes
    }
    return {
        "op": "count",
        "plan": plan_text,
        "until": seconds(NOW),
        "tables": rows,
        "facts": facts,
        "draws": draws,
    }


def at(hours: float) -> int:
    """Return a time so many hours before the window's end, in microseconds since 1970."""
    return seconds(NOW) * 1_000_000 - int(hours * HOUR)


def wake(hours: float, outcome: str, score: float | None, **more: Any) -> Json:
    return {
        "time": at(hours), "wake_word": "okay_nabu", "model_version": "micro-1", "score": score,
        "accepted": outcome in ("true_accept", "false_accept"), "outcome": outcome, "label_source": "follow_up",
        "snr_db": None, "playback": False, **more,
    }  # fmt: skip


def rows() -> Rows:
    """Return tables with more events than any plan here counts."""
    outcomes = ("true_accept", "false_reject", "false_accept", "true_reject")
    events = []
    for number in range(18):
        snr = (None, 5.0, 15.5, 4.99, 30.0)[number % 5]
        events.append(
            wake(
                0.25 + number * 0.4,
                outcomes[number % 4],
                number % 11 / 10,
                snr_db=snr,
                playback=number % 3 == 0,
            )
        )
    for number in range(9):
        events.append(
            wake(0.25 + number * 0.4, outcomes[(number + number // 3) % 4], 0.5, model_version="micro-2")
        )
    events += [wake(24, "false_reject", 1.0), wake(24.001, "false_reject", 1.0), wake(0, "false_reject", 1.0)]
    listening = [
        {
            "time": at(hour) - at(hour) % HOUR, "wake_word": "okay_nabu", "model_version": "micro-1",
            "snr_db": 5.0 * hour, "playback": playback, "minutes": (60, 45, 0, 31)[hour % 4],
        }
        for hour in range(1, 6)
        for playback in (False, True)
    ]  # fmt: skip
    commands = [
        {
            "time": at(number + 0.5), "model_version": "micro-1",
            "intent_predicted": ("turn_on", "turn_off", "play", None)[number % 4],
            "intent_actual": ("turn_on", "other", "turn_on")[number % 3], "corrected": number % 2 == 0,
            "succeeded": True, "retries": number % 3, "cancelled": False,
            "latency_ms": (50.0, 412.5, 1499.9, 2000.0, 733.05)[number % 5], "confirmation": None,
        }
        for number in range(9)
    ]  # fmt: skip
    dictation = [
        {
            "time": at(number + 0.5), "model_version": "micro-1", "words": (12, 30, 5, 0, 8)[number % 5],
            "word_errors": (2, 3, 5, 4, 0)[number % 5], "corrected": False, "insertions": None,
            "deletions": None, "substitutions": None,
        }
        for number in range(9)
    ]  # fmt: skip
    moments = [
        {
            "time": at(number + 1), "wake_word": "okay_nabu", "base": BASE,
            "features": [((place * 7 + number * 3) % 16) / 16 for place in range(97)],
        }
        for number in range(4)
    ]  # fmt: skip
    return {
        "wake_events": events, "listening": listening, "command_events": commands,
        "dictation_events": dictation, "moments": moments,
    }  # fmt: skip


def edges() -> list[tuple[str, Plan, Rows, dict[str, str]]]:
    """Return counts in which one rule decides."""
    joint = "{epsilon: 1, max_events: 6}"
    few = {"wake_events": rows()["wake_events"][:5]}
    rate = METRICS["rate"][1]
    by_accent = SEGMENTS.split("  loud")[0]
    missing = plan("edge", "wake_events", "{kind: count, of: {snr_db: {not: [5]}, score: {le: 0.3}}}", joint)
    facts = plan("edge", "wake_events", "{kind: count, of: {accent: [en-US], hour: {ge: 0}}}", joint)
    silent = {"wake_events": rows()["wake_events"], "listening": rows()["listening"]}
    silent["listening"] = [{**row, "minutes": 0} for row in silent["listening"]]
    bins = "{kind: histogram, field: score, edges: {from: 0.1, to: 0.7, bins: 3}}"
    pairs = {
        "wake_events": [*rows()["wake_events"][18:], *rows()["wake_events"][:9], *rows()["wake_events"][:3]]
    }
    return [
        ("no rows", plan("edge", "wake_events", rate, joint), {"wake_events": []}, FACTS),
        ("a missing value meets no condition", missing, few, FACTS),
        ("a fact in a filter", facts, few, {"accent": "en-US"}),
        ("a fact that is not set", facts, few, {}),
        (
            "an accent that is not named",
            plan("edge", "wake_events", rate, joint, by_accent, "[[accent]]"),
            few,
            {"accent": "fr"},
        ),
        ("no minutes, and events", plan("edge", *METRICS["rate_per_hour"], joint), silent, FACTS),
        ("values at the edges of bins", plan("edge", "wake_events", bins, joint), few, FACTS),
        (
            "pairs in another order, and twice",
            plan("edge", *METRICS["paired_difference"], joint),
            pairs,
            FACTS,
        ),
        ("no moments", training("one_shot_means"), {"moments": []}, FACTS),
        ("a vector far outside the clip", training("one_shot_means"), {"moments": _far()}, FACTS),
    ]


def _far() -> list[Json]:
    return [{**rows()["moments"][0], "features": [2.0**30] + [0.0] * 96}]
