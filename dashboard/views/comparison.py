"""Differences between models or releases: the margin, the verdicts, the chart, the table and the summary sentence."""

from collections.abc import Sequence
from fractions import Fraction

from dashboard.charts import base
from dashboard.charts.differences import differences
from dashboard.data.numbers import group_text, points
from dashboard.navigation import selection
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from fa_core.estimate.compare import HIGHER_IS_BETTER, Change, Difference, change_of
from fa_core.estimate.measure import Measure, difference, measure
from fa_core.estimate.sentences import listed
from fa_core.store import Entry
from fa_core.values import Estimate

CHIPS: dict[Change, tuple[str, str]] = {
    "worse": ("broken", "✕"),
    "better": ("met", "✓"),
    "same within margin": ("met", "="),
    "not enough evidence": ("open", "◌"),
}


MARGIN = Fraction(1, 100)
"""The default margin, one percentage point of a share: differences within it count as no change."""

SHARES, OTHERS = ("0", "0.5", "1", "2", "5"), ("0", "0.01", "0.1", "1", "10", "100")
"""Margins to choose from, as shown: percentage points of a share, or the metric's own unit."""


def choose_margin(of: Measure) -> Fraction:
    """Show a select box of margins and return the selected one in the metric's unit."""
    share = of.factor == 100
    options = {text: text for text in (SHARES if share else OTHERS)}
    chosen = selection.choose(
        "Margin", options, "margin", lambda text: f"± {points(text) if share else text + of.suffix}", "1" if share else "0",
        "A difference whose corrected 95% interval is within ± this margin counts as no change.",
    )  # fmt: skip
    return Fraction(chosen) / of.factor


def paired(results: Sequence[Estimate], margin: Fraction) -> list[Difference]:
    """Return a release's paired differences as `Difference` values, judged by the same rule."""
    return [
        Difference(
            metric=each.metric,
            kind=each.kind,
            unit=each.unit,
            group=each.group,
            cell=(),
            before=None,
            after=None,
            difference=each.estimate,
            low=each.low,
            high=each.high,
            simultaneous_low=each.simultaneous_low,
            simultaneous_high=each.simultaneous_high,
            level=each.level,
            change=change_of(each.simultaneous_low, each.simultaneous_high, float(margin), more=False),
            reason=each.reason,
        )
        for each in results
    ]


def about_models(found: Sequence[Difference], candidate: str, baseline: str) -> str:
    """Return whether the evidence allows the candidate to replace the baseline."""
    of = difference("paired_difference", "")
    worse = [each for each in found if each.change == "worse"]
    open_ = [each for each in found if each.change == "not enough evidence" and each.difference is not None]
    hidden = [group_text(each.group) for each in found if each.difference is None]
    better = [group_text(each.group) for each in found if each.change == "better"]
    no_data = f" No data for {listed(hidden)}." if hidden else ""
    gain = f" It is significantly better (95%, corrected) for {listed(better)}." if better else ""
    if worse:
        named = listed([f"{group_text(each.group)} ({_size(each, of)})" for each in worse], 3)
        return f"Not safe to ship: {candidate} is significantly worse than {baseline} (95%, corrected) for {named}.{gain}{no_data}"
    if open_:
        most = max(open_, key=lambda each: each.simultaneous_high or 0.0)
        bound = of.text(most.simultaneous_high, most.simultaneous_high).lstrip("+")
        return (
            f"Inconclusive whether {candidate} is safe to ship: not enough evidence for "
            f"{listed([group_text(e.group) for e in open_])} ({group_text(most.group)} could be up to {bound} worse).{gain}{no_data}"
        )
    if hidden:
        return f"No group shown is worse: {candidate} is better than {baseline}, or the same within the margin, for each.{gain}{no_data}"
    return (
        f"Safe to ship on this evidence: {candidate} is better than {baseline}, or the same within the margin, "
        f"for every group.{gain}"
    )


def _size(each: Difference, of: Measure) -> str:
    half = None if each.low is None or each.high is None else (each.high - each.low) / 2
    return f"{of.text(each.difference, half)}, {of.interval(each.low, each.high)}"


def show(found: Sequence[Difference], margin: Fraction, title: str, entry: Entry) -> base.Figure:
    """Put the chart of some differences on the page and return it."""
    chart = differences(
        _ordered(found), _measure(found), theme.palette(), margin=float(margin),
        simulated=entry.simulated, synthetic=entry.synthetic,
    )  # fmt: skip
    verdicts = "; ".join(f"{group_text(each.group)}: {each.change}" for each in found[:40])
    base.show(chart, theme.palette(), f"Differences in {title}. {verdicts}", "differences")
    same = '<span><i class="same"></i>within the margin: no change</span>' if margin else ""
    theme.show(
        '<div class="uh-key"><span><i class="own"></i>95% interval of the group</span><span><i class="all"></i>95% interval corrected '
        f"for all groups: verdicts use it</span>{same}</div>"
    )
    return chart


def _ordered(found: Sequence[Difference]) -> list[Difference]:
    """Return differences in the order of their verdicts, worse first, and those that are not shown last."""
    order = list(CHIPS)
    return sorted(found, key=lambda each: (each.difference is None, order.index(each.change)))


def _measure(found: Sequence[Difference]) -> Measure:
    first = found[0]
    if first.kind == "paired_difference":
        return measure(first.kind, first.unit)
    return difference(first.kind, first.unit)


def table(found: Sequence[Difference]) -> None:
    """Put a table of differences on the page, worse first."""
    of = _measure(found)
    plain = measure(found[0].kind, found[0].unit)
    both = any(each.before is not None for each in found)
    columns = [Column("Group")]
    columns += [Column("Before", True, True), Column("After", True, True)] if both else []
    columns += [Column("Difference", True), Column("95% interval", True, True), Column("95%, corrected", True, True),
                Column("Verdict")]  # fmt: skip
    rows, attributes = [], []
    for each in _ordered(found):
        kind, sign = CHIPS[each.change]
        half = None if each.low is None or each.high is None else (each.high - each.low) / 2
        interval = esc(of.interval(each.low, each.high))
        number = f'<span class="lead">{esc(of.text(each.difference, half))}</span> <small class="narrow">{interval}</small>'
        if each.difference is None:
            number = f'<span class="why">not shown: {theme.rich(each.reason)}</span>'
        row = [esc(group_text(each.group), 120)]
        row += [esc(plain.text(each.before, half)), esc(plain.text(each.after, half))] if both else []
        row += [
            number, esc(of.interval(each.low, each.high)) if each.difference is not None else "",
            esc(of.interval(each.simultaneous_low, each.simultaneous_high)) if each.difference is not None else "",
            theme.chip(each.change, kind, sign),
        ]  # fmt: skip
        rows.append(row)
        attributes.append({"group": group_text(each.group), "estimate": each.difference, "low": each.low, "high": each.high,
                     "change": each.change})  # fmt: skip
    theme.show(theme.table(columns, rows, "Differences by group", attributes))


__all__ = ["HIGHER_IS_BETTER", "about_models", "choose_margin", "paired", "show", "table"]
