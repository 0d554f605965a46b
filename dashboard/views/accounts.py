"""The reviewer's accounts: budgets and charges, the transparency log, and the audit trail."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Final

import streamlit as st
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dashboard.auth import audit, session
from dashboard.data import reading
from dashboard.data.numbers import cost, day, short, words
from dashboard.launch.suggestion import run_command
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from fa_core.errors import BadInput
from fa_core.privacy.accounting import epsilon_for
from fa_core.privacy.ledger import UNITS, WEEK, YEAR, Balance, Charge, balances
from fa_core.store import Declaration, LogEntry
from fa_core.trust.checkpoint import parse

DELTA: Final = Fraction(1, 10**8)
MEANING: Final = {
    "window": "the last 7 days' events",
    "week": "any 7 days",
    "year": "any 365 days",
}
SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Spending:
    """A population's budgets and all charges to them, as of `now`."""

    declared: Declaration
    charges: Sequence[Charge]
    now: datetime

    @property
    def unit(self) -> str:
        """The symbol of the ledger's currency."""
        return {"rho": "ρ", "epsilon": "ε"}[UNITS[self.declared.currency]]

    def sentence(self) -> str:
        """Return what was spent this month, and the remaining yearly budget."""
        month = f"{self.now:%B %Y}"
        recent = [charge for charge in self.charges if f"{charge.at:%B %Y}" == month]
        total = sum((charge.cost for charge in recent), Fraction(0))
        year = next(each for each in self._balances() if each.budget == "year")
        rounds = "1 round" if len(recent) == 1 else f"{len(recent)} rounds"
        spent = f"In {month} so far, {rounds} cost every device of {self.declared.population} {self.unit} {cost(total)}"
        if not recent:
            spent = f"In {month} so far, nothing was charged to {self.declared.population}"
        left = (
            f"Of the {self.unit} {cost(year.limit)} for any 365 days, {self.unit} {cost(year.left)} remains."
        )
        return f"{spent}{self._implied(total)}. {left}"

    def _implied(self, total: Fraction) -> str:
        if self.declared.currency != "zcdp" or total == 0:
            return ""
        return f", which implies ε {epsilon_for(total, DELTA):.2g} at δ 1e-8"

    def _balances(self, family: str = "") -> tuple[Balance, ...]:
        window = (self.now - WEEK, self.now)
        return balances(self.declared.policy, self.charges, family=family, window=window, at=self.now)

    def gauges(self) -> Iterator[str]:
        """Yield a gauge for each budget that releases share, and one for the budget of a single release."""
        for balance in self._balances():
            if balance.budget in MEANING:
                spent = f"{self.unit} {cost(balance.spent)} of {cost(balance.limit)} spent"
                frees = (
                    "nothing spent"
                    if balance.frees is None
                    else f"the next charge expires on {day(balance.frees)}"
                )
                name = f"{balance.budget.capitalize()}: {MEANING[balance.budget]}"
                yield theme.gauge(float(balance.spent), float(balance.limit), name, spent, frees)
        limit = self.declared.policy.release
        most = max((charge.cost for charge in self.charges), default=Fraction(0))
        yield theme.gauge(
            float(most), float(limit), "Release: each on its own", f"the most expensive cost {self.unit} {cost(most)} of {cost(limit)}",
            "a release over this is refused", shared=False,
        )  # fmt: skip

    def burn_down(self) -> list[dict[str, Any]]:
        """Return the remaining yearly budget after each charge, and now."""
        limit = float(self.declared.policy.year)
        made = [(charge.at, float(charge.cost), charge.family) for charge in self.charges]
        rows = (
            [{"at": (made[0][0] - WEEK).isoformat(), "left": limit, "what": "before the first charge"}]
            if made
            else []
        )
        for moment, value, family in [*made, (max(self.now, made[-1][0]), 0.0, "now")]:
            spent = sum(other for at, other, _ in made if moment - YEAR < at <= moment)
            what = family if not value else f"{family}, {self.unit} {value:.3g}"
            rows.append({"at": moment.isoformat(), "left": max(limit - spent, 0.0), "what": what})
        return rows

    def months(self) -> str:
        """Return a table of the cost of each calendar month."""
        by_month: dict[str, list[Charge]] = {}
        for charge in reversed(self.charges):
            by_month.setdefault(f"{charge.at:%B %Y}", []).append(charge)
        rows, attributes = [], []
        for name, charges in by_month.items():
            total = sum((charge.cost for charge in charges), Fraction(0))
            implied = f"{epsilon_for(total, DELTA):.2g}" if self.declared.currency == "zcdp" else cost(total)
            rows.append(
                [
                    name,
                    str(len(charges)),
                    f'<span class="lead">{self.unit} {cost(total)}</span>',
                    f"ε {implied}",
                ]
            )
            attributes.append({"month": name, "cost": total})
        columns = (Column("Month (UTC)"), Column("Charges", True, True), Column("Spent per device", True),
                   Column("Implies, at δ 1e-8" if self.declared.currency == "zcdp" else "Epsilon", True))  # fmt: skip
        return theme.table(columns, rows, "Spending by month", attributes)

    def families(self) -> str:
        """Return a table of each plan's charges to its own budget."""
        rows = []
        for family in sorted({charge.family for charge in self.charges}):
            own = replace(self, charges=[charge for charge in self.charges if charge.family == family])
            balance = next(each for each in own._balances(family) if each.budget == "family")
            rows.append(
                [esc(family, 80), f"{self.unit} {cost(balance.spent)}", f"{self.unit} {cost(balance.left)}",
                 theme.bar(0.0, float(balance.spent), float(balance.spent), 0.0, float(balance.limit))]
            )  # fmt: skip
        columns = (Column("Plan"), Column("Spent", True), Column("Remaining", True), Column("", minor=True))
        return theme.table(columns, rows, "Spending by plan")


def log() -> None:
    """Show the transparency log's newest entries and checkpoint, and verify it on demand."""
    store = reading.open_catalogue(active().store)
    size, note = store.log_size(), store.note()
    if note is None:
        theme.empty(
            "The log has no checkpoint yet.",
            "A run makes one, and a witness cosigns it.",
            run_command(),
        )
        return
    found = parse(note)
    theme.prose(
        f"The log has {size:,} entries. The newest checkpoint covers {found.size:,} and is signed by "
        f"{' and '.join(name for name, _ in found.lines)}.",
        "answer",
    )
    theme.show(f'<div class="uh-facts"><span>root <code>{found.root.hex()}</code></span></div>')
    reviewer = session.may("reviewer")
    if st.button(
        "Verify now", type="primary", icon=":material/verified:", disabled=not reviewer, key="verify"
    ):
        _verify()
    if not reviewer:
        theme.prose("Verifying needs the reviewer role.", "note")
    else:
        theme.prose(_verification_scope(), "note")
    theme.heading("Newest entries", "plans, keys, charges, releases and failures; none is ever changed")
    entries = store.entries(max(0, size - SHOWN), size)
    columns = (Column("Entry", True), Column("Kind"), Column("What"))
    rows = [[str(each.index), esc(each.kind), _summary(each)] for each in reversed(entries)]
    theme.show(theme.table(columns, rows, "Newest entries of the transparency log", scroll=len(rows) > 12))


def _verification_scope() -> str:
    settings = active()
    keys = [
        name
        for name, key in (("log", settings.log_key), ("witness", settings.witness_key))
        if key is not None
    ]
    signed = (
        f"the signatures of {' and '.join(keys)}"
        if keys
        else "no signatures (start the dashboard with --log-key and --witness-key to check them)"
    )
    return (
        f"Verification recomputes every leaf, root and ledger row, compares catalogue and files with the log, and checks {signed}. "
        "To verify independently of this server, run `fa log verify` on a copy of the store."
    )


def _verify() -> None:
    settings, store = active(), reading.open_catalogue(active().store)
    log, witness = (
        None if key is None else Ed25519PublicKey.from_public_bytes(key)
        for key in (settings.log_key, settings.witness_key)
    )
    with st.spinner("Recomputing the log, the ledger and every file"):
        try:
            problems = [*store.verify_log(log, witness), *store.verify_ledger()]
        except BadInput as error:
            problems = [str(error)]
    session.record("verify", problems=str(len(problems)))
    if not problems:
        theme.show(
            f'<p role="status">{theme.verdict("met")} The log, the ledger and every release agree.</p>'
        )
        return
    items = "".join(f"<li>{esc(problem)}</li>" for problem in problems[:SHOWN])
    theme.show(
        f'<div role="alert">{theme.verdict("broken")} {len(problems)} problems found:<ul>{items}</ul></div>'
    )


def _summary(entry: LogEntry) -> str:
    body = entry.body
    if entry.kind == "plan":
        return f"plan <code>{esc(entry.subject[:12])}</code> signed by <code>{esc(str(body.get('key', ''))[:12])}</code>"
    if entry.kind == "ledger":
        row = body.get("row", {})
        what = "charged" if row.get("kind") == "charge" else "declared its budgets"
        return f"{esc(row.get('population', ''), 80)} {what} {esc(row.get('family', ''), 80)}"
    if entry.kind == "release":
        return f"{esc(body.get('plan', ''), 80)} <code>{esc(short(str(body.get('release', ''))))}</code>"
    if entry.kind == "failure":
        return f"{esc(body.get('plan', ''), 80)} failed at {esc(body.get('stage', ''))}: {esc(body.get('reason', ''), 200)}"
    return esc(", ".join(f"{words(str(key))} {value}" for key, value in body.items()), 200)


def audit_trail() -> None:
    """Show the actions of this dashboard's users; for reviewers only."""
    if not session.may("reviewer"):
        theme.empty(
            "The audit trail is for reviewers.", "Ask the administrator of the password file for the role."
        )
        return
    actions, problems = audit.read(active().folder)
    for problem in problems[:5]:
        theme.show(f'<p role="alert">{theme.verdict("broken")} {esc(problem)}</p>')
    if not actions:
        theme.empty(
            "Nothing has been launched, exported or verified here yet.", "Each such action is a line here."
        )
        return
    columns = (Column("When (UTC)"), Column("User"), Column("Action"), Column("Details"))
    rows = [
        [f"{action.at:%Y-%m-%d %H:%M:%S}", esc(action.user, 64), esc(action.name),
         esc(", ".join(f"{key} {_truncated(value)}" for key, value in action.details.items()), 300)]
        for action in reversed(actions[-500:])
    ]  # fmt: skip
    theme.prose(f"{len(actions)} actions; each line holds the hash of the previous one.", "note")
    theme.show(theme.table(columns, rows, "Audit trail", scroll=len(rows) > 20))


def _truncated(value: str) -> str:
    return value if len(value) <= 24 else value[:16] + "…"
