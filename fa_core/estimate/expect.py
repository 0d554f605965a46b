"""The numbers that a plan is expected to give: expected sums, with simulated noise, read as a release is.

The sums come from public guesses (`guessed`) or from a fleet whose tables are at hand (`measured`). They are
read by the same code that reads a release, so the widths are those of the estimates themselves.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import PartSum
from fa_core.plan import Plan
from fa_core.privacy.distributed import shares_of, variance_in_sum
from fa_core.privacy.two_aggregators import variance_in_release
from fa_core.values import Estimate, FloatArray, Layout

DRAWS: Final = 16
"""Releases that a preview simulates, in pairs of opposite noise. Where noise weighs much, the mean half-width
of eight without pairs has a standard error of 7%, and that of these one of 3%."""

Key = tuple[str, tuple[str, ...]]
"""A metric and a grouping."""

Sums = Mapping[tuple[str, tuple[str, ...], str], FloatArray]
"""Expected sums by metric, grouping and part."""

Source = Callable[[Plan, Layout, int], Sums]
"""Returns the sums that so many devices are expected to give."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one metric in one grouping is expected to show.

    Attributes:
        half_width: mean half-width of the 95% intervals that are shown; None where none is.
        shown: share of the groups (cells, for tables of shares) expected to be shown.
        reason: why what is not shown is not, "" where all is.
        devices_for: devices needed to reach the wished half-width, where one was wished.
        windows_for: windows of this fleet needed instead, pooling their releases.
    """

    metric: str
    kind: str
    unit: str
    grouping: tuple[str, ...]
    groups: int
    half_width: float | None
    shown: float
    reason: str = ""
    devices_for: int | None = None
    windows_for: int | None = None

    @property
    def key(self) -> Key:
        """The metric and the grouping that it is about."""
        return self.metric, self.grouping


def guessed(events: float) -> Source:
    """Return the sums of devices of `events` events each, alike and spread evenly over the groups."""

    def sums(plan: Plan, layout: Layout, devices: int) -> Sums:
        bounds, found = bounds_of(plan), {}
        for name, metric in plan.metrics.items():
            for grouping in groupings(metric, plan):
                expected = metric.expected(shape_of(plan, grouping), bounds, float(devices), events)
                found.update({(name, grouping, part): values for part, values in expected.items()})
        return found

    return sums


def measured(counts: Callable[[Plan, Layout], FloatArray], of: int) -> Source:
    """Return the sums of devices like `of` devices, whose sums without noise, float64 (layout.length,),
    `counts` returns."""

    def sums(plan: Plan, layout: Layout, devices: int) -> Sums:
        whole = counts(plan, layout) * (devices / of)
        return {(block.metric, block.grouping, block.part): whole[block.slice] for block in layout.blocks}

    return sums


def expectations(
    plan: Plan, layout: Layout, devices: int, source: Source, draws: int = DRAWS
) -> tuple[Expectation, ...]:
    """Return what each metric in each grouping is expected to show if `devices` take part."""
    drawn = simulated(plan, layout, devices, source, draws)
    return tuple(_expectations(plan, [each for results in drawn for each in results]))


def simulated(
    plan: Plan, layout: Layout, devices: int, source: Source, draws: int
) -> list[tuple[Estimate, ...]]:
    """Return the estimates of so many releases of the expected sums, each with noise of its own.

    Where noise weighs much, the intervals of noised sums are not those of exact ones: they are cut off at the
    possible range, variances are never below their least, and groups come and go. This noise is by seed, so
    that plans are compared with the same draws; it protects nothing. Two releases in turn have opposite
    noise: a group is too large in one and too small in the other, and their mean width is nearer to that of
    many (antithetic variates; Hammersley & Morton 1956).
    """
    laplace = layout.mechanism == "geometric"
    sums, rng = source(plan, layout, devices), np.random.default_rng(0)
    variances = noise_variance(plan, layout, devices)
    found = []
    for place in range(draws):
        if place % 2 == 0:
            noise = [
                _noise(rng, variance, block.cells, laplace=laplace)
                for block, variance in zip(layout.blocks, variances, strict=True)
            ]
        else:
            noise = [-each for each in noise]
        noised = {}
        for block, variance, each in zip(layout.blocks, variances, noise, strict=True):
            key = (block.metric, block.grouping, block.part)
            noised[key] = PartSum(sums[key] + each, float(variance), laplace)
        found.append(estimates_of_sums(plan, noised, devices))
    return found


def _noise(rng: np.random.Generator, variance: float, cells: int, *, laplace: bool) -> FloatArray:
    """Return noise of a variance, float64 (cells,)."""
    sd = variance**0.5
    return rng.laplace(0.0, sd / np.sqrt(2), cells) if laplace else rng.normal(0.0, sd, cells)


def noise_variance(plan: Plan, layout: Layout, devices: int) -> FloatArray:
    """Return each block's noise variance if all of `devices` are counted, float64 (blocks,)."""
    if layout.noise == "central":
        return np.array([float(block.variance) for block in layout.blocks])
    if layout.kappa is not None:
        return variance_in_release(layout)
    shares = shares_of(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
    return variance_in_sum(shares, devices)


def _expectations(plan: Plan, results: Sequence[Estimate]) -> Iterator[Expectation]:
    for name, metric in plan.metrics.items():
        for grouping in groupings(metric, plan):
            mine = [r for r in results if r.metric == name and tuple(s for s, _ in r.group) == grouping]
            numbers = [cell for result in mine for cell in result.cells] or mine
            widths = [(n.high - n.low) / 2 for n in numbers if n.low is not None and n.high is not None]
            reasons = Counter(number.reason for number in numbers if number.suppressed)
            yield Expectation(
                metric=name,
                kind=metric.kind,
                unit=metric.unit(),
                grouping=grouping,
                groups=shape_of(plan, grouping).cells,
                half_width=float(np.mean(widths)) if widths else None,
                shown=len(widths) / max(len(numbers), 1),
                reason=reasons.most_common(1)[0][0] if reasons else "",
            )
