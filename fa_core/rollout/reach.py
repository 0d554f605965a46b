"""What a rollout's gate can see before it starts: the smallest regression by look and group."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from fa_core.errors import BadInput, Refused
from fa_core.estimate.expect import Source, noise_variance
from fa_core.layout import compile_plan
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.plan import Plan, canonical
from fa_core.plan.located import Finding, Loc
from fa_core.rollout.document import Rollout
from fa_core.rollout.gate import Look, Reach, require_reach
from fa_core.rollout.judging import design_of, margins_of
from fa_core.rollout.looks import DIFFERENCE, UNLABELLED, look_of, segment_of
from fa_core.values import Participation, Release

_EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""The time of a release that is only expected; nothing depends on it."""


def check_plans(document: Rollout, plans: Mapping[str, Plan]) -> Iterator[Finding]:
    """Yield what is wrong between a rollout and its two plans, each by its hash; a missing one is wrong."""
    for section in ("gate", "live"):
        at: Loc = (section, "plan")
        part = document.gate if section == "gate" else document.live
        plan = plans.get(part.plan)
        if plan is None:
            right = "put the plan's file beside this one (`fa plan check --json` prints its hash)"
            yield Finding(at, f"there is no plan {part.plan[:12]} here and in the store", right)
            continue
        if plan.window > part.every:
            found = f"{plan.name} counts events of more time than lies between two releases of it"
            yield Finding((section, "every"), found, "write the plan's window, or more")
        if plan.metadata.expires < document.metadata.expires:
            found = f"{plan.name} expires on {plan.metadata.expires}, before the rollout"
            yield Finding(at, found, "count up the plan's revision with a later day")
        yield from (_gate if section == "gate" else _live)(document, plan, at)


def _gate(document: Rollout, plan: Plan, at: Loc) -> Iterator[Finding]:
    metric, models = plan.metrics.get(DIFFERENCE), document.models
    if not isinstance(metric, PairedDifference) or plan.privacy.counters != "joint":
        right = f"give the plan a metric `{DIFFERENCE}` of kind paired_difference, with zCDP accounting"
        yield Finding(at, f"{plan.name} is no plan of a gate", right)
        return
    try:
        segment_of(plan)
    except BadInput as error:
        yield Finding(at, str(error), "write the plan so")
    compared = (metric.compare.baseline, metric.compare.candidate)
    if compared != (models.baseline.version, models.candidate.version):
        found = f"{plan.name} compares {compared[0]} and {compared[1]}"
        yield Finding(at, found, "compare the versions of the rollout's baseline and candidate")


def _live(document: Rollout, plan: Plan, at: Loc) -> Iterator[Finding]:
    for name in document.live.measures:
        if name not in plan.metrics:
            right = f"write one of {', '.join(sorted(plan.metrics))}"
            yield Finding(
                ("live", "measures", name), f"{plan.name} has no metric `{name}`", right, at_key=True
            )
    versions = {document.models.baseline.version, document.models.candidate.version}
    if not any(versions <= set(segment.labels) for segment in plan.segments.values()):
        right = "give it a segment {event: model_version, values: [baseline, candidate]}"
        yield Finding(at, f"{plan.name} does not tell the two versions apart", right)


def expected_release(plan: Plan, devices: int, source: Source) -> Release:
    """Return a release of expected sums, with the noise's variance and none of its noise.

    Args:
        plan: a gate's. devices: that take part. source: of the expected sums (`estimate.expect`). Moments
            that nobody labelled are taken to be none.
    """
    layout = compile_plan(plan)
    sums = source(plan, layout, devices)
    whole = np.zeros(layout.length)
    for block in layout.blocks:
        if block.metric != UNLABELLED:
            whole[block.slice] = sums[block.metric, block.grouping, block.part]
    return Release(
        id="0" * 32,
        plan=canonical(plan),
        layout=layout,
        population="",
        engine="",
        simulated=True,
        created=_EVER,
        window_start=_EVER,
        window_end=_EVER,
        participation=Participation(devices, devices, 0, devices),
        sums=np.rint(whole).astype(np.int64),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=noise_variance(plan, layout, devices),
        secure_aggregation=False,
    )


def expected_look(plan: Plan, devices: int, source: Source) -> Look:
    """Return what a look of an equal candidate is expected to give, of `expected_release`'s arguments."""
    found = look_of(expected_release(plan, devices, source), plan)
    equal = {
        name: None if cell is None else replace(cell, difference=0.0) for name, cell in found.groups.items()
    }
    return Look(found.overall and replace(found.overall, difference=0.0), equal)


def reach(document: Rollout, plan: Plan, devices: int, source: Source) -> dict[str, Reach]:
    """Return what the gate can see of each group, and of everyone, with so many devices.

    Raises Refused for a design that can see nothing: a group that would not be shown, or an equal candidate
    that would more likely be held than shipped.
    """
    design, look = design_of(document, plan), expected_look(plan, devices, source)
    hidden = [name for name in design.groups if look.groups.get(name) is None]
    if hidden or look.overall is None:
        raise Refused(
            f"the gate can see nothing: {', '.join(hidden) or 'everyone'} would not be shown with "
            f"{devices:,} devices; invite more, name fewer groups, or merge them with `aliases`"
        )
    return require_reach(design, look)


def exposure(document: Rollout) -> list[int]:
    """Return the live stages whose test has no power by plan: exposure, not evidence."""
    return [stage for stage in range(1, len(document.stages)) if not margins_of(document, stage).powerful]
