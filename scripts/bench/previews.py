"""Whether a preview's half-widths are those of a run: every shipped plan, drawn fleets, filters included.

    python -m scripts.bench.previews [--devices 2000 20000] [--releases 60] [--plans NAME …]

A plan is previewed with one fleet, as `fa plan preview --fleet` does, and run over another one of the same
kind, along the local path: tables to bounded counts, noise, estimates. `promised` and `run` are mean half-
widths over the numbers shown in both (in most releases), and a promise is missed where it is off by more
than a tenth. `shown` is the share of numbers shown, promised and then of the releases. The last column is
the promise without a fleet, from the mean number of events: it cannot know how devices are spread. The exit
code is 1 where a promise is missed.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clients.evaluate import Cohort, cohort_of_fleet, fleet_sum, seeded_randomness
from clients.fleet.bank import default_bank_path, open_bank
from clients.fleet.make import make_fleet
from clients.fleet.tables import read_fleet
from fa_core.cli.pilot import pilot_of
from fa_core.estimate.expect import DRAWS, Key, guessed, noise_variance, simulated
from fa_core.estimate.measure import measure
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import compile_plan
from fa_core.metrics import PartSum
from fa_core.plan import Plan, load
from fa_core.values import Estimate, Layout

UNTIL: Final = datetime(2026, 11, 22, tzinfo=UTC)
PLANS: Final = Path("eval_plans")
WITHIN: Final = 0.10
"""How far a promised half-width may be off."""

Floats = NDArray[np.float64]
Place = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]
"""A group, and a cell within it."""
Widths = dict[Place, float | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric in one grouping: mean half-widths, and shares of numbers shown, promised and of runs."""

    plan: str
    key: Key
    kind: str
    unit: str
    promised: float | None
    run: float | None
    guess: float | None
    shown: float
    shown_run: float

    @property
    def off(self) -> float | None:
        """How much wider the promise is than the run."""
        return None if not self.promised or not self.run else self.promised / self.run - 1.0


def drawn(devices: int, seed: int) -> tuple[Cohort, datetime]:
    """Draw a fleet from the bank."""
    bank = open_bank(default_bank_path(), lambda done, total: None)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "fleet")
        make_fleet(bank, devices, place, seed=seed, until=UNTIL, progress=lambda done, total: None)
        fleet = read_fleet(place)
        return cohort_of_fleet(fleet.devices, fleet.tables), fleet.until


def compare(
    plan: Plan, pilot: tuple[Cohort, datetime], fleet: tuple[Cohort, datetime], releases: int
) -> list[Row]:
    """Return what was promised and what releases of the fleet gave, for each metric and grouping."""
    layout, devices = compile_plan(plan), len(fleet[0])
    source = pilot_of(*pilot).sources.whole
    promised = [_widths(each) for each in simulated(plan, layout, devices, source, DRAWS)]
    rng = np.random.default_rng(1)
    exact = fleet_sum(plan, layout, *fleet, seeded_randomness(3)).astype(np.float64)
    runs = [_widths(_release(plan, layout, exact, devices, rng)) for _ in range(releases)]
    alike = simulated(plan, layout, devices, guessed(_events(plan, pilot)), DRAWS)
    guess = [_widths(each) for each in alike]
    return [
        _row(plan, key, *([each[key] for each in widths] for widths in (promised, runs, guess)))
        for key in promised[0]
    ]


def _release(
    plan: Plan, layout: Layout, exact: Floats, devices: int, rng: np.random.Generator
) -> tuple[Estimate, ...]:
    """Return the estimates of one release: the noise of many devices' shares is normal."""
    parts = {}
    for block, variance in zip(layout.blocks, noise_variance(plan, layout, devices), strict=True):
        noised = exact[block.slice] + rng.normal(0.0, variance**0.5, block.cells)
        parts[block.metric, block.grouping, block.part] = PartSum(noised, float(variance), False)
    return estimates_of_sums(plan, parts, devices)


def _widths(results: Sequence[Estimate]) -> dict[Key, Widths]:
    """Return the half-width of every number, None where it is not shown."""
    found: dict[Key, Widths] = {}
    for result in results:
        mine = found.setdefault((result.metric, tuple(name for name, _ in result.group)), {})
        numbers = [(cell.labels, cell.low, cell.high) for cell in result.cells]
        for labels, low, high in numbers or [((), result.low, result.high)]:
            mine[result.group, labels] = None if low is None or high is None else (high - low) / 2
    return found


def _row(
    plan: Plan, key: Key, promised: Sequence[Widths], runs: Sequence[Widths], guess: Sequence[Widths]
) -> Row:
    def known(widths: Sequence[Widths], place: Place) -> list[float]:
        return [width for each in widths if (width := each[place]) is not None]

    def mean(widths: Sequence[Widths], places: Sequence[Place]) -> float | None:
        means = [float(np.mean(found)) for place in places if (found := known(widths, place))]
        return float(np.mean(means)) if means else None

    def shown(widths: Sequence[Widths]) -> float:
        return float(np.mean([width is not None for each in widths for width in each.values()]))

    both = [
        place
        for place in promised[0]
        if all(2 * len(known(widths, place)) > len(widths) for widths in (promised, runs))
    ]
    metric = plan.metrics[key[0]]
    return Row(
        plan=plan.metadata.name, key=key, kind=metric.kind, unit=metric.unit(),
        promised=mean(promised, both), run=mean(runs, both), guess=mean(guess, list(guess[0])),
        shown=shown(promised), shown_run=shown(runs),
    )  # fmt: skip


def _events(plan: Plan, pilot: tuple[Cohort, datetime]) -> float:
    """Return the mean number of the plan's events on a device of a fleet, as an author would guess it."""
    cohort, _ = pilot
    tables = {metric.source for metric in plan.metrics.values() if metric.source is not None}
    return max(1.0, float(np.mean([cohort.tables[name].num_rows / len(cohort) for name in tables])))


def report(rows: Sequence[Row], devices: int) -> Iterator[str]:
    """Yield the table of one size of fleet."""
    yield f"\n{devices:,} devices: mean half-widths promised and of releases, over the numbers shown in both"
    yield (
        f"  {'plan':<26}{'metric':<24}{'by':<30}{'promised':>20}{'run':>20}{'off':>6}{'shown':>6}{'run':>6}"
        "  from --events"
    )
    for row in rows:
        of = measure(row.kind, row.unit)
        promised, run, guess = (
            "none" if each is None else of.width(each) for each in (row.promised, row.run, row.guess)
        )
        off = "" if row.off is None else f"{row.off:+.0%}"
        by = " × ".join(row.key[1]) or "everyone"
        yield (
            f"  {row.plan:<26}{row.key[0]:<24}{by:<30}{promised:>20}{run:>20}{off:>6}{row.shown:>6.0%}"
            f"{row.shown_run:>6.0%}  {guess}"
        )


def main() -> int:
    """Compare, print, and return 0 where every promise is within a tenth of what a run gives."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--releases", type=int, default=60)
    parser.add_argument("--plans", nargs="+", default=sorted(path.stem for path in PLANS.glob("*.yaml")))
    options = parser.parse_args()
    plans = [load(PLANS / f"{name}.yaml", today=date(2026, 11, 22), policy=None) for name in options.plans]
    missed = 0
    for devices in options.devices:
        pilot, fleet = (drawn(devices, seed) for seed in (101, 202))
        rows = [row for plan in plans for row in compare(plan, pilot, fleet, options.releases)]
        print("\n".join(report(rows, devices)), flush=True)
        missed += sum(row.off is not None and abs(row.off) > WITHIN for row in rows)
    print(f"\n{missed} promises are off by more than {WITHIN:.0%}" if missed else "\nevery promise holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
