"""How wide intervals are: the weekly plan's miss rate, and single cells of tables beside blocks of before."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np

from fa_core.plan import Plan, load, with_rho
from fa_core.privacy.distributed import shares_of, variance_in_sum
from fa_core.values import Layout
from scripts.bench.naive import naive, wilson
from scripts.bench.worlds.coverage import BATCH, REACH, cover, fails
from scripts.bench.worlds.fleets import Setting, setting, textbook
from scripts.bench.worlds.groups import WEEKLY_WORLD, WORLDS, Floats, Ints
from scripts.bench.worlds.kinds import CASES, EVENTS, WEEKLY
from scripts.bench.worlds.many import bounds_of_many

METRIC: Final = "false_reject_rate"
LARGEST: Final = slice(1, 6)
"""The places of the five largest accents; everyone is before them."""

TARGETS: Final = {2_000: (4.9,), 20_000: (1.3, 0.28)}
"""The half-widths to reach, in points: of accents (the largest five of 2,000 devices), and of everyone."""


@dataclass
class Widths:
    """Half-widths and coverage of one way of asking, summed over releases; float64 (places,)."""

    half: Floats
    held: Floats
    shown: Floats

    @classmethod
    def empty(cls, places: int) -> "Widths":
        return cls(*np.zeros((3, places)))

    def add(self, low: Floats, high: Floats, truth: Floats) -> None:
        """Add one release; NaN where nothing was shown."""
        seen = ~np.isnan(low)
        self.shown += seen
        self.half += np.where(seen, (high - low) / 2, 0.0)
        self.held += seen & (low <= truth) & (truth <= high)

    def line(self, name: str, accents: slice) -> str:
        """Return a line: accents, then everyone."""
        half = 100 * self.half / np.maximum(self.shown, 1)
        covered = self.held[accents].sum() / max(self.shown[accents].sum(), 1)
        everyone = self.held[0] / max(self.shown[0], 1)
        return f"  {name:<34}{np.mean(half[accents]):>9.2f}{covered:>9.1%}{half[0]:>10.3f}{everyone:>9.1%}"


def with_noise_of(layout: Layout, plan: Plan, devices: int) -> Layout:
    """Return the layout with the noise that the shares of so many devices add up to."""
    found = shares_of(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
    variances = variance_in_sum(found, devices)
    blocks = zip(layout.blocks, variances, strict=True)
    return replace(
        layout, blocks=tuple(replace(block, variance=type(block.variance)(v)) for block, v in blocks)
    )


def as_audited(plan: Plan) -> Plan:
    """Return the weekly plan as the targets have it: epsilon 2, and all events of a device of the world."""
    terms = {"epsilon": Fraction(2), "rho": None, "alpha": None, "max_events": EVENTS}
    privacy = with_rho(plan.privacy.model_copy(update=terms))
    return plan.model_copy(update={"privacy": privacy})


def print_widths(releases: int) -> None:
    """Print the weekly plan's widths at two sizes of fleet, then single cells of tables.

    As many devices stand for a group as so many releases can make use of, at most 5,000.
    """
    population = min(5_000, 100 * releases)
    plan = as_audited(load("eval_plans/wake-word-weekly.yaml", policy=None))
    exact = setting(WEEKLY, WEEKLY_WORLD, population)
    asked = setting(WEEKLY, WEEKLY_WORLD, population, plan=plan)
    print(
        f"\nHalf-widths of the weekly plan's miss rate in points, epsilon {plan.privacy.epsilon}, "
        f"{releases} releases\n"
        f"  {'':<34}{'accents':>9}{'covered':>9}{'everyone':>10}{'covered':>9}"
    )
    for devices, targets in TARGETS.items():
        accents = LARGEST if devices < 10_000 else slice(1, None)
        distributed = replace(asked, layout=with_noise_of(asked.layout, plan, devices))
        ways = {"joint counters, central noise": asked, "joint counters, shares of noise": distributed}
        whose = ", the largest five accents" if accents == LARGEST else ""
        print(f"  {devices:,} devices{whose}: to reach", *targets)
        for name, widths in _weekly(exact, ways, devices, releases).items():
            print(widths.line(name, accents), flush=True)
    print_cells(releases, population)


def _weekly(exact: Setting, ways: Mapping[str, Setting], devices: int, releases: int) -> dict[str, Widths]:
    """Return the widths of each way, of no noise and of the naive build, over the same fleets."""
    rng, truth = np.random.default_rng((devices, releases)), exact.truth(devices)
    found = {name: Widths.empty(len(truth)) for name in (*ways, "no privacy noise", "the naive build")}
    for start in range(0, releases, BATCH):
        fleets = exact.draw(rng, devices, min(BATCH, releases - start))
        for name, where in ways.items():
            noised = where.noised(rng, where.sums(fleets))
            shown = bounds_of_many(where.release(devices), where.plan, noised, devices)[METRIC]
            for low, high in zip(shown.low, shown.high, strict=True):
                found[name].add(low, high, truth)
        for middle, around in zip(*textbook(exact, fleets, devices), strict=True):
            found["no privacy noise"].add(middle - around, middle + around, truth)
        for each_fleet in range(len(fleets[0])):
            found["the naive build"].add(*_naive(exact, [drawn[each_fleet] for drawn in fleets]), truth)
    return found


def _naive(exact: Setting, times: list[Ints]) -> tuple[Floats, Floats]:
    """Return what the naive build shows of one fleet: 44 counters, half of them of false wakes."""
    counts = np.array(
        [
            [(drawn @ getattr(each, name)[:, 0, 0]) for name in ("top", "bottom")]
            for each, drawn in zip(exact.populations.values(), times, strict=True)
        ]
    )
    counts = np.concatenate((counts.sum(axis=0, keepdims=True), counts))
    hits, n = naive(np.rint(counts.T).astype(np.int64), EVENTS, float(exact.plan.privacy.epsilon) / 2)
    return wilson(hits, n)


def print_cells(releases: int, population: int) -> None:
    """Print coverage of single cells of tables at 200,000 devices, beside one dispersion a row (blocks)."""
    print(
        f"\nSingle cells of tables, 200,000 devices, {releases} releases; `width` is a median, to blocks;\n"
        f"`under` counts cells under {REACH:.0%}, of which chance explains none in 999 of 1,000 tables\n"
        f"  {'':<34}{'covered':>9}{'worst':>9}{'under':>9}{'of':>5}{'width':>9}"
    )
    for kind in ("histogram", "confusion"):
        found = {}
        for counters in ("joint", "blocks"):
            case = replace(CASES[kind], privacy={**CASES[kind].privacy, "counters": counters})
            found[counters] = cover(setting(case, WORLDS["mixed"], population), 200_000, releases)
        for counters, each in found.items():
            both = (each.shown > 0) & (found["blocks"].shown > 0)
            width = np.median(each.half[both] / found["blocks"].half[both])
            places = len(each.places)
            under = sum(map(partial(fails, least=REACH, chance=1e-3 / places), each.held, each.shown))
            print(
                f"  {f'{kind}, {counters}':<34}{each.held.sum() / each.shown.sum():>9.1%}"
                f"{np.nanmin(each.covered):>9.1%}{under:>9}{places:>5}{width:>9.2f}",
                flush=True,
            )
