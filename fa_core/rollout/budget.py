"""Whether a population's budgets have room for a whole rollout: every look, and every live stage's test.

It is asked once, before the start, against what was charged by then. Nothing is set aside in the ledger: what
others charge afterwards may still use the budget up, and then a round is refused and its look holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.privacy.ledger import UNITS, Charge, admit
from fa_core.privacy.ledger_rows import Declaration
from fa_core.rollout.document import Rollout
from fa_core.rollout.states import due_in


def reserved(
    document: Rollout,
    plans: Mapping[str, Plan],
    declared: Declaration | None,
    past: Sequence[Charge],
    start: datetime,
) -> dict[str, Any]:
    """Return what a rollout that starts at a time (UTC) will be charged, for the first decision.

    Args:
        plans: the gate's and the live stages', by their hash.
        declared: the population's budgets. past: its charges.

    Raises Refused with the first look or stage that the budgets have no room for.
    """
    if declared is None:
        raise Refused(
            f"population {document.population!r} has no budgets in this store; `fa ledger declare` sets them"
        )
    planned: list[Charge] = []
    for name, charge in _planned(document, plans, start):
        try:
            admit(declared.policy, declared.currency, [*past, *planned], charge)
        except Refused as error:
            raise Refused(f"the rollout is not started: there is no budget for its {name}\n{error}") from None
        planned.append(charge)
    total = sum((each.cost for each in planned), Fraction(0))
    return {
        "currency": UNITS[declared.currency],
        "total": str(total),
        "charges": [{"at": int(each.at.timestamp()), "cost": str(each.cost)} for each in planned],
    }


def _planned(document: Rollout, plans: Mapping[str, Plan], start: datetime) -> Iterator[tuple[str, Charge]]:
    """Yield the planned charges with their names, as late as they may come: each stage after all looks."""
    at = start
    for look in range(document.gate.looks):
        planned = due_in(document, 0, start, look, tested=False)
        assert planned is not None
        at = planned.opens
        yield f"look {look + 1}", _charge(document, plans[planned.plan], at)
    for stage in range(1, len(document.stages)):
        planned = due_in(document, stage, at, 0, tested=False)
        assert planned is not None
        at = planned.opens
        yield f"live stage {stage}", _charge(document, plans[planned.plan], at)


def _charge(document: Rollout, plan: Plan, at: datetime) -> Charge:
    layout = compile_plan(plan)
    return Charge(
        population=document.population,
        family=plan.metadata.name,
        release=f"planned for {at:%Y-%m-%d %H:%M}",
        plan_hash=plan.hash,
        currency=layout.accounting,
        cost=layout.cost,
        epsilon=layout.epsilon,
        delta=layout.delta,
        alpha=plan.privacy.alpha,
        window_start=at - plan.window,
        window_end=at,
        at=at,
    )
