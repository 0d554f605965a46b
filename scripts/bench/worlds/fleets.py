"""Fleets of a world: the plan, the vectors of its devices, and the sums of as many fleets as are wanted.

Noise is normal, rounded, of the variance that the layout states, from a generator: that a release's own is
as large, and of its kind, is tested in tests/privacy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from clients.evaluate import device_vectors, seeded_randomness
from fa_core.estimate.read import groups
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, parse
from fa_core.values import Layout, Participation, Release
from scripts.bench.worlds.groups import UNTIL, Floats, Ints, Population, World, cohort_of
from scripts.bench.worlds.kinds import EVENTS, Case

EXACT: Final = 2**53
"""Sums of whole numbers below this are exact in float64, in whatever order they are added."""


def plan_of(case: Case, world: World) -> Plan:
    """Return a plan with the case's metric in its groupings."""
    accent = {"device": "accent", "values": list(world.groups)[:-1]}
    used = {name for grouping in case.group_by for name in grouping}
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
        "segments": {name: by for name, by in {"accent": accent, **case.segments}.items() if name in used},
        "group_by": [list(grouping) for grouping in case.group_by],
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
    """What each device of a population sends: int64 (columns, devices), and where those columns are in the
    whole vector; all others are zero."""

    columns: Ints
    values: Ints

    def sums(self, times: Ints) -> Ints:
        """Return the sums of fleets, int64 (B, columns), that have each device `times` (B, devices)."""
        most = int(np.abs(self.values).max(initial=0)) * int(times.sum(axis=1).max())
        if most >= EXACT:
            raise AssertionError(f"a sum of up to {most:,} is not exact in floating point")
        return np.rint(times.astype(np.float64) @ self.values.T.astype(np.float64)).astype(np.int64)


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
                name = "/".join(label for _, label in group) or "everyone"
                cells = self.cells
                result += [name] if cells == 1 else [f"{name} {cell}" for cell in range(cells)]
        return result

    @property
    def cells(self) -> int:
        """How many numbers a group has."""
        return int(next(iter(self.populations.values())).top.shape[2])

    def truth(self, devices: int) -> Floats:
        """Return what is true at each place, in a fleet of `devices` on average."""
        share = self.world.shares(devices)[:, None, None]
        top, bottom = (
            share * np.stack([getattr(each, name).mean(axis=0) for each in self.populations.values()])
            for name in ("top", "bottom")
        )
        found = []
        for grouping in self.plan.group_by:
            axes = self.axes(grouping)
            with np.errstate(invalid="ignore"):
                whole = devices * top.sum(axes) if self.case.total else top.sum(axes) / bottom.sum(axes)
            found.append(whole.ravel())
        return np.concatenate(found)

    def axes(self, grouping: tuple[str, ...]) -> tuple[int, ...]:
        """Return the axes of (accents, second segment, numbers) that a grouping adds up."""
        return tuple(
            axis for axis, name in enumerate(("accent", *self.case.segments)) if name not in grouping
        ) + (() if self.case.segments else (1,))

    def draw(self, rng: np.random.Generator, devices: int, fleets: int) -> list[Ints]:
        """Return how often each device of each population is in each fleet, (fleets, population) a group."""
        sizes = rng.multinomial(devices, self.world.shares(devices), fleets)
        return [
            np.stack([_equally_likely(rng, each.devices, int(size)) for size in column])
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
        cells = [block.cells for block in self.layout.blocks]
        variance = np.repeat([float(block.variance) for block in self.layout.blocks], cells)
        if self.layout.mechanism == "geometric":  # of which the variance is 2q/(1 − q)²
            q = 1.0 + 1.0 / variance - np.sqrt((2.0 + 1.0 / variance) / variance)
            noise: Ints = rng.geometric(1.0 - q, sums.shape) - rng.geometric(1.0 - q, sums.shape)
        else:
            noise = np.rint(np.sqrt(variance) * rng.normal(size=sums.shape)).astype(np.int64)
        return sums + noise

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


def setting(case: Case, world: World, devices: int, seed: int = 1, plan: Plan | None = None) -> Setting:
    """Return a metric in a world with `devices` devices in each group's population.

    `plan` asks the same devices something else than the case does.
    """
    plan = plan or plan_of(case, world)
    layout, rng = compile_plan(plan), np.random.default_rng([seed, *f"{case.name}/{world.name}".encode()])
    populations = {name: case.draw(rng, group, devices) for name, group in world.groups.items()}
    vectors = []
    for name, each in populations.items():
        cohort = cohort_of(each.tables, each.facts(name))
        counted = device_vectors(plan, layout, cohort, UNTIL, seeded_randomness(seed))
        columns = np.flatnonzero(counted.any(axis=0))
        vectors.append(Vectors(columns, np.ascontiguousarray(counted[:, columns].T)))
    return Setting(case, world, plan, layout, populations, tuple(vectors))


def _equally_likely(rng: np.random.Generator, among: int, size: int) -> Ints:
    """Return how often each of `among` devices is drawn in `size` draws, multinomial, int64 (among,).

    Poisson counts are multinomial given their sum. So a few less than `size` are expected of them, and what
    is missing is drawn one by one; where they are more than `size`, once in millions, they are drawn anew.
    """
    mean = max(size - 5.0 * np.sqrt(size), 0.0) if size > among else 0.0
    found: Ints = rng.poisson(mean / among, among)
    while (missing := size - int(found.sum())) < 0:
        found = rng.poisson(mean / among, among)
    return found + np.bincount(rng.integers(0, among, missing), minlength=among)


def textbook(where: Setting, times: Sequence[Ints], devices: int) -> tuple[Floats, Floats]:
    """Return (middle, half-width), float64 (fleets, places), of the usual interval of a ratio of sums over
    devices, from exact sums: what the same fleets would give with no privacy noise at all.

    Its variance is Σ(xᵢ − R·nᵢ)²/(Σnᵢ)² (Cochran 1977, eq. 11.30); of a total, Σxᵢ² − (Σxᵢ)²/D.
    """
    fine, whole = [], []  # with each label of a second segment apart, and together
    for each, drawn in zip(where.populations.values(), times, strict=True):
        fine.append(_moments(each.top, each.bottom, drawn))
        together = (each.top.sum(axis=1, keepdims=True), each.bottom.sum(axis=1, keepdims=True))
        whole.append(_moments(*together, drawn))
    found = []
    for grouping in where.plan.group_by:
        axes = where.axes(grouping)
        moments = np.stack(whole if 1 in axes else fine, axis=2)
        found.append(moments.sum(tuple(axis + 2 for axis in axes)).reshape(5, len(times[0]), -1))
    x, n, xx, xn, nn = np.concatenate(found, axis=2)
    if where.case.total:
        return x, 1.96 * np.sqrt(xx - x * x / devices)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = x / n
        return ratio, 1.96 * np.sqrt(np.maximum(xx - 2.0 * ratio * xn + ratio**2 * nn, 0.0)) / n


def _moments(top: Floats, bottom: Floats, times: Ints) -> Floats:
    """Return Σx, Σn, Σx², Σxn and Σn² of fleets, (5, fleets, E, C)."""
    each = np.stack((top, bottom, top * top, top * bottom, bottom * bottom), axis=1)
    found = times.astype(np.float64) @ each.reshape(len(top), -1)
    return np.moveaxis(found.reshape(len(times), *each.shape[1:]), 1, 0)
