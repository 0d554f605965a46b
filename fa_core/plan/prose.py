"""A plan in plain sentences: what it asks, of whom, by which segments, and at what cost to a device."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from fa_core.metrics import Condition, MetricSpec, exact_text
from fa_core.plan.schema import (
    EventSegment,
    Guardrail,
    Plan,
    Privacy,
    Segment,
    label_text,
    window_text,
)

_COMPARED = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
_SHOWN_APART = {"kind", "source", "where", "group_by"}


def describe(plan: Plan) -> str:
    """Return the plan as it will be sent, presets and defaults written out, in lines of text."""
    return "\n".join(f"{heading:<11} {text}" for heading, text in _lines(plan))


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    metadata, eligibility, privacy = plan.metadata, plan.eligibility, plan.privacy
    yield "Plan", f"{metadata.name}, revision {metadata.revision}, by {metadata.owner}"
    yield "Question", metadata.question
    yield "Until", metadata.expires.isoformat()
    if metadata.schedule is not None:
        yield "Schedule", metadata.schedule
    yield "Looks at", f"rows of the last {window_text(plan.window)} where {filter_text(plan.where)}"
    needs = f", if {', '.join(eligibility.require)}" if eligibility.require else ""
    yield (
        "Devices",
        f"{percent(eligibility.sample)} of the fleet{needs}; owners agreed to {eligibility.consent}",
    )
    yield from _under(
        "Segments", (f"{name}: {segment_text(segment)}" for name, segment in plan.segments.items())
    )
    for name, metric in plan.metrics.items():
        yield "Metric", f"{name}, a {metric.kind} over {metric.source}. {metric.question}"
        for key, text in _keys(metric):
            yield "", f"  {key}: {text}"
    yield (
        "Privacy",
        f"epsilon {exact_text(privacy.epsilon)}, delta {exact_text(privacy.delta)} for each device",
    )
    if privacy.rho is not None and privacy.alpha is not None:
        yield (
            "Charge",
            f"rho {exact_text(privacy.rho)} of zCDP, verified at alpha {exact_text(privacy.alpha)}",
        )
    kind = f"accounting {privacy.accounting}, mechanism {privacy.mechanism}"
    yield "Noise", f"{privacy.noise}: {_adder(privacy)}; {kind}"
    clip = "" if privacy.max_excess is None else f"; excess clipped at {privacy.max_excess}"
    yield "Weight", f"at most {privacy.max_events} events of a device count{clip}"
    yield from _under(
        "Budget",
        (
            f"{float(share.share):.1%} to {share.metric}, {grouping_text(share.by)}"
            for share in privacy.shares or ()
        ),
    )
    yield "Shown", f"only groups of about {privacy.min_cohort} devices or more"
    yield "Sum", _sum(privacy)
    yield from _under("Guardrails", (guardrail_text(guardrail) for guardrail in plan.guardrails))
    yield "Hash", plan.hash


def _adder(privacy: Privacy) -> str:
    if privacy.kappa is not None:
        return (
            "each of two aggregators adds its own, either enough alone; the leader's variance is "
            f"{exact_text(privacy.kappa)} of the helper's"
        )
    if privacy.noise == "distributed":
        return "each device adds its share"
    return "the server adds it to the exact sum"


def _sum(privacy: Privacy) -> str:
    if privacy.sum == "two_aggregators":
        return (
            "each device uploads once, in shares that a leader and a helper add up; together they could read "
            "every device's vector, apart neither can"
        )
    masked = (
        "the server sees only the sum"
        if privacy.secure_aggregation
        else "the server sees every device's vector"
    )
    return f"{masked}; up to {percent(privacy.dropout)} may drop out, {percent(privacy.corrupt)} be corrupt"


def _under(heading: str, texts: Iterator[str]) -> Iterator[tuple[str, str]]:
    for index, text in enumerate(texts):
        yield "" if index else heading, text


def _keys(metric: MetricSpec) -> Iterator[tuple[str, str]]:
    if metric.where:
        yield "where", filter_text(metric.where)
    for name, info in type(metric).model_fields.items():
        value = getattr(metric, name)
        if name not in _SHOWN_APART and value is not None and not info.exclude:
            yield info.alias or name, value_text(value)
    yield "reported", "; ".join(map(grouping_text, metric.group_by or ((),)))


def value_text(value: Any) -> str:
    """Return any value of a metric's key: a filter in words, a number in digits, a list with commas."""
    if isinstance(value, Fraction):
        return exact_text(value)
    if isinstance(value, Mapping):
        return filter_text(value)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return ", ".join(f"{info.alias or name} {value_text(getattr(value, name))}" for name, info in fields)
    if isinstance(value, tuple):
        return ", ".join(map(value_text, value))
    return label_text(value)


def filter_text(where: Mapping[str, Condition]) -> str:
    """Return a filter in words: "wake_word is okay_nabu and snr_db is below 8"."""
    return " and ".join(f"{name} is {_condition(body)}" for name, body in where.items()) or "anything is"


def _condition(condition: Condition) -> str:
    texts = []
    if condition.any_of is not None:
        texts.append(" or ".join(map(label_text, condition.any_of)))
    if condition.not_any_of is not None:
        texts.append("not " + " nor ".join(map(label_text, condition.not_any_of)))
    for key, word in _COMPARED:
        if (bound := getattr(condition, key)) is not None:
            texts.append(f"{word} {exact_text(bound)}")
    return ", ".join(texts)


def segment_text(segment: Segment) -> str:
    """Return the fact or column of a segment, and its labels with what falls into each."""
    if not isinstance(segment, EventSegment) or segment.edges is None:
        kind = "fact of the device" if segment.level == "device" else "column of the events"
        aliases = segment.aliases or {}
        named = [
            f"{label} (or {', '.join(aliases[label])})" if label in aliases else label
            for label in segment.labels
        ]
        return f"{segment.column} ({kind}): {', '.join(named)}"
    edges = [exact_text(edge) for edge in segment.edges]
    parts = [f"below {edges[0]}"]
    parts += [f"{low} to below {high}" for low, high in pairwise(edges)]
    parts.append(f"{edges[-1]} and up")
    named = [f"{label} ({part})" for label, part in zip(segment.labels[:-1], parts, strict=True)]
    return f"{segment.column} (column of the events): {', '.join(named)}, {segment.labels[-1]}"


def guardrail_text(guardrail: Guardrail) -> str:
    """Return the limits of a guardrail in a sentence."""
    limits = []
    if guardrail.min is not None:
        limits.append(f"at least {exact_text(guardrail.min)}")
    if guardrail.max is not None:
        limits.append(f"at most {exact_text(guardrail.max)}")
    if guardrail.max_gap is not None:
        limits.append(f"at most {exact_text(guardrail.max_gap)} between worst and best")
    at = ""
    if guardrail.at is not None:
        given = guardrail.at.model_dump(exclude={"axis"}, exclude_none=True)
        points = [f"{name.replace('_', ' ')} {value}" for name, value in given.items()]
        at = f" {guardrail.at.judged.replace('_', ' ')} at {', '.join(points)}"
    return f"{guardrail.metric},{at} {grouping_text(guardrail.by)}: {' and '.join(limits)}"


def grouping_text(grouping: tuple[str, ...]) -> str:
    """Return a grouping in words: "everyone" or "by accent and device_class"."""
    return f"by {' and '.join(grouping)}" if grouping else "everyone"


def percent(share: Fraction) -> str:
    """Return an exact share in percent: 1/5 is "20%"."""
    return f"{exact_text(share * 100)}%"
