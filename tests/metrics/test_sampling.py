"""The bounded sample of a device's rows, against one that sorts each device's rows by itself."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fa_core.metrics import View

SIZES = (0, 3, 4, 5, 11, 1, 0, 8)
LIMIT = 4


def expected(priority: NDArray[np.uint64], owner: NDArray[np.int64]) -> list[int]:
    kept: list[int] = []
    for each in range(len(SIZES)):
        rows = np.flatnonzero(owner == each)
        kept += sorted(rows[np.argsort(priority[rows], kind="stable")][:LIMIT].tolist())
    return kept


@pytest.mark.parametrize("largest", [2**64 - 1, 2**32 - 1, 3, 0], ids=["wide", "lower half", "ties", "equal"])
@pytest.mark.parametrize("by_group", [False, True])
def test_the_smallest_priorities_are_kept(largest: int, by_group: bool) -> None:
    """Also where the upper halves of priorities, which decide alone as a rule, are all equal."""
    owner = np.repeat(np.arange(len(SIZES)), SIZES)
    random = np.random.default_rng(5)
    priority = random.integers(0, largest, len(owner), np.uint64, endpoint=True)
    device = owner // 2 if by_group else owner
    asked: list[NDArray[np.int64]] = []

    def priorities(purpose: str, of: NDArray[np.int64], ordinal: NDArray[np.int64]) -> NDArray[np.uint64]:
        asked.append(np.searchsorted(device, of) + ordinal)
        return priority[asked[-1]]

    view = View(len(SIZES), {}, priorities)
    kept = view.sample("events", device, LIMIT, group=owner if by_group else None)
    assert kept.tolist() == expected(priority, owner)
    crowded = np.flatnonzero(np.array(SIZES)[owner] > LIMIT)
    assert asked[0].tolist() == crowded.tolist()
