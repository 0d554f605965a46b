"""Two releases side by side: intervals add end to end, and a verdict needs evidence."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fa_core.estimate.compare import Difference, compare
from fa_core.metrics.intervals import normal_quantile, simultaneous_level
from fa_core.values import Cell, Estimate, Estimates


def number(value: float | None, half: float = 0.01, label: str = "en-US", metric: str = "frr") -> Estimate:
    def at(offset: float) -> float | None:
        return None if value is None else value + offset

    return Estimate(
        metric, "rate", "", (("accent", label),), value, at(-half), at(half), at(-2 * half), at(2 * half),
        None, None, 0.95, value is None, "fewer than 100 devices" if value is None else "", None, None, None,
        None, "",
    )  # fmt: skip


def release(*results: Estimate) -> Estimates:
    return Estimates("0" * 32, 0.95, results, ())


def only(before: Estimate, after: Estimate, margin: Fraction = Fraction(0), more: bool = False) -> Difference:
    (found,) = compare(release(before), release(after), margin, ("frr",) if more else ())
    return found


def test_half_widths_add_on_each_side() -> None:
    found = only(number(0.10, 0.01), number(0.16, 0.02))
    assert found.difference == pytest.approx(0.06)
    assert (found.low, found.high) == pytest.approx((0.03, 0.09))
    assert (found.simultaneous_low, found.simultaneous_high) == pytest.approx((0.0, 0.12))


@pytest.mark.parametrize(
    ("before", "after", "margin", "more", "change"),
    [
        (0.10, 0.20, 0, False, "worse"),
        (0.10, 0.20, 0, True, "better"),
        (0.20, 0.10, 0, False, "better"),
        (0.20, 0.10, 0, True, "worse"),
        (0.10, 0.13, 0, False, "not enough evidence"),
        (0.10, 0.20, Fraction(1, 10), False, "not enough evidence"),
        (0.10, 0.11, Fraction(1, 10), False, "same within margin"),
    ],
)
def test_the_verdict_is_from_simultaneous_bounds(
    before: float, after: float, margin: Fraction, more: bool, change: str
) -> None:
    assert only(number(before), number(after), Fraction(margin), more).change == change


def test_a_suppressed_side_gives_no_difference_and_says_why() -> None:
    found = only(number(None), number(0.1))
    assert (found.difference, found.low, found.change) == (None, None, "not enough evidence")
    assert (found.before, found.after, found.reason) == (None, 0.1, "fewer than 100 devices")


def test_only_what_both_have_is_compared_in_the_order_of_the_first() -> None:
    before = release(number(0.1, label="a"), number(0.1, label="b"), number(0.1, label="c"))
    after = release(number(0.1, label="c"), number(0.1, label="a"), number(0.1, metric="other", label="b"))
    assert [found.group for found in compare(before, after)] == [(("accent", "a"),), (("accent", "c"),)]


def test_cells_are_compared_one_by_one() -> None:
    def cell(label: str, value: float) -> Cell:
        at = (value, value - 0.01, value + 0.01, value - 0.02, value + 0.02)
        return Cell((("predicted", label),), *at, False, "", None, None)

    table = replace(number(None), suppressed=False)
    before = replace(table, cells=(cell("stop", 0.1), cell("play", 0.3)))
    after = replace(table, cells=(cell("play", 0.2), cell("weather", 0.1)))
    (found,) = compare(release(before), release(after))
    assert (found.cell, found.difference) == ((("predicted", "play"),), pytest.approx(-0.1))


def test_a_change_where_there_is_none_is_seen_at_most_once_in_twenty() -> None:
    """Forty groups alike in both releases, 500 times over: at one in twenty, the chance of more than is
    asserted is below 1e-8. By each group's own interval, the control, it is seen far more often."""
    pairs, groups, sd = 500, 40, 0.01
    before, after = np.random.default_rng(11).normal(0.2, sd, (2, pairs, groups))
    own, wide = (normal_quantile(level) * sd for level in (0.95, simultaneous_level(0.95, groups)))

    def of(values: list[float]) -> Estimates:
        return release(*(number(value, wide / 2, str(place)) for place, value in enumerate(values)))

    changed = sum(
        any(each.change != "not enough evidence" for each in compare(of(first), of(second)))
        for first, second in zip(before.tolist(), after.tolist(), strict=True)
    )
    assert changed / pairs < 0.05 + 7 * (0.05 * 0.95 / pairs) ** 0.5
    assert (abs(after - before) > 2 * own).any(axis=1).mean() > 0.15
