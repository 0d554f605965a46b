"""Release to Estimates: every metric reads its own sums; labels, suppression and verdicts are added here.

Pure: the same release always gives the same estimates, and nothing here touches data that is not
already differentially private.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from math import isnan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fa_core.estimate.judge import judge
from fa_core.estimate.possible import is_possible
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import MetricSpec, PartSum, Reading, Result
from fa_core.plan import Plan, from_canonical
from fa_core.values import Cell, Estimate, Estimates, Release

LEVEL: Final = 0.95
"""Coverage of every interval that is shown."""


def estimate(release: Release) -> Estimates:
    """Return everything that may be shown of a release."""
    plan = from_canonical(release.plan)
    values = release.sums.astype(np.float64)
    results = estimates_of_sums(plan, part_sums(release, values), release.participation.counted)
    return Estimates(release.id, LEVEL, results, judge(plan, results))


def part_sums(
    release: Release, values: NDArray[np.float64]
) -> dict[tuple[str, tuple[str, ...], str], PartSum]:
    """Return the noisy sums by (metric, grouping, part), divided by their public factors."""
    laplace = release.layout.mechanism == "geometric"
    return {
        (block.metric, block.grouping, block.part): PartSum(
            values[block.slice] / float(scale), float(variance), laplace
        )
        for block, scale, variance in zip(
            release.layout.blocks, release.scales, release.noise_variance, strict=True
        )
    }


def estimates_of_sums(
    plan: Plan, sums: Mapping[tuple[str, tuple[str, ...], str], PartSum], counted: int
) -> tuple[Estimate, ...]:
    """Return one estimate for each metric, grouping and group that can occur, in the order of the plan.

    `counted` is the public number of devices in the sums.
    """
    reading = Reading(LEVEL, plan.privacy.min_cohort, counted)
    found: list[Estimate] = []
    for name, metric in plan.metrics.items():
        cuts = []
        for grouping in groupings(metric, plan):
            shape = shape_of(plan, grouping)
            parts = metric.parts(shape, bounds_of(plan))
            cuts.append((shape, {part.name: sums[name, grouping, part.name] for part in parts}))
        with np.errstate(invalid="ignore", divide="ignore"):
            results = metric.estimates(cuts, bounds_of(plan), reading)
        for grouping, result in zip(groupings(metric, plan), results, strict=True):
            every = _estimates(name, metric, groups(plan, grouping), result)
            found.extend(each for each in every if is_possible(plan, metric, each.group))
    return tuple(found)


def estimands(plan: Plan) -> dict[str, str]:
    """Return for each metric what its numbers are of, in words, given what the plan lets one device weigh."""
    return {name: metric.estimand(bounds_of(plan)) for name, metric in plan.metrics.items()}


def groups(plan: Plan, grouping: tuple[str, ...]) -> list[tuple[tuple[str, str], ...]]:
    """Return the groups of a grouping in the order of the cells, each as (segment, label) pairs."""
    labels = [[(name, label) for label in plan.segments[name].labels] for name in grouping]
    return list(product(*labels))


def _estimates(
    name: str, metric: MetricSpec, named: list[tuple[tuple[str, str], ...]], result: Result
) -> Iterator[Estimate]:
    for index, group in enumerate(named):
        common = {
            "metric": name,
            "kind": metric.kind,
            "unit": metric.unit(),
            "group": group,
            "level": LEVEL,
            "devices": _shown(result.devices[index]),
            "devices_sd": float(result.devices_sd),
            "variance_source": str(result.variance_source[index]),
        }
        if result.labels:
            yield _table(common, result, index)
        else:
            yield Estimate(**common, **_numbers(result, index), **_noise(result, index))  # type: ignore[arg-type]


def _table(common: dict[str, object], result: Result, index: int) -> Estimate:
    cells = tuple(
        Cell(labels=labels, **_numbers(result, (index, place)))  # type: ignore[arg-type]
        for place, labels in enumerate(result.labels)
    )
    hidden = all(cell.suppressed for cell in cells)
    return Estimate(
        **common,  # type: ignore[arg-type]
        estimate=None,
        low=None,
        high=None,
        simultaneous_low=None,
        simultaneous_high=None,
        noise_low=None,
        noise_high=None,
        suppressed=hidden,
        reason=cells[0].reason if hidden else "",
        denominator=None,
        noise_sd=None,
        cells=cells,
    )


def _numbers(result: Result, at: int | tuple[int, int]) -> dict[str, object]:
    numbers = result.numbers
    return {
        "estimate": _shown(numbers.estimate[at]),
        "low": _shown(numbers.low[at]),
        "high": _shown(numbers.high[at]),
        "simultaneous_low": _shown(numbers.simultaneous_low[at]),
        "simultaneous_high": _shown(numbers.simultaneous_high[at]),
        "suppressed": bool(numbers.suppressed[at]),
        "reason": str(numbers.reason[at]),
        "denominator": _shown(numbers.denominator[at]),
        "noise_sd": _shown(numbers.noise_sd[at]),
    }


def _noise(result: Result, at: int) -> dict[str, object]:
    return {
        "noise_low": _shown(result.numbers.noise_low[at]),
        "noise_high": _shown(result.numbers.noise_high[at]),
    }


def _shown(value: np.float64) -> float | None:
    return None if isnan(value) else float(value)
