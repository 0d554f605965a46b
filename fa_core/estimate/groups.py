"""Names of groups, and of limits, as a person reads them."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from fa_core.metrics import exact_text
from fa_core.plan.schema import Guardrail, OperatingPoint
from fa_core.values import Estimate

NAMED: Final = 6
"""Groups that a sentence names before it counts the rest."""


def name_of(result: Estimate) -> str:
    """Return the group as a person reads it."""
    return " · ".join(label for _, label in result.group) or "everyone"


def some(results: Sequence[Estimate]) -> str:
    """Name a few groups and count the rest."""
    names = [name_of(result) for result in results]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more groups" if more > 0 else "") or "any group"


def limit_text(guardrail: Guardrail, kind: str, limit: Fraction) -> str:
    """Return a limit as releases hold it: `max 0.1`, or `false_reject_rate at threshold 0.5: max 0.1`."""
    at = "" if guardrail.at is None else f"{point_text(guardrail.at)}: "
    return f"{at}{kind} {exact_text(limit)}"


def point_text(at: OperatingPoint) -> str:
    """Return what is judged of a DET curve, and where."""
    if at.threshold is not None:
        where = f"threshold {exact_text(at.threshold)}"
    elif at.false_accepts_per_hour is not None:
        where = f"{exact_text(at.false_accepts_per_hour)} false accepts per hour"
    else:
        assert at.false_reject_rate is not None, "a checked plan has one point"
        where = f"a false reject rate of {exact_text(at.false_reject_rate)}"
    return f"{at.judged} at {where}"
