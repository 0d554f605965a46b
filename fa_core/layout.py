"""Plan to Layout: the ordered list of blocks, with the bound, the cost and the noise of each.

Every metric in every grouping is a block set of its own with a share of the budget; a kind's weights divide
it among its parts. Shares come from the plan only, never from data.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from math import ceil, log2, prod
from typing import Final, Literal

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.metrics import Axis, Bounds, MetricSpec, Part, Shape
from fa_core.plan import Plan, rho_of
from fa_core.privacy.accounting import gaussian_variance, geometric_variance
from fa_core.privacy.bounding import EXACT
from fa_core.privacy.distributed import LEAST_VARIANCE
from fa_core.privacy.ledger import Charge
from fa_core.values import Block, Layout, Mechanism

MAX_COHORT: Final = 100_000
"""Largest cohort that one sum may have; the modulus is chosen to hold it."""

MAX_REPORTS: Final = 100_000_000
"""Most reports that two aggregators may add up."""

FIELD_HALF: Final = (2**64 - 2**32) // 2
"""The field of two aggregators holds sums from -FIELD_HALF to FIELD_HALF."""

NOISE_TAIL: Final = 40
"""Headroom kept for noise, in standard deviations of the sum."""


def groupings(metric: MetricSpec, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Return the groupings that a metric reports: its own, or the plan's."""
    return plan.group_by if metric.group_by is None else metric.group_by


def shape_of(plan: Plan, grouping: tuple[str, ...]) -> Shape:
    """Return the number of groups, those of them that one device may touch, and the segments."""
    segments = [(name, plan.segments[name]) for name in grouping]
    axes = tuple(Axis(name, len(segment.labels), segment.level) for name, segment in segments)
    return Shape(
        cells=prod(axis.labels for axis in axes),
        touch=prod(axis.labels for axis in axes if axis.level == "event"),
        axes=axes,
    )


def bounds_of(plan: Plan) -> Bounds:
    """Return what the plan lets one device weigh."""
    privacy = plan.privacy
    return Bounds(privacy.max_events, privacy.max_excess, privacy.counters)


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
    sets, share = list(block_sets(plan)), shares_of_budget(plan)
    blocks: list[Block] = []
    for name, grouping, parts in sets:
        weight = sum(part.weight for part in parts)
        for part in parts:
            cost = total * share[name, grouping] * part.weight / weight
            start = blocks[-1].stop if blocks else 0
            variance = (
                gaussian_variance(part.l2_squared, cost)
                if mechanism == "discrete_gaussian"
                else geometric_variance(part.l1, cost)
            )
            blocks.append(
                Block(
                    metric=name,
                    grouping=grouping,
                    part=part.name,
                    start=start,
                    cells=part.cells,
                    l1=part.l1,
                    l2_squared=part.l2_squared,
                    linf=part.l1 if part.linf is None else part.linf,
                    cost=cost,
                    variance=variance,
                )
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
        modulus_bits=_modulus_bits(blocks) if privacy.kappa is None else _field_bits(blocks, privacy.kappa),
        reason=reason,
        kappa=privacy.kappa,
    )


def layout_hash(layout: Layout) -> bytes:
    """Return a hash of everything that decides what a device sends and how large the noise is, 32 bytes.

    The layout follows from the plan; that it follows alike in two versions of this code is what this shows.
    """
    blocks = [
        [each.metric, list(each.grouping), each.part, each.start, each.cells]
        + [str(number) for number in (each.l1, each.l2_squared, each.linf, each.cost, each.variance)]
        for each in layout.blocks
    ]
    facts = [layout.plan_hash, layout.accounting, layout.mechanism, layout.noise, str(layout.kappa)]
    return sha256(b"unheard/layout/1\n" + canonical([facts, blocks])).digest()


def covers(charge: Charge, plan: Plan, layout: Layout) -> bool:
    """Return whether a charge is for exactly what the plan's layout costs."""
    return (charge.currency, charge.cost, charge.epsilon, charge.delta, charge.alpha, charge.family) == (
        layout.accounting, layout.cost, layout.epsilon, layout.delta, plan.privacy.alpha, plan.metadata.name,
    )  # fmt: skip


def shares_of_budget(plan: Plan) -> dict[tuple[str, tuple[str, ...]], Fraction]:
    """Return the share of the budget of each metric in each grouping; they add up to 1.

    Plans of before name none: every one has the same.
    """
    sets = [(name, g) for name, metric in plan.metrics.items() for g in groupings(metric, plan)]
    if plan.privacy.shares is None:
        return dict.fromkeys(sets, Fraction(1, len(sets)))
    named = {share.key: share.share for share in plan.privacy.shares}
    whole = sum(named[name, frozenset(grouping)] for name, grouping in sets)
    return {(name, grouping): named[name, frozenset(grouping)] / whole for name, grouping in sets}


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
    """Return the smallest ring that holds the sum of the largest cohort, noise included.

    Raises BadInput where none does, or where the squares of one device are too large to be checked.
    """
    if any(EXACT <= block.l2_squared < block.l1**2 for block in blocks):
        raise BadInput("one device's squares do not fit 62 bits; lower max_events, max_hours or max_per_hour")
    most = max(_most(block, MAX_COHORT) * _largest_scale(block) for block in blocks)
    if most < 2**31:
        return 32
    if most < 2**63:
        return 64
    raise BadInput(
        f"one device may add so much that the sum of {MAX_COHORT:,} devices does not fit 64 bits; "
        "lower max_events, max_hours or the clip"
    )


def _field_bits(blocks: list[Block], kappa: Fraction) -> Literal[64]:
    """Return 64, the bits of the field of two aggregators. Raises BadInput where a sum may pass its half."""
    if any(_most(block, MAX_REPORTS, kappa) > FIELD_HALF for block in blocks):
        raise BadInput(
            f"one device may add so much that the sum of {MAX_REPORTS:,} devices does not fit the field of "
            "two aggregators; lower max_events, max_hours or the clip, or write `sum: four_stages`"
        )
    return 64


def require_headroom(layout: Layout, devices: int) -> None:
    """Raise Refused where the sum of so many devices, the noise of servers included, may leave its ring.

    A sum that wraps is another number, and nobody can tell. Under distributed noise `shares_of` asks the same
    of each device's share. The ring is that of the layout's bits, or the field of two aggregators.
    """
    bits, kappa = layout.modulus_bits, layout.kappa
    most, ring = (2 ** (bits - 1) - 1, f"{bits} bits")
    if kappa is not None:
        most, ring = FIELD_HALF, "the field of two aggregators"
    if any(_most(block, devices, kappa) > most for block in layout.blocks):
        raise Refused(f"the sum of {devices:,} devices, noise included, does not fit {ring}; invite fewer")


def _most(block: Block, devices: int, kappa: Fraction | None = None) -> float:
    """Return the most that a cell of the sum of so many devices may hold, noise included: that of one server,
    or of a helper and of a leader with `kappa` times its variance."""
    variances = [block.variance] if kappa is None else [block.variance, kappa * block.variance]
    return devices * block.linf + NOISE_TAIL * sum(math.sqrt(each) + 1 for each in variances)


def _largest_scale(block: Block) -> int:
    """Return the public factor that a block needs in the largest cohort: the power of two from which on a
    device's share of the noise has at least `LEAST_VARIANCE`."""
    short = LEAST_VARIANCE * MAX_COHORT / block.variance
    return 1 << max(0, ceil(log2(short) / 2))
