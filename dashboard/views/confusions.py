"""Confusions: which commands are confused with which, how significantly, and which ones users correct."""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard.charts import base
from dashboard.charts.forest import forest
from dashboard.charts.matrix import matrix
from dashboard.data import reading, sentences
from dashboard.data.numbers import group_text, measure_of, short, span, words
from dashboard.data.reading import Body
from dashboard.launch.suggestion import run_command
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import downloads
from fa_core.estimate.measure import half_width
from fa_core.plan.schema import EventSegment
from fa_core.values import Cell, Estimate

MOST_PAIRS: Final = 12
INTENTS: Final = frozenset({"intent_actual", "intent_predicted"})


def page() -> None:
    """Show the page."""
    theme.title("Confusions", "Which commands are confused with which, and is it significant?")
    plans = reading.with_kind(active().store, "confusion")
    if not plans:
        theme.empty(
            "No release has a confusion matrix yet.",
            "A plan with a `confusion` metric counts actual commands against predicted ones.",
            run_command("command-confusions"),
        )
        return
    with st.container(key="selection"):
        left, middle, right = st.columns([1.1, 1.5, 1])
        with left:
            plan = selection.plan(plans)
        with middle:
            body = selection.body(selection.release_of(plans[plan]))
        metric = body.metrics("confusion")[0]
        groups = {
            group_text(result.group): result for result in body.estimates.results if result.metric == metric
        }
        with right:
            result = selection.choose("Group", groups, "group", lambda each: group_text(each.group))
    selection.notice()
    if result.suppressed:
        theme.empty(f"No data for {group_text(result.group)}.", result.reason)
    else:
        _matrix(body, result)
    _corrections()


def _matrix(body: Body, result: Estimate) -> None:
    of, entry = measure_of([result]), body.entry
    pairs = _pairs(result.cells)
    theme.prose(_answer(result, pairs), "answer")
    theme.prose(body.about_estimand(result.metric), "note")
    chart = matrix(
        result.cells, of, theme.palette(), simulated=entry.simulated, synthetic=entry.synthetic
    )  # fmt: skip
    base.show(
        chart,
        theme.palette(),
        f"Confusion matrix of {words(result.metric)}; the pairs are listed below",
        "matrix",
    )
    theme.show(
        f'<div class="uh-facts"><span>{theme.provenance(entry.simulated, entry.synthetic)}</span>'
        f"<span><b>{span(entry.window_start, entry.window_end)}</b></span><span><b>{entry.counted:,}</b> devices counted"
        "</span><span>Per cent of each row. Faded: not significantly above 0. ×: not shown. Intervals are in the tooltip of "
        "each cell.</span></div>"
    )
    theme.heading("Most confused", "ranked by the lower bound of the 95% interval corrected for all cells")
    columns = (Column("Actual"), Column("Predicted"), Column("Share", True), Column("95% interval", True),
               Column("Lower bound, corrected", True, True))  # fmt: skip
    rows, attributes = [], []
    for cell in pairs[:MOST_PAIRS]:
        actual, predicted = _labels(cell)
        rows.append(
            [esc(actual), esc(predicted), f'<span class="lead">{esc(of.estimate(cell))}</span>',
             esc(of.interval(cell.low, cell.high)), esc(of.text(cell.simultaneous_low, half_width(cell)))]
        )  # fmt: skip
        attributes.append(
            {
                "actual": actual,
                "predicted": predicted,
                "estimate": cell.estimate,
                "low": cell.low,
                "high": cell.high,
            }
        )
    theme.show(theme.table(columns, rows, "Most confused pairs", attributes))
    downloads.offer(body, result.metric, tuple(name for name, _ in result.group), chart)


def _labels(cell: Cell) -> tuple[str, str]:
    labels = dict(cell.labels)
    return labels["actual"], labels["predicted"]


def _pairs(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells off the diagonal, ranked by their corrected lower bound."""
    mixed = [cell for cell in cells if cell.estimate is not None and len(set(_labels(cell))) == 2]
    return sorted(mixed, key=lambda cell: (-(cell.simultaneous_low or 0.0), -(cell.estimate or 0.0)))


def _answer(result: Estimate, pairs: Sequence[Cell]) -> str:
    of = measure_of([result])
    significant = [cell for cell in pairs if (cell.simultaneous_low or 0.0) > 0]
    if not significant:
        return "No two commands are significantly confused (95%, corrected): noise alone could explain the counts."
    actual, predicted = _labels(significant[0])
    share = of.with_interval(significant[0])
    pairs_are = "1 pair is" if len(significant) == 1 else f"{len(significant)} pairs are"
    return (
        f"Most confused: {actual} is recognised as {predicted} {share} of the time. "
        f"{pairs_are} significantly confused (95%, corrected)."
    )


def _corrections() -> None:
    """Show how often users correct each command, from the newest release that has it by intent."""
    found = _newest_by_intent()
    theme.heading("Corrections", "how often users correct a command, by intent")
    if found is None:
        theme.empty(
            "No release has a correction rate by intent.",
            "A plan that breaks `correction_rate` down by intent provides it.",
            run_command("correction-rate-by-intent"),
        )
        return
    body, metric, grouping = found
    results = sentences.by_evidence(body.results(metric, grouping))
    of, entry = measure_of(results), body.entry
    everyone = next(iter(body.results(metric, ())), None)
    theme.prose(sentences.about_groups(results))
    theme.prose(body.about_estimand(metric), "note")
    chart = forest(
        results, of, theme.palette(), limit=None, everyone=everyone, simulated=entry.simulated, synthetic=entry.synthetic,
    )  # fmt: skip
    base.show(
        chart,
        theme.palette(),
        f"{words(metric)} by {grouping[0]}: " + sentences.about_groups(results),
        "corrections",
    )
    theme.prose(
        f"From {entry.plan}, {span(entry.window_start, entry.window_end)}, release {short(entry.id)}.", "note"
    )


def _newest_by_intent() -> tuple[Body, str, tuple[str, ...]] | None:
    for entries in reading.plans(active().store).values():
        body = selection.glance(entries[0])
        if body.plan is None:
            continue
        for metric in body.metrics("rate"):
            for grouping in body.groupings(metric):
                segments = [body.plan.segments[name] for name in grouping]
                columns = [s.column for s in segments if isinstance(s, EventSegment)]
                if len(segments) == 1 and columns and columns[0] in INTENTS:
                    return body, metric, grouping
    return None
