"""Plan to Layout: the ordered list of blocks, with the bound, the cost and the noise of each.

Every metric in every grouping is a block set of its own with an equal share of the budget; a kind's
weights divide it among its parts. Shares come from the plan only, never from data.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, log2, prod
from typing import Final, Literal

from fa_core.errors import BadInput
from fa_core.metrics import Bounds, MetricSpec, Part, Shape
from fa_core.plan import Plan, rho_of
from fa_core.privacy.accounting import gaussian_variance, geometric_variance
from fa_core.privacy.distributed import LEAST_VARIANCE
from fa_core.values import Block, Layout, Mechanism

MAX_COHORT: Final = 100_000
"""Largest cohort that one sum may have; the modulus is chosen to hold it."""

NOISE_TAIL: Final = 40
"""Headroom kept for noise, in standard deviations of the sum."""


def groupings(metric: MetricSpec, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Return the groupings that a metric reports: its own, or the plan's."""
    return plan.group_by if metric.group_by is None else metric.group_by


def shape_of(plan: Plan, grouping: tuple[str, ...]) -> Shape:
    """Return the number of groups, and of those that one device may touch."""
    segments = [plan.segments[name] for name in grouping]
    return Shape(
        cells=prod(len(segment.labels) for segment in segments),
        touch=prod(len(segment.labels) for segment in segments if segment.level == "event"),
    )


def bounds_of(plan: Plan) -> Bounds:
    """Return what the plan lets one device weigh."""
    return Bounds(plan.privacy.max_events, plan.privacy.max_excess)


def compile_plan(plan: Plan) -> Layout:
    """Return the layout of a checked plan.

    Raises BadInput where the vector does not fit a 64-bit ring, or no noise is large enough, or the plan's
    rho does not imply its epsilon and delta.
    """
    privacy = plan.privacy
    zcdp = privacy.accounting == "zcdp"
    total = rho_of(privacy) if zcdp else privacy.epsilon
    if total == 0:
        raise BadInput("epsilon and delta are so small together that no noise is large enough; raise epsilon")
    mechanism, reason = choose_mechanism(plan)
    sets = list(block_sets(plan))
    blocks: list[Block] = []
    for name, grouping, parts in sets:
        weight = sum(part.weight for part in parts)
        for part in parts:
            cost = total * part.weight / (weight * len(sets))
            start = blocks[-1].stop if blocks else 0
            variance = (
                gaussian_variance(part.l2_squared, cost)
                if mechanism == "discrete_gaussian"
                else geometric_variance(part.l1, cost)
            )
            blocks.append(
                Block(name, grouping, part.name, start, part.cells, part.l1, part.l2_squared, cost, variance)
            )
    return Layout(
        plan_hash=plan.hash,
        blocks=tuple(blocks),
        accounting=privacy.accounting,
        mechanism=mechanism,
        noise=privacy.noise,
        cost=sum((block.cost for block in blocks), Fraction(0)),
        epsilon=privacy.epsilon,
        delta=privacy.delta if zcdp else Fraction(0),
        modulus_bits=_modulus_bits(blocks),
        reason=reason,
    )


def block_sets(plan: Plan) -> Iterator[tuple[str, tuple[str, ...], tuple[Part, ...]]]:
    """Yield (metric, grouping, parts) in the order of the vector."""
    for name, metric in plan.metrics.items():
        for grouping in groupings(metric, plan):
            yield name, grouping, metric.parts(shape_of(plan, grouping), bounds_of(plan))


def choose_mechanism(plan: Plan) -> tuple[Mechanism, str]:
    """Return the mechanism and why, from the plan alone.

    A zCDP ledger charges an epsilon-DP block ε²/2, at which the geometric's variance is about Δ₁²/ρ
    against the Gaussian's Δ₂²/(2ρ): never narrower, as Δ₂ ≤ Δ₁. A pure ledger admits no Gaussian.
    """
    privacy = plan.privacy
    asked = privacy.mechanism
    if privacy.accounting == "pure":
        if asked == "discrete_gaussian":
            raise BadInput("a population with pure accounting admits only geometric noise")
        return "geometric", "geometric: the ledger counts pure epsilon, which Gaussian noise never satisfies"
    if asked == "geometric":
        raise BadInput(
            "geometric noise in a zCDP ledger is never narrower than Gaussian noise at the same cost; "
            "use `mechanism: auto`, or `accounting: pure`"
        )
    if asked == "discrete_gaussian":
        return "discrete_gaussian", "discrete Gaussian: the plan asks for it"
    return (
        "discrete_gaussian",
        "discrete Gaussian: at equal cost in this zCDP ledger its variance is at most half the geometric's",
    )


def _modulus_bits(blocks: list[Block]) -> Literal[32, 64]:
    """Return the smallest ring that holds the sum of the largest cohort, noise included."""
    most = max(
        (MAX_COHORT * block.l1 + NOISE_TAIL * (float(block.variance) ** 0.5 + 1)) * _largest_scale(block)
        for block in blocks
    )
    if most < 2**31:
        return 32
    if most < 2**63:
        return 64
    raise BadInput(
        f"one device may add so much that the sum of {MAX_COHORT:,} devices does not fit 64 bits; "
        "lower max_events, max_hours or the clip"
    )


def _largest_scale(block: Block) -> int:
    """Return the public factor that a block needs in the largest cohort: the power of two from which on a
    device's share of the noise has at least `LEAST_VARIANCE`."""
    short = LEAST_VARIANCE * MAX_COHORT / block.variance
    return 1 << max(0, ceil(log2(short) / 2))
