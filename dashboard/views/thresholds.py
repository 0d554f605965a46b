"""Thresholds: the false rejects and false accepts of each group at every threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from dashboard.charts import base
from dashboard.charts.det import ACCEPTS, REJECTS, det
from dashboard.data import reading
from dashboard.data.numbers import group_text, grouping_text, span
from dashboard.data.reading import Body
from dashboard.launch.suggestion import run_command
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import downloads
from dashboard.views.segments import facts
from fa_core.estimate.measure import Measure
from fa_core.estimate.sentences import listed
from fa_core.estimate.thresholds import HighestThresholds, Point, cheapest, curve, highest_thresholds
from fa_core.values import Cell, Estimate


def page() -> None:
    """Show the page."""
    theme.title(
        "Thresholds", "What would another threshold cost each group, in false rejects and false accepts?"
    )
    plans = reading.with_kind(active().store, "det")
    if not plans:
        theme.empty(
            "No release has a DET curve yet.",
            "A plan with a `det` metric measures false rejects and false accepts at every threshold.",
            run_command("det-by-accent"),
        )
        return
    with st.container(key="selection"):
        left, right, third, fourth = st.columns([1.1, 1.4, 0.9, 1])
        with left:
            plan = selection.plan(plans)
        with right:
            body = selection.body(selection.release_of(plans[plan]))
        metric = body.metrics("det")[0]
        groupings = body.groupings(metric)
        with third:
            grouping = selection.grouping(groupings, groupings[-1])
        with fourth:
            limit = selection.whole_number("False reject rate at most, %", "under", 20, 1, 100)
    selection.notice()
    results = body.results(metric, grouping)
    curves = {group_text(result.group): curve(result) for result in results if not result.suppressed}
    if not curves:
        theme.empty("No curve of this release can be shown.", results[0].reason)
        return
    _answer(results, grouping, limit)
    theme.prose(body.about_estimand(metric), "note")
    _explore(body, metric, grouping, results, curves)


def _answer(results: Sequence[Estimate], grouping: tuple[str, ...], limit: int) -> None:
    theme.prose(_summary(highest_thresholds(results, limit / 100), limit, grouping), "answer")
    theme.prose(
        "Bands are simultaneous 95% bands: over all thresholds, both axes and all groups together.",
        "note",
    )


def _summary(found: HighestThresholds, limit: float, grouping: tuple[str, ...]) -> str:
    groups = f"of every {grouping_text(grouping)} shown" if grouping else "over everyone"
    hidden = f" No data for {listed([group_text(r.group) for r in found.hidden])}." if found.hidden else ""
    if found.by_band is not None:
        text = f"Up to threshold {found.by_band:g} the 95% band {groups} is within a false reject rate of {limit:g}%"
        if found.by_estimate is not None and found.by_estimate > found.by_band:
            text += f"; up to {found.by_estimate:g} the estimates are"
        limiting = (
            "." if found.limiting is None else f". The limiting group is {group_text(found.limiting.group)}."
        )
        return text + limiting + hidden
    if found.by_estimate is not None:
        return (
            f"At no threshold is the 95% band {groups} within a false reject rate of {limit:g}%; up to "
            f"{found.by_estimate:g} the estimates are, but there is not enough evidence.{hidden}"
        )
    return f"At no threshold is the false reject rate {groups} within {limit:g}%.{hidden}"


def _explore(
    body: Body,
    metric: str,
    grouping: tuple[str, ...],
    results: Sequence[Estimate],
    curves: Mapping[str, Sequence[Point]],
) -> None:
    thresholds = [point.threshold for point in next(iter(curves.values()))]
    left, middle, right = st.columns([1.3, 1, 1])
    with left:
        texts = {f"{value:g}": value for value in thresholds}
        threshold = texts[_choose_threshold(list(texts))]
    with middle:
        worst = max(curves, key=lambda name: _at(curves[name], threshold).rejects.simultaneous_low or 0.0)
        chosen = selection.choose("Highlight", {name: name for name in curves}, "group", first=worst)
    with right:
        weight = st.slider(
            "Cost of one false accept per hour, in % false rejects", 0, 100, 20, 5, key="select-weight",
            help="Dotted lines are lines of equal cost: half, once and twice the cost of the selected threshold.",
        )  # fmt: skip
    entry = body.entry
    chart = det(
        curves, theme.palette(), chosen=chosen, threshold=threshold, weight=weight / 100,
        simulated=entry.simulated, synthetic=entry.synthetic,
    )  # fmt: skip
    description = (
        f"DET curves by {grouping_text(grouping)}; false reject rate of {chosen} at threshold {threshold:g}: "
    )
    description += REJECTS.with_interval(_at(curves[chosen], threshold).rejects)
    base.show(chart, theme.palette(), description, "det")
    best = cheapest(curves[chosen], weight / 100)
    where = f" Lowest cost for {chosen}: threshold {best.threshold:g}." if best is not None and weight else ""
    theme.show(
        f'<div class="uh-facts"><span>{theme.provenance(entry.simulated, entry.synthetic)}</span>'
        f"<span><b>{span(entry.window_start, entry.window_end)}</b></span>"
        f"<span>{esc(chosen)} in colour, the other groups in grey; shaded: 95% bands.{esc(where)}</span></div>"
    )
    theme.heading(f"At threshold {threshold:g}", f"by {grouping_text(grouping)}")
    theme.show(_table(results, curves, threshold))
    downloads.offer(body, metric, grouping, chart)


def _choose_threshold(options: list[str]) -> str:
    in_url = st.query_params.get("threshold", "")
    if st.session_state.get("select-threshold") not in options:
        st.session_state["select-threshold"] = in_url if in_url in options else options[len(options) // 2]
    chosen = str(st.select_slider("Threshold", options, key="select-threshold"))
    selection.remember("threshold", chosen)
    return chosen


def _at(points: Sequence[Point], threshold: float) -> Point:
    return min(points, key=lambda point: abs(point.threshold - threshold))


def _table(results: Sequence[Estimate], curves: Mapping[str, Sequence[Point]], threshold: float) -> str:
    here = {name: _at(points, threshold) for name, points in curves.items()}
    most_rejects = max((p.rejects.high or 0.0 for p in here.values()), default=1.0)
    most_accepts = max((p.accepts.high or 0.0 for p in here.values()), default=1.0)
    columns = (
        Column("Group"), Column("False reject rate", True), Column(" ", minor=True), Column("False accepts per hour", True),
        Column("  ", minor=True),
    )  # fmt: skip
    rows, attributes = [], []
    ordered = sorted(
        results,
        key=lambda r: (
            -(here[group_text(r.group)].rejects.simultaneous_low or 0.0) if not r.suppressed else 1.0
        ),
    )
    for result in ordered:
        name = group_text(result.group)
        attributes.append(facts(result))
        if result.suppressed:
            rows.append([esc(name), f'<span class="why">not shown: {esc(result.reason)}</span>', "", "", ""])
            continue
        point = here[name]
        attributes[-1] |= {"rejects": point.rejects.estimate, "accepts": point.accepts.estimate}
        rows.append(
            [
                esc(name), _number(REJECTS, point.rejects), _bar(point.rejects, most_rejects),
                _number(replace(ACCEPTS, suffix=""), point.accepts), _bar(point.accepts, most_accepts),
            ]
        )  # fmt: skip
    return theme.table(
        columns, rows, f"False rejects and false accepts at threshold {threshold:g}", attributes
    )


def _number(of: Measure, cell: Cell) -> str:
    if cell.estimate is None:
        return f'<span class="why">{esc(cell.reason)}</span>'
    number, interval = of.estimate(cell), of.interval(cell.low, cell.high)
    return f'<span class="lead">{esc(number)}</span> <small>{esc(interval)}</small>'


def _bar(cell: Cell, most: float) -> str:
    if cell.estimate is None or cell.low is None or cell.high is None:
        return ""
    return theme.bar(cell.low, cell.estimate, cell.high, 0.0, most)
