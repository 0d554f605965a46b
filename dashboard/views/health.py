"""Health: a summary of the newest release of each plan, broken guardrails first."""

from collections.abc import Mapping, Sequence
from typing import Final

import streamlit as st

from dashboard.data import reading, sentences
from dashboard.data.numbers import group_text, grouping_text, short, span, words
from dashboard.data.reading import Body
from dashboard.launch.suggestion import run_command
from dashboard.navigation import selection
from dashboard.navigation.links import link
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import comparison
from fa_core.estimate import gap
from fa_core.estimate.compare import Difference, compare, unlike_metrics
from fa_core.estimate.integrity import about_integrity
from fa_core.estimate.measure import compared_models, measure
from fa_core.estimate.sentences import WHICH_DECIDES, listed
from fa_core.values import Estimate, Judgement

ON_A_PAGE: Final = 8
ORDER: Final = {"broken": 0, "not_enough_evidence": 1, "met": 2}
Key = tuple[str, tuple[tuple[str, str], ...]]


def page() -> None:
    """Show the page."""
    theme.title("Health", "Which groups does the model serve worse, and is the evidence significant?")
    plans = reading.plans(active().store)
    if not plans:
        theme.empty(
            "There is no release yet.",
            "Check a plan, see its expected precision, and run it; its results appear here.",
            run_command(),
        )
        return
    newest = [selection.glance(each[0]) for each in plans.values()]
    newest.sort(key=lambda body: min([ORDER[j.verdict] for j in body.estimates.judgements], default=3))
    _strip(newest)
    if any(body.entry.simulated for body in newest):
        theme.show(
            '<p class="uh-banner"><b>Simulation.</b> Releases marked ◈ come from a simulated or synthetic fleet: '
            "they show that the method works and are not evidence about real users.</p>"
        )
    pages = -(-len(newest) // ON_A_PAGE)
    place = 1
    if pages > 1:
        place = selection.pager(pages)
    for body in newest[(place - 1) * ON_A_PAGE : place * ON_A_PAGE]:
        before = plans[body.entry.plan][1:2]
        _card(body, selection.glance(before[0]) if before else None)
    theme.prose(WHICH_DECIDES, "note")


def _strip(newest: Sequence[Body]) -> None:
    judgements = [judgement for body in newest for judgement in body.estimates.judgements]
    broken = [
        f"<li>{theme.verdict('broken')} <b>{esc(body.entry.plan, 80)}</b> "
        f"{esc(words(judgement.metric))}: {esc(_reason(body, judgement))}</li>"
        for body in newest
        for judgement in body.estimates.judgements
        if judgement.verdict == "broken"
    ]
    hidden = sum(body.entry.suppressed for body in newest)
    shown = sum(body.entry.results for body in newest)
    tiles = [("", len(newest), "plans with a release")]
    for verdict in ("broken", "not_enough_evidence", "met"):
        kind, sign, name = theme.VERDICTS[verdict]
        total = sum(judgement.verdict == verdict for judgement in judgements)
        tiles.append((kind if total else "", total, f"{sign} guardrails {name}"))
    tiles.append(("", hidden, f"of {shown} numbers not shown: too few devices or events"))
    theme.show(
        '<div class="uh-strip">'
        + "".join(
            f'<div class="{kind}"><b>{number}</b><span>{esc(text)}</span></div>'
            for kind, number, text in tiles
        )
        + "</div>"
        + (f'<ul class="uh-list" aria-label="Broken guardrails">{"".join(broken[:6])}</ul>' if broken else "")
    )


def _card(body: Body, before: Body | None) -> None:
    entry = body.entry
    with st.container(border=True, key=f"card-{short(entry.id)}"):
        chips = theme.provenance(entry.simulated, entry.synthetic)
        theme.show(
            f'<section aria-label="{esc(entry.plan)}"><header class="uh-head"><h2 class="uh-h2">'
            f"{esc(entry.plan, 120)} <small>revision {esc(body.metadata('revision'), 12)}</small></h2><div>{chips}</div>"
            f'</header><p class="soft">{esc(body.metadata("question"), 400)}</p>'
            f'<div class="uh-facts"><span><b>{span(entry.window_start, entry.window_end)}</b></span>'
            f"<span><b>{entry.counted:,}</b> devices counted</span><span>release <code>{short(entry.id)}</code></span>"
            f"<span>owner {esc(body.metadata('owner'), 60)}</span></div>"
            f"{_numbers(body, before)}{_tables(body)}{_guardrails(body)}</section>"
        )
        _links(body)


def _numbers(body: Body, before: Body | None) -> str:
    changes = {(c.metric, c.group): c for c in _changes(body, before) if not c.cell}
    rows, attributes, lines = [], [], []
    for metric in body.plain_metrics():
        groupings = body.groupings(metric)
        everyone = next(iter(body.results(metric, ())), None)
        one_way: list[tuple[str, ...]] = [grouping for grouping in groupings if len(grouping) == 1]
        for grouping in one_way or groupings:
            row, data = _row(metric, everyone, body.results(metric, grouping) if grouping else (), changes)
            rows.append(row)
            attributes.append(data)
        for grouping in groupings:
            if grouping:
                text = _sentence(body.results(metric, grouping))
                name = f"{words(metric)} by {grouping_text(grouping)}"
                lines.append(f"<li><b>{esc(name[:1].upper() + name[1:])}.</b> {esc(text)}</li>")
    if not rows:
        return ""
    columns = (
        Column("Metric"), Column("Everyone", True), Column("Worst estimate", True), Column("Best estimate", True, True),
        Column("Gap", True, True), Column("Since previous release", True, True),
    )  # fmt: skip
    return theme.table(columns, rows, f"Headline numbers of {body.entry.plan}", attributes) + (
        f'<ul class="uh-list">{"".join(lines)}</ul>' if lines else ""
    )


def _sentence(groups: Sequence[Estimate]) -> str:
    """Return the summary of a grouping: for two models whether the candidate is safe to ship, else the worst group."""
    first = groups[0]
    if first.kind == "paired_difference":
        return comparison.about_models(
            comparison.paired(groups, comparison.MARGIN), *compared_models(first.unit)
        )
    return sentences.about_groups(groups, brief=len(first.group) == 1)


def _row(
    metric: str, everyone: Estimate | None, groups: Sequence[Estimate], changes: Mapping[Key, Difference]
) -> tuple[list[str], dict[str, object]]:
    """Return a row of the table of headline numbers, and its exact numbers as data attributes."""
    data: dict[str, object] = {"metric": metric}
    name, all_, worst, best, apart = esc(words(metric)), "", "", "", ""
    subject = everyone
    if everyone is not None:
        all_ = _number(everyone)
        data |= {"estimate": everyone.estimate, "low": everyone.low, "high": everyone.high}
    if groups:
        by = [segment for segment, _ in groups[0].group]
        name += f" <small>by {esc(grouping_text(by))}</small>"
        pair, found = sentences.extremes(groups), gap(groups)
        if pair is not None and found is not None:
            worst, best = (f"{esc(group_text(each.group), 40)} {_number(each)}" for each in pair)
            apart = esc(sentences.gap_text(found, groups[0].kind, groups[0].unit))
            data |= {
                "by": ",".join(by),
                "worst": group_text(pair[0].group),
                "gaplow": found.low,
                "gaphigh": found.high,
            }
            subject = everyone or pair[0]
        else:
            worst = '<span class="why">too few groups can be shown</span>'
    return [name, all_, worst, best, apart, _since(subject, everyone, changes)], data


def _since(subject: Estimate | None, everyone: Estimate | None, changes: Mapping[Key, Difference]) -> str:
    change, interval = sentences.change_cell(
        None if subject is None else changes.get((subject.metric, subject.group))
    )
    if not change:
        return '<span class="soft">not comparable</span>'
    name = "" if subject is everyone or subject is None else f"{esc(group_text(subject.group), 40)} "
    return f"{name}{esc(change)} <small>{esc(interval)}</small>"


def _number(result: Estimate) -> str:
    if result.estimate is None:
        return f'<span class="why">not shown: {esc(result.reason)}</span>'
    of = measure(result.kind, result.unit)
    return (
        f'<span class="lead">{esc(of.estimate(result))}</span> '
        f"<small>{esc(of.interval(result.low, result.high))}</small>"
    )


def _changes(body: Body, before: Body | None) -> tuple[Difference, ...]:
    if before is None:
        return ()
    unlike = unlike_metrics(before.document, body.document)
    return compare(before.estimates, body.estimates, unlike=unlike)


def _tables(body: Body) -> str:
    """Return the summaries of the metrics that have many numbers a group."""
    lines = [("DET curves", _curves(body, metric)) for metric in body.metrics("det")]
    lines += [_confused(body)] if "confusion" in reading.kinds(active().store, body.entry) else []
    items = "".join(
        f"<li><b>{esc(name[:1].upper() + name[1:])}.</b> {esc(text)}</li>" for name, text in lines if text
    )
    return f'<ul class="uh-list">{items}</ul>' if items else ""


def _curves(body: Body, metric: str) -> str:
    """Return which groups have DET curves."""
    results = [
        result for grouping in body.groupings(metric)[-1:] for result in body.results(metric, grouping)
    ]
    known = [group_text(result.group) for result in results if not result.suppressed]
    hidden = [group_text(result.group) for result in results if result.suppressed]
    text = f"Shown for {listed(known)}; Thresholds has the cost of each threshold."
    return (text if known else "No curve can be shown.") + (
        f" Not shown: {listed(hidden)}." if hidden else ""
    )


def _confused(body: Body) -> tuple[str, str]:
    """Return the confusion with the highest lower bound, over everyone."""
    if "confusion" not in {result.kind for result in body.estimates.results if not result.group}:
        return "", ""
    found = reading.most_confused(active().store, body.entry)
    if found is None:
        return "", ""
    actual, predicted, row = found
    of = measure(row["kind"], row["unit"])
    number = (
        f"{of.text(row['estimate'], (row['high'] - row['low']) / 2)} ({of.interval(row['low'], row['high'])})"
    )
    return words(row["metric"]), f"Most confused: {actual} is recognised as {predicted} {number} of the time."


def _guardrails(body: Body) -> str:
    found = sorted(body.estimates.judgements, key=lambda judgement: ORDER[judgement.verdict])
    if not found:
        return ""
    lines = "".join(f"<li>{_guardrail(body, judgement)}</li>" for judgement in found)
    integrity = esc(about_integrity(body.plan, body.estimates), 600)
    return f'<ul class="uh-list" aria-label="Guardrails">{lines}</ul><p class="soft">{integrity}</p>'


def _guardrail(body: Body, judgement: Judgement) -> str:
    kind, unit = _shape(body, judgement)
    limit = sentences.about_limit(judgement, kind, unit)
    return f"{theme.verdict(judgement.verdict)} <b>{esc(limit[:1].upper() + limit[1:])}.</b> {esc(_reason(body, judgement))}"


def _reason(body: Body, judgement: Judgement) -> str:
    results = body.results(judgement.metric, judgement.by)
    return sentences.about_verdict(judgement, results, *_shape(body, judgement))


def _shape(body: Body, judgement: Judgement) -> tuple[str, str]:
    of = next((result for result in body.estimates.results if result.metric == judgement.metric), None)
    return ("rate", "") if of is None else (of.kind, of.unit)


def _links(body: Body) -> None:
    where = {"plan": body.entry.plan, "release": short(body.entry.id)}
    kinds = {result.kind for result in body.estimates.results}
    with st.container(horizontal=True, gap="small"):
        if kinds - reading.TABLES:
            link("segments", "Segments", "groups", **where)
            link("trends", "Trends", "compare_arrows", **where)
        if "det" in kinds:
            link("thresholds", "Thresholds", "tune", **where)
        if "confusion" in kinds:
            link("confusions", "Confusions", "grid_on", **where)
