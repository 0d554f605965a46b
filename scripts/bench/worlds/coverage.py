"""How often the intervals hold the truth of a world, place by place: one number of a group, or one cell.

Coverage is given shown. A place is held against its promise by exact binomial tests, and beside it stands
what the usual interval over devices gives for the same fleets with no privacy noise at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fa_core.estimate.read import estimates_of_sums, part_sums
from fa_core.metrics import PartSum
from fa_core.metrics.moments import Moments, Ratio
from fa_core.plan import Plan
from fa_core.values import Estimate
from scripts.bench.worlds.fleets import Setting, setting, textbook
from scripts.bench.worlds.groups import WORLDS, Floats, Ints
from scripts.bench.worlds.kinds import CASES

REACH: Final = 0.94
MOST: Final = 0.97
ONE_SIDED: Final = 0.035
"""The most that a 95% interval may miss on one side. It covers between `REACH` and `MOST`."""

BATCH: Final = 50
"""Fleets that are drawn at once."""


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


Sums = Mapping[tuple[str, tuple[str, ...], str], PartSum]
Intervals = list[tuple[Floats, Floats, NDArray[np.bool_]]]


def estimates_of_many(plan: Plan, many: Sequence[Sums], devices: int) -> list[tuple[Estimate, ...]]:
    """Return what `estimates_of_sums` gives of each release of one plan, but for rounding.

    Most of an estimate's time goes into the search for the ends of its intervals, in short arrays. So what is
    asked of `Ratio.intervals` is written down first, answered for all releases together, and handed out when
    it is asked again.
    """
    asked: list[tuple[Ratio, tuple[float, ...]]] = []

    def ask(ratio: Ratio, *levels: float) -> Intervals:
        asked.append((ratio, levels))
        nothing = np.full(len(ratio.n), np.nan)
        return [(nothing, nothing, np.zeros(len(ratio.n), np.bool_)) for _ in levels]

    with patch.object(Ratio, "intervals", ask):
        unasked = [estimates_of_sums(plan, sums, devices) for sums in many]
    if not asked:
        return unasked
    each = len(asked) // len(many)
    answers = [_intervals(asked[place::each]) for place in range(each)]
    handed_out = iter([answers[place][release] for release in range(len(many)) for place in range(each)])
    with patch.object(Ratio, "intervals", lambda ratio, *levels: next(handed_out)):
        return [estimates_of_sums(plan, sums, devices) for sums in many]


def _intervals(asked: Sequence[tuple[Ratio, tuple[float, ...]]]) -> list[Intervals]:
    """Return the intervals of ratios that differ in their sums alone."""
    first, levels = asked[0]
    values = np.concatenate([ratio.moments.values for ratio, _ in asked])
    covariance = first.moments.covariance
    assert all(np.array_equal(ratio.moments.covariance, covariance) for ratio, _ in asked)
    if covariance.ndim == 3:  # one for each group
        covariance = np.concatenate([covariance] * len(asked))
    together = Ratio(Moments(values, covariance), first.low, first.high, first.floor)
    whole, groups = together.intervals(*levels), len(first.n)
    mine = [slice(start, start + groups) for start in range(0, len(values), groups)]
    return [[(low[each], high[each], valid[each]) for low, high, valid in whole] for each in mine]


@dataclass(frozen=True, eq=False)
class Found:
    """Coverage at each place of a setting over many releases; int64 or float64 (places,).

    Attributes:
        places: "group", or "group cell" where a group has many numbers.
        shown: releases in which there was an interval.
        under, over: those whose interval lies under the truth, or over it.
        half: mean half-width, given shown.
        noisy: share of them in which privacy noise is more than half of the variance.
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
    half: Floats
    noisy: Floats
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
    shown, under, over, plain_held = np.zeros((4, len(truth)), np.int64)
    half, noisy, edge, plain_half = np.zeros((4, len(truth)))
    for start in range(0, releases, BATCH):
        fleets = where.draw(rng, devices, min(BATCH, releases - start))
        middle, around = textbook(where, fleets, devices)
        plain_held += (np.abs(middle - truth) <= around).sum(axis=0)
        plain_half += np.nan_to_num(around).sum(axis=0)
        noised = where.noised(rng, where.sums(fleets)).astype(np.float64)
        parts = [part_sums(release, sums) for sums in noised]
        for each in estimates_of_many(where.plan, parts, devices):
            found = bounds_of(each)
            seen = ~np.isnan(found.low)
            width = np.where(seen, (found.high - found.low) / 2.0, 0.0)
            shown += seen
            under += found.high < truth
            over += found.low > truth
            half += width
            noisy += seen & (1.96 * found.noise_sd > 0.71 * width)
            edge += (found.low == 0.0) | (found.high == 1.0)
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
        half=half / given,
        noisy=noisy / given,
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


HEADER: Final = (
    f"  {'kind':<18}{'world':<12}{'devices':>8}  {'group':<17}{'covered':>8}{'worst':>8} {'place':<17}"
    f"{'under':>6}{'over':>7}{'shown':>7}{'± width':>10}{'no noise:':>10}{'± width':>10}"
)


def rows(found: Found) -> Iterator[str]:
    """Yield a line for everyone, one for all groups together, and one for each group."""
    named = [place.split(" ")[0] for place in found.places]
    labels = list(dict.fromkeys(named))
    yield from _row(found, "everyone", np.array([name == "everyone" for name in named]))
    yield from _row(found, "all groups", np.array([name != "everyone" for name in named]))
    for label in labels[1:]:
        yield from _row(found, f"  {label}", np.array([name == label for name in named]))


def _row(found: Found, name: str, mine: NDArray[np.bool_]) -> Iterator[str]:
    """Yield the line of some places, where one of them is shown at all."""
    mine = mine & ~np.isnan(found.covered)
    shown, places = int(found.shown[mine].sum()), int(mine.sum())
    head = f"  {found.kind:<18.18}{found.world:<12}{found.devices:>8,}  {name:<17.17}"
    if not shown:
        return
    worst = int(np.argmin(np.where(mine, found.covered, np.inf)))
    under, over = (float(each[mine].sum()) / shown for each in (found.under, found.over))
    shares = (found.held[mine].sum() / shown, found.covered[worst])
    plain = found.plain_held[mine].sum() / found.releases / places
    yield (
        f"{head}{shares[0]:>8.1%}{shares[1]:>8.1%} {found.places[worst]:<17.17}{under:>6.1%}{over:>7.1%}"
        f"{shown / found.releases / places:>7.0%}{np.mean(found.half[mine]):>10.4g}"
        f"{plain:>10.1%}{np.mean(found.plain_half[mine]):>10.4g}"
    )


@dataclass(frozen=True)
class Failure:
    """A place that breaks its promise, in a line; `excused` where it may."""

    line: str
    excused: bool


def failures(all_found: Sequence[Found], chance: float) -> Iterator[Failure]:
    """Yield each place that breaks its promise; that a place is wrongly named has `chance` at most."""
    alpha = chance / (4 * sum(len(found.places) for found in all_found))
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
            for side, missed in (("under", int(found.under[place])), ("over", int(found.over[place]))):
                if exceeds(missed, shown, ONE_SIDED, alpha):
                    yield Failure(
                        f"{head}{missed / shown:.1%} lie {side} the truth, more than {ONE_SIDED:.1%}", False
                    )


def _excuse(found: Found, place: int) -> str:
    """Return why the intervals of a place may cover too much; "" where they may not."""
    if found.edge[place] > 0.5:
        return "clipped to the possible range"
    return "mostly privacy noise" if found.noisy[place] > 0.5 else ""


@dataclass(frozen=True)
class Form:
    """How thorough a table is: how many devices stand for a group, and which (kind, world, devices,
    releases) it holds."""

    population: int
    runs: tuple[tuple[str, str, int, int], ...]


COSTLY: Final = {"rate, pure": 4, "histogram": 2, "confusion": 4, "det": 8}
"""How many times fewer releases these cases get, each of which takes longer."""


def _everything(releases: int) -> tuple[tuple[str, str, int, int], ...]:
    return tuple(
        (kind, world.name, devices, releases // COSTLY.get(kind, 1))
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
            ("histogram", "mixed", 200_000, 160),
            ("confusion", "mixed", 200_000, 40),
            ("det", "mixed", 5_000, 15),
        ),
    ),
    "quick": Form(5_000, _everything(400)),
    "full": Form(10_000, _everything(4_000)),
}
"""Each form by name: seconds, ten minutes, and an hour and a half on one core."""


def runs_of(form: Form) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Return the (devices, releases) of each (kind, world) of a form."""
    wanted: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for kind, world, devices, releases in form.runs:
        wanted.setdefault((kind, world), []).append((devices, releases))
    return wanted


def _found(kind: str, world: str, population: int, runs: Sequence[tuple[int, int]]) -> list[Found]:
    where = setting(CASES[kind], WORLDS[world], population)
    return [cover(where, devices, releases) for devices, releases in runs]


def print_table(name: str, kinds: Sequence[str], jobs: int) -> None:
    """Print coverage of a form as it is found, then the places that break their promise.

    Args:
        kinds: the cases to show; all where empty.
        jobs: processes.
    """
    whole = FORMS[name]
    form = Form(whole.population, tuple(run for run in whole.runs if not kinds or run[0] in kinds))
    done: list[Found] = []
    print(HEADER)
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [
            pool.submit(_found, kind, world, form.population, runs)
            for (kind, world), runs in runs_of(form).items()
        ]
        for each in (found for future in waiting for found in future.result()):
            done.append(each)
            print("\n".join(rows(each)), flush=True)
    print(
        f"\nPlaces under {REACH:.0%}, over {MOST:.0%}, or with more than {ONE_SIDED:.1%} on one side; "
        "fewer than 1 table of 1,000 has such a line by chance:"
    )
    print("\n".join(each.line for each in failures(done, 1e-3)) or "  none")
