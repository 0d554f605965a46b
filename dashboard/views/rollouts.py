"""Rollouts: which candidate is where, what the gate saw in each group, and what would change its mind."""

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import streamlit as st

from dashboard.auth import session
from dashboard.charts import base
from dashboard.charts.rollout import rollout as chart
from dashboard.data import gates, reading
from dashboard.data.numbers import cost, minute, short, words
from dashboard.navigation import selection
from dashboard.navigation.links import link
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from fa_core.errors import UnheardError
from fa_core.rollout.budget import account
from fa_core.rollout.decision import Decision
from fa_core.rollout.states import History, Status

SIGNS: Final[Mapping[str, tuple[str, str]]] = {
    "expand": ("met", "▲"),
    "hold": ("open", "◼"),
    "roll_back": ("broken", "▼"),
}
ACTIONS: Final = {
    "start": "started", "look": "look", "stage": "test of stage", "hold": "held", "resume": "resumed",
    "roll_back": "rolled back", "kill": "ended at once", "complete": "completed",
}  # fmt: skip


def page() -> None:
    """Show the page."""
    theme.title("Rollouts", "Which candidate is where, and is it good enough for every group?")
    found = reading.rollouts(active().store)
    if not found:
        theme.empty(
            "There is no rollout yet.",
            "A rollout takes a candidate model from shadow to every device, one gate after the other.",
            "fa rollout check eval_plans/rollouts/embed-2.yaml",
        )
        return
    options = {each.document.name: each for each in reversed(found)}
    history = selection.choose("Rollout", options, "rollout", lambda each: each.document.name)
    selection.notice()
    now = datetime.now(UTC)
    _head(history, now)
    looks = [each for each in history.of("look") if gates.groups(each)]
    if looks:
        _groups(history, looks[-1])
    for each in history.of("stage"):
        _stage(history, each)
    _next(history, now)
    _history(history)
    _operate(history, now)


def _head(history: History, now: datetime) -> None:
    document, last = history.document, history.last
    status = history.status(now)
    theme.prose(document.metadata.question, "answer")
    why = "" if last is None else f"{_sentence(history, status)}: {last.why}."
    theme.prose(why)
    manifest = history.manifest
    share = 0 if manifest is None else manifest.share
    planned = next((gates.planned(each) for each in history.of("start")), None)
    theme.show(
        f'<div class="uh-facts"><span>{theme.chip(words(status.value), "plain")}'
        f"{theme.chip('held by an operator', 'undecided', '◼') if history.held else ''}</span>"
        f"<span>candidate <b>{esc(document.models.candidate.version)}</b> for "
        f"{esc(document.models.baseline.version)}</span>"
        f"<span>wake word {esc(document.wake_word)}, population {esc(document.population)}</span>"
        f"<span>acts on <b>{float(share):.0%}</b> of the devices</span>"
        f"<span>{_spent(history, planned)}</span>"
        f"<span>owner {esc(document.metadata.owner, 60)}</span></div>"
    )


def _sentence(history: History, status: Status) -> str:
    candidate = history.document.models.candidate.version
    return {
        Status.SIGNED: f"{candidate} is signed and was not started",
        Status.TESTED: f"{candidate} passed its test set and is about to start",
        Status.SHADOW: f"{candidate} is heard in shadow and acts nowhere",
        Status.LIVE: f"{candidate} acts on a part of the devices",
        Status.COMPLETE: f"{candidate} is the new baseline",
        Status.ROLLED_BACK: f"{candidate} was rolled back, and the baseline acts everywhere",
        Status.KILLED: f"{candidate} was ended by an operator, and the baseline acts everywhere",
        Status.EXPIRED: "The rollout expired, and the baseline acts everywhere",
    }[status]


def _spent(history: History, planned: Fraction | None) -> str:
    """Return what the rollout's releases cost so far, what was planned for it at the start, and what of that is
    set aside still."""
    store, population = active().store, history.document.population
    try:
        found = account(history, reading.charges(store, population), datetime.now(UTC))
    except UnheardError:
        found = None  # the page shows what the log says, also where the ledger cannot be read
    if found is not None:
        of = "" if planned is None else f" of {esc(cost(planned))} planned"
        return (
            f"<b>ρ {esc(cost(found.spent))}</b>{of} spent, <b>{esc(cost(found.reserved))}</b> set aside for "
            f"{len(found.reservation.planned)} looks and stages"
        )
    ids = {each for decision in history.decisions for each in decision.releases if each is not None}
    costs = [each.cost for each in reading.entries(active().store) if each.id in ids]
    spent = float(sum(costs))
    of = "" if planned is None else f" of {esc(cost(planned))} planned"
    return f"<b>ρ {spent:.3g}</b>{of} spent in {len(ids)} releases"


def _groups(history: History, look: Decision) -> None:
    groups, document = gates.groups(look), history.document
    theme.heading(f"Look {look.number} of {document.gate.looks}", minute(look.at))
    rollback, ship = float(document.gate.rollback_above), float(document.gate.ship_below)
    simulated = any(
        each.simulated for each in reading.entries(active().store) if each.id in set(look.releases)
    )
    figure = chart(groups, theme.palette(), rollback_above=rollback, ship_below=ship, simulated=simulated)
    base.show(
        figure, theme.palette(), f"Groups of {document.name} after look {look.number}", f"look-{look.number}"
    )
    theme.prose(
        "Thin lines are intervals that hold at all looks together; thick ones lie between the estimate that "
        "counts moments which only the candidate heard as real, and the one that does not.",
        "note",
    )
    columns = (
        Column("Group"), Column("Missed more, points"), Column("Sequential interval"), Column("Information", True),
        Column("Against rollback", True, minor=True), Column("Against expansion", True, minor=True),
        Column("State"),
    )  # fmt: skip
    cells = [_cells(each) for each in groups]
    theme.show(theme.table(columns, cells, f"Groups after look {look.number}"))


def _cells(group: Mapping[str, Any]) -> list[str]:
    low, high = _points(group.get("estimate_low")), _points(group.get("estimate_high"))
    estimate = low if low == high else f"{low} to {high}"
    interval = f"{_points(group.get('interval_low'))} to {_points(group.get('interval_high'))}"
    return [
        esc(group["group"]), estimate, interval, f"{float(group['fraction']):.0%}",
        _against(group, "z_rollback", "boundary_rollback"), _against(group, "z_ship", "boundary_ship"),
        esc(group["reason"], 200),
    ]  # fmt: skip


def _against(group: Mapping[str, Any], z: str, boundary: str) -> str:
    """Return a statistic beside its boundary."""
    if group.get(z) is None or group.get(boundary) is None:
        return "–"
    return f"{group[z]:.2f} / {group[boundary]:.2f}".replace("-", "−")


def _points(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f}".replace("-", "−")


def _stage(history: History, test: Decision) -> None:
    stages = history.document.stages
    if test.number >= len(stages):
        return
    share = stages[test.number].share
    theme.heading(f"Live, {float(share):.0%} of the devices", minute(test.at))
    measures = gates.measures(test)
    if not test.gate.get("evidence", True):
        theme.prose(
            "Exposure, not evidence: so few devices cannot show a rise of the size in the document.", "note"
        )
    columns = (
        Column("Measure"),
        Column("Higher by", True),
        Column("Interval"),
        Column("Margin", True),
        Column("State"),
    )
    cells = [
        [
            esc(words(each["measure"])), _number(each["difference"]),
            f"{_number(each['interval_low'])} to {_number(each['interval_high'])}", _number(each["margin"]),
            esc(each["reason"], 200),
        ]
        for each in measures
    ]  # fmt: skip
    if cells:
        theme.show(theme.table(columns, cells, f"The test of stage {test.number}"))
    _sample_ratio(history, test)


def _sample_ratio(history: History, test: Decision) -> None:
    """Say how the hours of listening are divided between the models, beside what was planned."""
    entry = next((each for each in reading.entries(active().store) if each.id in test.releases), None)
    if entry is None:
        return
    body = reading.glance(active().store, entry)
    planned = float(history.document.stages[test.number].share)
    heard: dict[str, float] = {}
    for each in body.estimates.results:
        if each.kind == "rate_per_hour" and len(each.group) == 1 and each.denominator is not None:
            heard[each.group[0][1]] = max(each.denominator, 0.0)
    models = history.document.models
    total = heard.get(models.baseline.version, 0.0) + heard.get(models.candidate.version, 0.0)
    if total > 0:
        found = heard.get(models.candidate.version, 0.0) / total
        theme.prose(
            f"The candidate heard {found:.1%} of the hours; {planned:.0%} of the devices were to have it.",
            "note",
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _next(history: History, now: datetime) -> None:
    """Say what is due, and what would change the decision."""
    theme.heading("What is next")
    due = history.due
    if due is None or not history.active(now):
        theme.prose(
            "Nothing more is planned." if not history.active(now) else "No look or test is left to take."
        )
    else:
        name = f"Look {due.number}" if due.action == "look" else f"The test of stage {due.number}"
        theme.prose(f"{name} is due from {minute(due.opens)} on, with plan `{due.plan[:12]}`.")
    looks = [each for each in history.of("look") if gates.groups(each)]
    if not looks or not history.active(now):
        return
    *groups, overall = gates.groups(looks[-1])
    waiting = [
        each for each in (*groups, overall) if not each["shipped"] and each.get("interval_high") is not None
    ]
    gate = history.document.gate
    for each in waiting:
        margin = float(gate.overall_below if each is overall else gate.ship_below)
        theme.prose(
            f"{each['group']}: it counts as good enough once the interval ends below {_points(margin)} points; it "
            f"ends at {_points(each['interval_high'])} now. The rollout is taken back once it begins above "
            f"{_points(float(gate.rollback_above))}; it begins at {_points(each['interval_low'])}."
        )
    hidden = [each["group"] for each in groups if each.get("interval_high") is None]
    if hidden:
        theme.prose(f"Not measured, and so nothing expands: {', '.join(hidden)}.", "note")


def _history(history: History) -> None:
    theme.heading("History", "every line is an entry of the transparency log")
    columns = (
        Column("When"), Column("What"), Column("Decision"), Column("Why"), Column("Stage", minor=True),
        Column("Signed by", minor=True),
    )  # fmt: skip
    cells = []
    for each in reversed(history.decisions):
        kind, sign = SIGNS[each.verdict]
        number = f" {each.number}" if each.action in ("look", "stage") else ""
        follows = each.next
        signers = "log and witness" if follows.grant else "log"
        cells.append(
            [
                minute(each.at), esc(ACTIONS[each.action] + number), theme.chip(words(each.verdict), kind, sign),
                esc(each.why, 300), esc(f"{follows.state} {float(follows.share):.0%}, manifest {follows.sequence}"),
                signers,
            ]
        )  # fmt: skip
    theme.show(theme.table(columns, cells, "Decisions, newest first", scroll=len(cells) > 14))
    document = history.document
    theme.prose(
        f"The document was signed by plan key `{history.signed.key.hex()[:12]}`; its hash is "
        f"`{document.hash.hex()[:12]}`. `fa rollout verify {document.name}` computes every decision again.",
        "note",
    )
    releases = [each for decision in history.decisions for each in decision.releases if each is not None]
    for release in dict.fromkeys(releases):
        link("release", f"Release {short(release)}", "description", release=short(release))


def _operate(history: History, now: datetime) -> None:
    """Show the buttons: hold, resume, roll back, and decide what is due."""
    operate = active().operate
    theme.heading("Operate")
    if operate is None or not session.may("operator"):
        why = (
            "needs the operator role, which you do not have"
            if operate
            else "is not offered by this dashboard"
        )
        theme.prose(f"Holding, rolling back and expanding {why}.", "note")
        return
    if not history.active(now):
        theme.prose("It is over: a new try is a new revision.", "note")
        return
    offered = {
        "resume" if history.held else "hold": "Resume" if history.held else "Hold",
        "rollback": "Roll back",
        "decide": "Decide what is due",
    }
    with st.container(horizontal=True):
        pressed = [
            action
            for action, label in offered.items()
            if st.button(
                label, key=f"operate-{action}", type="primary" if action == "rollback" else "secondary"
            )
        ]
    theme.prose("An expansion needs the witness, who computes the gate again before it signs.", "note")
    for action in pressed:
        session.record(f"rollout {action}", rollout=history.document.name)
        try:
            said = operate(active().store, history.document.hash.hex(), action)
        except UnheardError as error:
            theme.show(f'<p role="alert">{theme.chip("refused", "broken", "✕")} {theme.rich(str(error))}</p>')
        else:
            reading.forget()
            theme.prose(said, "answer")
