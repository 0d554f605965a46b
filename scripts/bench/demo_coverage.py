"""Whether the intervals of the demo's plans hold the truth: real detector scores, distributed noise.

    python -m scripts.bench.demo_coverage [--fleets 60] [--devices 2000]

Draws one fleet after another from the scored utterances, as `fa fleet make` does, counts each as its devices
would, adds the noise that all their shares come to, and estimates. The truth is what all fleets together say
without noise; it moves by an eighth of a fleet's own width at 60 fleets. Noise shares are drawn for a
hundred devices and stand for the rest: a sum of many is normal. Masks change nothing of a sum, and are left
out; `tests/secagg` holds them to that.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.evaluate import cohort_of_fleet, fleet_sum, seeded_randomness
from clients.fleet.bank import default_bank_path, open_bank
from clients.fleet.make import make_fleet
from clients.fleet.tables import Fleet, read_fleet
from fa_core.cli.demo import PLANS
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import compile_plan
from fa_core.metrics import PartSum
from fa_core.plan import Plan, load
from fa_core.privacy.distributed import noise_share, shares_of, variance_in_sum
from fa_core.values import Estimate, Layout

UNTIL = datetime(2026, 11, 22, tzinfo=UTC)
Floats = NDArray[np.float64]
DRAWN = 100
"""Devices whose shares are drawn."""


def fleets(count: int, devices: int) -> Iterator[Fleet]:
    """Draw fleets from the bank, each by its own seed."""
    bank = open_bank(default_bank_path(), lambda done, total: None)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            place = Path(folder, str(seed))
            make_fleet(bank, devices, place, seed=1000 + seed, until=UNTIL, progress=lambda done, total: None)
            yield read_fleet(place)


def noised(plan: Plan, layout: Layout, sums: Floats, devices: int) -> tuple[Floats, Floats]:
    """Return sums with the noise of all devices' shares, and the variance by block that a release states."""
    shares = shares_of(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
    nothing, found = np.zeros(layout.length, np.int64), sums.copy()
    drawn = np.sum([noise_share(layout, nothing, shares) for _ in range(DRAWN)], axis=0)
    for block, share in zip(layout.blocks, shares, strict=True):
        found[block.slice] += drawn[block.slice] / share.scale * np.sqrt(devices / DRAWN)
    return found, variance_in_sum(shares, devices)


def read(plan: Plan, layout: Layout, sums: Floats, variance: Floats, devices: int) -> tuple[Estimate, ...]:
    """Return the estimates of sums with this noise."""
    parts = {
        (block.metric, block.grouping, block.part): PartSum(sums[block.slice], float(each), False)
        for block, each in zip(layout.blocks, variance, strict=True)
    }
    return estimates_of_sums(plan, parts, devices)


@dataclass
class Tally:
    """Of one metric and grouping: intervals that held the truth, that were shown, and that could be."""

    held: int = 0
    shown: int = 0
    asked: int = 0


def cover(plan: Plan, sums: list[Floats], devices: int) -> dict[tuple[str, tuple[str, ...]], Tally]:
    """Release every fleet's sums and hold the intervals against all fleets together."""
    layout = compile_plan(plan)
    exact = read(plan, layout, np.sum(sums, axis=0), np.zeros(len(layout.blocks)), devices * len(sums))
    truth = {(each.metric, each.group): each.estimate for each in exact}
    found: dict[tuple[str, tuple[str, ...]], Tally] = {}
    for one in sums:
        for each in read(plan, layout, *noised(plan, layout, one, devices), devices):
            tally = found.setdefault((each.metric, tuple(name for name, _ in each.group)), Tally())
            tally.asked += 1
            right = truth[each.metric, each.group]
            if not each.suppressed and right is not None:
                assert each.low is not None
                assert each.high is not None
                tally.shown += 1
                tally.held += each.low <= right <= each.high
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fleets", type=int, default=60)
    parser.add_argument("--devices", type=int, default=2000)
    options = parser.parse_args()
    plans = {name: load(Path("eval_plans") / f"{name}.yaml", policy=None) for name in PLANS}
    sums: dict[str, list[Floats]] = {name: [] for name in plans}
    for seed, fleet in enumerate(fleets(options.fleets, options.devices)):
        cohort = cohort_of_fleet(fleet.devices, fleet.tables)
        for name, plan in plans.items():
            exact = fleet_sum(plan, compile_plan(plan), cohort, fleet.until, seeded_randomness(seed))
            sums[name].append(exact.astype(np.float64))
    print(
        f"Coverage of 95% intervals, given shown: {options.fleets} fleets of {options.devices:,} devices\n"
        "drawn from real detector scores, distributed noise. `±` is what chance does to a row."
    )
    print(f"  {'plan':<22}{'metric':<24}{'by':<32}{'covered':>8} {'±':>6} {'shown':>6}")
    for name, plan in plans.items():
        for (metric, grouping), tally in cover(plan, sums[name], options.devices).items():
            by = " × ".join(grouping) or "everyone"
            chance = 1.96 * np.sqrt(0.05 * 0.95 / max(tally.shown, 1))
            covered = f"{tally.held / tally.shown:.1%}" if tally.shown else "-"
            shown = f"{tally.shown / tally.asked:.0%}"
            print(f"  {name:<22}{metric:<24}{by:<32}{covered:>8} {chance:>6.1%} {shown:>6}")


if __name__ == "__main__":
    main()
