"""Segments: one metric, group by group, with all its intervals."""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard.charts import base
from dashboard.charts.forest import forest
from dashboard.charts.heat_map import heat_map
from dashboard.data import reading, sentences
from dashboard.data.numbers import count, group_text, grouping_text, measure_of, span, words
from dashboard.data.reading import Body
from dashboard.launch.suggestion import run_command
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import downloads
from fa_core.plan.schema import Guardrail
from fa_core.values import Estimate

VIEWS: Final = {"heat": "Heat map", "forest": "Forest plot"}


def page() -> None:
    """Show the page."""
    theme.title("Segments", "How does a metric differ between groups, and which differences are significant?")
    plans = reading.with_numbers(active().store)
    if not plans:
        theme.empty(
            "There is no release yet.",
            "Run a plan first; its groups are compared here.",
            run_command(),
        )
        return
    with st.container(key="selection"):
        left, right, third, fourth = st.columns([1.1, 1.4, 1.2, 1])
        with left:
            plan = selection.plan(plans)
        with right:
            entry = selection.release_of(plans[plan])
        body = selection.glance(entry)
        metrics = body.plain_metrics()
        if not metrics:
            theme.empty(
                "This release holds tables only.",
                "See Thresholds for DET curves and Confusions for matrices.",
            )
            return
        with third:
            metric = selection.metric(metrics)
        groupings = body.groupings(metric)
        with fourth:
            grouping = selection.grouping(groupings, _default_grouping(groupings))
    selection.notice()
    results = sentences.by_evidence(body.results(metric, grouping))
    _head(body, results)
    theme.prose(body.about_estimand(metric), "note")
    chart = _chart(body, metric, grouping, results)
    _table(results)
    downloads.offer(body, metric, grouping, chart)


def _default_grouping(groupings: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return next((grouping for grouping in groupings if len(grouping) == 1), groupings[0])


def _head(body: Body, results: Sequence[Estimate]) -> None:
    text = sentences.about_groups(results)
    if text:
        theme.prose(text, "answer")
    entry = body.entry
    theme.show(
        f'<div class="uh-facts"><span>{theme.provenance(entry.simulated, entry.synthetic)}</span>'
        f"<span><b>{span(entry.window_start, entry.window_end)}</b></span><span><b>{entry.counted:,}</b> devices counted"
        f"</span><span>{esc(body.metadata('question'), 300)}</span></div>"
    )


def _limit(body: Body, metric: str, grouping: tuple[str, ...]) -> Guardrail | None:
    guardrails = () if body.plan is None else body.plan.guardrails
    return next(
        (g for g in guardrails if g.metric == metric and g.by == grouping and g.max is not None), None
    )


def _chart(body: Body, metric: str, grouping: tuple[str, ...], results: Sequence[Estimate]) -> base.Figure:
    of, entry = measure_of(results), body.entry
    marks = {"simulated": entry.simulated, "synthetic": entry.synthetic}
    description = f"{words(metric)} by {grouping_text(grouping)}: " + "; ".join(
        f"{group_text(r.group)} {of.with_interval(r) if r.estimate is not None else 'not shown'}"
        for r in results[:40]
    )
    guardrail = _limit(body, metric, grouping)
    limit = None if guardrail is None or guardrail.max is None else float(guardrail.max)
    view = "forest"
    if len(grouping) == 2:
        view = selection.tabs(VIEWS, "view")
    if view == "heat":
        chart = heat_map(body.results(metric, grouping), of, theme.palette(), **marks)
        base.show(chart, theme.palette(), description, "heat")
        theme.show(
            '<div class="uh-key"><span>Stronger colour: higher.</span><span>Faded: the interval is wider than half '
            "the difference between the highest and the lowest.</span><span>Dashed: not shown, with the reason on hover and below."
            "</span></div>"
        )
        return chart
    everyone = next(iter(body.results(metric, ())), None) if grouping else None
    chart = forest(results, of, theme.palette(), limit=limit, everyone=everyone, **marks)
    base.show(chart, theme.palette(), description, "forest")
    hollow = any(result.variance_source == "pooled" for result in results)
    theme.show(
        '<div class="uh-key"><span><i class="own"></i>95% interval of the group: decides whether a limit is met</span>'
        '<span><i class="all"></i>95% interval corrected for all groups: decides whether a limit is broken, and ranks'
        "</span>"
        '<span><i class="noise"></i>privacy noise alone</span>'
        + ('<span><i class="limit"></i>guardrail</span>' if limit is not None else "")
        + (
            '<span><i class="hollow"></i>hollow: the variance between devices is pooled with the other groups</span>'
            if hollow
            else ""
        )
        + "</div>"
    )
    return chart


def _table(results: Sequence[Estimate]) -> None:
    of = measure_of(results)
    columns = (
        Column("Group"), Column("Estimate", True), Column("95% interval", True),
        Column("95%, corrected", True, True), Column("Privacy noise alone", True, True),
        Column("Devices", True, True), Column("Denominator", True, True),
    )  # fmt: skip
    rows, attributes = [], []
    for result in results:
        name = esc(group_text(result.group), 120)
        attributes.append(facts(result))
        devices = esc(count(result.devices, result.devices_sd))
        if result.estimate is None:
            rows.append([name, '<span class="why">not shown</span>', f'<span class="why">{esc(result.reason)}</span>', "",
                         "", devices, ""])  # fmt: skip
            continue
        rows.append(
            [
                name,
                f'<span class="lead">{esc(of.estimate(result))}</span>',
                esc(of.interval(result.low, result.high)),
                esc(of.interval(result.simultaneous_low, result.simultaneous_high)),
                esc(of.interval(result.noise_low, result.noise_high)),
                devices,
                esc(count(result.denominator)),
            ]
        )
    theme.heading("The numbers", "ordered by the corrected bound, worst first")
    theme.show(
        theme.table(columns, rows, f"{words(results[0].metric)} by group", attributes, scroll=len(rows) > 25)
    )


def facts(result: Estimate) -> dict[str, object]:
    """Return the exact numbers of a row, as data attributes for scripts and tests."""
    return {
        "metric": result.metric,
        "group": group_text(result.group),
        "estimate": result.estimate,
        "low": result.low,
        "high": result.high,
        "suppressed": result.suppressed,
    }
