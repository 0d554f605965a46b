"""How near releases come to the truth, and how often their intervals hold it, beside the naive build.

    python -m scripts.bench.estimates [--full] [--seconds 3]
    python -m scripts.bench.estimates --worlds tiny|quick|full [--kinds rate,mean] [--jobs 2] [--results FILE]

First the error of a false reject rate by accent, pure epsilon = 1, beside uncentred mechanisms with the
same budget. Then how wide the weekly plan's intervals and those of single cells of tables are, in worlds made
without our assumptions, beside no noise at all and the naive build. Then coverage of the 95% intervals that
are shown, every kind by everyone, by a fact of the device and by a property of the event; `--full` also in
fleets of 50,000 and 200,000. Fleets are simulated with known truth; the noise is a release's own. The naive
build is diffprivlib's Geometric for every counter with epsilon split between them, and Wilson's interval on
the noisy counts. `--worlds` prints, in their place, coverage in the worlds of scripts/bench/worlds: everyone,
each group and the worst single cell, and every place that breaks its promise.
"""

import argparse
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fa_core.layout import bounds_of, compile_plan, groupings, shape_of
from fa_core.metrics.intervals import normal_quantile
from fa_core.metrics.joint_shares import unmapped as cell_sums
from fa_core.metrics.kind import Numbers
from fa_core.metrics.moments import N, R, unmapped
from fa_core.plan import Plan, load
from fa_core.privacy.accounting import epsilon_for, rho_for
from fa_core.privacy.mechanisms import geometric
from fa_core.values import Layout
from scripts.bench.naive import naive, wilson
from scripts.bench.simulated import (
    CASES,
    Level,
    World,
    estimate,
    exact_sums,
    noised_parts,
    plan_of,
)
from scripts.bench.worlds.coverage import FORMS
from scripts.bench.worlds.report import print_table
from scripts.bench.worlds.widths import print_widths

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACCENTS: Final = World(devices=5_000, groups=14, p=0.05, kappa=20.0)
"""13 accents and `other`; 7 parts by 14 groups make 98 cells. Rates from 3% to 7%, 24 events a device."""


@dataclass
class Errors:
    """Mean absolute errors of one mechanism in percentage points, against truth and against the fleet."""

    truth: list[float] = field(default_factory=list)
    fleet: list[float] = field(default_factory=list)

    def add(self, found: Floats, truth: Floats, fleet: Floats) -> None:
        """Add one release; groups without a number count for nothing."""
        self.truth.append(100 * float(np.nanmean(np.abs(found - truth))))
        self.fleet.append(100 * float(np.nanmean(np.abs(found - fleet))))

    @property
    def means(self) -> tuple[float, float]:
        """Mean error against (truth, the fleet's exact rates)."""
        return float(np.mean(self.truth)), float(np.mean(self.fleet))


@dataclass
class Run:
    """What one way of asking came to: its errors, half-widths and coverage."""

    errors: Errors
    half: float
    coverage: float
    shown: float
    cells: int


def run(world: World, releases: int, seed: int, **privacy: Any) -> Run:
    """Release the rate by accent again and again."""
    plan = plan_of(CASES["rate"], world, **privacy)
    layout, random = compile_plan(plan), np.random.default_rng(seed)
    errors, half, held, shown = Errors(), [], [], []
    for _ in range(releases):
        sums, exact = _fleet(world, plan, random)
        numbers = estimate(plan, noised_parts(plan, layout, sums, world.devices), world.devices).numbers
        errors.add(numbers.estimate, world.rates(), exact[0] / exact[1])
        seen = ~numbers.suppressed
        half.append(float(np.nanmean((numbers.high - numbers.low) / 2)))
        held.append(((numbers.low <= world.rates()) & (world.rates() <= numbers.high))[seen].mean())
        shown.append(seen.mean())
    return Run(errors, float(np.mean(half)), float(np.mean(held)), float(np.mean(shown)), layout.length)


def _fleet(world: World, plan: Plan, random: np.random.Generator) -> tuple[Ints, tuple[Floats, Floats]]:
    """Draw one fleet: its sums under the plan, and its exact hits and events by group."""
    case, state = CASES["rate"], random.bit_generator.state
    blocks = plan_of(case, world, counters="blocks")
    whole = compile_plan(blocks)
    found = exact_sums(case, world, blocks, whole, random)
    random.bit_generator.state = state
    sums = exact_sums(case, world, plan, compile_plan(plan), random)
    a, b = blocks.metrics["metric"].centre()  # type: ignore[attr-defined]
    parts = {block.part: found[block.slice].astype(np.float64) for block in whole.blocks}
    return sums, ((parts["excess"] + a * parts["size"]) / b, parts["size"])


def uncentred(
    world: World, releases: int, seed: int, share: Fraction, epsilon: int, cells: int
) -> Sequence[tuple[str, Errors]]:
    """Return the errors of uncentred mechanisms on the same fleets.

    Args:
        share: of epsilon, what the centred plan spends on numerator and denominator; the rest buys both the
            same counters of devices and of squares.
        cells: counters of the per-counter build.
    """
    random = np.random.default_rng(seed)
    plan = plan_of(CASES["rate"], world)
    pair, split, free, each = (Errors() for _ in range(4))
    budget, cap = share * epsilon, world.cap
    part = Fraction(1 / (1 + world.p ** (2 / 3))).limit_denominator(1000)
    for _ in range(releases):
        _, (hits, n) = _fleet(world, plan, random)
        truth, fleet = world.rates(), hits / n
        whole_hits, whole_n = hits.astype(np.int64), n.astype(np.int64)

        def read(errors: Errors, x: Any, total: Any, truth: Floats = truth, fleet: Floats = fleet) -> None:
            errors.add(np.clip(x / np.maximum(total, 1), 0, 1), truth, fleet)

        for errors, spent in ((pair, budget), (free, Fraction(epsilon))):
            both = geometric(np.concatenate((whole_hits, whole_n - whole_hits)), cap, spent)
            x, rest = both[: len(hits)], both[len(hits) :]
            read(errors, x, x + rest)
        read(split, geometric(whole_hits, cap, budget * part), geometric(whole_n, cap, budget * (1 - part)))
        noised = naive(np.stack((whole_hits, whole_n)), cap, epsilon * whole_hits.size * 2 / cells)
        read(each, noised[0], noised[1])
    return (
        ("hits and events, each a vector, best split", split),
        ("hits and the rest, one vector, same budget", pair),
        ("hits and the rest, one vector, all of epsilon", free),
        (f"per counter, epsilon/{cells} each", each),
    )


def error_table(releases: int) -> None:
    """Print the error of the false reject rate by accent."""
    world, seed = ACCENTS, 11
    pure: dict[str, Any] = {"accounting": "pure", "delta": 0, "epsilon": 1}
    centred = run(world, releases, seed, **pure)
    layout = compile_plan(plan_of(CASES["rate"], world, **pure))
    spent = sum((block.cost for block in layout.blocks if block.part in ("excess", "size")), Fraction(0))
    total, privacy = centred.errors.means
    print(
        f"Error of a false reject rate by accent: {world.devices:,} devices, {world.groups} groups, "
        f"{centred.cells} cells, N = {world.cap}, pure epsilon 1, central; mean of |error| in points"
    )
    row = "  {:<62} {:8.2f} {:8.2f} {:>16} {:>8} {:>8}"
    print(f"  {'':<62} {'truth':>8} {'privacy':>8} {'':>16} {'± width':>8} {'covered':>8}")

    def show(name: str, found: Run) -> None:
        print(row.format(name, *found.errors.means, "", f"{100 * found.half:.1f}", f"{found.coverage:.1%}"))

    show("centred, in blocks", centred)
    for name, errors in uncentred(world, releases, seed, spent, 1, centred.cells):
        means = errors.means
        ratio = f"{means[0] / total:.1f} x, {means[1] / privacy:.1f} x"
        print(row.format(name, *means, ratio, "", ""))
    print("  beside it, at (1, 1e-8):")
    weekly = load("eval_plans/wake-word-weekly.yaml", policy=None)
    sets = len({(block.metric, block.grouping) for block in compile_plan(weekly).blocks})
    rho = rho_for(Fraction(1), Fraction(1, 10**8))
    share = Fraction(epsilon_for(rho / sets, Fraction(1, 10**8))).limit_denominator(10**4)
    demo = {
        "epsilon": str(share),
        "noise": "distributed",
        "dropout": str(weekly.privacy.dropout),
        "corrupt": str(weekly.privacy.corrupt),
    }
    for counters in ("joint", "blocks"):
        show(f"zCDP, central, {counters}", run(world, releases, seed, counters=counters, epsilon=1))
    show(
        f"zCDP, distributed, one of the demo's {sets} sets, joint",
        run(world, max(3, releases // 5), seed, **demo),
    )
    print("  `privacy` is the error against the fleet's own exact rates. Ratios are to the first row.")


@dataclass
class Tally:
    """Coverage of a kind in a grouping and a fleet, over all worlds."""

    held: int = 0
    shown: int = 0
    cells: int = 0
    together: list[float] = field(default_factory=list)
    releases: int = 0
    by_world: list[tuple[int, int]] = field(default_factory=list)
    naive_held: int = 0
    naive_cells: int = 0

    def add(self, numbers: Numbers, truth: Floats) -> tuple[int, int]:
        """Add one release."""
        seen = ~numbers.suppressed
        held = (numbers.low <= truth) & (truth <= numbers.high) & seen
        wide = (numbers.simultaneous_low <= truth) & (truth <= numbers.simultaneous_high)
        self.together.append(float((wide | ~seen).all()))
        self.cells += seen.size
        self.releases += 1
        return int(held.sum()), int(seen.sum())


def naive_interval(
    kind: str, plan: Plan, layout: Layout, sums: Ints, epsilon: float
) -> tuple[Floats, Floats] | None:
    """Return what the naive build would show of the same fleet, or None where it has nothing to say."""
    found = {block.part: sums[block.slice] for block in layout.blocks}
    metric: Any = plan.metrics["metric"]
    shape, bounds, cap = shape_of(plan, groupings(metric, plan)[0]), bounds_of(plan), plan.privacy.max_events
    if kind == "rate":
        pair = unmapped(metric.table(shape), metric.domain(bounds), found["joint"].astype(np.float64), 0.0)
        hits, n = naive(np.rint(pair.values[:, (R, N)].T).astype(np.int64), cap, epsilon)
        return wilson(hits, n)
    if kind == "ratio":
        a, b = metric.centre()
        counters = np.stack(((found["excess"] + a * found["size"]) // b, found["size"]))
        hits, n = naive(counters, cap * metric.max_over, epsilon)
        return wilson(hits, n)
    if kind in ("histogram", "confusion"):
        columns = len(metric.column_labels())
        exact = cell_sums(cap, found["joint"].astype(np.float64), 0.0).values[:, 0]
        cells = naive(np.rint(exact).reshape(-1, columns), cap, epsilon)
        low, high = wilson(cells, np.broadcast_to(cells.sum(axis=1, keepdims=True), cells.shape))
        groups = found["devices"].size
        return low.reshape(groups, -1), high.reshape(groups, -1)
    if kind == "count":
        events = naive(found["events"], cap, epsilon)
        half = normal_quantile(0.95) * np.sqrt(np.maximum(events, 1.0))
        return events - half, events + half
    return None


def worlds(level: Level, devices: int) -> Iterator[World]:
    """Yield the worlds of a grouping: rare and common, devices unlike and alike."""
    groups = {"everyone": 1, "device": 13, "event": 5}[level]
    for p, kappa in product((0.02, 0.1, 0.2), (5.0, 40.0)):
        yield World(devices, groups, p, kappa, level)


def cover(kind: str, level: Level, devices: int, seconds: float, epsilons: Sequence[int]) -> Tally:
    """Release a kind in every world, `seconds` of CPU in each."""
    tally, case = Tally(), CASES[kind]
    for place, (world, epsilon) in enumerate(product(worlds(level, devices), epsilons)):
        plan = plan_of(case, world, epsilon=epsilon)
        metric, layout = plan.metrics["metric"], compile_plan(plan)
        truth, random = case.truth(world, metric), np.random.default_rng((place, devices, epsilon))
        stop, here = time.process_time() + seconds, (0, 0)
        while here[1] == 0 or time.process_time() < stop:
            sums = exact_sums(case, world, plan, layout, random)
            numbers = estimate(plan, noised_parts(plan, layout, sums, devices), devices).numbers
            here = tuple(map(sum, zip(here, tally.add(numbers, truth), strict=True)))  # type: ignore[assignment]
            found = naive_interval(kind, plan, layout, sums, epsilon)
            if found is not None:
                tally.naive_held += int(((found[0] <= truth) & (truth <= found[1])).sum())
                tally.naive_cells += truth.size
            if tally.releases > 10_000:
                break
        tally.held, tally.shown = tally.held + here[0], tally.shown + here[1]
        tally.by_world.append(here)
    return tally


def coverage_table(fleets: Sequence[int], seconds: float) -> None:
    """Print coverage by kind, grouping and fleet."""
    print(
        "\nCoverage of 95% intervals, given shown; zCDP at (1, 1e-8) and (4, 1e-8), central; rates of 2, 10\n"
        "and 20%, devices of kappa 5 and 40. `together`: releases whose simultaneous intervals all hold.\n"
        "`±` is what chance does to a row. Single worlds are of few releases, and move far more.\n"
        "A row is marked where neither 94 to 97% nor chance explains it."
    )
    print(
        f"  {'kind':<18}{'grouping':<10}{'devices':>8} {'covered':>9} {'worlds':>15} {'±':>6} {'together':>9}"
        f" {'shown':>6} {'naive':>7}"
    )
    for devices in fleets:
        for kind, level in product(CASES, ("everyone", "device", "event")):
            found = cover(kind, level, devices, seconds, (1, 4))  # type: ignore[arg-type]
            rates = [held / shown for held, shown in found.by_world]
            chance = 1.96 * np.sqrt(0.05 * 0.95 / found.shown)
            naive_rate = f"{found.naive_held / found.naive_cells:.1%}" if found.naive_cells else "-"
            covered = found.held / found.shown
            print(
                f"  {kind:<18}{level:<10}{devices:>8,} {covered:>9.1%} {min(rates):>7.1%}-{max(rates):<7.1%}"
                f" {chance:>6.1%} {np.mean(found.together):>8.1%} {found.shown / found.cells:>6.0%}"
                f" {naive_rate:>7}"
                + ("" if 0.94 - chance <= covered <= 0.97 + chance else "   outside 94-97%"),
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="fleets of 50,000 and 200,000 devices, too")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds for each of 12 worlds a row")
    parser.add_argument("--releases", type=int, default=100, help="releases a row of the tables")
    parser.add_argument(
        "--worlds", choices=FORMS, help="only coverage in worlds made without our assumptions"
    )
    parser.add_argument("--kinds", default="", help="with --worlds: only these, with commas")
    parser.add_argument("--jobs", type=int, default=1, help="with --worlds: processes")
    parser.add_argument(
        "--results", type=Path, help="with --worlds: keep what is found in this file, and go on from there"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    if options.worlds:
        kinds = [kind for kind in re.split(",(?! )", options.kinds) if kind]  # one is "rate, pure"
        print_table(options.worlds, kinds, options.jobs, options.results)
        return
    error_table(options.releases)
    print_widths(options.releases)
    if options.seconds > 0:
        coverage_table((5_000, 50_000, 200_000) if options.full else (5_000,), options.seconds)


if __name__ == "__main__":
    main()
