"""Sentences on the pages about estimates: those of `fa_core.estimate.sentences`, and what pages add to them."""

from collections.abc import Sequence

from dashboard.data.numbers import grouping_text, words
from fa_core.estimate import sentences
from fa_core.estimate.compare import Difference
from fa_core.estimate.groups import name_of
from fa_core.estimate.judge import Gap
from fa_core.estimate.measure import difference
from fa_core.estimate.sentences import about_groups, by_evidence, extremes, significant
from fa_core.values import Estimate, Judgement

__all__ = [
    "about_groups",
    "about_limit",
    "about_verdict",
    "by_evidence",
    "change_cell",
    "extremes",
    "gap_text",
    "significant",
]


def gap_text(found: Gap, kind: str, unit: str) -> str:
    """Return a gap as its bounds."""
    of = difference(kind, unit)
    half = (found.high - found.low) / 2
    return f"{of.bare(found.low, half).lstrip('+')}–{of.bare(found.high, half).lstrip('+')}{of.suffix}"


def about_limit(judgement: Judgement, kind: str, unit: str) -> str:
    """Return what a guardrail requires: `false reject rate: at most 30% for every accent`."""
    limit = sentences.about_limit(judgement, kind, unit)
    by = f" for every {grouping_text(judgement.by)}" if judgement.by else ""
    if "max gap" in judgement.limit:
        by = f" between groups by {grouping_text(judgement.by)}"
    return f"{words(judgement.metric)}: {limit}{by}"


def about_verdict(judgement: Judgement, results: Sequence[Estimate], kind: str, unit: str) -> str:
    """Return the reason for a guardrail's verdict, as a sentence.

    `results` are the groups that were judged; a group's name at the beginning is not capitalised.
    """
    text = sentences.about_verdict(judgement, kind, unit)
    named = any(text.startswith(name_of(result)) for result in results)
    return (text if named else text[:1].upper() + text[1:]) + "."


def change_cell(changed: Difference | None) -> tuple[str, str]:
    """Return a change for a table: the difference with a sign, and the interval."""
    if changed is None or changed.difference is None or changed.low is None or changed.high is None:
        return "", ""
    of = difference(changed.kind, changed.unit)
    sign = "▲ " if changed.low > 0 else "▼ " if changed.high < 0 else ""
    half = (changed.high - changed.low) / 2
    return sign + of.text(changed.difference, half), of.interval(changed.low, changed.high)
