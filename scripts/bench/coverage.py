"""How often the intervals hold the truth of a world, place by place: a number of one group, or one cell of it.

Fleets come from scripts/bench/worlds.py. Noise is normal, rounded, of the variance that the layout states,
from a generator: that a release's own is as large, and of its kind, is tested in tests/privacy.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clients.evaluate import device_vectors, seeded_randomness
from fa_core.estimate.read import estimates_of_sums, groups, part_sums
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, parse
from fa_core.values import Estimate, Layout, Participation, Release
from scripts.bench.worlds import EVENTS, UNTIL, Case, Floats, Ints, Population, World

REACH, MOST, ONE_SIDED = 0.94, 0.97, 0.035
"""Least and most that a 95% interval may cover, and the most that it may miss on one side."""

BATCH = 50
"""Fleets that are drawn at once."""


def plan_of(case: Case, world: World) -> Plan:
    """Return a plan with the case's metric for everyone, and by accent or by its event-level segment."""
    by = dict(case.segments) or {"accent": {"device": "accent", "values": list(world.groups)[:-1]}}
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "worlds",
            "revision": 1,
            "owner": "bench",
            "question": "Do the intervals hold?",
            "expires": "2027-03-31",
        },
        "source": case.source,
        "window": "7d",
        "segments": by,
        "group_by": [[], list(by)],
        "metrics": {"metric": dict(case.metric)},
        "privacy": {
            "epsilon": world.epsilon,
            "delta": 1e-8,
            "noise": "central",
            "max_events": EVENTS,
            "min_cohort": 100,
            **case.privacy,
        },
    }
    return parse(json.dumps(body).encode(), case.name, today=date(2026, 11, 22), policy=None)


@dataclass(frozen=True, eq=False)
class Vectors:
    """What each device of a population sends: int64 (devices, columns), and where those columns are in the
    whole vector; all others are zero."""

    columns: Ints
    values: Ints

    @cached_property
    def largest(self) -> int:
        """The largest absolute value."""
        return int(np.abs(self.values).max(initial=0))

    @cached_property
    def floats(self) -> Floats:
        """The values as float64."""
        return self.values.astype(np.float64)

    def sums(self, times: Ints) -> Ints:
        """Return the sums of fleets, int64 (B, columns), that have each device `times` (B, devices)."""
        if int(times.sum(axis=1).max()) * self.largest < 2**53:  # then float64 is exact, and much faster
            return np.asarray(times.astype(np.float64) @ self.floats).astype(np.int64)
        return times @ self.values


@dataclass(frozen=True, eq=False)
class Setting:
    """A metric in a world: the plan, and its populations' vectors, ready to draw fleets of any size."""

    case: Case
    world: World
    plan: Plan
    layout: Layout
    populations: Mapping[str, Population]
    vectors: tuple[Vectors, ...]

    @property
    def places(self) -> list[str]:
        """Return the name of every number that is shown, in the order of the estimates."""
        result = []
        for grouping in self.plan.group_by:
            for group in groups(self.plan, grouping):
                name = " ".join(label for _, label in group) or "everyone"
                cells = self.cells
                result += [name] if cells == 1 else [f"{name} {cell}" for cell in range(cells)]
        return result

    @property
    def cells(self) -> int:
        """How many numbers a group has."""
        return next(iter(self.populations.values())).top.shape[2]

    def truth(self, devices: int) -> Floats:
        """Return what is true at each place, in a fleet of `devices` on average."""
        share = self.world.shares(devices)[:, None, None]
        top = share * np.stack([each.top.mean(axis=0) for each in self.populations.values()])
        bottom = share * np.stack([each.bottom.mean(axis=0) for each in self.populations.values()])
        by = (0,) if self.case.segments else (1,)
        with np.errstate(invalid="ignore"):
            if self.case.total:
                everyone, grouped = devices * top.sum(axis=(0, 1)), devices * top.sum(axis=by)
            else:
                everyone = top.sum(axis=(0, 1)) / bottom.sum(axis=(0, 1))
                grouped = top.sum(axis=by) / bottom.sum(axis=by)
        return np.concatenate((everyone, grouped.ravel()))

    def draw(self, rng: np.random.Generator, devices: int, fleets: int) -> list[Ints]:
        """Return how often each device of each population is in each fleet, (fleets, population) a group."""
        sizes = rng.multinomial(devices, self.world.shares(devices), fleets)
        return [
            np.stack(
                [np.bincount(rng.integers(0, each.devices, size), minlength=each.devices) for size in column]
            )
            for each, column in zip(self.populations.values(), sizes.T, strict=True)
        ]

    def sums(self, times: Sequence[Ints]) -> Ints:
        """Return the exact sums of such fleets, int64 (fleets, layout.length)."""
        total = np.zeros((len(times[0]), self.layout.length), np.int64)
        for each, drawn in zip(self.vectors, times, strict=True):
            total[:, each.columns] += each.sums(drawn)
        return total

    def noised(self, rng: np.random.Generator, sums: Ints) -> Ints:
        """Return the sums with noise of the layout's variance."""
        sd = np.repeat(
            [float(block.variance) ** 0.5 for block in self.layout.blocks],
            [block.cells for block in self.layout.blocks],
        )
        return sums + np.rint(sd * rng.normal(size=sums.shape)).astype(np.int64)

    def release(self, devices: int) -> Release:
        """Return a release with no sums in it yet."""
        blocks = self.layout.blocks
        return Release(
            id="0" * 32,
            plan=canonical(self.plan),
            layout=self.layout,
            population="worlds",
            engine="local",
            simulated=True,
            created=UNTIL,
            window_start=UNTIL - self.plan.window,
            window_end=UNTIL,
            participation=Participation(devices, devices, 0, devices),
            sums=np.zeros(self.layout.length, np.int64),
            scales=np.ones(len(blocks), np.int64),
            noise_variance=np.array([float(block.variance) for block in blocks]),
            secure_aggregation=False,
        )


def setting(case: Case, world: World, devices: int, seed: int = 1) -> Setting:
    """Return a metric in a world with `devices` devices in each group's population."""
    plan = plan_of(case, world)
    layout, rng = compile_plan(plan), np.random.default_rng((seed, len(case.name), len(world.name)))
    populations = {name: case.draw(rng, group, devices) for name, group in world.groups.items()}
    vectors = []
    for name, each in populations.items():
        counted = device_vectors(plan, layout, each.cohort(name), UNTIL, seeded_randomness(seed))
        columns = np.flatnonzero(counted.any(axis=0))
        vectors.append(Vectors(columns, counted[:, columns]))
    return Setting(case, world, plan, layout, populations, tuple(vectors))


@dataclass(frozen=True, eq=False)
class Bounds:
    """What was shown at each place, float64 (places,); NaN where nothing was."""

    low: Floats
    high: Floats
    noise_sd: Floats


def bounds_of(found: Sequence[Estimate]) -> Bounds:
    """Return the intervals of every number, and of every cell of tables, in their order."""
    shown = [number for each in found for number in (each.cells or (each,))]
    names = ("low", "high", "noise_sd")
    return Bounds(*(np.array([getattr(each, name) for each in shown], np.float64) for name in names))


@dataclass(frozen=True, eq=False)
class Found:
    """Coverage at each place of a setting over many releases; int64 or float64 (places,).

    Attributes:
        shown: releases in which there was an interval.
        under, over: those whose interval lies above the truth, or below it.
        half: mean half-width, given shown.
        noisy: share of them in which privacy noise is more than half of the variance.
        edge: share of them in which the interval ends at 0 or at 1.
    """

    setting: Setting
    devices: int
    releases: int
    shown: Ints
    under: Ints
    over: Ints
    half: Floats
    noisy: Floats
    edge: Floats

    @property
    def held(self) -> Ints:
        """Releases whose interval holds the truth."""
        return self.shown - self.under - self.over

    @property
    def covered(self) -> Floats:
        """Coverage given shown; NaN where hardly anything was."""
        return np.where(self.shown >= self.releases / 50, self.held / np.maximum(self.shown, 1), np.nan)


def cover(where: Setting, devices: int, releases: int, seed: int = 1) -> Found:
    """Release the setting's metric again and again, each time of another fleet of `devices`."""
    rng, release = np.random.default_rng((seed, devices, releases)), where.release(devices)
    truth = where.truth(devices)
    zero: NDArray[np.float64] = np.zeros(len(truth))
    shown, under, over, half, noisy, edge = (zero.copy() for _ in range(6))
    for start in range(0, releases, BATCH):
        fleets = where.draw(rng, devices, min(BATCH, releases - start))
        for sums in where.noised(rng, where.sums(fleets)):
            parts = part_sums(release, sums.astype(np.float64))
            found = bounds_of(estimates_of_sums(where.plan, parts, devices))
            seen = ~np.isnan(found.low)
            width = np.where(seen, (found.high - found.low) / 2.0, 0.0)
            shown += seen
            under += found.low > truth
            over += found.high < truth
            half += width
            noisy += seen & (1.96 * found.noise_sd > 0.71 * width)
            edge += (found.low == 0.0) | (found.high == 1.0)
    given = np.maximum(shown, 1)
    counts = (each.astype(np.int64) for each in (shown, under, over))
    return Found(where, devices, releases, *counts, half / given, noisy / given, edge / given)


def fails(held: int, shown: int, least: float, chance: float) -> bool:
    """Whether so few hold that coverage is below `least`, wrong with probability `chance` at most."""
    return bool(stats.binom.cdf(held, shown, least) < chance)


def exceeds(held: int, shown: int, most: float, chance: float) -> bool:
    """Whether so many hold that coverage is above `most`, wrong with probability `chance` at most."""
    return bool(stats.binom.sf(held - 1, shown, most) < chance)


HEADER = (
    f"  {'kind':<18}{'world':<13}{'devices':>8}  {'group':<10}{'covered':>8}{'worst':>7} {'cell':<13}"
    f"{'low side':>9}{'high side':>10}{'shown':>7}{'± width':>9}"
)


def rows(found: Found) -> Iterator[str]:
    """Yield a line for everyone, one for all groups together, and one for each group."""
    places, cells = found.setting.places, found.setting.cells
    named = [places[start].rsplit(" ", 1)[0] if cells > 1 else places[start] for start in range(len(places))]
    labels = list(dict.fromkeys(named))
    yield _row(found, "everyone", np.array([name == "everyone" for name in named]))
    yield _row(found, "all groups", np.array([name != "everyone" for name in named]))
    for label in labels[1:]:
        yield _row(found, f"  {label}", np.array([name == label for name in named]))


def _row(found: Found, name: str, mine: NDArray[np.bool_]) -> str:
    mine = mine & ~np.isnan(found.covered)
    shown = int(found.shown[mine].sum())
    head = (
        f"  {found.setting.case.name:<18}{found.setting.world.name:<13}{found.devices:>8,}  {name:<10.10}"
    )
    if not shown:
        return f"{head}{'-':>8}"
    covered = np.where(mine, found.covered, np.inf)
    worst = int(np.argmin(covered))
    low, high = (float(each[mine].sum()) / shown for each in (found.under, found.over))
    return (
        f"{head}{found.held[mine].sum() / shown:>8.1%}{covered[worst]:>7.1%} "
        f"{found.setting.places[worst]:<13.13}{low:>9.1%}{high:>10.1%}"
        f"{shown / found.releases / mine.sum():>7.0%}{float(np.mean(found.half[mine])):>9.4g}"
    )


def failures(all_found: Sequence[Found], chance: float) -> Iterator[str]:
    """Yield a line for each place that breaks its promise, `chance` of any wrong one among them all."""
    tests = sum(int((each.shown > 0).sum()) for each in all_found)
    for found in all_found:
        for place, name in enumerate(found.setting.places):
            shown, held = int(found.shown[place]), int(found.held[place])
            if not shown:
                continue
            head = f"  {found.setting.case.name:<18}{found.setting.world.name:<13}{found.devices:>8,}  "
            text = f"{head}{name:<18.18}{held / shown:>7.1%} of {shown:>6,}"
            if fails(held, shown, REACH, chance / tests):
                yield f"{text}  under {REACH:.0%}"
            if exceeds(held, shown, MOST, chance / tests):
                why = "clipped" if found.edge[place] > 0.5 else ""
                why = why or ("noise" if found.noisy[place] > 0.5 else "for no stated reason")
                yield f"{text}  over {MOST:.0%}: {why}"
            for side, missed in (("low", int(found.under[place])), ("high", int(found.over[place]))):
                if exceeds(missed, shown, ONE_SIDED, chance / tests):
                    yield f"{text}  {missed / shown:.1%} missed on the {side} side, over {ONE_SIDED:.1%}"


def table(settings: Iterator[tuple[Setting, int]], releases: int) -> list[Found]:
    """Print coverage of each setting and size as it is found, then the places that break their promise."""
    print(HEADER)
    done = []
    for where, devices in settings:
        done.append(cover(where, devices, releases))
        print("\n".join(rows(done[-1])), flush=True)
    print("\nPlaces that break their promise, at most 1 in 1,000 tables has a wrong one:")
    lines = list(failures(done, 1e-3))
    print("\n".join(lines) or "  none")
    return done
