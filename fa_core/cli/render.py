"""A release as one JSON object and as text for a person: the same words wherever it is shown."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from fa_core.canonical_json import utc_text
from fa_core.cli.text_table import table as table
from fa_core.errors import BadInput
from fa_core.estimate.integrity import Key, about_integrity, by_number, moves, plan_of
from fa_core.estimate.read import estimands
from fa_core.estimate.sentences import about_limit, about_verdict
from fa_core.plan import from_canonical
from fa_core.privacy.conversions import gaussian_approximation
from fa_core.privacy.guarantee import guarantee
from fa_core.values import Cell, Estimate, Estimates, Judgement, Release

UNIT = "device"
SIMULATION = "SIMULATION: a seed, an in-process fleet or a synthetic fleet took part"
SYNTHETIC = "synthetic voice: a dozen voices are not a population"
_CELL = (
    "estimate",
    "low",
    "high",
    "simultaneous_low",
    "simultaneous_high",
    "suppressed",
    "reason",
    "denominator",
    "noise_sd",
)


def release_object(release: Release, estimates: Estimates, *, synthetic: bool) -> dict[str, Any]:
    """Return the object that `fa run --json` and `fa results show --json` print.

    Numbers are JSON numbers, None where suppressed or not finite; exact ones are repeated as text in
    `privacy.cost`. `one_device` is the most that a device within its bounds moves.
    `epsilon_pld_approximation` takes the noise for Gaussian; it is shown, never enforced.
    """
    plan = json.loads(release.plan)
    of, moved = estimands_of(release), by_number(moves(plan_of(release), estimates))
    return {
        "release": release.id,
        "plan": plan["metadata"]["name"],
        "revision": plan["metadata"].get("revision"),
        "question": plan["metadata"].get("question"),
        "plan_hash": release.layout.plan_hash,
        "engine": release.engine,
        "simulated": release.simulated,
        "synthetic_voice": synthetic,
        "population": release.population,
        "created": utc_text(release.created),
        "window": {"start": utc_text(release.window_start), "end": utc_text(release.window_end)},
        "devices": {
            "invited": release.participation.invited,
            "joined": release.participation.joined,
            "dropped": release.participation.dropped,
            "counted": release.participation.counted,
        },
        "privacy": _privacy(release),
        "level": estimates.level,
        "metrics": [_metric(result, of.get(result.metric), moved) for result in estimates.results],
        "integrity": about_integrity(plan_of(release), estimates),
        "guardrails": [_judgement(judgement) for judgement in estimates.judgements],
    }


def _privacy(release: Release) -> dict[str, Any]:
    layout = release.layout
    zcdp = layout.accounting == "zcdp"
    return {
        "unit": UNIT,
        "accounting": layout.accounting,
        "epsilon": float(layout.epsilon),
        "delta": float(layout.delta),
        "rho": float(layout.cost) if zcdp else None,
        "cost": str(layout.cost),
        "mechanism": layout.mechanism,
        "mechanism_reason": layout.reason,
        "noise": layout.noise,
        "kappa": None if layout.kappa is None else float(layout.kappa),
        "secure_aggregation": release.secure_aggregation,
        "epsilon_pld_approximation": gaussian_approximation(layout.cost, layout.delta) if zcdp else None,
        "guarantee": " ".join(guarantee(release)),
    }


def _metric(result: Estimate, estimand: str | None, moved: Mapping[Key, float]) -> dict[str, Any]:
    found = {
        "metric": result.metric,
        "kind": result.kind,
        "unit": result.unit,
        "estimand": estimand,
        "group": dict(result.group),
        **{name: finite(getattr(result, name)) for name in _CELL},
        "level": result.level,
        "noise_low": finite(result.noise_low),
        "noise_high": finite(result.noise_high),
        "devices": finite(result.devices),
        "devices_sd": finite(result.devices_sd),
        "variance_source": result.variance_source,
        "one_device": moved.get((result.metric, result.group, ())),
    }
    if result.cells:
        found["cells"] = [
            _cell(cell, result.level) | {"one_device": moved.get((result.metric, result.group, cell.labels))}
            for cell in result.cells
        ]
    return found


def _cell(cell: Cell, level: float) -> dict[str, Any]:
    numbers = {name: finite(getattr(cell, name)) for name in _CELL}
    return {"labels": dict(cell.labels), **numbers, "level": level}


def _judgement(judgement: Judgement) -> dict[str, Any]:
    return {
        "metric": judgement.metric,
        "by": list(judgement.by),
        "limit": judgement.limit,
        "verdict": judgement.verdict,
        "worst": None if judgement.worst is None else dict(judgement.worst),
        "low": finite(judgement.low),
        "high": finite(judgement.high),
        "sentence": judgement.sentence,
    }


def finite(value: Any) -> Any:
    """Return a value as JSON can say it: None for a float that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Fraction | float) -> str:
    """Return a number to three significant digits."""
    return f"{float(value):.3g}"


def estimands_of(release: Release) -> Mapping[str, str]:
    """Return for each metric what its numbers are of; none where this version would refuse the plan."""
    try:
        return estimands(from_canonical(release.plan))
    except BadInput:
        return {}


def verdicts(estimates: Estimates) -> Iterator[tuple[Judgement, tuple[str, str]]]:
    """Yield each guardrail with its limit and its sentence, in the unit of the metric."""
    shapes = {result.metric: (result.kind, result.unit) for result in estimates.results}
    for each in estimates.judgements:
        kind, unit = shapes[each.metric]
        yield each, (about_limit(each, kind, unit), about_verdict(each, kind, unit))


def devices(value: float | None, sd: float | None) -> str:
    """Return a noisy number of devices with the standard deviation of its noise; where that made it negative,
    the upper end of its 95% interval; "" for none."""
    if value is None:
        return ""
    noise = sd or 0.0
    if value < 0:
        return f"at most {max(0.0, value + 1.96 * noise):,.0f}"
    return f"{value:,.0f}" + (f" ± {noise:,.1f}" if noise else "")


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 release, 2 releases."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def as_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
