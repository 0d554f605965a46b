"""Health: for the newest release of each plan, what it says in one glance, and what needs a hand first."""

from collections.abc import Sequence
from typing import Final

import streamlit as st

from dashboard import look, picks, reading, sentences
from dashboard.links import link
from dashboard.look import Column, esc
from dashboard.numbers import group_text, grouping_text, half_width, measure, short, span, words
from dashboard.reading import Body
from dashboard.settings import active
from fa_core.estimate import gap
from fa_core.estimate.compare import Difference, compare
from fa_core.values import Estimate, Judgement

ON_A_PAGE: Final = 8
ORDER: Final = {"broken": 0, "not_enough_evidence": 1, "met": 2}
TABLES: Final = frozenset({"det", "confusion"})


def page() -> None:
    """Show the page."""
    look.title("Health", "Who does the model fail, and is the evidence enough to say so?")
    plans = reading.plans(active().store)
    if not plans:
        look.empty(
            "There is no release yet.",
            "Check a plan, see what it will be able to tell, and run it. The page fills itself.",
            "fa run eval_plans/wake-word-weekly.yaml --fleet DIR",
        )
        return
    newest = [picks.body(each[0]) for each in plans.values()]
    newest.sort(key=lambda body: min([ORDER[j.verdict] for j in body.estimates.judgements], default=3))
    _strip(newest)
    if any(body.entry.simulated for body in newest):
        look.show(
            '<p class="uh-banner"><b>Simulation.</b> Releases marked ◈ come from a simulated or synthetic fleet: '
            "they show that the method works, and say nothing about people.</p>"
        )
    pages = -(-len(newest) // ON_A_PAGE)
    place = 1
    if pages > 1:
        numbers = {str(number): number for number in range(1, pages + 1)}
        place = picks.choose("Page", numbers, "page", lambda number: f"{number} of {pages}")
    for body in newest[(place - 1) * ON_A_PAGE : place * ON_A_PAGE]:
        before = plans[body.entry.plan][1:2]
        _card(body, picks.body(before[0]) if before else None)


def _strip(newest: Sequence[Body]) -> None:
    judgements = [judgement for body in newest for judgement in body.estimates.judgements]
    hidden = sum(body.entry.suppressed for body in newest)
    shown = sum(body.entry.results for body in newest)
    tiles = [("", len(newest), "plans with a release")]
    for verdict in ("broken", "not_enough_evidence", "met"):
        kind, sign, name = look.VERDICTS[verdict]
        told = sum(judgement.verdict == verdict for judgement in judgements)
        tiles.append((kind if told else "", told, f"{sign} guardrails {name}"))
    tiles.append(("", hidden, f"of {shown} numbers not shown: too few devices or events"))
    look.show(
        '<div class="uh-strip">'
        + "".join(
            f'<div class="{kind}"><b>{number}</b><span>{esc(text)}</span></div>'
            for kind, number, text in tiles
        )
        + "</div>"
    )


def _card(body: Body, before: Body | None) -> None:
    entry = body.entry
    with st.container(border=True, key=f"card-{short(entry.id)}"):
        chips = look.provenance(entry.simulated, entry.synthetic)
        look.show(
            f'<section aria-label="{esc(entry.plan)}"><header class="uh-head"><h2 class="uh-h2">'
            f"{esc(entry.plan, 120)} <small>revision {esc(body.told('revision'), 12)}</small></h2><div>{chips}</div>"
            f'</header><p class="soft">{esc(body.told("question"), 400)}</p>'
            f'<div class="uh-facts"><span><b>{span(entry.window_start, entry.window_end)}</b></span>'
            f"<span><b>{entry.counted:,}</b> devices counted</span><span>release <code>{short(entry.id)}</code></span>"
            f"<span>asked by {esc(body.told('owner'), 60)}</span></div>"
            f"{_numbers(body, before)}{_tables(body)}{_guardrails(body)}</section>"
        )
        _links(body)


def _numbers(body: Body, before: Body | None) -> str:
    changes = {(c.metric, c.group): c for c in _changes(body, before) if not c.cell}
    rows, told, sentences_ = [], [], []
    for metric in body.metrics():
        results = [r for r in body.estimates.results if r.metric == metric]
        if any(result.cells for result in results):
            continue
        for grouping in body.groupings(metric):
            groups = body.results(metric, grouping)
            if len(grouping) <= 1:
                row, data = _row(metric, grouping, groups, changes)
                rows.append(row)
                told.append(data)
            if len(groups) > 1:
                text = sentences.about_groups(groups)
                sentences_.append(
                    f"<li><b>{esc(words(metric))} by {esc(grouping_text(grouping))}.</b> {esc(text)}</li>"
                )
    if not rows:
        return ""
    columns = (
        Column("Metric"), Column("Everyone", True), Column("Worst"), Column("Best", minor=True),
        Column("Gap", True, minor=True), Column("Since the release before", minor=True),
    )  # fmt: skip
    return look.table(columns, rows, f"Headline numbers of {body.entry.plan}", told) + (
        f'<ul class="uh-told">{"".join(sentences_)}</ul>' if sentences_ else ""
    )


def _row(
    metric: str,
    grouping: tuple[str, ...],
    groups: Sequence[Estimate],
    changes: dict[tuple[str, tuple[tuple[str, str], ...]], Difference],
) -> tuple[list[str], dict[str, object]]:
    first = groups[0]
    everyone, worst, best, apart, since = "", "", "", "", ""
    data: dict[str, object] = {"metric": metric, "by": ",".join(grouping)}
    name = f"{esc(words(metric))}"
    if not grouping:
        everyone = _number(first)
        change, interval = sentences.change_cell(changes.get((metric, first.group)))
        since = (
            f"{esc(change)} <small>{esc(interval)}</small>"
            if change
            else '<span class="soft">no earlier release</span>'
        )
        data |= {"estimate": first.estimate, "low": first.low, "high": first.high}
    else:
        name += f" <small>by {esc(grouping_text(grouping))}</small>"
        pair, found = sentences.worst_and_best(groups), gap(groups)
        if pair is not None and found is not None:
            worst, best = (f"{esc(group_text(each.group), 40)} {_number(each)}" for each in pair)
            apart = esc(sentences.gap_text(found, first.kind, first.unit))
            data |= {"worst": group_text(pair[0].group), "gaplow": found.low, "gaphigh": found.high}
            change, interval = sentences.change_cell(changes.get((metric, pair[0].group)))
            since = (
                f"{esc(group_text(pair[0].group), 40)} {esc(change)} <small>{esc(interval)}</small>"
                if change
                else ""
            )
        else:
            worst = '<span class="why">too few groups can be shown</span>'
    return [name, everyone, worst, best, apart, since], data


def _number(result: Estimate) -> str:
    if result.estimate is None:
        return f'<span class="why">not shown: {esc(result.reason)}</span>'
    of = measure(result.kind, result.unit)
    return (
        f'<span class="lead">{esc(of.text(result.estimate, half_width(result)))}</span> '
        f"<small>{esc(of.interval(result.low, result.high))}</small>"
    )


def _changes(body: Body, before: Body | None) -> tuple[Difference, ...]:
    return () if before is None else compare(before.estimates, body.estimates)


def _tables(body: Body) -> str:
    lines = []
    for result in body.estimates.results:
        if result.kind != "confusion" or result.group:
            continue
        mixed = [
            c for c in result.cells if c.estimate is not None and len({label for _, label in c.labels}) > 1
        ]
        if mixed:
            most = max(mixed, key=lambda cell: cell.simultaneous_low or 0.0)
            actual, predicted = (label for _, label in most.labels)
            of = measure(result.kind, result.unit)
            lines.append(
                f"<li><b>{esc(words(result.metric))}.</b> {esc(actual)} is most surely taken for {esc(predicted)}: "
                f"{esc(of.with_interval(most))} of the time.</li>"
            )
    return f'<ul class="uh-told">{"".join(lines)}</ul>' if lines else ""


def _guardrails(body: Body) -> str:
    found = sorted(body.estimates.judgements, key=lambda judgement: ORDER[judgement.verdict])
    if not found:
        return ""
    lines = "".join(f"<li>{_guardrail(body, judgement)}</li>" for judgement in found)
    return f'<ul class="uh-told" aria-label="Guardrails">{lines}</ul>'


def _guardrail(body: Body, judgement: Judgement) -> str:
    of = next((r for r in body.estimates.results if r.metric == judgement.metric), None)
    kind, unit = ("rate", "") if of is None else (of.kind, of.unit)
    return (
        f"{look.verdict(judgement.verdict)} <b>{esc(sentences.about_limit(judgement, kind, unit))}.</b> "
        f"{esc(sentences.about_verdict(judgement, kind, unit))}"
    )


def _links(body: Body) -> None:
    where = {"plan": body.entry.plan, "release": short(body.entry.id)}
    kinds = {result.kind for result in body.estimates.results}
    with st.container(horizontal=True, gap="small"):
        if kinds - TABLES:
            link("segments", "Segments", "groups", **where)
            link("trends", "Trends", "compare_arrows", **where)
        if "det" in kinds:
            link("thresholds", "Thresholds", "tune", **where)
        if "confusion" in kinds:
            link("confusions", "Confusions", "grid_on", **where)
