"""Guardrails on a DET curve: at a threshold, or where each group has at most so many false accepts per hour.

At a threshold the curve is one number a group, judged as any other.

A false reject rate at a number of false accepts per hour says that each group has a threshold at which both
are within their limits. Broken: some group has none, as at every threshold a lower bound is above its limit.
Met: each group has one at which both upper bounds are within. The thresholds are those of the plan. As the
threshold is chosen after looking, both verdicts use the bands that hold for all thresholds, axes and groups.
"""

from collections.abc import Sequence
from dataclasses import replace

from fa_core.estimate.groups import limit_text, some
from fa_core.estimate.thresholds import ACCEPTS, Point, curve
from fa_core.plan.schema import Guardrail, OperatingPoint
from fa_core.values import Cell, Estimate, Judgement, Verdict


def at_threshold(results: Sequence[Estimate], at: OperatingPoint) -> list[Estimate]:
    """Return the curves as plain numbers: one axis at one threshold."""
    return [_at(result, at) for result in results]


def _at(result: Estimate, at: OperatingPoint) -> Estimate:
    assert at.threshold is not None
    if result.suppressed:
        return result
    (point,) = [each for each in curve(result) if abs(each.threshold - float(at.threshold)) < 1e-9]
    cell = point.accepts if at.judged == ACCEPTS else point.rejects
    return replace(
        result,
        estimate=cell.estimate,
        low=cell.low,
        high=cell.high,
        simultaneous_low=cell.simultaneous_low,
        simultaneous_high=cell.simultaneous_high,
        suppressed=cell.suppressed,
        reason=cell.reason,
        cells=(),
    )


def judge_operating_point(guardrail: Guardrail, at: OperatingPoint, results: Sequence[Estimate]) -> Judgement:
    """Return what the curves say of a limit at a number of false accepts per hour, or a false reject rate."""
    assert guardrail.max is not None
    limit = float(guardrail.max)
    if at.false_accepts_per_hour is not None:
        rejects, accepts = limit, float(at.false_accepts_per_hour)
    else:
        assert at.false_reject_rate is not None
        rejects, accepts = float(at.false_reject_rate), limit
    shown = [result for result in results if not result.suppressed]
    without = [result for result in shown if all(_is_over(p, rejects, accepts) for p in curve(result))]
    unsure = [
        result
        for result in results
        if result.suppressed or not any(_is_within(p, rejects, accepts) for p in curve(result))
    ]
    verdict: Verdict = "not_enough_evidence"
    if without:
        verdict = "broken"
        sentence = f"{some(without)} {'has' if len(without) == 1 else 'have'} no such threshold"
    elif shown and not unsure:
        verdict, sentence = "met", "every group has such a threshold"
    else:
        sentence = f"not enough evidence yet for {some(unsure)}"
    worst = next(iter(without or unsure or results), None)
    return Judgement(
        metric=guardrail.metric,
        by=guardrail.by,
        limit=limit_text(guardrail, "max", guardrail.max),
        verdict=verdict,
        worst=None if worst is None else worst.group,
        low=None,
        high=None,
        sentence=sentence,
    )


def _is_over(point: Point, rejects: float, accepts: float) -> bool:
    """Return whether the bands rule out that both are within their limits."""
    return _above(point.rejects, rejects) or _above(point.accepts, accepts)


def _above(cell: Cell, limit: float) -> bool:
    return cell.simultaneous_low is not None and cell.simultaneous_low > limit


def _is_within(point: Point, rejects: float, accepts: float) -> bool:
    """Return whether the bands show that both are within their limits."""
    highs = (point.rejects.simultaneous_high, rejects), (point.accepts.simultaneous_high, accepts)
    return all(high is not None and high <= limit for high, limit in highs)
