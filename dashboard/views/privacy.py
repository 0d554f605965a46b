"""Privacy: budgets and charges, releases and their costs, participation, the transparency log, the audit trail."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

import streamlit as st

from dashboard.charts import base
from dashboard.charts.burn_down import burn_down
from dashboard.data import reading
from dashboard.data.numbers import cost, count, day, group_text, grouping_text, minute, short, span, words
from dashboard.data.reading import Body
from dashboard.launch.suggestion import run_command
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from dashboard.views import accounts, hidden
from fa_core.privacy.guarantee import guarantee
from fa_core.rollout.budget import set_aside
from fa_core.store import Entry

VIEWS: Final = {
    "budget": "Budget", "releases": "Releases", "refused": "Refused", "coverage": "Coverage", "log": "Transparency log", "audit": "Audit trail",
}  # fmt: skip
ON_A_PAGE: Final = 25
MOST_GROUPS: Final = 60


def page() -> None:
    """Show the page."""
    theme.title("Privacy", "What did every device spend, what was released for it, and can that be verified?")
    view = selection.tabs(VIEWS, "view")
    if view == "log":
        accounts.log()
    elif view == "audit":
        accounts.audit_trail()
    elif view == "refused":
        _refused()
    elif not reading.open_catalogue(active().store).populations():
        theme.empty(
            "Nothing has been spent yet.",
            "The first run charges the ledger before it contacts a device.",
            run_command(),
        )
    elif view == "budget":
        _budget(datetime.now(UTC))
    elif view == "releases":
        _releases()
    else:
        _coverage()


def _budget(now: datetime) -> None:
    store = reading.open_catalogue(active().store)
    populations = store.populations()
    newest = next((entry.population for entry in reading.entries(active().store)), None)
    population = selection.choose(
        "Population", {name: name for name in populations}, "population", first=newest
    )
    declared, charges = store.declaration(population), reading.charges(active().store, population)
    assert declared is not None, "a population with a ledger has declared its budgets"
    spent = accounts.Spending(declared, charges, now)
    selection.notice()
    theme.prose(spent.sentence(), "answer")
    theme.prose(spent.forecast())
    theme.show(f'<div class="uh-gauges">{"".join(spent.gauges())}</div>')
    for each in set_aside(store.rollouts(), population, charges, now):
        aside = sum((planned.charge.cost for planned in each.planned), Fraction(0))
        what = "1 release" if len(each.planned) == 1 else f"{len(each.planned)} releases"
        theme.prose(
            f"{each.holder.capitalize()} has set {spent.unit} {cost(aside)} aside for {what}: other plans are "
            "refused what it would then lack."
        )
    theme.heading("Burn-down", f"of the year's budget of every device of {population}")
    if charges:
        base.show(
            burn_down(spent.burn_down(), float(declared.policy.year), spent.unit, theme.palette()),
            theme.palette(), f"Remaining yearly budget of {population} after each charge", "burn",
        )  # fmt: skip
    theme.heading("By month")
    theme.show(spent.months())
    theme.heading("By plan", "in the last 365 days")
    theme.show(spent.families())
    theme.prose(
        "A charge is made for every device of a population, whether or not it took part, before anything is unmasked; "
        "it stays when the round fails. Charges of a zCDP ledger add up in rho; epsilon is the implied value.",
        "note",
    )


def _releases() -> None:
    entries = reading.entries(active().store)
    pages = max(1, -(-len(entries) // ON_A_PAGE))
    place = selection.pager(pages) if pages > 1 else 1
    columns = (
        Column("Window"), Column("Plan"), Column("Release", minor=True), Column("Cost", True), Column("Devices counted", True),
        Column("Not shown", True, True), Column("", minor=True),
    )  # fmt: skip
    rows, attributes = [], []
    for entry in entries[(place - 1) * ON_A_PAGE : place * ON_A_PAGE]:
        rows.append(_release(entry))
        attributes.append({"release": entry.id, "cost": entry.cost})
    theme.show(theme.table(columns, rows, "Releases and their cost per device", attributes))
    failures = reading.failures(active().store)
    theme.heading("Rounds that failed", "nothing was released; charges already made stay in the ledger")
    if not failures:
        theme.prose("None.", "note")
        return
    headings = (Column("When"), Column("Plan"), Column("Stage", minor=True), Column("Reason"))
    cells = [
        [day(each.at), esc(each.plan, 80), esc(each.stage), theme.rich(each.reason)]
        for each in failures[:ON_A_PAGE]
    ]
    theme.show(theme.table(headings, cells, "Rounds that failed"))


def _refused() -> None:
    """Show the requests that budgets or policy refused."""
    found = reading.refusals(active().store)
    if not found:
        theme.empty(
            "No request was refused.",
            "What the budgets, the least cohort or the enrolment authority's limits refuse is here, with its reason.",
        )
        return
    pages = -(-len(found) // ON_A_PAGE)
    place = selection.pager(pages) if pages > 1 else 1
    columns = (
        Column("When (UTC)"), Column("Plan"), Column("Population", minor=True), Column("Hash of the plan", minor=True),
        Column("Reason"),
    )  # fmt: skip
    rows = [
        [minute(each.at).removesuffix(" UTC"), esc(each.plan, 80), esc(each.population, 80),
         f"<code>{esc(each.plan_hash[:12])}</code>", theme.rich(each.reason, 1000)]
        for each in found[(place - 1) * ON_A_PAGE : place * ON_A_PAGE]
    ]  # fmt: skip
    theme.prose(
        "Nothing was charged and no device was asked. Refusals are not in the transparency log.", "note"
    )
    theme.show(theme.table(columns, rows, "Refused requests"))


def _release(entry: Entry) -> list[str]:
    unit = "ρ" if entry.accounting == "zcdp" else "ε"
    return [
        span(entry.window_start, entry.window_end), esc(entry.plan, 80), f"<code>{short(entry.id)}</code>",
        f"{unit} {float(entry.cost):.3g}",
        f"{entry.counted:,} <small>of {entry.joined:,} joined</small>", f"{entry.suppressed} of {entry.results}",
        theme.provenance(entry.simulated, entry.synthetic),
    ]  # fmt: skip


def _coverage() -> None:
    plans = reading.plans(active().store)
    if not plans:
        theme.empty(
            "There is no release yet.",
            "After a run, this page shows the participation and the groups that are too small to show.",
        )
        return
    with st.container(key="selection"):
        left, right = st.columns(2)
        with left:
            plan = selection.plan(plans)
        with right:
            body = selection.glance(selection.release_of(plans[plan]))
    selection.notice()
    entry = body.entry
    theme.prose(_participation(entry), "answer")
    _group_sizes(body)
    hidden.show(body)
    theme.heading("Privacy guarantee", "of this release, for every device")
    for sentence in guarantee(reading.release(active().store, entry)):
        theme.prose(sentence)


def _participation(entry: Entry) -> str:
    joined = entry.joined / entry.invited if entry.invited else 0.0
    text = (
        f"Of {entry.invited:,} devices invited {entry.joined:,} joined ({joined:.0%}), {entry.dropped:,} dropped out and "
        f"{entry.counted:,} were counted. The numbers describe the counted devices only."
    )
    if entry.synthetic:
        text += " Their voices are synthetic: a few clusters, not a population."
    return text


def _group_sizes(body: Body) -> None:
    """Show how the devices with events are distributed over the groups, from the noisy device counts."""
    groupings = [
        (metric, grouping)
        for metric in body.metrics()
        for grouping in body.groupings(metric)
        if len(grouping) == 1
    ]
    if not groupings:
        return
    metric, grouping = max(groupings, key=lambda each: len(body.results(*each)))
    results = body.results(metric, grouping)[:MOST_GROUPS]
    total = sum(max(result.devices or 0.0, 0.0) for result in results) or 1.0
    theme.heading(
        f"Devices by {grouping_text(grouping)}",
        f"with events for {words(metric)}; noisy counts",
    )
    rows = []
    for result in sorted(results, key=lambda each: -(each.devices or 0.0)):
        devices, sd = max(result.devices or 0.0, 0.0), result.devices_sd or 0.0
        low, high = max(devices - 2 * sd, 0.0), devices + 2 * sd
        shown = (
            ""
            if not result.suppressed
            else f'<span class="why">not shown: {theme.rich(result.reason)}</span>'
        )
        rows.append([esc(group_text(result.group)), esc(count(devices, sd)), f"{devices / total:.0%}",
                     theme.bar(low, devices, high, 0.0, total / 2), shown])  # fmt: skip
    columns = (
        Column("Group"),
        Column("Devices", True),
        Column("Share", True),
        Column(" ", minor=True),
        Column("", minor=True),
    )
    theme.show(theme.table(columns, rows, "Devices by group"))
