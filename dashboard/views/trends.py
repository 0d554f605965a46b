"""Trends: a metric over releases, two models compared on the same speech, and two releases compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import streamlit as st

from dashboard.charts import base
from dashboard.charts.trend import trend
from dashboard.data import reading, sentences
from dashboard.data.numbers import day, group_text, grouping_text, short, span, words
from dashboard.data.reading import Body
from dashboard.launch.suggestion import run_command
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import comparison, downloads
from fa_core.estimate.compare import compare, unlike_metrics
from fa_core.estimate.integrity import about_difference
from fa_core.estimate.measure import compared_models, measure
from fa_core.estimate.sentences import about_estimand, listed
from fa_core.store import Entry, labels
from fa_core.values import Estimates

MOST_RELEASES: Final = 104
VIEWS: Final = {"time": "Over time", "models": "Model comparison", "releases": "Two releases"}


def page() -> None:
    """Show the page."""
    theme.title(
        "Trends", "What changes from release to release, and is the new model better for every group?"
    )
    if not reading.with_numbers(active().store):
        theme.empty(
            "There is no release yet.",
            "After two releases of a plan this page compares them.",
            run_command(),
        )
        return
    view = selection.tabs(VIEWS, "view")
    if view == "time":
        _over_time()
    elif view == "models":
        _models()
    else:
        _two_releases()


def _over_time() -> None:
    plans = reading.with_numbers(active().store)
    with st.container(key="selection"):
        first, second, third, fourth = st.columns([1.1, 1.2, 1, 1.2])
        with first:
            plan = selection.plan(plans)
        body = selection.glance(plans[plan][0])
        metrics = body.plain_metrics()
        if not metrics:
            theme.empty(
                "This plan releases tables only.", "See Thresholds and Confusions, release by release."
            )
            return
        with second:
            metric = selection.metric(metrics)
        with third:
            grouping = selection.grouping(body.groupings(metric))
        entries = plans[plan][:MOST_RELEASES]
        rows = _history(entries, metric, grouping)
        names = list(dict.fromkeys(row["group"] for row in rows))
        with fourth:
            pair = sentences.extremes(body.results(metric, grouping))
            first_name = None if pair is None else group_text(pair[0].group)
            chosen = selection.choose("Group", {name: name for name in names}, "group", first=first_name)
    selection.notice()
    newest = body.results(metric, grouping)[0]
    of = measure(newest.kind, newest.unit)
    theme.prose(_answer(rows, chosen, metric), "answer")
    theme.prose(body.about_estimand(metric), "note")
    guardrails = () if body.plan is None else body.plan.guardrails
    limit = next(
        (float(g.max) for g in guardrails if g.metric == metric and g.by == grouping and g.max is not None),
        None,
    )
    marks = {
        "simulated": any(entry.simulated for entry in entries),
        "synthetic": any(entry.synthetic for entry in entries),
    }
    chart = trend(rows, of, theme.palette(), chosen=chosen, limit=limit, **marks)
    base.show(chart, theme.palette(), f"{words(metric)} of {chosen} over {len(entries)} releases", "trend")
    guardrail = "" if limit is None else f"<span>dashed: the guardrail, {esc(of.text(limit))}</span>"
    theme.show(
        f'<div class="uh-facts"><span>{theme.provenance(**marks)}</span><span>{esc(chosen)} in colour with its 95% '
        f"interval{', the other groups in grey' if len(names) > 1 else ''}</span>{guardrail}<span>{len(entries)} {'release' if len(entries) == 1 else 'releases'}</span></div>"
    )
    _numbers([row for row in rows if row["group"] == chosen])
    downloads.offer(body, metric, grouping, chart)


def _history(entries: Sequence[Entry], metric: str, grouping: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for row in reading.history(active().store, entries, metric, grouping):
        entry: Entry = row.pop("entry")
        of = measure(row["kind"], row["unit"])
        text = "not shown" if row["estimate"] is None else (
            f"{of.point(row['estimate'], row['low'], row['high'])} ({of.interval(row['low'], row['high'])})"
        )  # fmt: skip
        rows.append(
            {
                "group": group_text(labels(row["group"])), "at": entry.window_end.isoformat(), "text": text,
                "window": span(entry.window_start, entry.window_end), "release": short(entry.id), "day": day(entry.window_end),
                **{name: row[name] for name in ("estimate", "low", "high", "reason")},
            }
        )  # fmt: skip
    return rows


def _answer(rows: Sequence[Mapping[str, Any]], chosen: str, metric: str) -> str:
    mine = [row for row in rows if row["group"] == chosen and row["estimate"] is not None]
    if len(mine) < 2:
        return f"{words(metric).capitalize()} of {chosen} is shown in fewer than two releases, too few for a trend."
    newest, oldest = mine[0], mine[-1]
    if newest["low"] > oldest["high"]:
        word = "significantly higher now than"
    elif newest["high"] < oldest["low"]:
        word = "significantly lower now than"
    else:
        word = "not significantly different from"
    return f"{words(metric).capitalize()} of {chosen} is {word} {oldest['day']}: {newest['text']}, against {oldest['text']} then."


def _numbers(rows: Sequence[Mapping[str, Any]]) -> None:
    columns = (Column("Window"), Column("Estimate", True), Column("Release", minor=True))
    cells, attributes = [], []
    for row in rows:
        shown = f'<span class="lead">{esc(row["text"])}</span>'
        if row["estimate"] is None:
            shown = f'<span class="why">not shown: {esc(row["reason"])}</span>'
        cells.append([esc(row["window"]), shown, f"<code>{esc(row['release'])}</code>"])
        attributes.append({name: row[name] for name in ("release", "estimate", "low", "high")})
    theme.heading("The numbers", "newest first")
    theme.show(theme.table(columns, cells, "The metric over releases", attributes, scroll=len(cells) > 14))


def _models() -> None:
    plans = reading.with_kind(active().store, "paired_difference")
    if not plans:
        theme.empty(
            "No release compares two models on the same speech.",
            "A plan with a `paired_difference` metric does, with far lower noise than two separate rates.",
            run_command("model-a-against-b"),
        )
        return
    with st.container(key="selection"):
        first, second, third, fourth = st.columns([1.1, 1.4, 1, 1.1])
        with first:
            plan = selection.plan(plans)
        with second:
            body = selection.glance(selection.release_of(plans[plan]))
        metric = body.metrics("paired_difference")[0]
        groupings = body.groupings(metric)
        with third:
            grouping = selection.grouping(groupings, next((g for g in groupings if g), groupings[0]))
        results = body.results(metric, grouping)
        with fourth:
            margin = comparison.choose_margin(measure(results[0].kind, results[0].unit))
    selection.notice()
    found = comparison.paired(results, margin)
    candidate, baseline = compared_models(found[0].unit)
    theme.prose(
        comparison.about_models(found, candidate or "the new model", baseline or "the old one"), "answer"
    )
    theme.prose(body.about_estimand(metric), "note")
    theme.prose(about_difference([(body.plan, only(body, metric))]), "note")
    chart = comparison.show(found, margin, f"{words(metric)} by {grouping_text(grouping)}", body.entry)
    theme.show(
        f'<div class="uh-facts"><span>{theme.provenance(body.entry.simulated, body.entry.synthetic)}</span>'
        f"<span>Left of 0 is better for {esc(candidate)}; both models scored the same speech</span>"
        f"<span><b>{span(body.entry.window_start, body.entry.window_end)}</b></span>"
        f"<span><b>{body.entry.counted:,}</b> devices counted</span></div>"
    )
    comparison.table(found)
    downloads.offer(body, metric, grouping, chart)


def _two_releases() -> None:
    plans = reading.with_numbers(active().store)
    with st.container(key="selection"):
        first, second, third = st.columns([1, 1.4, 1.4])
        with first:
            plan = selection.plan(plans)
        entries = plans[plan]
        if len(entries) < 2:
            theme.empty(
                "This plan has one release.",
                "Run it again, or choose another plan.",
                run_command(plan),
            )
            return
        with second:
            after = selection.glance(selection.release_of(entries, label="After"))
        with third:
            rest = [entry for entry in entries if entry.id != after.entry.id]
            older = [entry for entry in rest if entry.created < after.entry.created] or rest
            before = selection.glance(
                selection.release_of([*older, *(e for e in rest if e not in older)], "before", "Before")
            )
        metrics = [m for m in after.plain_metrics() if m in before.metrics()]
        if not metrics:
            theme.empty("The two releases have no number in common.", "Choose two releases of the same plan.")
            return
        first, second, third = st.columns([1, 1, 1])
        with first:
            metric = selection.metric(metrics)
        with second:
            grouping = selection.grouping(
                [g for g in after.groupings(metric) if g in before.groupings(metric)]
            )
        first_result = after.results(metric, grouping)[0]
        with third:
            margin = comparison.choose_margin(measure(first_result.kind, first_result.unit))
    selection.notice()
    unlike = unlike_metrics(before.document, after.document)
    found = [
        each
        for each in compare(before.estimates, after.estimates, margin, comparison.HIGHER_IS_BETTER, unlike)
        if each.metric == metric and tuple(name for name, _ in each.group) == grouping and not each.cell
    ]
    theme.prose(_changes(found), "answer")
    theme.prose(about_estimand(before.estimand(metric), after.estimand(metric)), "note")
    theme.prose(about_difference([(each.plan, only(each, metric)) for each in (before, after)]), "note")
    chart = comparison.show(found, margin, f"{words(metric)} by {grouping_text(grouping)}", after.entry)
    theme.prose(
        "The releases are compared as unpaired: half-widths add, which is valid also where the same devices took part in both.",
        "note",
    )
    comparison.table(found)
    downloads.offer(after, metric, grouping, chart)


def only(body: Body, metric: str) -> Estimates:
    """Return a release's estimates of one metric."""
    results = tuple(result for result in body.estimates.results if result.metric == metric)
    return replace(body.estimates, results=results)


def _changes(found: Sequence[Any]) -> str:
    worse = [group_text(each.group) for each in found if each.change == "worse"]
    better = [group_text(each.group) for each in found if each.change == "better"]
    if not worse and not better:
        return "No group changed significantly between the two releases (95%, corrected)."
    parts = [
        f"Significantly worse (95%, corrected): {listed(worse)}." if worse else "",
        f"Significantly better (95%, corrected): {listed(better)}." if better else "",
    ]
    return " ".join(part for part in parts if part)
