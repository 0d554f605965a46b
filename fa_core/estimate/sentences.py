"""Sentences about estimates, the same on the command line, in a report and on a page.

Every claim follows from the intervals; nothing is estimated here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from fa_core.estimate.compare import HIGHER_IS_BETTER
from fa_core.estimate.groups import name_of
from fa_core.estimate.judge import gap
from fa_core.estimate.measure import MINUS, Measure, difference, measure
from fa_core.metrics import exact_text
from fa_core.values import Estimate, Judgement

WHICH_DECIDES: Final = (
    "Each group's own 95% interval decides whether a limit is met. Intervals that hold for all groups "
    "together (95%, corrected) decide whether it is broken, and which groups are significantly high."
)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as `a, b and c`, or `a, b and 7 more`.

    >>> listed(["a", "b", "c"]), listed(list("abcdefgh"), 2)
    ('a, b and c', 'a, b and 6 more')
    """
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def about_estimand(before: str, after: str | None = None) -> str:
    """Return a sentence of what numbers are of; where those of two releases differ, of what either's are. ""
    where it is not known.

    >>> about_estimand("of at most 24 events a device", "of at most 8 events a device")
    'Numbers are of at most 24 events a device before, of at most 8 events a device after.'
    """
    if not before or after == "":
        return ""
    if after is None or before == after:
        return f"Numbers are {before}."
    return f"Numbers are {before} before, {after} after."


def more_is_better(metric: str) -> bool:
    """Return whether higher is better for a metric, by the same rule as `fa compare`."""
    return metric in HIGHER_IS_BETTER


def by_evidence(results: Sequence[Estimate]) -> list[Estimate]:
    """Return groups by the bound of their simultaneous interval, worst first, those not shown last."""
    if results and more_is_better(results[0].metric):
        return sorted(results, key=lambda r: (r.estimate is None, _known(r.simultaneous_high)))
    return sorted(results, key=lambda r: (r.estimate is None, -_known(r.simultaneous_low)))


def extremes(results: Sequence[Estimate]) -> tuple[Estimate, Estimate] | None:
    """Return the groups with the worst and with the best estimate, None where fewer than two are shown."""
    shown = [result for result in results if result.estimate is not None]
    if len(shown) < 2:
        return None
    lowest, *_, highest = sorted(shown, key=lambda result: _known(result.estimate))
    return (lowest, highest) if more_is_better(shown[0].metric) else (highest, lowest)


def significant(results: Sequence[Estimate]) -> list[Estimate]:
    """Return the groups that are significantly worse than some other one, most evidence first: their
    simultaneous interval lies wholly on the worse side of the other's."""
    shown = [result for result in by_evidence(results) if result.estimate is not None]
    if not shown:
        return []
    if more_is_better(shown[0].metric):
        most = max(_known(result.simultaneous_low) for result in shown)
        return [result for result in shown if _known(result.simultaneous_high) < most]
    least = min(_known(result.simultaneous_high) for result in shown)
    return [result for result in shown if _known(result.simultaneous_low) > least]


def about_groups(results: Sequence[Estimate], *, brief: bool = False) -> str:
    """Return which groups are significantly worse, and which has the worst estimate: it may be another, of
    which less is known. `brief` omits numbers. Empty where a grouping has no groups to compare."""
    hidden = [name_of(result) for result in results if result.estimate is None]
    pair, found = extremes(results), gap(results)
    if pair is None or found is None:
        return f"Too few groups are shown to compare. Not shown: {listed(hidden)}." if hidden else ""
    of, apart = (each(results[0].kind, results[0].unit) for each in (measure, difference))
    far, furthest = ("low", "lowest") if more_is_better(results[0].metric) else ("high", "highest")
    worse = [name_of(result) for result in significant(results)]
    first = f"Significantly {far} (95%, corrected): {listed(worse)}" if worse else (
        "No group is significantly higher than another (95%, corrected)"
    )  # fmt: skip
    worst, best = pair
    text = f"{first}; {furthest} estimate: {name_of(worst)}"
    if not brief:
        text += f" at {of.with_interval(worst)}, against {name_of(best)} at {of.with_interval(best)}"
        text += f". The widest gap is {_gap(apart, found.low, found.high)}"
    return f"{text}." + (f" Not shown: {listed(hidden)}." if hidden else "")


def about_limit(judgement: Judgement, kind: str, unit: str) -> str:
    """Return the limit of a guardrail in the metric's unit: `at most 30%`, `gap at most 15 points`."""
    limit = _limit(judgement)
    at = f"{limit.point.replace('_', ' ')}: " if limit.point else ""
    if limit.what == "max gap":
        return f"{at}gap at most {difference(kind, unit, limit.labels).exact(limit.number)}"
    least = "least" if limit.what == "min" else "most"
    return f"{at}at {least} {measure(kind, unit, limit.labels).exact(limit.number)}"


def about_verdict(judgement: Judgement, kind: str, unit: str) -> str:
    """Return the reason for a guardrail's verdict: its sentence, with units added to the numbers."""
    limit = _limit(judgement)
    of = (difference if limit.what == "max gap" else measure)(kind, unit, limit.labels)
    values = {exact_text(limit.number): of.exact(limit.number)}
    for bound in (judgement.low, judgement.high):
        if bound is not None:
            values[f"{bound:.3g}"] = plain(of, bound)
    either = "|".join(re.escape(written) for written in sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<![\w.-])(?:{either})(?![\w.])", lambda found: values[found[0]], judgement.sentence)


def plain(of: Measure, value: float, half: float | None = None) -> str:
    """Return the size of a number, without its sign."""
    return of.text(value, half if half is not None else value).lstrip("+").replace(MINUS, "")


def _gap(apart: Measure, low: float, high: float) -> str:
    if low <= 0:
        return f"at most {plain(apart, high)}"
    return f"at least {plain(apart, low)} and at most {plain(apart, high)}"


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit: `max`, `min` or `max gap`, the number, and of a DET curve the point that is judged."""

    what: str
    number: Fraction
    point: str

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """The labels of the cells that are judged, for their unit."""
        return (("axis", self.point.partition(" ")[0]),) if self.point else ()


def _limit(judgement: Judgement) -> _Limit:
    point, _, limit = judgement.limit.rpartition(": ")
    what, _, number = limit.rpartition(" ")
    return _Limit(what, Fraction(number), point)


def _known(value: float | None) -> float:
    return 0.0 if value is None else value
