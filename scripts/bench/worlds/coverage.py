"""How often the intervals hold the truth of a world, place by place: one number of a group, or one cell.

Coverage is given shown. A place is held against its promise by exact binomial tests, and beside it stands
what the usual interval over devices gives for the same fleets with no privacy noise at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from scripts.bench.worlds.fleets import Setting, textbook
from scripts.bench.worlds.groups import WORLDS, Floats, Ints
from scripts.bench.worlds.kinds import CASES
from scripts.bench.worlds.many import bounds_of_many

REACH: Final = 0.94
MOST: Final = 0.97
ONE_SIDED: Final = 0.035
"""The most that a 95% interval may miss on one side. It covers between `REACH` and `MOST`."""

AT_5: Final = 0.065
"""The most that a one-sided 95% bound, an end of the 90% interval, may miss."""

BATCH: Final = 200
"""Fleets that are drawn at once."""


@dataclass(frozen=True, eq=False)
class Found:
    """Coverage at each place of a setting over many releases; int64 or float64 (places,).

    Attributes:
        places: "group", or "group cell" where a group has many numbers.
        shown: releases in which there was an interval.
        under, over: those whose interval lies under the truth, or over it: nominally 2.5% each.
        under_5, over_5: those whose one-sided 95% bound lies on the wrong side: nominally 5% each.
        half: mean half-width, given shown.
        edge: share of them in which the interval ends at 0 or at 1.
        plain_held, plain_half: releases whose `textbook` interval holds the truth, and its mean half-width.
    """

    kind: str
    world: str
    places: list[str]
    devices: int
    releases: int
    shown: Ints
    under: Ints
    over: Ints
    under_5: Ints
    over_5: Ints
    half: Floats
    edge: Floats
    plain_held: Ints
    plain_half: Floats

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
    shown, under, over, under_5, over_5, plain_held = np.zeros((6, len(truth)), np.int64)
    half, edge, plain_half = np.zeros((3, len(truth)))
    for start in range(0, releases, BATCH):
        fleets = where.draw(rng, devices, min(BATCH, releases - start))
        middle, around = textbook(where, fleets, devices)
        plain_held += (np.abs(middle - truth) <= around).sum(axis=0)
        plain_half += np.nan_to_num(around).sum(axis=0)
        noised = where.noised(rng, where.sums(fleets))
        two_sided, one_sided = (
            bounds_of_many(release, where.plan, noised, devices, level)["metric"] for level in (0.95, 0.90)
        )
        seen = ~np.isnan(two_sided.low)
        width = np.where(seen, (two_sided.high - two_sided.low) / 2.0, 0.0)
        shown += seen.sum(axis=0)
        under += (two_sided.high < truth).sum(axis=0)
        over += (two_sided.low > truth).sum(axis=0)
        # Where there is an interval at 95% but none at 90%, no bound holds.
        under_5 += (seen & ~(one_sided.high >= truth)).sum(axis=0)
        over_5 += (seen & ~(one_sided.low <= truth)).sum(axis=0)
        half += width.sum(axis=0)
        edge += ((two_sided.low == 0.0) | (two_sided.high == 1.0)).sum(axis=0)
    given = np.maximum(shown, 1)
    return Found(
        kind=where.case.name,
        world=where.world.name,
        places=where.places,
        devices=devices,
        releases=releases,
        shown=shown,
        under=under,
        over=over,
        under_5=under_5,
        over_5=over_5,
        half=half / given,
        edge=edge / given,
        plain_held=plain_held,
        plain_half=plain_half / releases,
    )


def fails(held: int, shown: int, least: float, chance: float) -> bool:
    """Whether so few hold that coverage is below `least`, wrong with probability `chance` at most."""
    return bool(stats.binom.cdf(held, shown, least) < chance)


def exceeds(held: int, shown: int, most: float, chance: float) -> bool:
    """Whether so many hold that coverage is above `most`, wrong with probability `chance` at most."""
    return bool(stats.binom.sf(held - 1, shown, most) < chance)


@dataclass(frozen=True)
class Failure:
    """A place that breaks its promise, in a line; `excused` where it may."""

    line: str
    excused: bool


def failures(all_found: Sequence[Found], chance: float) -> Iterator[Failure]:
    """Yield each place that breaks its promise; that a place is wrongly named has `chance` at most."""
    alpha = chance / (6 * sum(len(found.places) for found in all_found))
    for found in all_found:
        for place, name in enumerate(found.places):
            shown, held = int(found.shown[place]), int(found.held[place])
            head = (
                f"  {found.kind:<18.18}{found.world:<12}{found.devices:>8,}  {name:<18.18}"
                f"{held / max(shown, 1):>7.1%} of {shown:>6,}, "
                f"no noise {found.plain_held[place] / found.releases:.1%}: "
            )
            if fails(held, shown, REACH, alpha):
                yield Failure(f"{head}under {REACH:.0%}", False)
            if exceeds(held, shown, MOST, alpha):
                excuse = _excuse(found, place)
                yield Failure(f"{head}over {MOST:.0%}{excuse and ', '}{excuse}", bool(excuse))
            for what, most, counts in (
                ("intervals lie under", ONE_SIDED, found.under),
                ("intervals lie over", ONE_SIDED, found.over),
                ("upper 95% bounds lie under", AT_5, found.under_5),
                ("lower 95% bounds lie over", AT_5, found.over_5),
            ):
                if exceeds(missed := int(counts[place]), shown, most, alpha):
                    yield Failure(f"{head}{missed / shown:.1%} of {what} the truth, over {most:.1%}", False)


def _excuse(found: Found, place: int) -> str:
    """Return why the intervals of a place may cover too much; "" where they may not.

    Privacy noise is most of an interval that is more than √2 times as wide as with none.
    """
    if found.edge[place] > 0.5:
        return "clipped to the possible range"
    return "mostly privacy noise" if found.half[place] > 2**0.5 * found.plain_half[place] else ""


@dataclass(frozen=True)
class Form:
    """How thorough a table is: how many devices stand for a group, and which (kind, world, devices,
    releases) it holds."""

    population: int
    runs: tuple[tuple[str, str, int, int], ...]


def _everything(releases: int) -> tuple[tuple[str, str, int, int], ...]:
    return tuple(
        (kind, world.name, devices, releases)
        for kind in CASES
        for world in WORLDS.values()
        for devices in world.sizes
    )


FORMS: Final = {
    "tiny": Form(
        1_000,
        (
            ("rate", "microphones", 50_000, 200),
            ("rate", "wild-1", 10_000, 150),
            ("rate", "mixed", 200_000, 150),
            ("rate, 64 events", "mixed", 50_000, 80),
            ("rate, pure", "mixed", 50_000, 25),
            ("rate by class", "mixed", 50_000, 60),
            ("rate by noise", "mixed", 50_000, 100),
            ("paired_difference", "microphones", 50_000, 150),
            ("rate_per_hour", "microphones", 50_000, 150),
            ("ratio", "mixed", 50_000, 200),
            ("ratio, 30 words", "mixed", 5_000, 200),
            ("mean", "mixed", 50_000, 200),
            ("mean", "wild-1", 10_000, 200),
            ("count", "common", 5_000, 200),
            ("histogram", "mixed", 200_000, 400),
            ("confusion", "mixed", 200_000, 150),
            ("det", "mixed", 5_000, 150),
        ),
    ),
    "quick": Form(5_000, _everything(400)),
    "full": Form(2_000, _everything(4_000)),
}
"""Each form by name."""


def runs_of(form: Form) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Return the (devices, releases) of each (kind, world) of a form."""
    wanted: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for kind, world, devices, releases in form.runs:
        wanted.setdefault((kind, world), []).append((devices, releases))
    return wanted
