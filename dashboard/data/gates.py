"""The numbers of a gate as a decision in the log has them, taken as what they must be: the log is public, and
what an aggregator wrote there may be anything."""

from collections.abc import Mapping
from fractions import Fraction
from math import isfinite
from typing import Any, Final

from fa_core.rollout.decision import Decision

_NUMBERS: Final = (
    "estimate_low", "estimate_high", "interval_low", "interval_high", "z_rollback", "boundary_rollback",
    "z_ship", "boundary_ship", "difference", "margin",
)  # fmt: skip
_TEXTS: Final = ("group", "measure", "reason")
_MOST: Final = 200
"""Groups and measures that are shown of one decision."""


def groups(decision: Decision) -> list[dict[str, Any]]:
    """Return the groups of a look, everyone last; empty where there are none."""
    overall = decision.gate.get("overall")
    found = _rows(decision.gate.get("groups"))
    return [*found, _row(overall)] if found and isinstance(overall, Mapping) else []


def measures(decision: Decision) -> list[dict[str, Any]]:
    """Return the measures of a live stage's test."""
    return _rows(decision.gate.get("measures"))


def planned(decision: Decision) -> Fraction | None:
    """Return what was planned for the rollout when it started, None where that is not said."""
    budget = decision.gate.get("budget")
    total = budget.get("total") if isinstance(budget, Mapping) else None
    if not isinstance(total, str) or len(total) > _MOST:
        return None
    try:
        return Fraction(total) if set(total) <= set("0123456789/") else None
    except (ValueError, ZeroDivisionError):
        return None


def _rows(value: object) -> list[dict[str, Any]]:
    rows = value if isinstance(value, list) else []
    return [_row(each) for each in rows[:_MOST] if isinstance(each, Mapping)]


def _row(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group or a measure: finite numbers or None, texts, and whether it is shipped."""
    row: dict[str, Any] = {name: _number(value.get(name)) for name in _NUMBERS}
    row |= {name: str(value.get(name, ""))[:_MOST] for name in _TEXTS}
    return row | {"fraction": _number(value.get("fraction")) or 0.0, "shipped": value.get("shipped") is True}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None
