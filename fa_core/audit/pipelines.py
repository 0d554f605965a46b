"""The pipelines that are audited: the real ones, and the same ones broken in six ways.

The plan is compiled, devices count with the evaluation that is handed in, and the noise is what a round adds:
`central_noise` on the sum, or the devices' own shares, of which only those that are certain are taken, as the
server and its accomplices may know the rest. Many releases are drawn at once, side by side, by the very
functions that draw one: `side_by_side` is a layout whose blocks hold each cell so many times.
"""

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Literal

import numpy as np

from fa_core.layout import compile_plan
from fa_core.metrics.features import CLIPPED
from fa_core.plan import Plan, parse
from fa_core.privacy.distributed import certain_shares, noise_share, scales_of, shares_of
from fa_core.privacy.mechanisms import central_noise
from fa_core.tables import VECTOR
from fa_core.values import Block, FloatArray, Int64Array, Layout

Window = Literal[0, 1]
Fleet = Literal["neighbours", "population"]
Evaluate = Callable[[Plan, Layout, Fleet, bool, Window], Int64Array]
"""(plan, layout, fleet, whether the worst device is there, window) -> bounded counts, int64 (devices, cells).
Of "neighbours" the worst device is the first; "population" has none."""

Release = Callable[[Int64Array, Int64Array, int], tuple[FloatArray, FloatArray]]
"""(counts of the first window, of the second, runs) -> values released of both, float64 (runs, cells)."""


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """What is audited.

    Attributes:
        layout: the claim: bounds, cost, and for central noise the variance.
        stated: each block's variance in every cell, as the release states it, in squared released units.
        scales: public factor of each cell, int64 (cells,).
        count: (worst device is there, window) -> int64 (devices, cells), as they go into the sum.
        release: adds the noise.
    """

    name: str
    broken: str
    layout: Layout
    stated: tuple[Fraction, ...]
    scales: Int64Array
    count: Callable[[bool, Window], Int64Array]
    release: Release

    @property
    def variance(self) -> FloatArray:
        """What is stated, for every cell: float64 (cells,)."""
        cells = [block.cells for block in self.layout.blocks]
        return np.repeat([float(variance) for variance in self.stated], cells)


def audited_plan(accounting: str, noise: str, epsilon: str) -> Plan:
    """Return the plan that is audited: a rate and a histogram of everyone, four events a device."""
    currency = "accounting: pure" if accounting == "pure" else "delta: 1e-8"
    secure = ", secure_aggregation: false" if noise == "central" else ""
    text = f"""
apiVersion: fa/v1
kind: EvalPlan
metadata: {{name: audit, revision: 1, owner: audit, question: Is the noise there?, expires: 2099-01-01}}
source: wake_events
window: 7d
group_by: [[]]
metrics:
  missed:
    kind: rate
    of: {{outcome: false_reject}}
    over: {{outcome: [false_reject, true_accept]}}
    expect: 0.5
  score: {{kind: histogram, field: score, edges: {{from: 0, to: 1, bins: 2}}}}
privacy: {{epsilon: {epsilon}, {currency}, noise: {noise}{secure}, max_events: 4, min_cohort: 50}}
"""
    return parse(text.encode(), "audit.yaml", today=date(2026, 1, 1))


def training_plan() -> Plan:
    """Return the training plan that is audited: clipped means of everyone."""
    text = f"""
apiVersion: fa/v1
kind: TrainPlan
metadata: {{name: audit, revision: 1, owner: audit, question: Is the noise there?, expires: 2099-01-01}}
window: 7d
base: {{wake_word: audit, version: audit, sha256: "{"0" * 64}"}}
adapter: frame1
method: one_shot_means
center: [{", ".join(["0"] * VECTOR)}]
clip: 1
eligibility: {{consent: personalisation}}
privacy: {{epsilon: 4, delta: 1e-8, max_events: 4, min_cohort: 100}}
"""
    return parse(text.encode(), "audit.yaml", today=date(2026, 1, 1))


def training(evaluate: Evaluate) -> Pipeline:
    """Return the pipeline of a training plan."""
    return replace(_real(evaluate, training_plan()), name="training, distributed")


def clipped_before_rounding(real: Pipeline) -> Pipeline:
    """Return the training pipeline whose worst device is clipped as real numbers, and then rounded."""

    def count(worst: bool, window: Window) -> Int64Array:
        counts = real.count(worst, window).copy()
        row = counts[0, :VECTOR]
        counts[0, :VECTOR] = np.sign(row) * round(CLIPPED / math.sqrt(VECTOR))
        return counts

    return replace(real, broken="clipped before rounding", count=count)


def real(evaluate: Evaluate, accounting: str, noise: str) -> Pipeline:
    return _real(evaluate, audited_plan(accounting, noise, "1" if accounting == "pure" else "4"))


def _real(evaluate: Evaluate, plan: Plan) -> Pipeline:
    layout, noise = compile_plan(plan), plan.privacy.noise

    def count(worst: bool, window: Window) -> Int64Array:
        return evaluate(plan, layout, "neighbours", worst, window)

    name = f"{noise}, {layout.mechanism.replace('_', ' ')}"
    cells = [block.cells for block in layout.blocks]
    if noise == "central":
        stated = tuple(block.variance for block in layout.blocks)
        ones = np.ones(layout.length, np.int64)
        return Pipeline(name, "", layout, stated, ones, count, _twice(central(layout)))
    joined = len(count(True, 0))
    shares = shares_of(layout, joined, plan.privacy.dropout, plan.privacy.corrupt)
    certain = certain_shares(joined, plan.privacy.dropout, plan.privacy.corrupt)
    scales = np.repeat(scales_of(shares), cells)

    def add(counts: Int64Array, runs: int) -> FloatArray:
        known = counts[certain:].sum(axis=0) * scales
        wide = side_by_side(layout, runs)
        noised = sum(noise_share(wide, spread_out(layout, row, runs), shares) for row in counts[:certain])
        view: FloatArray = gather(layout, np.asarray(noised), runs) + known
        return view

    stated = tuple(certain * share.variance for share in shares)
    return Pipeline(name, "", layout, stated, scales, count, _twice(add))


def _twice(add: Callable[[Int64Array, int], FloatArray]) -> Release:
    """Return a release of two windows, each with noise of its own."""
    return lambda first, second, runs: (add(first, runs), add(second, runs))


def central(layout: Layout) -> Callable[[Int64Array, int], FloatArray]:
    def add(counts: Int64Array, runs: int) -> FloatArray:
        sums = spread_out(layout, counts.sum(axis=0), runs)
        return gather(layout, central_noise(side_by_side(layout, runs), sums), runs)

    return add


def side_by_side(layout: Layout, runs: int) -> Layout:
    """Return a layout of the same blocks in which every cell stands `runs` times."""
    blocks = [replace(block, start=runs * block.start, cells=runs * block.cells) for block in layout.blocks]
    return replace(layout, blocks=tuple(blocks))


def spread_out(layout: Layout, vector: Int64Array, runs: int) -> Int64Array:
    return np.concatenate([np.tile(vector[block.slice], runs) for block in layout.blocks])


def gather(layout: Layout, wide: Int64Array, runs: int) -> FloatArray:
    """Return the vectors of all runs, float64 (runs, cells)."""
    parts = [
        wide[runs * block.start : runs * block.stop].reshape(runs, block.cells) for block in layout.blocks
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def controls(real: Pipeline) -> Sequence[Pipeline]:
    """Return the pipeline broken in six ways."""
    layout = real.layout
    histogram = np.concatenate(
        [np.full(b.cells, b.part in ("cells", "joint") and b.metric == "score") for b in layout.blocks]
    )

    def shrunk(factor: Fraction) -> Release:
        """Noise of a standard deviation that is smaller by a factor."""
        if layout.noise == "central":
            return _twice(central(_with_noise(layout, factor)))
        return scaled(np.full(layout.length, float(factor)))

    def scaled(factor: FloatArray) -> Release:
        """The noise of each cell times a factor, as near as whole numbers come."""

        def release(first: Int64Array, second: Int64Array, runs: int) -> tuple[FloatArray, FloatArray]:
            exact = [counts.sum(axis=0) * real.scales for counts in (first, second)]
            noised = real.release(first, second, runs)
            left, right = (
                np.rint(total + factor * (values - total))
                for total, values in zip(exact, noised, strict=True)
            )
            return left, right

        return release

    def reused(first: Int64Array, second: Int64Array, runs: int) -> tuple[FloatArray, FloatArray]:
        once, _ = real.release(first, first, runs)
        return once, once + (second.sum(axis=0) - first.sum(axis=0)) * real.scales

    def weighted(worst: bool, window: Window) -> Int64Array:
        return np.where(histogram, 3, 1) * real.count(worst, window)

    def floating(first: Int64Array, second: Int64Array, runs: int) -> tuple[FloatArray, FloatArray]:
        left, right = (
            counts.sum(axis=0) * real.scales + np.sqrt(real.variance) * _float_normal(runs, layout.length)
            for counts in (first, second)
        )
        return left, right

    halved = replace(layout, blocks=tuple(_with_half_the_bounds(block) for block in layout.blocks))
    return (
        replace(real, broken="sigma short by a third", release=shrunk(Fraction(2, 3))),
        replace(
            real,
            broken="sensitivity too small by 2",
            layout=halved,
            stated=tuple(variance / 4 for variance in real.stated),
            release=shrunk(Fraction(1, 2)),
        ),
        *([_tight_map(real, scaled)] if any(block.part == "joint" for block in layout.blocks) else []),
        replace(real, broken="noise used for two releases", release=reused),
        replace(real, broken="a histogram weighted after bounding", count=weighted),
        replace(real, broken="floating-point noise", release=floating),
    )


def _tight_map(real: Pipeline, scaled: Callable[[FloatArray], Release]) -> Pipeline:
    """Return the pipeline with joint counters whose bound on Σy² is half of what a device may add."""
    blocks = real.layout.blocks
    joint = [block.part == "joint" for block in blocks]
    tight = tuple(
        replace(block, l2_squared=block.l2_squared // 2) if mapped else block
        for block, mapped in zip(blocks, joint, strict=True)
    )
    factor = np.where(joint, math.sqrt(0.5), 1.0)
    return replace(
        real,
        broken="a joint map whose bound is too small by 2",
        layout=replace(real.layout, blocks=tight),
        stated=tuple(
            variance / 2 if mapped else variance for variance, mapped in zip(real.stated, joint, strict=True)
        ),
        release=scaled(np.repeat(factor, [block.cells for block in blocks])),
    )


def _with_noise(layout: Layout, factor: Fraction) -> Layout:
    """Return the layout with noise of `factor` times the standard deviation, drawn as the mechanism does."""
    geometric = layout.mechanism == "geometric"
    return replace(
        layout,
        blocks=tuple(
            replace(
                block,
                cost=block.cost / factor if geometric else block.cost,
                variance=block.variance * factor**2,
            )
            for block in layout.blocks
        ),
    )


def _with_half_the_bounds(block: Block) -> Block:
    return replace(
        block, l1=(block.l1 + 1) // 2, l2_squared=(block.l2_squared + 3) // 4, linf=(block.linf + 1) // 2
    )


def _float_normal(runs: int, cells: int) -> FloatArray:
    """Return textbook floating-point normal noise (Box & Muller 1958) from the system's randomness."""
    bits = np.frombuffer(secrets.token_bytes(16 * runs * cells), dtype=np.uint64).reshape(2, runs, cells)
    uniform = (bits.astype(np.float64) + 0.5) / 2.0**64
    normal: FloatArray = np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * math.pi * uniform[1])
    return normal
