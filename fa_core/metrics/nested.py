"""Groupings of one metric estimated together: least squares over all their noised sums.

Everyone, the accents, and the accents by kind of device count the same sampled events, and every grouping is
exhaustive (`other` holds the rest). So what one grouping says of another's sums is worth using: the sum over
the accents is a second noisy measurement of everyone. Noise is independent and of one variance in all groups
of a grouping, which makes the least squares exact and cheap: any table of sums splits into orthogonal
*effects*, one for each subset T of its segments (summed over the other segments, less the means over each
segment in T), and every grouping that has all segments of T measures the same effect. Each effect is the mean
of its measurements, weighted by precision, and a grouping's sums are put together from its effects again
(the analysis of variance of a factorial table; Scheffé 1959, chapter 4). Weights are of the layout alone.

Over segments of device facts, where a device is in one group, all sums add up. Over columns of events, where
it may be in several, only those that are sums over events do (`shared`): devices and squares do not. Effects
are then pooled first among the groupings with the same event-level segments, and only `shared` across them,
with what that says of the others by their covariance: general least squares in two exact steps.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from math import prod

from fa_core.arrays import np
from fa_core.metrics.kind import Axis, FloatArray, PartSum, Shape

Effect = frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The sums of one grouping.

    Attributes:
        axes: its segments in order; K is the product of their labels.
        values: float64 (K, P), P sums in each group.
        covariance: float64 (P, P), of the noise in one group; that of two groups is `between`.
    """

    axes: tuple[Axis, ...]
    values: FloatArray
    covariance: FloatArray

    @property
    def events(self) -> Effect:
        """The names of its event-level segments."""
        return frozenset(axis.name for axis in self.axes if axis.level == "event")


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """An effect as measured, float64 (…, P), its axes by name; and its noise's covariance before centring."""

    values: FloatArray
    covariance: FloatArray


def consistent(cuts: Sequence[Cut], shared: Sequence[int]) -> list[Cut]:
    """Return the least-squares estimate of every grouping's sums, in the same order; their sums agree.

    Args:
        cuts: the groupings of one metric, each with segments of its own; noise independent between them.
        shared: which of the P sums add up over event-level segments too.
    """
    if len(cuts) < 2:
        return list(cuts)
    scale = np.sqrt(np.diag(cuts[0].covariance))
    scaled = [
        replace(c, values=c.values / scale, covariance=c.covariance / np.outer(scale, scale)) for c in cuts
    ]
    classes = {cut.events for cut in cuts}
    effects: dict[Effect, dict[Effect, _Measured]] = {}
    for effect in {subset for cut in cuts for subset in _subsets(cut.axes)}:
        by_class = {
            events: _pooled([_measure(cut, effect) for cut in members])
            for events in classes
            if (members := [cut for cut in scaled if cut.events == events and effect <= _names(cut)])
        }
        effects[effect] = dict(zip(by_class, _agreed(list(by_class.values()), shared), strict=True))
    return [
        Cut(cut.axes, values * scale, covariance * np.outer(scale, scale))
        for cut in cuts
        for values, covariance in [_put_together(cut, effects)]
    ]


def inside(cells: int) -> Axis:
    """Return the cells of a group as an axis, so that each of them is estimated over the groupings. No
    segment has its name; the noise of cells stays independent."""
    return Axis("", cells, "device")


def consistent_blocks(
    cuts: Sequence[tuple[Shape, Mapping[str, PartSum]]], shared: Collection[str]
) -> list[dict[str, PartSum]]:
    """Return what `consistent` does for blocks with Gaussian noise, each by itself.

    Args:
        cuts: the groupings of one metric, with the same parts in each.
        shared: the parts that add up over event-level segments too.
    """
    found: list[dict[str, PartSum]] = [{} for _ in cuts]
    for name in cuts[0][1]:
        blocks = [
            Cut(
                (*shape.axes, inside(len(sums[name].values) // shape.cells)),
                sums[name].values[:, None],
                np.array([[sums[name].variance]]),
            )
            for shape, sums in cuts
        ]
        for parts, cut in zip(found, consistent(blocks, (0,) if name in shared else ()), strict=True):
            parts[name] = PartSum(cut.values[:, 0], float(cut.covariance[0, 0]), laplace=False)
    return found


def _names(cut: Cut) -> Effect:
    return frozenset(axis.name for axis in cut.axes)


def _subsets(axes: tuple[Axis, ...]) -> Iterator[Effect]:
    names = [axis.name for axis in axes]
    return map(frozenset, chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)))


def _measure(cut: Cut, effect: Effect) -> _Measured:
    """Return what a grouping says of an effect; its axes are in alphabetical order."""
    table = cut.values.reshape(*(axis.labels for axis in cut.axes), -1)
    summed = tuple(place for place, axis in enumerate(cut.axes) if axis.name not in effect)
    table = table.sum(axis=summed)
    kept = [axis.name for axis in cut.axes if axis.name in effect]
    table = np.moveaxis(table, range(len(kept)), [sorted(kept).index(name) for name in kept])
    for place in range(len(kept)):
        table = table - table.mean(axis=place, keepdims=True)
    return _Measured(table, cut.covariance * prod(cut.axes[place].labels for place in summed))


def _pooled(measured: Sequence[_Measured]) -> _Measured:
    """Return the mean of independent measurements, weighted by their precision matrices."""
    if len(measured) == 1:
        return measured[0]
    precisions = [np.linalg.inv(each.covariance) for each in measured]
    covariance = np.linalg.inv(sum(precisions))
    weighted = sum(each.values @ weight for each, weight in zip(measured, precisions, strict=True))
    return _Measured(np.asarray(weighted @ covariance), covariance)


def _agreed(measured: Sequence[_Measured], shared: Sequence[int]) -> list[_Measured]:
    """Return measurements that agree in their `shared` sums, and what that says of their others."""
    if len(measured) == 1:
        return list(measured)
    at = np.ix_(shared, shared)
    common = _pooled([_Measured(each.values[..., shared], each.covariance[at]) for each in measured])
    found = []
    for each in measured:
        gain = each.covariance[:, shared] @ np.linalg.inv(each.covariance[at])
        less = each.covariance[at] - common.covariance
        found.append(
            _Measured(
                each.values + (common.values - each.values[..., shared]) @ gain.T,
                each.covariance - gain @ less @ gain.T,
            )
        )
    return found


def _put_together(cut: Cut, effects: dict[Effect, dict[Effect, _Measured]]) -> tuple[FloatArray, FloatArray]:
    """Return the sums and the covariance of one group that a grouping's effects come to."""
    values = np.zeros((*(axis.labels for axis in cut.axes), cut.values.shape[1]))
    covariance = np.zeros_like(cut.covariance)
    for effect in _subsets(cut.axes):
        measured = effects[effect][cut.events]
        spread = prod(axis.labels for axis in cut.axes if axis.name not in effect)
        order = sorted(effect)
        kept = [axis.name for axis in cut.axes if axis.name in effect]
        table = np.moveaxis(measured.values, [order.index(name) for name in kept], range(len(kept)))
        whole = tuple(axis.labels if axis.name in effect else 1 for axis in cut.axes)
        values += table.reshape(*whole, -1) / spread
        centred = prod(1 - 1 / axis.labels for axis in cut.axes if axis.name in effect)
        covariance += measured.covariance * centred / spread**2
    return values.reshape(cut.values.shape), covariance
