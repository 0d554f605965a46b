"""The gate that counts: the document's margins and the releases' sums, given to `fa_core.rollout.gate`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite, sqrt
from typing import Any

from fa_core.plan import Plan, from_canonical
from fa_core.rollout.decision import Verdict as Named
from fa_core.rollout.document import Rollout
from fa_core.rollout.evidence import Judgement
from fa_core.rollout.gate import Design, LiveMargins, Verdict, decide, decide_live
from fa_core.rollout.looks import live_cells, look_of, rates_of, segment_of
from fa_core.values import Release

_NAMES: Mapping[Verdict, Named] = {
    Verdict.EXPAND: "expand",
    Verdict.HOLD: "hold",
    Verdict.ROLL_BACK: "roll_back",
}
_DIGITS = 9
"""Significant digits of a number in a decision: what two machines compute alike."""


class Gate:
    """The mathematics of `fa_core.rollout.gate`, over releases."""

    def looks(self, document: Rollout, releases: Sequence[Release | None]) -> Judgement:
        """As `evidence.Judge.looks`. Raises BadInput where the plan is not a gate's, or of other models."""
        plan = _plan(next(each for each in releases if each is not None))
        looks = [None if each is None else look_of(each, plan) for each in releases]
        found = decide(design_of(document, plan), looks)
        gate = {
            "groups": [_plain(asdict(each)) for each in found.groups],
            "overall": _plain(asdict(found.overall)),
        }
        return _judgement(found.verdict, gate, found.why)

    def stage(self, document: Rollout, stage: int, release: Release, before: Release | None) -> Judgement:
        """As `evidence.Judge.stage`. Raises BadInput where the plan is not that of live stages."""
        plan, models = _plan(release), document.models
        candidate = rates_of(release, plan, models.candidate.version)
        of_baseline = before if document.stages[stage].share == 1 else release
        if of_baseline is None:
            why = "exposure, not evidence: no device acted on the baseline in any live stage"
            return Judgement("expand", {"measures": [], "evidence": False}, why)
        cells = live_cells(candidate, rates_of(of_baseline, plan, models.baseline.version))
        margins = margins_of(document, stage)
        found = decide_live(margins, cells)
        measures = [_plain(asdict(each)) for each in found.measures]
        return _judgement(found.verdict, {"measures": measures, "evidence": found.evidence}, found.why)


def design_of(document: Rollout, plan: Plan) -> Design:
    """Return the design of a document and its gate's plan: each label that the plan names is tested.

    Raises BadInput where the plan is not a gate's.
    """
    gate, segment = document.gate, plan.segments[segment_of(plan)]
    return Design(
        looks=gate.looks,
        alpha=float(gate.alpha),
        rollback_above=float(gate.rollback_above),
        ship_below=float(gate.ship_below),
        overall_below=float(gate.overall_below),
        groups=segment.labels[:-1],
    )


def margins_of(document: Rollout, stage: int) -> LiveMargins:
    """Return the margins of a live stage. The standard deviations are the document's, which are those of two
    halves, for the stage's share: sampling alone is scaled, so no stage is called weaker than it is."""
    live, share = document.live, document.stages[stage].share
    rest = 1 - share if share < 1 else 1 - document.stages[stage - 1].share
    scale = sqrt(float((1 / share + 1 / rest) / 4)) if rest else 1.0
    return LiveMargins(
        alpha=float(live.alpha),
        below={name: float(each.below) for name, each in live.measures.items()},
        planned_sd={name: float(each.sd) * scale for name, each in live.measures.items()},
    )


def _plan(release: Release) -> Plan:
    return from_canonical(release.plan)


def _judgement(verdict: Verdict, gate: Mapping[str, Any], why: str) -> Judgement:
    return Judgement(_NAMES[verdict], gate, why)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers as a decision has them: to nine digits, None where there is no finite one."""
    return {key: _rounded(value) for key, value in values.items()}


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{_DIGITS}g}") if isfinite(value) else None
