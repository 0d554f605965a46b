"""Many releases of one plan, estimated in the time of a few: as the groups of one release, by the same code.

An estimate's time goes into calls on short arrays. So the releases become one more segment of every grouping,
its first: groupings are still made consistent release by release, since a segment that all of them have
separates them (`fa_core.metrics.nested`), and an interval needs its own group alone. What looks at all groups
of a release together is handed the groups of one release at a time. Of simultaneous intervals nothing is
found but whether there is one, which decides what is shown.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from fa_core.estimate.possible import is_possible
from fa_core.estimate.read import LEVEL, groups, part_sums
from fa_core.layout import bounds_of, groupings, shape_of
from fa_core.metrics import (
    Reading,
    Result,
    centred,
    count,
    det,
    joint_ratio,
    moments,
    multinomial,
    table_of_shares,
)
from fa_core.metrics.kind import Axis, Shape
from fa_core.metrics.moments import Moments, Ratio
from fa_core.metrics.table_of_shares import TableOfShares
from fa_core.plan import Plan
from fa_core.values import Release

Floats = NDArray[np.float64]

MODULES: Final = (centred, count, det, joint_ratio, moments, multinomial, table_of_shares)


@dataclass(frozen=True, eq=False)
class Bounds:
    """What each release shows at each place, float64 (releases, places); NaN where nothing."""

    low: Floats
    high: Floats


def bounds_of_many(
    release: Release, plan: Plan, sums: NDArray[Any], devices: int, level: float = LEVEL
) -> Mapping[str, Bounds]:
    """Return by metric what is shown of releases like `release` of `plan`, with these noised sums.

    Args:
        sums: (releases, layout.length).
        devices: how many are counted in each.
        level: of the intervals.
    """
    many, parts = len(sums), part_sums(release, sums.T.astype(np.float64))
    reading, found = Reading(level, plan.privacy.min_cohort, devices), {}
    for name, metric in plan.metrics.items():
        cuts = []
        for grouping in groupings(metric, plan):
            shape = shape_of(plan, grouping)
            one = {
                part.name: parts[name, grouping, part.name] for part in metric.parts(shape, bounds_of(plan))
            }
            whole = {key: replace(each, values=each.values.T.ravel()) for key, each in one.items()}
            axes = (Axis("release", many, "device"), *shape.axes)
            cuts.append((Shape(many * shape.cells, shape.touch, axes), whole))
        with _one_release_at_a_time(many), np.errstate(invalid="ignore", divide="ignore"):
            results = metric.estimates(cuts, bounds_of(plan), reading)
        there = [
            [is_possible(plan, metric, group) for group in groups(plan, grouping)]
            for grouping in groupings(metric, plan)
        ]
        shown = [_bounds(result, many, mine) for result, mine in zip(results, there, strict=True)]
        found[name] = Bounds(
            *(
                np.concatenate([getattr(each, field.name) for each in shown], axis=1)
                for field in fields(Bounds)
            )
        )
    return found


def _bounds(result: Result, many: int, possible: list[bool]) -> Bounds:
    """Return what a grouping shows, of the groups that can occur."""

    def by_release(values: Floats) -> Floats:
        return values.reshape(many, len(possible), -1)[:, possible].reshape(many, -1)

    numbers = result.numbers
    return Bounds(by_release(numbers.low), by_release(numbers.high))


@contextmanager
def _one_release_at_a_time(many: int) -> Iterator[None]:
    """Hand what looks at all groups of a release together those of one release at a time."""

    def simultaneous(own: Callable[[float, int], float]) -> Callable[[float, int], float]:
        return lambda level, cells: own(level, cells // many)

    def variances(own: Callable[..., Any]) -> Callable[..., Any]:
        def each(*arrays: Floats) -> Any:
            found = [own(*mine) for mine in zip(*(array.reshape(many, -1) for array in arrays), strict=True)]
            names = [field.name for field in fields(found[0])]
            return type(found[0])(*(np.concatenate([getattr(one, name) for one in found]) for name in names))

        return each

    whole = TableOfShares._measured

    def measured(self: TableOfShares, ratio: Ratio, devices: Floats, z: float) -> NDArray[np.bool_]:
        each = zip(
            ratio.moments.values.reshape(many, -1, ratio.moments.values.shape[1]),
            devices.reshape(many, -1),
            strict=True,
        )
        covariance = ratio.moments.covariance
        return np.concatenate(
            [whole(self, replace(ratio, moments=Moments(one, covariance)), mine, z) for one, mine in each]
        )

    def sizes(own: Callable[..., Any]) -> Callable[..., Any]:
        def each(size: Floats, devices: Floats, *rest: float) -> NDArray[np.bool_]:
            both = zip(size.reshape(many, -1), devices.reshape(many, -1), strict=True)
            return np.concatenate([own(*mine, *rest) for mine in both])

        return each

    wrapped = {
        "well_measured": sizes,
        "simultaneous_level": simultaneous,
        "own_or_more": variances,
        "lean_on_others": variances,
    }
    search = Ratio.intervals

    def intervals(self: Ratio, near: float, *simultaneous: float) -> list[Any]:
        found = search(self, near)
        with patch.object(moments, "STEPS", 0):
            return found + search(self, *simultaneous)

    with ExitStack() as stack:
        stack.enter_context(patch.object(TableOfShares, "_measured", measured))
        stack.enter_context(patch.object(Ratio, "intervals", intervals))
        for module in MODULES:
            for name, wrap in wrapped.items():
                if (own := getattr(module, name, None)) is not None:
                    stack.enter_context(patch.object(module, name, wrap(own)))
        yield
