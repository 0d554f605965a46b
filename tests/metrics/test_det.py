"""DET curves: bands that hold over a whole grouping, and a variance for each threshold."""

from typing import Any

import numpy as np
import pytest

from fa_core.metrics import PartSum, Reading, Shape
from fa_core.metrics.intervals import normal_quantile, simultaneous_level
from fa_core.metrics.kind import Axis, Bounds, Numbers
from tests.metrics.samples import plan_of

BLOCKS = {"accounting": "pure", "delta": 0}
THRESHOLDS = 4


def read(groups: int, **privacy: Any) -> Numbers:
    """Return the numbers of so many groups that are all alike: 20,000 devices as a preview expects them."""
    plan = plan_of("det", max_events=12, **privacy)
    metric, bounds = plan.metrics["metric"], Bounds(12, counters=plan.privacy.counters)
    shape = Shape(groups, 1, (Axis("accent", groups, "device"),))
    sums = metric.expected(shape, bounds, 20_000.0 * groups, 12.0)
    parts = {part.name: PartSum(sums[part.name], 100.0, False) for part in metric.parts(shape, bounds)}
    return metric.estimates([(shape, parts)], bounds, Reading(0.95, 20, 1000))[0].numbers


@pytest.mark.parametrize("privacy", [{}, BLOCKS], ids=["each threshold", "in blocks"])
def test_bands_hold_for_all_groups_axes_and_thresholds(privacy: dict[str, Any]) -> None:
    """One group among fifty has wider bands than alone, by what Bonferroni asks for; its intervals do not."""
    alone, among = read(1, **privacy), read(50, **privacy)

    def width(numbers: Numbers) -> float:
        return float((numbers.simultaneous_high - numbers.simultaneous_low)[0].mean())

    one, fifty = (normal_quantile(simultaneous_level(0.95, groups * 2 * THRESHOLDS)) for groups in (1, 50))
    assert width(among) / width(alone) == pytest.approx(fifty / one, rel=0.02)
    np.testing.assert_allclose(among.low[0], alone.low[0], rtol=1e-6)


def test_each_threshold_has_a_variance_of_its_own() -> None:
    """Devices that differ at one threshold alone widen its interval, and no other."""
    plan = plan_of("det", max_events=12)
    metric, bounds = plan.metrics["metric"], Bounds(12, counters="joint")
    shape = Shape(1, 1)
    sums = metric.expected(shape, bounds, 20_000.0, 12.0)

    def widths(squares: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        parts = {
            part.name: PartSum(squares if part.name == "miss_squares" else sums[part.name], 1.0, False)
            for part in metric.parts(shape, bounds)
        }
        numbers = metric.estimates([(shape, parts)], bounds, Reading(0.95, 20, 1000))[0].numbers
        return np.asarray((numbers.high - numbers.low)[0, :THRESHOLDS])

    calm = widths(sums["miss_squares"])
    wild = widths(sums["miss_squares"] + np.array([0.0, 400_000.0, 0.0, 0.0]))
    assert wild[1] > 1.2 * calm[1]
    np.testing.assert_allclose(np.delete(wild, 1), np.delete(calm, 1), rtol=1e-6)
