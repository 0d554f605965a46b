"""Whether the gate of a rollout keeps its promises: simulated rollouts by the thousand, with
devices whose ways last from look to look.

    python -m scripts.bench.rollout [--rollouts 4000] [--only boundary margin …] [--bank FILE] [--json FILE]

False rollbacks where every accent is exactly one point worse, and false shipments where one accent is exactly
two or everyone one; what is seen of a regression of three points, and of an equal candidate; what becomes of
an equal candidate where reactions mark only a share of the misses; and the same with the scores that two real
detectors gave. Beside the gate, controls that must fail: a 95% interval of each accent, each release judged
by itself, sampling taken to be fresh in each look, and unlabelled moments that nobody counts.

A share is given with its exact 95% interval (Clopper & Pearson 1934). Ends with 1 where a promise is broken.
"""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from scipy import stats

from clients.fleet.bank import default_bank_path, read_bank
from clients.fleet.draw import Bank
from fa_core.rollout.sequential import Design
from scripts.bench.rollouts import controls
from scripts.bench.rollouts.fleets import Fleet, looks, noise_of, plan_of
from scripts.bench.rollouts.pools import Pool, drawn, labels, pool, scored

CHUNK: Final = 500
"""Rollouts that are simulated at once, to bound memory."""

POINT: Final = 0.01


@dataclass(frozen=True)
class Case:
    """A rollout of some world.

    Attributes:
        devices: expected number of devices.
        rho: what one look costs.
        looks: K.
        alike: concentration of the devices' own rates; moments of one device correlate by 1/(alike + 1).
        worse: the candidate's rise in each accent that is not in `worst`.
        worst: rise and concentration of accents by their place.
        marked: q, the share of the baseline's misses that reactions mark.
        counted: whether unlabelled moments are counted.
        below: the margins under which an accent, and everyone, is shipped.
    """

    devices: int
    rho: float = 0.025
    looks: int = 4
    alike: float = 20.0
    worse: float = 0.0
    worst: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    marked: float = 1.0
    counted: bool = False
    below: tuple[float, float] = (2 * POINT, POINT)
    bank: Bank | None = None

    def __str__(self) -> str:
        kind = "detectors" if self.bank else f"corr {1 / (self.alike + 1):.2f}"
        marked = f"q {self.marked:.2f}" if self.counted else ""
        worst = "".join(f", {100 * d:+g} at {1 / (a + 1):.2f}" for d, a in self.worst.values())
        world = f"{kind}, {100 * self.worse:+g}{worst}"
        wide = f", ships below {self.below[0]:g} and {self.below[1]:g}" if self.below != Case.below else ""
        return f"{self.devices // 1000:>4}k  rho {self.rho:<5g} K {self.looks:<2} {marked:<6} {world}{wide}"


@dataclass(frozen=True)
class Rate:
    """How often something happened."""

    count: int
    of: int

    @property
    def share(self) -> float:
        return self.count / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95% interval."""
        low = stats.beta.ppf(0.025, self.count, self.of - self.count + 1) if self.count else 0.0
        high = stats.beta.ppf(0.975, self.count + 1, self.of - self.count) if self.count < self.of else 1.0
        return float(low), float(high)

    def above(self, share: float) -> float:
        """Return the chance of so many or more where the true share is `share` (exact binomial)."""
        return float(stats.binom.sf(self.count - 1, self.of, share))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.4f} [{low:.4f}, {high:.4f}]"


@dataclass(frozen=True)
class Outcome:
    """What became of a case's rollouts: rates by gate, and the mean look of the gate's own verdicts, of a
    rollback where there was one and of a shipment where there was one."""

    rolled_back: Mapping[str, Rate]
    shipped: Mapping[str, Rate]
    look_back: float
    look_shipped: float


def simulate(case: Case, rollouts: int, gates: Collection[str], seed: int = 15) -> Outcome:
    """Return what becomes of so many rollouts under these gates, the gate itself among them."""
    random = np.random.default_rng(seed)
    shares = labels(case.bank)
    fleet = Fleet(case.devices, shares, dict(zip(shares, pools(random, case), strict=True)))
    plan = plan_of(list(shares), unlabelled=case.counted)
    noise = noise_of(plan, case.rho)
    design = Design(case.looks, 0.05, POINT, *case.below, tuple(shares))
    back: dict[str, list[controls.Bools]] = {}
    ships: dict[str, list[controls.Bools]] = {}
    for start in range(0, rollouts, CHUNK):
        sums = looks(random, fleet, plan, noise, min(CHUNK, rollouts - start))
        for name in gates:
            rolled_back, shipped = controls.GATES[name](design, sums)
            back.setdefault(name, []).append(rolled_back)
            ships.setdefault(name, []).append(shipped)
    whole = {name: np.concatenate(each, axis=1) for name, each in back.items()}
    sent = {name: np.concatenate(each, axis=1) for name, each in ships.items()}
    return Outcome(
        {name: Rate(int(each[-1].sum()), rollouts) for name, each in whole.items()},
        {name: Rate(int(each.any(axis=0).sum()), rollouts) for name, each in sent.items()},
        _mean_look(whole["gate"]),
        _mean_look(sent["gate"]),
    )


def _mean_look(happened: controls.Bools) -> float:
    """Return the mean look at which something happened first, of the rollouts where it did."""
    first = happened.argmax(axis=0)[happened.any(axis=0)]
    return float(first.mean() + 1) if len(first) else float("nan")


def pools(random: np.random.Generator, case: Case) -> list[Pool]:
    """Return the pool of each accent; accents that are alike in all share one, and not their devices."""
    found: dict[tuple[float, float, int], Pool] = {}
    result = []
    for place in range(len(labels(case.bank))):
        worse, alike = case.worst.get(place, (case.worse, case.alike))
        key = (worse, alike, place if case.bank else -1)
        if key not in found:
            heard = (
                scored(random, case.bank, place, case.looks, worse)
                if case.bank
                else drawn(random, alike, case.looks, worse)
            )
            found[key] = pool(random, heard, case.marked)
        result.append(found[key])
    return result


@dataclass(frozen=True)
class Promise:
    """How often a gate does something, and whether that is as promised."""

    gate: str
    verb: Literal["rolls back", "ships"]
    kept: Callable[[Rate], bool]

    def figure(self, outcome: Outcome) -> Rate:
        """Return how often it happened."""
        return (outcome.rolled_back if self.verb == "rolls back" else outcome.shipped)[self.gate]


@dataclass(frozen=True)
class Table:
    """Cases that are shown together, with what is promised of each."""

    title: str
    cases: list[tuple[Case, list[Promise]]]


def at_most(share: float) -> Callable[[Rate], bool]:
    return lambda rate: rate.share <= share


def at_least(share: float) -> Callable[[Rate], bool]:
    return lambda rate: rate.share >= share


def fails(rate: Rate) -> bool:
    """Say whether a control is caught: over 5% more often than chance allows once in ten million times."""
    return rate.above(0.05) < 1e-7


def _is(rate: Rate) -> bool:
    return True


def back(gate: str, kept: Callable[[Rate], bool] = _is) -> Promise:
    return Promise(gate, "rolls back", kept)


def ships(gate: str, kept: Callable[[Rate], bool] = _is) -> Promise:
    return Promise(gate, "ships", kept)


SMALL_ACCENT: Final = 6
"""The place of the accent of 5% of the devices."""


def boundary() -> Table:
    """Return worlds in which every accent is exactly one point worse, and so is everyone."""
    cases = []
    for devices, rho, count, alike in (
        (14_000, 0.025, 4, 20.0), (20_000, 0.025, 4, 20.0), (20_000, 0.025, 4, 4.0), (20_000, 0.025, 4, 1.0),
        (20_000, 0.05, 4, 1.0), (100_000, 0.025, 4, 20.0), (100_000, 0.025, 4, 4.0), (100_000, 0.025, 4, 1.0),
        (100_000, 0.05, 4, 1.0),
    ):  # fmt: skip
        wrong = fails if alike == 1.0 else _is
        promised = [back("gate", at_most(0.05)), ships("gate", at_most(0.05))]
        promised += [back("naive", at_least(0.20)), back("alone")]
        promised += [back("added", wrong)] if count == 4 else []
        cases.append((Case(devices, rho, count, alike, POINT), promised))
    return Table(
        "Every accent, and everyone, one point worse: each rollback and each shipment is false", cases
    )


def margin() -> Table:
    """Return worlds in which one accent is exactly two points worse, and the others equal."""
    cases = []
    for devices, alike, of_worst in (
        (14_000, 20.0, 20.0), (20_000, 20.0, 20.0), (20_000, 4.0, 4.0), (20_000, 20.0, 1.0),
        (100_000, 20.0, 20.0), (100_000, 20.0, 1.0), (100_000, 1.0, 1.0),
    ):  # fmt: skip
        case = Case(devices, 0.05, 4, alike, 0.0, {SMALL_ACCENT: (2 * POINT, of_worst)})
        cases.append((case, [ships("gate", at_most(0.05)), ships("added"), back("gate")]))
    return Table("The accent of 5% two points worse: each shipment is false", cases)


def many_looks() -> Table:
    """Return the worlds of `boundary` and `margin` with eight and with twelve looks."""
    cases = []
    for count in (8, 12):
        for devices in (20_000, 100_000):
            promised = [
                back("gate", at_most(0.05)),
                ships("gate", at_most(0.05)),
                back("naive", at_least(0.20)),
            ]
            cases.append((Case(devices, 0.025, count, 1.0, POINT), promised))
        case = Case(100_000, 0.025, count, 20.0, 0.0, {SMALL_ACCENT: (2 * POINT, 1.0)})
        cases.append((case, [ships("gate", at_most(0.05)), back("gate")]))
    return Table("Eight and twelve looks: each shipment is false, and of the first two each rollback", cases)


def reach() -> Table:
    """Return what is seen of a regression, and of none."""
    cases = []
    worst = {SMALL_ACCENT: (3 * POINT, 20.0)}
    for devices in (14_000, 20_000, 100_000):
        for rho in (0.025, 0.05):
            big = devices > 14_000
            seen = at_least(0.97 if rho < 0.05 else 0.99) if big else _is
            shipped = at_least(0.90 if rho < 0.05 else 0.98) if big else _is
            cases.append(
                (Case(devices, rho, worst=worst), [back("gate", seen), ships("gate", at_most(0.05))])
            )
            cases.append((Case(devices, rho), [back("gate", at_most(0.05)), ships("gate", shipped)]))
    return Table("The accent of 5% three points worse, then an equal candidate: what is seen of them", cases)


def reactions() -> Table:
    """Return equal candidates where reactions mark a share of what the baseline misses."""
    cases = []
    for devices in (20_000, 100_000):
        for marked in (1.0, 0.75, 0.5):
            case = Case(devices, 0.05, alike=4.0, marked=marked, counted=True)
            wrong = fails if marked == 0.5 else _is
            promised = [back("gate", at_most(0.05)), ships("gate"), back("labelled", wrong)]
            cases.append((case, promised))
    seen = Case(100_000, 0.05, alike=4.0, worst={SMALL_ACCENT: (3 * POINT, 4.0)}, marked=0.75, counted=True)
    over = Case(100_000, 0.05, alike=4.0, worse=POINT, marked=0.5, counted=True)
    cases += [(seen, [back("gate"), ships("gate", at_most(0.05))]), (over, [back("gate", at_most(0.05))])]
    half = Case(20_000, 0.05, alike=4.0, marked=0.5, counted=True)
    wide = [replace(half, below=below) for below in ((0.05, 0.03), (0.03, 0.02))]
    for choice in (replace(half, looks=8), *wide, replace(wide[1], devices=100_000)):
        cases.append((choice, [back("gate", at_most(0.05)), ships("gate")]))
    return Table(
        "Reactions mark a share q of the misses: an equal candidate; then three points in the accent of 5%, "
        "and every accent one point worse; then an equal candidate with more looks, and with wider margins",
        cases,
    )


def detectors(bank: Bank) -> Table:
    """Return rollouts on the scores that two real detectors gave, thresholds set to the wished difference."""
    cases = []
    for devices in (20_000, 100_000):
        at = Case(devices, 0.05, worse=POINT, bank=bank)
        cases.append(
            (at, [back("gate", at_most(0.05)), ships("gate", at_most(0.05)), back("naive", at_least(0.2))])
        )
        equal = Case(devices, 0.05, marked=0.5, counted=True, bank=bank)
        cases.append((equal, [back("gate", at_most(0.05)), back("labelled", fails)]))
        bad = Case(devices, 0.05, worst={9: (10 * POINT, 0.0)}, bank=bank)
        cases.append((bad, [back("gate"), ships("gate", at_most(0.05))]))
    return Table(
        "Scores of real detectors: every accent one point worse; an equal candidate of which half is marked; "
        "es-en ten points worse",
        cases,
    )


TABLES: Final[dict[str, Callable[[], Table]]] = {
    each.__name__: each for each in (boundary, margin, many_looks, reach, reactions)
}


def lines(table: Table, rollouts: int, found: list[dict[str, object]]) -> Iterator[str]:
    """Yield a table, row by row as it is simulated; add what was found to `found`."""
    yield f"\n{table.title}"
    for case, promised in table.cases:
        outcome = simulate(case, rollouts, {"gate", *(each.gate for each in promised)})
        row = [str(case)]
        for each in promised:
            rate = each.figure(outcome)
            kept = each.kept(rate)
            row.append(f"{each.gate} {each.verb} {rate}{'' if kept else ' MISSED'}")
            said = {"table": table.title, "gate": each.gate, "verb": each.verb, "kept": kept}
            found.append(settings(case) | said | asdict(rate))
        row.append(f"look of a rollback {outcome.look_back:.2f}, of a shipment {outcome.look_shipped:.2f}")
        yield "  ".join(row)


def settings(case: Case) -> dict[str, object]:
    """Return a case's settings for programs."""
    names = ("devices", "rho", "looks", "alike", "worse", "marked", "counted")
    return {name: getattr(case, name) for name in names} | {
        "worst": {str(k): v for k, v in case.worst.items()}
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether the gate of a rollout keeps its promises.")
    parser.add_argument("--rollouts", type=int, default=4_000, help="simulated rollouts of each case")
    parser.add_argument("--only", nargs="+", choices=(*TABLES, "detectors"), help="these tables")
    parser.add_argument("--bank", type=Path, default=default_bank_path(), help="scored utterances")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    wanted = arguments.only or (*TABLES, "detectors")
    found: list[dict[str, object]] = []
    for name in wanted:
        if name == "detectors" and not arguments.bank.exists():
            print(f"\nno bank at {arguments.bank}: `fa fleet make` builds one")
            continue
        table = detectors(Bank(read_bank(arguments.bank))) if name == "detectors" else TABLES[name]()
        for line in lines(table, arguments.rollouts, found):
            print(line, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    missed = [each for each in found if not each["kept"]]
    print(f"\n{len(found) - len(missed)} of {len(found)} figures as promised")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
