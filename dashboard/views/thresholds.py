"""Thresholds: what another threshold would cost each group, in misses and in false wakes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import streamlit as st

from dashboard.charts import base
from dashboard.charts.det import ACCEPTS, REJECTS, det
from dashboard.data import reading
from dashboard.data.numbers import Measure, group_text, grouping_text, half_width, listed, span
from dashboard.data.reading import Body
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import look
from dashboard.style.look import Column, esc
from dashboard.views import downloads
from dashboard.views.segments import facts
from fa_core.estimate.thresholds import Keeping, Point, cheapest, curve, keeping
from fa_core.values import Cell, Estimate


def page() -> None:
    """Show the page."""
    look.title("Thresholds", "What would another threshold cost each group, in misses and in false wakes?")
    plans = reading.with_kind(active().store, "det")
    if not plans:
        look.empty(
            "No release has a DET curve yet.",
            "A plan with a `det` metric measures misses and false wakes at every threshold.",
            "fa run eval_plans/det-by-accent.yaml --fleet DIR",
        )
        return
    with st.container(key="picks"):
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
            limit = selection.whole("Keep misses under, %", "under", 20, 1, 100)
    selection.notice()
    results = body.results(metric, grouping)
    curves = {group_text(result.group): curve(result) for result in results if not result.suppressed}
    if not curves:
        look.empty("No curve of this release can be shown.", results[0].reason)
        return
    _answer(results, grouping, limit)
    _explore(body, metric, grouping, results, curves)


def _answer(results: Sequence[Estimate], grouping: tuple[str, ...], limit: int) -> None:
    look.prose(_kept(keeping(results, limit / 100), limit, grouping), "answer")
    look.prose(
        "Bands hold for all thresholds, both axes and all groups together, at 95%.",
        "note",
    )


def _kept(found: Keeping, limit: float, grouping: tuple[str, ...]) -> str:
    who = f"every {grouping_text(grouping)} shown" if grouping else "everyone together"
    hidden = (
        f" Nothing is known of {listed([group_text(r.group) for r in found.hidden])}." if found.hidden else ""
    )
    if found.surely is not None:
        text = f"A threshold of {found.surely:g} surely keeps {who} under {limit:g}% missed"
        if found.likely is not None and found.likely > found.surely:
            text += f"; up to {found.likely:g} the estimates stay under it"
        stop = (
            f". {group_text(found.holding.group)} is what holds it there."
            if found.holding is not None
            else "."
        )
        return text + stop + hidden
    if found.likely is not None:
        return (
            f"No threshold surely keeps {who} under {limit:g}% missed; the estimates stay under it up to "
            f"{found.likely:g}, but the evidence is not enough.{hidden}"
        )
    return f"No threshold keeps {who} under {limit:g}% missed.{hidden}"


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
        threshold = texts[_slide(list(texts))]
    with middle:
        worst = max(curves, key=lambda name: _at(curves[name], threshold).rejects.simultaneous_low or 0.0)
        chosen = selection.choose("Highlight", {name: name for name in curves}, "group", first=worst)
    with right:
        worth = st.slider(
            "One false wake an hour is worth missing, of 100", 0, 100, 20, 5, key="pick-worth",
            help="Dotted lines join points of equal cost, at half, once and twice the cost of the chosen point.",
        )  # fmt: skip
    entry = body.entry
    chart = det(
        curves, look.palette(), chosen=chosen, threshold=threshold, weight=worth / 100,
        simulated=entry.simulated, synthetic=entry.synthetic,
    )  # fmt: skip
    told = f"DET curves by {grouping_text(grouping)}; at threshold {threshold:g} {chosen} misses "
    told += REJECTS.with_interval(_at(curves[chosen], threshold).rejects)
    base.show(chart, look.palette(), told, "det")
    best = cheapest(curves[chosen], worth / 100)
    where = (
        f" At that price {chosen} is served best at {best.threshold:g}." if best is not None and worth else ""
    )
    look.show(
        f'<div class="uh-facts"><span>{look.provenance(entry.simulated, entry.synthetic)}</span>'
        f"<span><b>{span(entry.window_start, entry.window_end)}</b></span>"
        f"<span>{esc(chosen)} in colour, the others in grey; boxes are bands.{esc(where)}</span></div>"
    )
    look.heading(f"At threshold {threshold:g}", f"by {grouping_text(grouping)}")
    look.show(_table(results, curves, threshold))
    downloads.offer(body, metric, grouping, chart)


def _slide(options: list[str]) -> str:
    asked = st.query_params.get("threshold", "")
    if st.session_state.get("pick-threshold") not in options:
        st.session_state["pick-threshold"] = asked if asked in options else options[len(options) // 2]
    chosen = str(st.select_slider("Threshold", options, key="pick-threshold"))
    selection.remember("threshold", chosen)
    return chosen


def _at(points: Sequence[Point], threshold: float) -> Point:
    return min(points, key=lambda point: abs(point.threshold - threshold))


def _table(results: Sequence[Estimate], curves: Mapping[str, Sequence[Point]], threshold: float) -> str:
    here = {name: _at(points, threshold) for name, points in curves.items()}
    most_rejects = max((p.rejects.high or 0.0 for p in here.values()), default=1.0)
    most_accepts = max((p.accepts.high or 0.0 for p in here.values()), default=1.0)
    columns = (
        Column("Group"), Column("Missed", True), Column(" ", minor=True), Column("False wakes per hour", True),
        Column("  ", minor=True),
    )  # fmt: skip
    rows, told = [], []
    ordered = sorted(
        results,
        key=lambda r: (
            -(here[group_text(r.group)].rejects.simultaneous_low or 0.0) if not r.suppressed else 1.0
        ),
    )
    for result in ordered:
        name = group_text(result.group)
        told.append(facts(result))
        if result.suppressed:
            rows.append([esc(name), f'<span class="why">not shown: {esc(result.reason)}</span>', "", "", ""])
            continue
        point = here[name]
        told[-1] |= {"rejects": point.rejects.estimate, "accepts": point.accepts.estimate}
        rows.append(
            [
                esc(name), _number(REJECTS, point.rejects), _bar(point.rejects, most_rejects),
                _number(replace(ACCEPTS, suffix=""), point.accepts), _bar(point.accepts, most_accepts),
            ]
        )  # fmt: skip
    return look.table(columns, rows, f"Misses and false wakes at threshold {threshold:g}", told)


def _number(of: Measure, cell: Cell) -> str:
    if cell.estimate is None:
        return f'<span class="why">{esc(cell.reason)}</span>'
    number, interval = of.text(cell.estimate, half_width(cell)), of.interval(cell.low, cell.high)
    return f'<span class="lead">{esc(number)}</span> <small>{esc(interval)}</small>'


def _bar(cell: Cell, most: float) -> str:
    if cell.estimate is None or cell.low is None or cell.high is None:
        return ""
    return look.bar(cell.low, cell.estimate, cell.high, 0.0, most)
