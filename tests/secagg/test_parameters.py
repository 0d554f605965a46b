"""k and t are the published ones, minimal, and refused clearly where none exist."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest

from fa_core.secagg import choose, smallest_cohort
from fa_core.secagg.graph import mirror, neighbours_of, offsets, ring

TENTH = Fraction(1, 10)


@pytest.mark.parametrize("n, k, t", [(100, 42, 32), (1_000, 132, 97), (10_000, 166, 121)])
def test_the_figures_of_the_design(n: int, k: int, t: int) -> None:
    parameters = choose(n, TENTH, TENTH)
    assert parameters
    assert (parameters.neighbours, parameters.threshold, parameters.survivors) == (k, t, n * 9 // 10)


def tail(population: int, marked: int, drawn: int, limit: int) -> Fraction:
    """P[more than `limit` of `drawn` are marked], from the definition."""
    ways = sum(
        comb(marked, j) * comb(population - marked, drawn - j)
        for j in range(limit + 1, min(marked, drawn) + 1)
    )
    return Fraction(ways, comb(population, drawn))


def test_the_tail_is_the_count_of_subsets() -> None:
    drawn = list(combinations(range(9), 4))
    over = sum(sum(x < 3 for x in subset) > 1 for subset in drawn)
    assert tail(9, 3, 4, 1) == Fraction(over, len(drawn))


@pytest.mark.parametrize("n", [64, 100, 257, 1_000])
@pytest.mark.parametrize("f, gamma", [(TENTH, TENTH), (2 * TENTH, TENTH), (TENTH / 2, 0 * TENTH)])
def test_both_conditions_hold_and_no_smaller_graph_meets_them(n: int, f: Fraction, gamma: Fraction) -> None:
    found = choose(n, f, gamma)
    assert found

    def holds(k: int, t: int) -> bool:
        dropped, corrupt = int(f * n), int(gamma * n)
        c = t - k // 2 - 1
        return (
            c >= 0
            and t <= k
            and tail(n - 1, corrupt, (k + 1) // 2, c) <= Fraction(1, n << 40)
            and tail(n - 1, dropped, k, k - t) <= Fraction(1, n << 20)
        )

    k, t = found.neighbours, found.threshold
    assert holds(k, t)
    assert not holds(k, t - 1)
    assert not any(holds(k - 2, smaller) for smaller in range(1, k - 1))


@pytest.mark.parametrize("n", range(3, 64))
def test_a_small_cohort_is_complete(n: int) -> None:
    parameters = choose(n, TENTH, TENTH)
    assert parameters
    assert parameters.neighbours == n - 1
    assert 2 * parameters.threshold > n - 1 + n // 10  # a device's two secrets are never both opened
    assert parameters.threshold <= n - 1 - n // 10


def test_where_nothing_works_the_smallest_that_does_is_known() -> None:
    assert choose(2, Fraction(0), Fraction(0)) is None
    assert choose(10, Fraction(3, 10), Fraction(1, 5)) is None
    assert smallest_cohort(Fraction(0), Fraction(0)) == 3
    assert smallest_cohort(TENTH, TENTH) == 3
    assert smallest_cohort(Fraction(3, 10), Fraction(1, 5), above=10) == 12
    assert smallest_cohort(Fraction(1, 2), Fraction(1, 2), above=40) is None
    assert choose(10_000, Fraction(1, 2), Fraction(1, 10)) is None


@pytest.mark.parametrize("n, k", [(5, 4), (6, 5), (7, 6), (10, 9), (100, 42), (101, 42)])
def test_neighbours_are_mutual_and_each_knows_its_slot(n: int, k: int) -> None:
    around = neighbours_of(np.arange(n), b"roster", n, k)
    assert all(len(set(row)) == k and i not in row for i, row in enumerate(around.tolist()))
    assert np.array_equal(around[around, mirror(k)], np.repeat(np.arange(n)[:, None], k, axis=1))
    assert np.array_equal(around[3], neighbours_of(3, b"roster", n, k))


def test_the_ring_joins_the_nearest_places() -> None:
    assert offsets(4).tolist() == [1, 2, -1, -2]
    assert offsets(5).tolist() == [1, 2, 3, -1, -2]
    at, position = ring(b"roster", 50)
    assert sorted(at.tolist()) == list(range(50))
    assert np.array_equal(at[position], np.arange(50))
    assert not np.array_equal(at, ring(b"another", 50)[0])
