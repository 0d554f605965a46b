"""Sentences about estimates. Every claim follows from the intervals; nothing is estimated here."""

import re
from collections.abc import Sequence
from fractions import Fraction

from dashboard.data.numbers import (
    MINUS,
    Measure,
    difference,
    group_text,
    grouping_text,
    listed,
    measure,
    words,
)
from fa_core.estimate import gap
from fa_core.estimate.compare import HIGHER_IS_BETTER, Difference
from fa_core.estimate.judge import Gap
from fa_core.metrics import exact_text
from fa_core.values import Estimate, Judgement


def more_is_better(metric: str) -> bool:
    """Return whether higher is better for a metric, by the same rule as `fa compare`."""
    return metric in HIGHER_IS_BETTER


def worst_and_best(results: Sequence[Estimate]) -> tuple[Estimate, Estimate] | None:
    """Return the groups with the most evidence of being worst and of being best, None where fewer than two groups
    are shown. Ranked by the bounds of the simultaneous intervals; where one group, with the narrowest interval, would
    be both, by the estimates."""
    shown = [result for result in results if result.estimate is not None]
    if len(shown) < 2:
        return None
    highest = max(shown, key=lambda result: _known(result.simultaneous_low))
    lowest = min(shown, key=lambda result: _known(result.simultaneous_high))
    if highest is lowest:
        highest = max(shown, key=lambda result: _known(result.estimate))
        lowest = min(shown, key=lambda result: _known(result.estimate))
    return (lowest, highest) if more_is_better(shown[0].metric) else (highest, lowest)


def by_evidence(results: Sequence[Estimate]) -> list[Estimate]:
    """Return groups by the bound of their simultaneous interval, worst first, and those that are not shown last."""
    if results and more_is_better(results[0].metric):
        return sorted(results, key=lambda r: (r.estimate is None, _known(r.simultaneous_high)))
    return sorted(results, key=lambda r: (r.estimate is None, -_known(r.simultaneous_low)))


def about_groups(results: Sequence[Estimate], *, brief: bool = False) -> str:
    """Return the worst and the best group, and whether they differ significantly; `brief` omits their estimates."""
    pair, found = worst_and_best(results), gap(results)
    hidden = [group_text(result.group) for result in results if result.estimate is None]
    if pair is None or found is None:
        return f"Too few groups are shown to compare. Not shown: {listed(hidden)}." if hidden else ""
    of = measure(results[0].kind, results[0].unit)
    change = difference(results[0].kind, results[0].unit)
    names = [group_text(each.group) for each in pair]
    if found.low <= 0:
        text = "No group is significantly worse than another (95%, corrected)"
        text += "." if brief else (
            f"; the widest gap is between 0 and {_plain(change, found.high)}. Most evidence of being worse: {names[0]} at "
            f"{of.with_interval(pair[0])}."
        )  # fmt: skip
    elif brief:
        text = (
            f"{names[0]} is significantly worse than {names[1]} (95%, corrected), by at least "
            f"{_plain(change, found.low)}."
        )
    else:
        text = (
            f"{names[0]} at {of.with_interval(pair[0])} is significantly worse than {names[1]} at "
            f"{of.with_interval(pair[1])} (95%, corrected). "
            f"The gap is at least {_plain(change, found.low)} and at most {_plain(change, found.high)}."
        )
    return text + (f" Not shown: {listed(hidden)}." if hidden else "")


def gap_text(found: Gap, kind: str, unit: str) -> str:
    """Return a gap as its bounds."""
    of = difference(kind, unit)
    half = (found.high - found.low) / 2
    return f"{of.bare(found.low, half).lstrip('+')}–{of.bare(found.high, half).lstrip('+')}{of.suffix}"


def about_limit(judgement: Judgement, kind: str, unit: str) -> str:
    """Return what a guardrail requires: `false reject rate: at most 30% for every accent`."""
    what, number = _limit(judgement)
    name = words(judgement.metric)
    if what == "max gap":
        apart = _plain(difference(kind, unit), number)
        return f"{name}: gap between groups by {grouping_text(judgement.by)} at most {apart}"
    by = f" for every {grouping_text(judgement.by)}" if judgement.by else ""
    return f"{name}: at most {measure(kind, unit).text(number)}{by}"


def about_verdict(judgement: Judgement, results: Sequence[Estimate], kind: str, unit: str) -> str:
    """Return the reason for a guardrail's verdict: the judgement's sentence, with units added to its numbers.

    `results` are the groups that were judged; a group's name at the beginning is not capitalised.
    """
    what, number = _limit(judgement)
    of = difference(kind, unit) if what == "max gap" else measure(kind, unit)
    text = judgement.sentence
    values = {exact_text(Fraction(judgement.limit.rpartition(" ")[2])): number}
    for bound in (judgement.low, judgement.high):
        if bound is not None:
            values[f"{bound:.3g}"] = bound
    for written, value in values.items():
        text = re.sub(rf"(?<![\w.]){re.escape(written)}(?![\w.])", _plain(of, value), text)
    named = any(text.startswith(group_text(result.group)) for result in results)
    return (text if named else text[:1].upper() + text[1:]) + "."


def about_change(changed: Difference) -> str:
    """Return how one estimate changed since the previous release."""
    of = difference(changed.kind, changed.unit)
    if changed.difference is None or changed.low is None or changed.high is None:
        return f"The change cannot be estimated: {changed.reason or 'one of the two is not shown'}."
    half = (changed.high - changed.low) / 2
    size = _plain(of, abs(changed.difference), half)
    interval = of.interval(changed.low, changed.high)
    if changed.low > 0:
        return f"Rose by {size} ({interval})."
    if changed.high < 0:
        return f"Fell by {size} ({interval})."
    return f"No significant change: {of.text(changed.difference, half)} ({interval})."


def change_cell(changed: Difference | None) -> tuple[str, str]:
    """Return a change for a table: the difference with a sign, and the interval."""
    if changed is None or changed.difference is None or changed.low is None or changed.high is None:
        return "", ""
    of = difference(changed.kind, changed.unit)
    sign = "▲ " if changed.low > 0 else "▼ " if changed.high < 0 else ""
    half = (changed.high - changed.low) / 2
    return sign + of.text(changed.difference, half), of.interval(changed.low, changed.high)


def _plain(of: Measure, value: float, half: float | None = None) -> str:
    return of.text(value, half if half is not None else value).lstrip("+").replace(MINUS, "")


def _limit(judgement: Judgement) -> tuple[str, float]:
    kind, _, number = judgement.limit.rpartition(" ")
    return kind, float(number)


def _known(value: float | None) -> float:
    return 0.0 if value is None else value
