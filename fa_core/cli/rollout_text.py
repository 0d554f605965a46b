"""A rollout as rows for a person and as one JSON object."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer

from fa_core.canonical_json import utc_text
from fa_core.cli.text_table import table
from fa_core.privacy.ledger import UNITS, Charge, show
from fa_core.privacy.reservations import Planned
from fa_core.publication.rollout import RolloutManifest
from fa_core.rollout.budget import Account, account
from fa_core.rollout.decision import Decision
from fa_core.rollout.record import Outcome
from fa_core.rollout.states import History, Status
from fa_core.trust.grants import Grant


def row(history: History, now: datetime) -> dict[str, Any]:
    """Return where a rollout is, in one line's fields."""
    document, manifest, due = history.document, history.manifest, history.due
    going = history.active(now)
    return {
        "rollout": document.name,
        "hash": document.hash.hex(),
        "population": document.population,
        "wake_word": document.wake_word,
        "state": str(history.status(now)),
        "held": history.held and going,
        "stage": history.stage,
        "share": "0" if manifest is None else str(manifest.share),
        "sequence": None if manifest is None else manifest.sequence,
        "lease": None if manifest is None else utc_text(manifest.expires),
        "next": None
        if due is None or not going
        else {"what": f"{due.action} {due.number}", "from": utc_text(due.opens)},
    }


def whole(history: History, charges: Sequence[Charge], now: datetime, *, cosigned: bool) -> dict[str, Any]:
    """Return everything of a rollout: its document, its decisions with their numbers, its manifests, whether
    the witness cosigned the one in force, and what it has of its population's budgets, by their charges."""
    from fa_core.rollout.document import canonical

    found = account(history, charges, now)
    return row(history, now) | {
        "budget": None if found is None else _budget(found),
        "document": json.loads(canonical(history.document)),
        "signer": history.signed.key.hex(),
        "cosigned": cosigned,
        "decisions": [_decision(each) for each in history.decisions],
        "manifests": [
            {"sequence": m.sequence, "state": m.state, "stage": m.stage, "share": str(m.share),
             "issued": utc_text(m.issued), "expires": utc_text(m.expires), "granted": bool(m.grant),
             "granted_until": _granted_until(m)}
            for m in history.manifests
        ],
    }  # fmt: skip


def outcome(found: Outcome, now: datetime) -> dict[str, Any]:
    """Return what came of an action."""
    decision = None if found.decision is None else _decision(found.decision)
    said = {
        "verdict": found.verdict,
        "why": found.why,
        "undelivered": found.undelivered,
        "unwitnessed": found.unwitnessed,
        "decision": decision,
    }
    return row(found.history, now) | said


def reach(found: Outcome) -> str:
    """Return until when devices act on the end of a rollout, "" where it has not ended."""
    if found.history.ended is None or found.undelivered:
        return ""
    return (
        "Connected devices that follow it are back on the baseline within 300 s, others when they connect or "
        "as their lease ends."
    )


def late(found: Outcome) -> list[str]:
    """Return in sentences whom an action has not reached yet, what follows from that, and when it will."""
    history, said = found.history, []
    if found.undelivered:
        said.append(f"devices do not have it yet: {found.undelivered}")
    if not found.unwitnessed:
        return said
    action = "" if found.decision is None else found.decision.action
    again = f"`fa rollout decide {history.document.name}` reports it once the witness answers"
    if history.ended is not None:
        enough = "" if said else "; for devices that follow the rollout the log's signature is enough"
        said.append(f"the witness was not informed of the end: {found.unwitnessed}{enough}; {again}")
    elif action == "hold":
        said.append(
            f"the witness was not informed of the hold: {found.unwitnessed}; nothing expands from this store "
            f"all the same, and devices stay in their stage; {again}"
        )
    elif action == "resume":
        said.append(
            f"the witness was not informed that it goes on, and grants no stage before that: "
            f"{found.unwitnessed}; {again}"
        )
    return said


def where(history: History, now: datetime) -> str:
    """Return in a sentence where a rollout is."""
    found = row(history, now)
    state = history.status(now)
    text = str(state).replace("_", " ")
    if state is Status.LIVE:
        text += f" on {float(history.document.stages[history.stage].share):.0%} of the devices"
    text += ", held by an operator" if found["held"] else ""
    if found["next"] is not None:
        text += f"; {found['next']['what']} is due from {_minute(found['next']['from'])} on"
    return text


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rollouts, one a line."""
    shown = [
        (
            each["rollout"], each["wake_word"], each["population"],
            each["state"].replace("_", " ") + (", held" if each["held"] else ""), each["share"],
            "" if each["next"] is None else f"{each['next']['what']} from {_minute(each['next']['from'])}",
            _minute(each["lease"] or ""),
        )
        for each in rows
    ]  # fmt: skip
    table(
        f"{len(rows)} rollouts",
        ("rollout", "wake word", "population", "state", "share", "next", "lease until"),
        shown,
    )


def print_whole(history: History, charges: Sequence[Charge], now: datetime, *, cosigned: bool) -> None:
    """Print where a rollout is, its groups at the last look, and what was decided."""
    print_rows([row(history, now)])
    judged = [each for each in history.decisions if each.gate.get("groups")]
    if judged:
        _print_groups(judged[-1])
    rows = [
        (f"{each.at:%Y-%m-%d %H:%M}", f"{each.action.replace('_', ' ')} {each.number}",
         each.verdict.replace("_", " "), _granted(each), each.why)
        for each in history.decisions
    ]  # fmt: skip
    table("Decisions", ("when (UTC)", "what", "verdict", "granted", "why"), rows)
    found = account(history, charges, now)
    if found is not None:
        typer.echo(_budget_text(found))
    typer.echo(where(history, now))
    if not cosigned:
        name = history.document.name
        typer.echo(f"The witness has not cosigned this yet; `fa rollout decide {name}` asks it again.")


def planned(each: Planned) -> dict[str, str]:
    """Return one charge that is set aside, for a program."""
    return {"for": each.name, "cost": str(each.charge.cost), "from": utc_text(each.charge.at)}


def _budget(found: Account) -> dict[str, Any]:
    return {
        "currency": UNITS[found.currency],
        "spent": str(found.spent),
        "reserved": str(found.reserved),
        "planned": [planned(each) for each in found.reservation.planned],
    }


def _budget_text(found: Account) -> str:
    unit, coming = UNITS[found.currency], found.reservation.planned
    aside = f"{unit} {show(found.reserved)} set aside for {coming[0].name}" if coming else "nothing set aside"
    to = f" to {coming[-1].name}" if len(coming) > 1 else ""
    return f"Budget of a device: {unit} {show(found.spent)} spent, {aside}{to}"


def _print_groups(decision: Decision) -> None:
    rows = [
        (
            each["group"], _points(each["estimate_low"]), _points(each["estimate_high"]),
            _points(each["interval_low"]), _points(each["interval_high"]), f"{each['fraction']:.0%}",
            "yes" if each["shipped"] else "no", each["reason"],
        )
        for each in (*decision.gate["groups"], decision.gate["overall"])
    ]  # fmt: skip
    headers = ("group", "at least", "at most", "low", "high", "information", "good enough", "")
    table(f"Look {decision.number}: how much more is missed, in points", headers, rows)


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action,
        "number": decision.number,
        "verdict": decision.verdict,
        "at": utc_text(decision.at),
        "releases": list(decision.releases),
        "why": decision.why,
        "gate": dict(decision.gate),
        "granted": bool(decision.next.grant),
    }


def _granted(decision: Decision) -> str:
    return "by the witness" if decision.next.grant and decision.verdict == "expand" else ""


def _granted_until(manifest: RolloutManifest) -> str | None:
    """Return until when devices may enter a manifest's stage, None where no grant says so."""
    time = Grant.decode(manifest.grant).time if manifest.grant else None
    return None if time is None else utc_text(time[1])


def _points(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.2f}"


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")
