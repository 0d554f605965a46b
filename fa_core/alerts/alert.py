"""An alert, and which alerts a store gives rise to.

An alert's id follows from what it is about: looking again finds the same alert, and each is sent once.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, Literal

from fa_core.canonical_json import canonical, utc_text
from fa_core.privacy.ledger import UNITS, Balance, Charge, balances, show
from fa_core.store import Declaration, Query, Store

Kind = Literal["guardrail_broken", "round_failed", "budget_low", "test"]

LOOK_BACK: Final = timedelta(days=7)
"""How far back a store is looked through. What is older when alerts are first configured is not sent."""

MOST: Final = 1000
"""Releases, and failures, looked through at once."""

LONG_BUDGETS: Final = ("year", "family")
"""The budgets that are watched. Those of a week and of a window are there to be used up, and free up soon."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that somebody should know.

    Attributes:
        id: follows from what it is about.
        at: when it came about, UTC, as text.
        plan, release, population: whom it is about; "" where it is about none.
        title: one line. text: one sentence.
    """

    id: str
    kind: Kind
    at: str
    plan: str
    release: str
    population: str
    title: str
    text: str

    def body(self) -> bytes:
        """Return the canonical JSON of the alert: what a webhook is sent."""
        return canonical(asdict(self))


def alerts_of(store: Store, now: datetime, budget_below: Fraction) -> list[Alert]:
    """Return the alerts that the last week of a store gives rise to, oldest first.

    `budget_below` is the share of a budget's limit that must be left.
    """
    since = now - LOOK_BACK
    found = [*_broken(store, since), *_failed(store, since), *_low(store, since, budget_below)]
    return sorted(found, key=lambda alert: (alert.at, alert.id))


def trial(now: datetime) -> Alert:
    """Return an alert that says only that alerts arrive."""
    at = utc_text(now)
    return Alert(f"test:{at}", "test", at, "", "", "", "Unheard: a test", "Alerts of this store arrive here.")


def _broken(store: Store, since: datetime) -> Iterator[Alert]:
    for entry in store.releases(Query(since=since), MOST):
        if not entry.broken:
            continue
        for judgement in store.glance(entry).judgements:
            if judgement.verdict != "broken":
                continue
            by = ",".join(judgement.by)
            yield Alert(
                id=f"guardrail:{entry.id}:{judgement.metric}:{by}:{judgement.limit}",
                kind="guardrail_broken",
                at=utc_text(entry.created),
                plan=entry.plan,
                release=entry.id,
                population=entry.population,
                title=f"{entry.plan}: the guardrail on {judgement.metric} is broken",
                text=f"{judgement.metric} ({judgement.limit}): {judgement.sentence}.",
            )


def _failed(store: Store, since: datetime) -> Iterator[Alert]:
    for failure in store.failures(MOST):
        if failure.at >= since:
            yield Alert(
                id=f"failure:{failure.release}",
                kind="round_failed",
                at=utc_text(failure.at),
                plan=failure.plan,
                release=failure.release,
                population=failure.population,
                title=f"{failure.plan}: a round failed",
                text=f"The round ended at stage {failure.stage} and nothing was released: {failure.reason}",
            )


def _low(store: Store, since: datetime, below: Fraction) -> Iterator[Alert]:
    for population in store.populations():
        declared, past = store.declaration(population), store.charges(population)
        if declared is None:
            continue
        for place, charge in enumerate(past):
            if charge.at >= since:
                yield from _crossed(declared, past[: place + 1], below)


def _crossed(declared: Declaration, charges: tuple[Charge, ...], below: Fraction) -> Iterator[Alert]:
    """Yield the budgets that the last of these charges took below the share."""
    *before, charge = charges
    then, now = _balances(declared, tuple(before), charge), _balances(declared, charges, charge)
    for earlier, balance in zip(then, now, strict=True):
        share, left = below * balance.limit, balance.left
        if balance.budget not in LONG_BUDGETS or not left < share <= earlier.left:
            continue
        whose = f" of {charge.family}" if balance.budget == "family" else ""
        unit = UNITS[declared.currency]
        yield Alert(
            id=f"budget:{charge.population}:{balance.budget}:{charge.release}",
            kind="budget_low",
            at=utc_text(charge.at),
            plan=charge.family,
            release=charge.release,
            population=charge.population,
            title=f"{charge.population}: the {balance.budget} budget{whose} runs low",
            text=f"{unit} {show(left)} of {show(balance.limit)} is left of the {balance.budget} budget"
            f"{whose}.",
        )


def _balances(declared: Declaration, past: tuple[Charge, ...], charge: Charge) -> tuple[Balance, ...]:
    window = (charge.window_start, charge.window_end)
    return balances(declared.policy, past, family=charge.family, window=window, at=charge.at)
