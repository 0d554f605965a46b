"""Whether intervals cover the true values, and whether intervals that ignore the noise are caught."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy.stats import beta

from fa_core.audit.checks import FALSE_ALARM, Check
from fa_core.audit.pipelines import Evaluate, audited_plan, central, gather, side_by_side, spread_out
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import compile_plan
from fa_core.metrics import PartSum
from fa_core.plan import Plan
from fa_core.privacy.distributed import noise_share, scales_of, shares_of
from fa_core.values import Estimate, FloatArray, Int64Array, Layout

LEAST_COVERAGE: Final = 0.94
"""Intervals promise 95 in 100; the audit fails where significantly fewer than 94 are covered."""


def coverage(evaluate: Evaluate, accounting: str, noise: str, runs: int) -> tuple[Check, Check]:
    """Return the check that intervals cover the true values, and the same for intervals that ignore the noise
    (the broken control).

    Each release counts as many devices as the population has, drawn from it with replacement: the truth is
    the population's own. Epsilon is small, so that the noise matters.
    """
    plan = audited_plan(accounting, noise, "0.5")
    layout = compile_plan(plan)
    rows = evaluate(plan, layout, "population", False, 0)
    truth = _points(plan, layout, rows.sum(axis=0), len(rows))
    covered: dict[bool, dict[object, list[bool]]] = {True: {}, False: {}}
    totals, variance = _noised_totals(plan, layout, rows, runs)
    for values in totals:
        for honest in (True, False):
            stated = variance if honest else np.full_like(variance, 1e-9)
            for key, (low, high) in _intervals(plan, layout, values, stated, len(rows)).items():
                covered[honest].setdefault(key, []).append(low <= truth[key] <= high)
    return _covers(covered[True]), _covers(covered[False])


def _noised_totals(plan: Plan, layout: Layout, rows: Int64Array, runs: int) -> tuple[FloatArray, FloatArray]:
    """Return released values of resampled devices, float64 (runs, cells), and their blocks' variance."""
    drawn = np.frombuffer(secrets.token_bytes(8 * runs * len(rows)), dtype=np.uint64) % np.uint64(len(rows))
    exact = np.array([rows[each].sum(axis=0) for each in drawn.reshape(runs, len(rows)).astype(np.int64)])
    empty = np.zeros(layout.length, np.int64)
    if layout.noise == "central":
        variance = np.array([float(block.variance) for block in layout.blocks])
        return exact + central(layout)(empty[None, :], runs), variance
    shares = shares_of(layout, len(rows), plan.privacy.dropout, plan.privacy.corrupt)
    scales = np.repeat(scales_of(shares), [block.cells for block in layout.blocks])
    wide, nothing = side_by_side(layout, runs), spread_out(layout, empty, runs)
    noise = np.zeros_like(nothing)
    for _ in range(len(rows)):
        noise += noise_share(wide, nothing, shares)
    real = np.array([float(len(rows) * share.variance / share.scale**2) for share in shares])
    return exact + gather(layout, noise, runs) / scales, real


def _estimates(
    plan: Plan, layout: Layout, values: FloatArray, variance: FloatArray, counted: int
) -> tuple[Estimate, ...]:
    laplace = layout.mechanism == "geometric"
    sums = {
        (block.metric, block.grouping, block.part): PartSum(values[block.slice], float(noise), laplace)
        for block, noise in zip(layout.blocks, variance, strict=True)
    }
    return estimates_of_sums(plan, sums, counted)


def _intervals(
    plan: Plan, layout: Layout, values: FloatArray, variance: FloatArray, counted: int
) -> Mapping[object, tuple[float, float]]:
    return {
        (result.metric, result.group, getattr(number, "labels", ())): (number.low, number.high)
        for result in _estimates(plan, layout, values, variance, counted)
        for number in (result.cells or (result,))
        if number.low is not None and number.high is not None
    }


def _points(plan: Plan, layout: Layout, sums: Int64Array, counted: int) -> Mapping[object, float]:
    """Return the numbers of exact sums."""
    nothing = np.full(len(layout.blocks), 1e-9)
    return {
        (result.metric, result.group, getattr(number, "labels", ())): number.estimate
        for result in _estimates(plan, layout, sums.astype(np.float64), nothing, counted)
        for number in (result.cells or (result,))
        if number.estimate is not None
    }


def _covers(covered: Mapping[object, Sequence[bool]]) -> Check:
    """Return the check that no number is covered significantly less often than `LEAST_COVERAGE`."""
    each = FALSE_ALARM / max(len(covered), 1)
    short = [key for key, hits in covered.items() if _most(sum(hits), len(hits), each) < LEAST_COVERAGE]
    hits, shown = (sum(count(hits) for hits in covered.values()) for count in (sum, len))
    share = f"{100 * hits / shown:.1f} % of {shown:,} intervals" if shown else "no interval shown"
    return Check(
        "coverage", shown > 0 and not short, share, f"95 %, not significantly under {LEAST_COVERAGE:.0%}"
    )


def _most(hits: int, runs: int, error: float) -> float:
    """Return an upper bound on a proportion, wrong with a chance of `error` (Clopper & Pearson 1934)."""
    return 1.0 if hits == runs else float(beta.isf(error, hits + 1, runs - hits))
