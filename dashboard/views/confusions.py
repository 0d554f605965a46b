"""Confusions: which commands are taken for which, how sure that is, and after which ones people correct."""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard.charts import base
from dashboard.charts.forest import forest
from dashboard.charts.matrix import matrix
from dashboard.data import reading, sentences
from dashboard.data.numbers import group_text, half_width, measure_of, short, span, words
from dashboard.data.reading import Body
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import downloads
from fa_core.plan.schema import EventSegment
from fa_core.values import Cell, Estimate

MOST_PAIRS: Final = 12
INTENTS: Final = frozenset({"intent_actual", "intent_predicted"})


def page() -> None:
    """Show the page."""
    theme.title("Confusions", "Which commands are taken for which, and how sure is that?")
    plans = reading.with_kind(active().store, "confusion")
    if not plans:
        theme.empty(
            "No release has a confusion matrix yet.",
            "A plan with a `confusion` metric counts what was meant against what was understood.",
            "fa run eval_plans/command-confusions.yaml --fleet DIR",
        )
        return
    with st.container(key="picks"):
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
        theme.empty(f"Nothing can be shown of {group_text(result.group)}.", result.reason)
    else:
        _matrix(body, result)
    _corrections()


def _matrix(body: Body, result: Estimate) -> None:
    of, entry = measure_of([result]), body.entry
    pairs = _pairs(result.cells)
    theme.prose(_answer(result, pairs), "answer")
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
        "</span><span>Per cent of each row. Faded cells may be noise alone; × is not shown. Point at a cell for its "
        "interval.</span></div>"
    )
    theme.heading("Most confused", "ranked by what is sure: the lower bound for all cells together")
    columns = (Column("Meant"), Column("Understood as"), Column("Share", True), Column("95% interval", True),
               Column("At least, for all cells together", True, True))  # fmt: skip
    rows, told = [], []
    for cell in pairs[:MOST_PAIRS]:
        actual, predicted = _labels(cell)
        rows.append(
            [esc(actual), esc(predicted), f'<span class="lead">{esc(of.text(cell.estimate, half_width(cell)))}</span>',
             esc(of.interval(cell.low, cell.high)), esc(of.text(cell.simultaneous_low, half_width(cell)))]
        )  # fmt: skip
        told.append(
            {
                "actual": actual,
                "predicted": predicted,
                "estimate": cell.estimate,
                "low": cell.low,
                "high": cell.high,
            }
        )
    theme.show(theme.table(columns, rows, "Most confused pairs", told))
    downloads.offer(body, result.metric, tuple(name for name, _ in result.group), chart)


def _labels(cell: Cell) -> tuple[str, str]:
    labels = dict(cell.labels)
    return labels["actual"], labels["predicted"]


def _pairs(cells: Sequence[Cell]) -> list[Cell]:
    """Return what was taken for something else, the surest first."""
    mixed = [cell for cell in cells if cell.estimate is not None and len(set(_labels(cell))) == 2]
    return sorted(mixed, key=lambda cell: (-(cell.simultaneous_low or 0.0), -(cell.estimate or 0.0)))


def _answer(result: Estimate, pairs: Sequence[Cell]) -> str:
    of = measure_of([result])
    sure = [cell for cell in pairs if (cell.simultaneous_low or 0.0) > 0]
    if not sure:
        return "No two commands are surely taken for one another: the noise would explain what is seen."
    actual, predicted = _labels(sure[0])
    text = f"{actual} is most surely taken for {predicted}: {of.with_interval(sure[0])} of the time."
    return text + (f" {len(sure)} pairs are surely confused at all." if len(sure) > 1 else "")


def _corrections() -> None:
    """Show how often people correct what was understood, command by command, from the newest release that says."""
    found = _newest_by_intent()
    theme.heading("Corrections", "how often people change what was understood, by command")
    if found is None:
        theme.empty(
            "No release says how often people correct each command.",
            "A plan that cuts `correction_rate` by intent does.",
            "fa run eval_plans/correction-rate-by-intent.yaml --fleet DIR",
        )
        return
    body, metric, grouping = found
    results = sentences.by_evidence(body.results(metric, grouping))
    of, entry = measure_of(results), body.entry
    everyone = next(iter(body.results(metric, ())), None)
    theme.prose(sentences.about_groups(results))
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
                cut = [s.column for s in segments if isinstance(s, EventSegment)]
                if len(segments) == 1 and cut and cut[0] in INTENTS:
                    return body, metric, grouping
    return None
