"""Joint counters of tables of shares: the integers, the bound by trying everything, and what is read."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fa_core.metrics import PartSum, Reading, Shape
from fa_core.metrics.joint import SHARES
from fa_core.metrics.joint_shares import CellSums, mapped, matrix, norms, unmapped
from fa_core.metrics.kind import Axis, Bounds, FloatArray, Int64Array, Numbers
from fa_core.metrics.table_of_shares import TableOfShares
from fa_core.privacy.bounding import enforce
from tests.metrics.samples import plan_of

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "joint-shares.json").read_text()
)
every_case = pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"N = {case['most']}")


class TestTheIntegers:
    def test_the_table_is_the_published_one(self) -> None:
        assert [list(row) for row in SHARES] == VECTORS["shares"]

    @every_case
    def test_a_plan_has_the_matrix_and_the_bound_of_the_vectors(self, case: dict[str, Any]) -> None:
        assert [list(row) for row in matrix(case["most"])] == case["matrix"]
        found = norms(case["most"])
        assert [found.l1, found.l2_squared, found.linf] == case["norms"]

    @every_case
    def test_a_device_sends_what_the_vectors_say(self, case: dict[str, Any]) -> None:
        x, n = (np.array([cell[name] for cell in case["cells"]]) for name in "xn")
        np.testing.assert_array_equal(
            mapped(case["most"], x, n), [cell["y"] for cell in case["cells"]], strict=True
        )

    def test_no_matrix_of_a_plan_that_may_be_sent_is_singular(self) -> None:
        assert all((np.diag(np.array(matrix(most))) > 0).all() for most in range(1, 2828))


def tables(events: int, groups: int, rows: int, columns: int) -> Iterator[Int64Array]:
    """Yield every way to have so many events in the cells, int64 (groups, rows, columns)."""

    def splits(left: int, cells: int) -> Iterator[tuple[int, ...]]:
        if cells == 1:
            yield (left,)
            return
        for first in range(left + 1):
            for rest in splits(left - first, cells - 1):
                yield (first, *rest)

    for split in splits(events, groups * rows * columns):
        yield np.array(split).reshape(groups, rows, columns)


def sent(most: int, table: Int64Array) -> Int64Array:
    return mapped(most, table, table.sum(axis=2, keepdims=True)).reshape(1, -1)


class TestTheBound:
    @pytest.mark.parametrize(
        ("most", "groups", "rows", "columns"),
        [(1, 1, 1, 2), (2, 2, 2, 2), (3, 1, 1, 4), (4, 1, 2, 3), (4, 2, 1, 3), (5, 2, 2, 2), (9, 1, 1, 3)],
    )
    def test_holds_for_every_table_of_a_device(self, most: int, groups: int, rows: int, columns: int) -> None:
        """Any number of cells, rows and groups; and nobody pays for much more than is there."""
        bound, largest = norms(most), 0
        for events in range(most + 1):
            for table in tables(events, groups, rows, columns):
                y = sent(most, table)
                assert np.abs(y).sum() <= bound.l1
                assert np.abs(y).max() <= bound.linf
                largest = max(largest, int((y * y).sum()))
        assert 0.8 * bound.l2_squared < largest <= bound.l2_squared

    @pytest.mark.parametrize("most", [1, 4, 24])
    def test_too_small_by_two_is_caught(self, most: int) -> None:
        """The control: the device that weighs most is over it, and then adds nothing."""
        bound = norms(most)
        y = sent(most, np.array([[[most, 0]]]))
        assert enforce(y, bound.l1, bound.l2_squared, bound.linf).any()
        short = replace(bound, l2_squared=(bound.l2_squared + 3) // 4)
        assert not enforce(y, short.l1, short.l2_squared, short.linf).any()

    def test_does_not_overflow_where_a_product_would(self) -> None:
        """In whole numbers of any length, at the most events that a plan may count."""
        most, largest = 2827, 0
        rows = matrix(most)
        for x in range(1, most + 1, 257):
            for n in (x, most):
                u = (x, x * n, x * x)
                f = sum(sum(a * b for a, b in zip(row, u, strict=True)) ** 2 for row in rows)
                largest = max(largest, -(-most * f // x))
        assert largest <= norms(most).l2_squared < 1.2 * largest


def test_too_many_pairs_are_refused_by_the_key() -> None:
    found = plan_of("histogram").metrics["metric"].too_much(Bounds(2828, counters="joint"))
    assert found is not None
    assert found.key == "max_events"
    assert plan_of("histogram").metrics["metric"].too_much(Bounds(2827, counters="joint")) is None


class TestWhatIsRead:
    def test_sums_come_back_from_what_devices_send(self) -> None:
        random = np.random.default_rng(1)
        counts = random.integers(0, 4, (50, 2, 3))
        n = counts.sum(axis=2, keepdims=True)
        y = mapped(12, counts, n).sum(axis=0).astype(np.float64)
        found = unmapped(12, y.ravel(), 1.0).moments(3).values
        expected = np.stack(
            np.broadcast_arrays(0 * counts, n, counts, n * n, counts * n, counts * counts), axis=-1
        ).sum(axis=0)
        np.testing.assert_allclose(found, expected.reshape(-1, 6), atol=1e-6)

    @pytest.mark.parametrize("columns", [2, 5])
    def test_noise_that_a_row_and_its_cells_share_is_taken_into_account(self, columns: int) -> None:
        """The covariance is that of the linear map from all cells of the row, written out."""
        one = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 0.5]])
        whole = np.kron(np.eye(columns), one)
        unit = np.eye(3 * columns)
        rows = np.stack(
            [CellSums(each[:, None].reshape(-1, 3), one).moments(columns).values for each in unit]
        )
        found = CellSums(np.zeros((columns, 3)), one).moments(columns).covariance
        for cell in range(columns):
            np.testing.assert_allclose(found, rows[:, cell].T @ whole @ rows[:, cell], atol=1e-12)


METRIC = plan_of("histogram", max_events=8).metrics["metric"].model_copy(update={"by": None})
BOUNDS = Bounds(8, counters="joint")


def read(u: FloatArray, devices: FloatArray, variance: float) -> Numbers:
    """Return the numbers of groups from exact sums u, float64 (K, cells, 3), by stated noise."""
    assert isinstance(METRIC, TableOfShares)
    cells = (u @ np.array(matrix(8), np.float64).T).ravel()
    sums = {"joint": PartSum(cells, variance, False), "devices": PartSum(devices, 25.0, False)}
    shape = Shape(len(u), 1, (Axis("accent", len(u), "device"),))
    return METRIC.estimates([(shape, sums)], BOUNDS, Reading(0.95, 20, 1000))[0].numbers


def row_of(x: FloatArray) -> FloatArray:
    """Return u of cells whose devices have one event each, so that n, x·n and x² of a cell are its x."""
    return np.repeat(x[:, None], 3, axis=1)


class TestWhatIsShown:
    """Four bins of a row; the noise of a row's size has a standard deviation of 100."""

    def noise(self) -> float:
        one = unmapped(8, np.zeros(12), 1.0).covariance[0, 0]
        return float(100.0**2 / (4 * one))

    def test_a_row_is_not_shown_because_its_own_noise_was_lucky(self) -> None:
        """Thirty devices lead to expect thirty events; 500 are five standard deviations, which is luck."""
        large, lucky = row_of(np.full(4, 5000.0)), row_of(np.array([400.0, 50.0, 25.0, 25.0]))
        found = read(np.stack((large, lucky)), np.array([20_000.0, 30.0]), self.noise())
        assert not found.suppressed[0].any()
        assert found.suppressed[1].all()
        assert set(found.reason[1]) == {
            "too few events in the row to be distinguished from the privacy noise"
        }

    def test_nor_hidden_because_it_was_not(self) -> None:
        """A thousand devices lead to expect a thousand events: the row is shown whatever its cells say, and
        a cell that may be anything says so."""
        large, unlucky = row_of(np.full(4, 5000.0)), row_of(np.array([40.0, 30.0, 20.0, 10.0]))
        found = read(np.stack((large, unlucky)), np.array([20_000.0, 1000.0]), self.noise())
        assert not found.suppressed.any()
        np.testing.assert_array_equal((found.low[1, 0], found.high[1, 0]), (0.0, 1.0))

    def test_a_group_like_no_other_is_shown_by_its_own_size(self) -> None:
        large, other = row_of(np.full(4, 5000.0)), row_of(np.full(4, 300.0))
        found = read(np.stack((large, other)), np.array([20_000.0, 30.0]), self.noise())
        assert not found.suppressed.any()


def fleets(random: np.random.Generator, releases: int) -> Iterator[FloatArray]:
    """Yield the sums u of fleets, float64 (4, 3), of 4,000 devices with 8 events each: nine in ten have each
    of theirs in the first bin or the second, and one in ten has all of them in the third."""
    for _ in range(releases):
        broken = int(random.binomial(4000, 0.1))
        x = random.binomial(8, 0.5, 4000 - broken).astype(np.float64)
        cells = [
            (x.sum(), (x * x).sum()),
            ((8 - x).sum(), ((8 - x) ** 2).sum()),
            (8.0 * broken, 64.0 * broken),
        ]
        yield np.array([[total, 8 * total, squares] for total, squares in cells] + [[0.0, 0.0, 0.0]])


def one_dispersion(u: FloatArray) -> FloatArray:
    """Return sums in which every cell is as over-dispersed as the row is on average."""
    n, nn = u[:, 0].sum(), u[:, 1].sum()
    p = u[:, 0] / n
    measured = u[:, 2] - 2 * p * u[:, 1] + p * p * nn
    independent = n * p * (1 - p)
    alike = measured.sum() / independent.sum() * independent
    return np.column_stack((u[:, :2], alike + 2 * p * u[:, 1] - p * p * nn))


def held(releases: int, change: Any = None) -> Int64Array:
    """Return how many intervals of each of the first three bins hold the truth."""
    random, variance = np.random.default_rng(5), 50.0**2
    sd = np.sqrt(variance)
    found = np.zeros(3, np.int64)
    back = np.linalg.inv(np.array(matrix(8), np.float64)).T
    for u in fleets(random, releases):
        noisy = (u if change is None else change(u)) + random.normal(0.0, sd, u.shape) @ back
        numbers = read(noisy[None], np.array([4000.0]), variance)
        truth = np.array([0.45, 0.45, 0.1])
        found += ((numbers.low[0, :3] <= truth) & (truth <= numbers.high[0, :3])).astype(np.int64)
    return found


def test_every_single_cell_holds_the_truth() -> None:
    """Fails below 94% at 1e-8 a cell; one dispersion for all cells of a row, the control, does."""
    releases = 250
    assert (stats.binom.cdf(held(releases), releases, 0.94) > 1e-8).all()
    assert stats.binom.cdf(held(releases, one_dispersion)[2], releases, 0.94) < 1e-8
