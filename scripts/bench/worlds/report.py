"""Tables of what the worlds show: each setting, kinds by size, and the places that break a promise."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scripts.bench.worlds.coverage import (
    AT_5,
    FORMS,
    MOST,
    ONE_SIDED,
    REACH,
    Form,
    Found,
    cover,
    failures,
    runs_of,
)
from scripts.bench.worlds.fleets import setting
from scripts.bench.worlds.groups import WORLDS
from scripts.bench.worlds.kinds import CASES

HEADER: Final = (
    f"  {'kind':<18}{'world':<12}{'devices':>8}  {'group':<17}{'covered':>8}{'worst':>8} {'place':<17}"
    f"{'under':>6}{'over':>7}{'  at 5%:':>8}{'under':>7}{'over':>7}{'shown':>7}{'± width':>10}"
    f"{'no noise:':>10}{'± width':>10}"
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
    under, over, under_5, over_5 = (
        float(each[mine].sum()) / shown for each in (found.under, found.over, found.under_5, found.over_5)
    )
    shares = (found.held[mine].sum() / shown, found.covered[worst])
    plain = found.plain_held[mine].sum() / found.releases / places
    yield (
        f"{head}{shares[0]:>8.1%}{shares[1]:>8.1%} {found.places[worst]:<17.17}{under:>6.1%}{over:>7.1%}"
        f"{under_5:>15.1%}{over_5:>7.1%}{shown / found.releases / places:>7.0%}"
        f"{np.mean(found.half[mine]):>10.4g}{plain:>10.1%}{np.mean(found.plain_half[mine]):>10.4g}"
    )


def _found(kind: str, world: str, population: int, runs: Sequence[tuple[int, int]]) -> list[Found]:
    where = setting(CASES[kind], WORLDS[world], population)
    return [cover(where, devices, releases) for devices, releases in runs]


def print_table(name: str, kinds: Sequence[str], jobs: int, results: Path | None = None) -> None:
    """Print coverage of a form as it is found, then by kind and size, then places that break their promise.

    Args:
        kinds: the cases to show, in this order; all where empty.
        jobs: processes.
        results: a file to which each setting is added as it is found. What is in it already is not looked for
            again.
    """
    whole = FORMS[name]
    form = Form(
        whole.population, tuple(run for kind in kinds or CASES for run in whole.runs if run[0] == kind)
    )
    done = list(read(results)) if results is not None else []
    known = {(found.kind, found.world) for found in done}
    print(HEADER)
    for each in done:
        print("\n".join(rows(each)))
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [
            pool.submit(_found, kind, world, form.population, runs)
            for (kind, world), runs in runs_of(form).items()
            if (kind, world) not in known
        ]
        for each in (found for future in waiting for found in future.result()):
            done.append(each)
            print("\n".join(rows(each)), flush=True)
            if results is not None:
                with results.open("a") as file:
                    print(as_json(each), file=file)
    print("\n".join(("", SUMMARY, *summary(done))))
    print(
        f"\nPlaces under {REACH:.0%}, over {MOST:.0%}, or with more than {ONE_SIDED:.1%} on one side (of "
        f"one-sided 95% bounds {AT_5:.1%}); fewer than 1 table of 1,000 has such a line by chance:"
    )
    print("\n".join(each.line for each in failures(done, 1e-3)) or "  none")


def as_json(found: Found) -> str:
    """Return a setting's coverage as one line of JSON."""
    values = {each.name: getattr(found, each.name) for each in fields(Found)}
    return json.dumps(
        {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in values.items()}
    )


def read(path: Path) -> Iterator[Found]:
    """Yield what a file of such lines holds."""
    if path.exists():
        for line in path.read_text().splitlines():
            values: dict[str, Any] = {
                name: np.array(each) if isinstance(each, list) and name != "places" else each
                for name, each in json.loads(line).items()
            }
            yield Found(**values)


SUMMARY: Final = (
    f"  {'coverage [worst]':<18}{'devices':>8}{'releases':>10}{'everyone':>16}{'groups':>16}{'cells':>16}"
    f"{'one side, 2.5%':>16}{'5%':>8}\n"
    "  Over all worlds. A group of a table is all its cells together; worst of those shown in a quarter of\n"
    "  the releases. The most missed on one side is of all single places."
)


def summary(all_found: Sequence[Found]) -> Iterator[str]:
    """Yield a line for each kind and size of fleet, over all worlds."""
    for kind, devices in dict.fromkeys((found.kind, found.devices) for found in all_found):
        mine = [found for found in all_found if (found.kind, found.devices) == (kind, devices)]
        everyone: list[tuple[int, int]] = []
        groups: list[tuple[int, int]] = []
        cells: list[tuple[int, int]] = []
        sides = {1: 0.0, 2: 0.0}
        for found in mine:
            often = found.shown >= found.releases / 4
            named = np.array([place.split(" ")[0] for place in found.places])
            for name in dict.fromkeys(named):
                here = often & (named == name)
                share = (int(found.held[here].sum()), int(found.shown[here].sum()))
                (everyone if name == "everyone" else groups).append(share)
            if len(set(named)) < len(named):
                cells += list(zip(found.held[often].tolist(), found.shown[often].tolist(), strict=True))
            for place, both in enumerate((("under", "over"), ("under_5", "over_5")), start=1):
                missed = np.maximum(*(getattr(found, side) for side in both))[often]
                sides[place] = max(sides[place], float((missed / found.shown[often]).max(initial=0.0)))
        releases = min(found.releases for found in mine)
        yield (
            f"  {kind:<18.18}{devices:>8,}{releases:>10,}"
            f"{_worst(everyone):>16}{_worst(groups):>16}{_worst(cells):>16}{sides[1]:>16.1%}{sides[2]:>8.1%}"
        )


def _worst(shares: Sequence[tuple[int, int]]) -> str:
    """Return the whole coverage and the worst of (held, shown), "" of none."""
    there = [(held, shown) for held, shown in shares if shown]
    if not there:
        return ""
    held, shown = (sum(column) for column in zip(*there, strict=True))
    return f"{held / shown:.1%} [{min(h / s for h, s in there):.1%}]"
