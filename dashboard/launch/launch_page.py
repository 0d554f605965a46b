"""The page for launching a plan and monitoring its run: cost and budgets, progress of each stage, outcome."""

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import streamlit as st

from dashboard.auth import session
from dashboard.data import reading
from dashboard.data.numbers import cost, minute, short
from dashboard.launch import run_folder
from dashboard.launch.run_folder import Fleet, Launch
from dashboard.navigation import links, selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc, rich
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.privacy.ledger import DEFAULT_POLICIES, Charge, shortages
from fa_core.privacy.reservations import displaced
from fa_core.rollout.budget import set_aside
from fa_core.store import shown_as

STAGES: Final = {
    "join": "Devices join", "shares": "Keys are shared", "confirm": "Shares are checked", "masked": "Devices count and mask",
    "unmask": "The sum is unmasked",
}  # fmt: skip
KINDS: Final = {
    "Refused": "Refused", "RoundFailed": "The round failed", "BadInput": "Nothing was started", "defect": "The run crashed",
}  # fmt: skip
REFRESH_SECONDS: Final = 1.0


def fleets() -> list[Fleet]:
    """Return the fleets that a plan may be launched over; shows a note for each that cannot be read."""
    found = []
    for path in active().fleets:
        try:
            found.append(run_folder.fleet(path))
        except BadInput as error:
            theme.prose(str(error), "note")
    return found


def offer(plan: Plan, text: str, found: list[Fleet]) -> None:
    """Show the launch button of a valid plan, with its cost and whether the budgets allow it."""
    theme.heading("Launch", "runs on every device of a fleet; the ledger is charged first")
    if not found:
        theme.empty(
            "This dashboard has no fleet.", "Start it with a fleet directory to launch plans from here.",
            "fa fleet make --devices 2000 --out fleet\n"
            + shlex.join(["fa", "dashboard", "--store", shown_as(active().store), "--fleet", "fleet"]),
        )  # fmt: skip
        return
    options = {each.path.name: each for each in found}
    chosen = selection.choose(
        "Fleet", options, "fleet", lambda each: f"{each.population}: {each.devices:,} devices"
    )
    selection.notice()
    exceeded = exceeded_budgets(plan, chosen)
    layout = compile_plan(plan)
    unit = "ρ" if layout.accounting == "zcdp" else "ε"
    if exceeded:
        theme.show(f'<p role="alert">{theme.chip("over budget", "broken", "✕")} {rich(exceeded)}</p>')
    else:
        theme.prose(
            f"It would charge every device of {chosen.population} {unit} {cost(layout.cost)}, which its budgets allow."
        )
    reason = _why_not(bool(exceeded), chosen.population)
    pressed = st.button(
        "Launch",
        type="primary",
        icon=":material/rocket_launch:",
        key="launch",
        disabled=bool(reason),
        help=reason or None,
    )
    theme.prose(reason, "note")
    if pressed and not reason:
        started = run_folder.start(
            active().folder, text, chosen, active().store, session.user().name, plan.name
        )
        session.record("launch", plan=plan.name, hash=plan.hash, fleet=chosen.population, launch=started)
        selection.select(view="runs", launch=started)


def _why_not(exceeded: bool, population: str) -> str:
    """Return why the signed-in user cannot launch, empty where nothing prevents it."""
    reasons = []
    if exceeded:
        reasons.append(f"the budgets of {population} do not allow it now")
    if not session.may("operator"):
        reasons.append("launching needs the operator role, which you do not have")
    return f"Launch is disabled: {', and '.join(reasons)}." if reasons else ""


def exceeded_budgets(plan: Plan, chosen: Fleet) -> str:
    """Return which budgets a launch would exceed, empty where none."""
    store, layout = reading.open_catalogue(active().store), compile_plan(plan)
    declared = store.declaration(chosen.population)
    if declared is not None and declared.currency != layout.accounting:
        return f"{chosen.population} has a ledger of {declared.currency}; this plan is accounted in {layout.accounting}."
    policy = DEFAULT_POLICIES[layout.accounting] if declared is None else declared.policy
    asked = Charge(
        population=chosen.population, family=plan.metadata.name, release="0" * 32, plan_hash=plan.hash,
        currency=layout.accounting, cost=layout.cost, epsilon=layout.epsilon, delta=layout.delta,
        window_start=chosen.until - plan.window, window_end=chosen.until, at=datetime.now(UTC),
    )  # fmt: skip
    parts, past, entries = [], store.charges(chosen.population), store.rollouts()
    for each in shortages(policy, past, asked):
        frees = "it never fits" if each.fits is None else f"it fits from {minute(each.fits)} on"
        parts.append(
            f"{each.balance.budget}: {cost(each.balance.left)} of {cost(each.balance.limit)} is left; {frees}"
        )
    before, after = (set_aside(entries, chosen.population, made, asked.at) for made in (past, (*past, asked)))
    for lost in displaced(policy, past, asked, before, after):
        parts.append(f"{lost.holder} has set {cost(lost.planned.charge.cost)} aside for {lost.planned.name}")
    return ". ".join(parts)


def page() -> None:
    """Show the launched runs, and the progress of the selected one."""
    names = run_folder.newest(active().folder)
    if not names:
        theme.empty(
            "No run has been launched from this dashboard yet.",
            "Write a plan, check its expected precision, and launch it.",
        )
        return
    found = {name: run_folder.read(active().folder, name) for name in names}
    chosen = selection.choose("Run", found, "launch", _text)
    selection.notice()
    _monitor(chosen.id)
    theme.heading("Launched runs")
    columns = (
        Column("When (UTC)"),
        Column("Plan"),
        Column("By", minor=True),
        Column("Fleet", minor=True),
        Column("Outcome"),
    )
    rows = [
        [esc(str(each.order["at"])[:19].replace("T", " ")), esc(each.order["plan"], 60), esc(each.order["who"], 64),
         esc(each.order["population"], 60), _outcome(each)]
        for each in found.values()
    ]  # fmt: skip
    theme.show(theme.table(columns, rows, "Launched runs"))


def _text(launch: Launch) -> str:
    return f"{launch.order['plan']} · {str(launch.order['at'])[:16].replace('T', ' ')}"


def _outcome(launch: Launch) -> str:
    if launch.outcome is None:
        return theme.chip("running", "plain", "…")
    if "release" in launch.outcome:
        return theme.chip(f"released {short(launch.outcome['release'])}", "met", "✓")
    return theme.chip(KINDS[launch.outcome["kind"]], "broken", "✕")


@st.fragment(run_every=REFRESH_SECONDS)
def _monitor(identifier: str) -> None:
    """Show one run, refreshed every second while it runs."""
    launch = run_folder.read(active().folder, identifier)
    theme.show(_stages(launch))
    outcome = launch.outcome
    if outcome is None:
        st.session_state["monitored"] = identifier
        if not launch.stages:
            theme.prose("Starting: reading the fleet, logging and charging the plan.", "note")
        if session.may("operator") and st.button("Stop the run", icon=":material/stop_circle:", key="stop"):
            run_folder.stop(active().folder, launch)
            session.record("stop", launch=identifier)
        return
    if st.session_state.pop("monitored", "") == identifier:
        reading.forget()
        st.rerun()
    if "release" in outcome:
        theme.prose(f"Released {short(outcome['release'])}. Its numbers are on every page.", "answer")
        links.link("", "Open Health", "monitor_heart")
    else:
        theme.show(
            f'<div role="alert" class="uh-empty"><p>{theme.chip(KINDS[outcome["kind"]], "broken", "✕")}</p>'
            f"<p>{rich(outcome['reason'], 2000)}</p>"
            "<p class=soft>Nothing was released. A charge that was already made stays in the ledger.</p></div>"
        )


def _stages(launch: Launch) -> str:
    """Return each stage with its counts and the time left."""
    parts = []
    reached = [name for name in STAGES if name in launch.stages]
    for name, text in STAGES.items():
        event = launch.stages.get(name)
        if event is None:
            parts.append(
                f'<div class="waiting"><b>{text}</b><div class="track"></div><span>not started</span></div>'
            )
            continue
        share = event["answered"] / event["asked"] if event["asked"] else 0.0
        now = launch.outcome is None and reached[-1] == name
        parts.append(
            f'<div role="progressbar" aria-label="{text}" aria-valuenow="{100 * share:.0f}" aria-valuemin="0" '
            f'aria-valuemax="100"><b>{text}</b><div class="track"><i style="width:{100 * share:.1f}%"></i></div>'
            f"<span>{event['answered']:,} of {event['asked']:,}{_details(event, now)}</span></div>"
        )
    return f'<div class="uh-stages">{"".join(parts)}</div>'


def _details(event: Mapping[str, Any], now: bool) -> str:
    parts = [f"{event['dropped']:,} dropped out"] if event["dropped"] else []
    if now:
        parts.append("no deadline" if event["left"] is None else f"{event['left']:,} s left")
    return f" <small>{', '.join(parts)}</small>" if parts else ""
