"""Row 4 of the review: what one dishonest device does to a release, and what its bound does not do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.party import SimulatedFleet
from fa_core.errors import RoundFailed
from fa_core.rounds import run as running
from fa_core.values import Release
from tests.rounds.small import World, small_plan

DEVICES, LIAR = 10, 3
SHARE = 5
"""Devices whose whole bound the liar adds, beside its own counts: half of the cohort."""


def spoiled(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int, more: int = 0) -> tuple[Release, Any]:
    """A run in which one device adds `times` its bound, and `more`, to one cell; without noise."""
    count = SimulatedFleet._contribution

    def lying(self: Any, current: Any, number: int, joined: int) -> Any:
        vector = count(self, current, number, joined)
        if number == LIAR:
            block = next(each for each in current.layout.blocks if each.metric == "score")
            vector = vector.copy()
            vector[block.start] += times * block.linf + more
        return vector

    monkeypatch.setattr(running, "central_noise", lambda layout, sums: sums)
    monkeypatch.setattr(SimulatedFleet, "_contribution", lying)
    world = World.make(folder, DEVICES)
    try:
        release, _ = world.run(small_plan())
        return release, world.vectors(small_plan()).sum(axis=0)
    finally:
        world.store.close()


def test_one_device_moves_a_sum_by_many_times_its_bound_and_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks hide it, and the check of the range looks at the sum alone."""
    release, honest = spoiled(tmp_path, monkeypatch, SHARE)
    block = next(each for each in release.layout.blocks if each.metric == "score")
    moved = release.sums - honest
    assert moved[block.start] == SHARE * block.linf
    assert np.count_nonzero(moved) == 1


def test_past_what_the_whole_cohort_could_add_nothing_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control, and the charge is lost: 2^24 in one cell spoils a round for everybody."""
    with pytest.raises(RoundFailed, match="did not keep its bound"):
        spoiled(tmp_path, monkeypatch, 0, 2**24)
