"""The budget of a rollout's looks and stages: set aside when it starts, drawn down, and freed with its end.

There is no record of it but the log's entries and the ledger's charges. The decision to start says what each
release of the two plans costs; which looks and stages are still to come follows from the rollout's history,
and which of them were charged from the ledger. So it is the same after a restore, and no process can lose
it. It is derived again within the transaction that writes a charge, or starts a rollout.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.privacy.ledger import UNITS, YEAR, Charge, Currency
from fa_core.privacy.ledger_rows import Declaration
from fa_core.privacy.reservations import Planned, Reservation, newly_short, shortfalls
from fa_core.rollout.document import Rollout
from fa_core.rollout.states import Due, History, due_in, histories
from fa_core.store import LogEntry
from fa_core.trust.strict import fraction, text, whole


@dataclass(frozen=True, slots=True)
class Cost:
    """What one release of a plan costs: `family` is the plan's name, `window` how long a time it counts."""

    family: str
    currency: Currency
    cost: Fraction
    window: timedelta


@dataclass(frozen=True, slots=True)
class Account:
    """What a rollout has spent of its population's budgets, and what it has set aside."""

    currency: Currency
    spent: Fraction
    reservation: Reservation

    @property
    def reserved(self) -> Fraction:
        """What is set aside in all."""
        return sum((each.charge.cost for each in self.reservation.planned), Fraction(0))


def costs_of(plans: Mapping[str, Plan]) -> dict[str, Cost]:
    """Return what a release of each plan costs, by the plan's hash."""
    found = {}
    for digest, plan in plans.items():
        layout = compile_plan(plan)
        found[digest] = Cost(plan.metadata.name, layout.accounting, layout.cost, plan.window)
    return found


def require_room(
    document: Rollout,
    costs: Mapping[str, Cost],
    ledger: tuple[Declaration | None, Sequence[Charge]],
    others: Sequence[Reservation],
    start: datetime,
) -> None:
    """Return where a population's budgets have room for every look and stage of a rollout that starts now.

    Args:
        ledger: the population's budgets and charges. others: what is set aside of them already.
        start: UTC.

    Raises Refused with the first look or stage that the budgets have no room for, or that another rollout
    would lack then.
    """
    declared, past = ledger
    if declared is None:
        raise Refused(
            f"population {document.population!r} has no budgets in this store; `fa ledger declare` sets them"
        )
    for each in costs.values():
        if each.currency != declared.currency:
            raise Refused(
                f"the rollout is not started: population {document.population} has a ledger of "
                f"{declared.currency}, and plan {each.family} is accounted in {each.currency}"
            )
    own = Reservation(_holder(document), tuple(_planned(document, costs, _all(document, start), start)))
    short = newly_short(
        shortfalls(declared.policy, past, others), shortfalls(declared.policy, past, (*others, own))
    )
    if short:
        name = short[0].planned.name
        whose = "its " if short[0].holder == own.holder else f"{short[0].holder}, which set it aside for its "
        raise Refused(f"the rollout is not started: there is no budget for {whose}{name}\n{short[0]}")


def stated(document: Rollout, costs: Mapping[str, Cost], start: datetime) -> dict[str, Any]:
    """Return what the decision to start says: the costs, and what is planned for a start at a time (UTC)."""
    planned = list(_planned(document, costs, _all(document, start), start))
    total = sum((each.charge.cost for each in planned), Fraction(0))
    return {
        "currency": UNITS[costs[document.gate.plan].currency],
        "total": str(total),
        "charges": [
            {"at": int(each.charge.at.timestamp()), "cost": str(each.charge.cost)} for each in planned
        ],
        "plans": {
            digest: {
                "family": each.family,
                "currency": each.currency,
                "cost": str(each.cost),
                "window": each.window // timedelta(seconds=1),
            }
            for digest, each in costs.items()
        },
    }


def set_aside(
    entries: Sequence[LogEntry], population: str, charges: Sequence[Charge], at: datetime
) -> tuple[Reservation, ...]:
    """Return what rollouts have set aside of a population's budgets.

    Args:
        entries: the log's, of rollouts. charges: the population's. at: the time, UTC.
    """
    found = (
        account(each, charges, at)
        for each in histories(entries).values()
        if each.document.population == population
    )
    return tuple(each.reservation for each in found if each is not None and each.reservation.planned)


def account(history: History, charges: Sequence[Charge], at: datetime) -> Account | None:
    """Return what a rollout has spent and set aside at a time; None where no start says its costs, as those
    of before budget was set aside do not."""
    costs = _stated_costs(history)
    if costs is None:
        return None
    document, start = history.document, history.of("start")[0].since
    own = [each for each in charges if each.plan_hash in costs and each.window_end > start]
    planned: tuple[Planned, ...] = ()
    if history.active(at) and history.due is not None:
        planned = tuple(_planned(document, costs, _open(history, charges, at), at))
    currency = costs[document.gate.plan].currency
    return Account(
        currency,
        sum((each.cost for each in own), Fraction(0)),
        Reservation(_holder(document), planned),
    )


def _stated_costs(history: History) -> dict[str, Cost] | None:
    started = history.of("start")
    budget = started[0].gate.get("budget") if started else None
    plans = budget.get("plans") if isinstance(budget, Mapping) else None
    document = history.document
    try:
        found = {
            digest: Cost(
                text(each["family"]),
                each["currency"],
                fraction(each["cost"]),
                timedelta(seconds=whole(each["window"])),
            )
            for digest, each in (plans or {}).items()
        }
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError):
        return None  # a log may hold anything; what is not written so sets nothing aside
    sound = all(
        each.cost > 0 and timedelta(0) < each.window <= YEAR and each.currency in UNITS
        for each in found.values()
    )
    return found if sound and {document.gate.plan, document.live.plan} <= found.keys() else None


def _holder(document: Rollout) -> str:
    return f"rollout {document.name}"


def _open(history: History, charges: Sequence[Charge], at: datetime) -> Iterator[Due]:
    """Yield the looks and stages of a rollout under way that are still to be charged.

    Only those of the present stage have a time: the first one that is not charged and not over. A stage after
    it comes as late as it may, which is no earlier than anything that is charged before.
    """
    document, began, latest = history.document, history.stage_began, at
    assert began is not None
    looks = len(history.of("look"))
    if history.stage == 0:
        present = [
            due_in(document, 0, began.since, number, tested=False)
            for number in range(looks, document.gate.looks)
        ]
    else:
        present = [history.due]
    for due in present:
        assert due is not None
        latest = max(latest, due.opens)
        over = due.closes is not None and due.closes <= at
        made = any(
            each.plan_hash == due.plan and due.counts(each.window_start, each.window_end) for each in charges
        )
        if not over and not made:
            yield due
    yield from _stages_after(document, history.stage, latest)


def _all(document: Rollout, start: datetime) -> Iterator[Due]:
    """Yield every look and stage of a rollout that starts at a time, as late as they may come."""
    latest = start
    for number in range(document.gate.looks):
        due = due_in(document, 0, start, number, tested=False)
        assert due is not None
        latest = due.opens
        yield due
    yield from _stages_after(document, 0, latest)


def _stages_after(document: Rollout, stage: int, at: datetime) -> Iterator[Due]:
    for number in range(stage + 1, len(document.stages)):
        due = due_in(document, number, at, 0, tested=False)
        assert due is not None
        at = due.opens
        yield due


def _planned(
    document: Rollout, costs: Mapping[str, Cost], dues: Iterator[Due], now: datetime
) -> Iterator[Planned]:
    """Yield the charges of looks and stages, each as early as it still can be made."""
    for due in dues:
        cost, at = costs[due.plan], max(due.opens, now)
        name = f"look {due.number}" if due.action == "look" else f"live stage {due.number}"
        charge = Charge(
            population=document.population,
            family=cost.family,
            release=f"{name} of {document.name}",
            plan_hash=due.plan,
            currency=cost.currency,
            cost=cost.cost,
            epsilon=Fraction(0),
            delta=Fraction(0),
            window_start=at - cost.window,
            window_end=at,
            at=at,
        )
        yield Planned(name, charge)
