"""Coverage where devices are not as the formulas assume: scripts/bench/worlds, in a small form.

Fleets and noise come by seed. Had they come by chance, all tests of `TestPromise` together would fail a right
estimator with probability below 1e-6 (exact binomial tests, Bonferroni over every place of every run).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.evaluate import fleet_sum, seeded_randomness
from fa_core.estimate.read import estimates_of_sums, part_sums
from scripts.bench.worlds.coverage import FORMS, Found, cover, exceeds, fails, failures, runs_of
from scripts.bench.worlds.fleets import Setting, setting
from scripts.bench.worlds.groups import UNTIL, WORLDS, Columns, Ints, cohort_of
from scripts.bench.worlds.kinds import CASES

CHANCE = 1e-6
"""That a right estimator fails any of these tests, had fleets and noise come by chance."""


def one_by_one(where: Setting, times: Sequence[Ints], order: NDArray[np.int64]) -> Any:
    """Return a fleet that has each device of each population `times` (1, devices), in this order, as one
    cohort with an id, a fact and rows for each of them."""
    facts: dict[str, list[str]] = {}
    drawn_before = 0
    parts: dict[str, list[Columns]] = {}
    for (name, each), drawn in zip(where.populations.items(), times, strict=True):
        known = each.facts(name)
        for device in np.repeat(np.arange(each.devices), drawn[0]):
            for source, columns in each.tables.items():
                mine = columns["device"] == device
                rows = {key: values[mine] for key, values in columns.items()}
                rows["device"] = np.full(mine.sum(), order[drawn_before])
                parts.setdefault(source, []).append(rows)
            drawn_before += 1
            for fact, values in known.items():
                facts.setdefault(fact, []).append(values[device])
    tables = {}
    for source, found in parts.items():
        whole = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
        place = np.argsort(whole["device"], kind="stable")
        tables[source] = {name: values[place] for name, values in whole.items()}
    places = np.argsort(order)
    return cohort_of(tables, {fact: [values[place] for place in places] for fact, values in facts.items()})


@pytest.mark.parametrize("kind", CASES)
def test_a_fleet_drawn_by_its_vectors_sums_to_what_its_tables_give(kind: str) -> None:
    """The shortcut is exact: bit for bit what the same devices' rows give, counted as one fleet."""
    where = setting(CASES[kind], WORLDS["microphones"], 20)
    random = np.random.default_rng(3)
    times = where.draw(random, 80, 1)
    cohort = one_by_one(where, times, random.permutation(80))
    counted = fleet_sum(where.plan, where.layout, cohort, UNTIL, seeded_randomness(8))
    np.testing.assert_array_equal(where.sums(times)[0], counted)
    assert counted.any()


@pytest.mark.parametrize("kind", CASES)
def test_the_truth_is_what_everybody_shows_without_noise(kind: str) -> None:
    """Each device of 150 a group as often as its group's share says: the estimates are the truth."""
    where, devices = setting(CASES[kind], WORLDS["mixed"], 150), 30_000
    share = np.rint(where.world.shares(devices) * devices / 150).astype(np.int64)
    assert share.sum() * 150 == devices
    sums = where.sums([np.full((1, 150), each) for each in share])[0]
    parts = part_sums(where.release(devices), sums.astype(np.float64))
    shown = [
        number.estimate
        for each in estimates_of_sums(where.plan, parts, devices)
        for number in (each.cells or (each,))
    ]
    seen = np.array([value is not None for value in shown])
    truth = where.truth(devices)[seen]
    found = np.array(shown, np.float64)[seen]
    # A mean is counted in thousandths of its range, an utterance over the cap in whole words.
    coarse = {"mean": 0.3, "ratio": 0.002, "ratio, 30 words": 0.002}.get(kind, 1e-9)
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=coarse)
    assert seen.sum() > len(shown) / 2


class TestPromise:
    """Every place of the tiny form, cell by cell: at least 94%, at most 97% without an excuse, and at most
    3.5% missed on one side."""

    runs = runs_of(FORMS["tiny"])
    tests = sum(map(len, runs.values()))

    @pytest.mark.parametrize(("kind", "world"), runs)
    def test_is_kept(self, kind: str, world: str) -> None:
        where = setting(CASES[kind], WORLDS[world], FORMS["tiny"].population)
        for devices, releases in self.runs[kind, world]:
            found = cover(where, devices, releases)
            broken = [each.line for each in failures([found], CHANCE / self.tests) if not each.excused]
            assert not broken, "\n".join(broken)
            assert found.shown[0] == releases


def everyone(found: Found) -> tuple[int, int]:
    return int(found.plain_held[0]), found.releases


def test_the_worlds_are_fair() -> None:
    """With no noise the usual interval covers everyone as it should: what fails here is not the worlds."""
    for world, devices in (("mixed", 50_000), ("microphones", 50_000), ("common", 5_000)):
        held, releases = everyone(cover(setting(CASES["rate"], WORLDS[world], 1_000), devices, 300))
        assert not fails(held, releases, 0.94, CHANCE)
        assert not exceeds(held, releases, 0.96, CHANCE)
