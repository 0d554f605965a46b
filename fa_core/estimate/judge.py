"""Guardrails: what the evidence says of a limit, never more.

Broken: some group's simultaneous lower bound is over the limit. The bounds hold for all groups together,
since one false alarm among many groups breaks the guardrail.

Met: each group's own interval is under the limit. That all groups are within it is an intersection-union
hypothesis (Berger 1982): it is false as soon as one group is over, and then that group's own bound errs with
its own probability, however many groups there are. So no correction is owed, and none is made.

A lower limit is the mirror image. A DET curve is judged at one point (`operating_point`).

Anything else, or any planned group without a number: not enough evidence. The `other` group counts as a
planned group unless it has too few devices to be shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fa_core.estimate.groups import limit_text, name_of, some
from fa_core.estimate.operating_point import at_threshold, judge_operating_point
from fa_core.metrics import exact_text
from fa_core.plan import Plan
from fa_core.plan.schema import OTHER, Guardrail
from fa_core.values import Estimate, Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Gap:
    """Bounds on the distance between the highest and the lowest group.

    Attributes:
        highest, lowest: the groups with the highest and the lowest estimate, which they seem to be.
        above, below: the groups whose simultaneous bounds give `low`: where it is above 0, `above` is
            significantly higher than `below`.
    """

    low: float
    high: float
    highest: Estimate
    lowest: Estimate
    above: Estimate
    below: Estimate


def judge(plan: Plan, results: Sequence[Estimate]) -> tuple[Judgement, ...]:
    """Return a judgement for each limit of each guardrail of the plan."""
    found: list[Judgement] = []
    for guardrail in plan.guardrails:
        planned = [
            result
            for result in results
            if result.metric == guardrail.metric and tuple(name for name, _ in result.group) == guardrail.by
        ]
        judged = [result for result in planned if not _empty_other(result)]
        if guardrail.at is not None and guardrail.at.threshold is None:
            found.append(judge_operating_point(guardrail, guardrail.at, judged))
            continue
        if guardrail.at is not None:
            judged = at_threshold(judged, guardrail.at)
        if guardrail.max is not None:
            found.append(_judge_max(guardrail, judged))
        if guardrail.min is not None:
            found.append(_judge_min(guardrail, judged))
        if guardrail.max_gap is not None:
            found.append(_judge_gap(guardrail, judged))
    return tuple(found)


def gap(results: Sequence[Estimate]) -> Gap | None:
    """Return the gap over groups that have a number, or None for fewer than two.

    Its lower bound is max(0, max L − min U) of the simultaneous bounds; its upper bound max U − min L of each
    group's own, which is at least U − L of the two groups that are truly farthest apart, whichever they are.
    """
    shown = [result for result in results if result.estimate is not None]
    if len(shown) < 2:
        return None
    above = max(shown, key=lambda result: _bound(result.simultaneous_low))
    below = min(shown, key=lambda result: _bound(result.simultaneous_high))
    return Gap(
        low=max(0.0, _bound(above.simultaneous_low) - _bound(below.simultaneous_high)),
        high=max(_bound(result.high) for result in shown) - min(_bound(result.low) for result in shown),
        highest=max(shown, key=lambda result: _bound(result.estimate)),
        lowest=min(shown, key=lambda result: _bound(result.estimate)),
        above=above,
        below=below,
    )


def _judge_max(guardrail: Guardrail, judged: Sequence[Estimate]) -> Judgement:
    assert guardrail.max is not None
    limit = float(guardrail.max)
    shown = [result for result in judged if result.estimate is not None]
    over = [result for result in shown if _bound(result.simultaneous_low) > limit]
    over.sort(key=lambda result: -_bound(result.simultaneous_low))
    worst = over[0] if over else max(shown, key=lambda result: _bound(result.estimate), default=None)
    verdict: Verdict = "not_enough_evidence"
    if over:
        verdict = "broken"
        sentence = f"{some(over)} {'is' if len(over) == 1 else 'are'} above {exact_text(guardrail.max)}"
    elif shown and len(shown) == len(judged) and all(_bound(r.high) <= limit for r in shown):
        verdict = "met"
        sentence = f"every group is at most {exact_text(guardrail.max)}"
    else:
        open_groups = [r for r in judged if r.estimate is None or _bound(r.high) > limit]
        sentence = f"not enough evidence yet for {some(open_groups)}"
    return Judgement(
        metric=guardrail.metric,
        by=guardrail.by,
        limit=limit_text(guardrail, "max", guardrail.max),
        verdict=verdict,
        worst=worst.group if worst is not None else None,
        low=None,
        high=None,
        sentence=sentence,
    )


def _judge_min(guardrail: Guardrail, judged: Sequence[Estimate]) -> Judgement:
    """Judge a lower limit: the mirror image of an upper one."""
    assert guardrail.min is not None
    limit = float(guardrail.min)
    shown = [result for result in judged if result.estimate is not None]
    under = [result for result in shown if _bound(result.simultaneous_high) < limit]
    under.sort(key=lambda result: _bound(result.simultaneous_high))
    worst = under[0] if under else min(shown, key=lambda result: _bound(result.estimate), default=None)
    verdict: Verdict = "not_enough_evidence"
    if under:
        verdict = "broken"
        sentence = f"{some(under)} {'is' if len(under) == 1 else 'are'} below {exact_text(guardrail.min)}"
    elif shown and len(shown) == len(judged) and all(_bound(r.low) >= limit for r in shown):
        verdict = "met"
        sentence = f"every group is at least {exact_text(guardrail.min)}"
    else:
        open_groups = [r for r in judged if r.estimate is None or _bound(r.low) < limit]
        sentence = f"not enough evidence yet for {some(open_groups)}"
    return Judgement(
        metric=guardrail.metric,
        by=guardrail.by,
        limit=limit_text(guardrail, "min", guardrail.min),
        verdict=verdict,
        worst=worst.group if worst is not None else None,
        low=None,
        high=None,
        sentence=sentence,
    )


def _judge_gap(guardrail: Guardrail, judged: Sequence[Estimate]) -> Judgement:
    assert guardrail.max_gap is not None
    limit = float(guardrail.max_gap)
    text = exact_text(guardrail.max_gap)
    found = gap(judged)
    verdict: Verdict = "not_enough_evidence"
    sentence = "fewer than two groups have a number"
    if found is not None:
        if found.low > limit:
            pair = f"between {name_of(found.above)} and {name_of(found.below)}"
            verdict, sentence = "broken", f"the gap {pair} is more than {text}"
        elif found.high <= limit and all(result.estimate is not None for result in judged):
            verdict, sentence = "met", f"no two groups are more than {text} apart"
        else:
            sentence = (
                f"the widest gap may be anything from {found.low:.3g} to {found.high:.3g} (highest estimate: "
                f"{name_of(found.highest)}, lowest: {name_of(found.lowest)})"
            )
    return Judgement(
        metric=guardrail.metric,
        by=guardrail.by,
        limit=limit_text(guardrail, "max gap", guardrail.max_gap),
        verdict=verdict,
        worst=_worst_of(found, broken=verdict == "broken"),
        low=found.low if found is not None else None,
        high=found.high if found is not None else None,
        sentence=sentence,
    )


def _worst_of(found: Gap | None, *, broken: bool) -> tuple[tuple[str, str], ...] | None:
    if found is None:
        return None
    return found.above.group if broken else found.highest.group


def _empty_other(result: Estimate) -> bool:
    """A group of leftovers that is too small to show says nothing about the groups that were named."""
    return result.suppressed and any(label == OTHER for _, label in result.group)


def _bound(value: float | None) -> float:
    assert value is not None, "only shown results are judged"
    return value
