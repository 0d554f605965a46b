"""Release: one release on a page, as a reviewer reads it: asked, promised, found, hidden, and how to verify it."""

from collections.abc import Sequence
from itertools import groupby

import streamlit as st

from dashboard.data import reading, sentences
from dashboard.data.numbers import cost, group_text, grouping_text, measure_of, minute, short, span, words
from dashboard.data.reading import Body
from dashboard.navigation import selection
from dashboard.navigation.links import link
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import downloads, hidden
from dashboard.views.segments import facts
from fa_core.estimate.integrity import about_integrity
from fa_core.estimate.sentences import WHICH_DECIDES
from fa_core.privacy.guarantee import guarantee
from fa_core.store import Entry, verify_commands
from fa_core.values import Estimate

TABLES = {"det": "thresholds", "confusion": "confusions"}
"""The pages of metrics that have many numbers a group."""


def page() -> None:
    """Show the page."""
    theme.title("Release", "What was asked and promised, what was found and hidden, and how is it verified?")
    plans = reading.plans(active().store)
    if not plans:
        theme.empty(
            "There is no release yet.", "After a run, its release is here.", "fa run PLAN --fleet DIR"
        )
        return
    with st.container(key="selection"):
        left, right = st.columns(2)
        with left:
            plan = selection.plan(plans)
        with right:
            body = selection.glance(selection.release_of(plans[plan]))
    selection.notice()
    _head(body)
    _report(body.entry)
    theme.heading("Privacy guarantee", "for every device")
    for sentence in guarantee(reading.release(active().store, body.entry)):
        theme.prose(sentence)
    _verdicts(body)
    _numbers(body)
    hidden.show(body)
    _verify(body.entry)


def _head(body: Body) -> None:
    entry = body.entry
    theme.prose(body.metadata("question"), "answer")
    unit = "ρ" if entry.accounting == "zcdp" else "ε"
    theme.show(
        f'<div class="uh-facts"><span>{theme.provenance(entry.simulated, entry.synthetic)}</span>'
        f"<span><b>{span(entry.window_start, entry.window_end)}</b></span><span>made {minute(entry.created)} on "
        f"{esc(entry.engine, 60)}</span><span>population {esc(entry.population, 80)}</span>"
        f"<span><b>{entry.counted:,}</b> devices counted of {entry.invited:,} invited</span>"
        f"<span>cost {unit} {cost(entry.cost)} a device</span><span>owner {esc(body.metadata('owner'), 60)}</span></div>"
    )
    link("plans", f"Plan {entry.plan[:60]}, revision {body.metadata('revision')[:12]}", "description",
         view="read", plan=entry.plan)  # fmt: skip


def _report(entry: Entry) -> None:
    write = active().report
    if write is None:
        return
    store = reading.open_catalogue(active().store)
    downloads.button(
        "HTML", f"{entry.plan}-{short(entry.id)}-report.html"[-120:], "text/html",
        lambda: write(store, entry).encode(), {"release": entry.id, "report": "yes"}, "Report",
    )  # fmt: skip


def _verdicts(body: Body) -> None:
    shapes = {result.metric: (result.kind, result.unit) for result in body.estimates.results}
    theme.heading("Guardrails")
    items = []
    for each in body.estimates.judgements:
        shape = shapes[each.metric]
        limit = sentences.about_limit(each, *shape)
        why = sentences.about_verdict(each, body.results(each.metric, each.by), *shape)
        items.append(
            f"<li>{theme.verdict(each.verdict)} <b>{esc(limit[:1].upper() + limit[1:])}.</b> {esc(why)}</li>"
        )
    if not items:
        theme.prose("The plan has no guardrails.", "note")
        return
    theme.show(f'<ul class="uh-list" aria-label="Guardrails">{"".join(items)}</ul>')
    theme.prose(WHICH_DECIDES, "note")
    theme.prose(about_integrity(body.plan, body.estimates), "note")


def _numbers(body: Body) -> None:
    def by(result: Estimate) -> tuple[str, tuple[str, ...]]:
        return result.metric, reading.grouping_of(result)

    for (metric, grouping), found in groupby(body.estimates.results, by):
        results = list(found)
        theme.heading(
            words(metric)[:1].upper() + words(metric)[1:],
            f"by {grouping_text(grouping)}" if grouping else "everyone",
        )
        kind = results[0].kind
        if kind in reading.TABLES:
            shown = sum(not result.suppressed for result in results)
            theme.prose(
                f"{shown} of {len(results)} groups are shown; each has many numbers, which the report has.",
                "note",
            )
            if kind in TABLES:
                link(
                    TABLES[kind],
                    TABLES[kind].capitalize(),
                    "open_in_new",
                    plan=body.entry.plan,
                    release=short(body.entry.id),
                )
            continue
        theme.prose(body.about_estimand(metric), "note")
        theme.show(_table(metric, results))


def _table(metric: str, results: Sequence[Estimate]) -> str:
    of = measure_of(results)
    columns = (
        Column("Group"),
        Column("Estimate", True),
        Column("95% interval", True),
        Column("95%, corrected", True, True),
    )
    shown = [result for result in sentences.by_evidence(results) if result.estimate is not None]
    rows = [
        [esc(group_text(result.group), 120), f'<span class="lead">{esc(of.estimate(result))}</span>',
         esc(of.interval(result.low, result.high)),
         esc(of.interval(result.simultaneous_low, result.simultaneous_high))]
        for result in shown
    ]  # fmt: skip
    if not rows:
        return '<p class="uh-note">No number is shown; the reasons are below.</p>'
    return theme.table(
        columns, rows, f"{words(metric)} by group", list(map(facts, shown)), scroll=len(rows) > 12
    )


def _verify(entry: Entry) -> None:
    """Show the commands that verify the release, and what they are to find."""
    theme.heading("How to verify", "on a copy of the store, or with a backup of it")
    where = active().store
    commands = verify_commands(entry.id, reading.open_catalogue(where).name if "://" in where else where)
    theme.show(f"<pre><code>{esc(chr(10).join(commands), 4000)}</code></pre>")
    digests = (
        ("plan", entry.plan_hash), ("release", entry.release_sha256), ("estimates", entry.estimates_sha256),
    )  # fmt: skip
    rows = [[f"SHA-256 of the {name}", f"<code>{esc(digest)}</code>"] for name, digest in digests]
    theme.show(theme.table((Column("What"), Column("Value")), rows, "Digests of the release"))
    link("privacy", "Transparency log", "verified", view="log")
