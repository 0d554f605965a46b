#!/usr/bin/env python
"""Latency of the dashboard: its first view, and every click, with 510 releases and 1,000,000 rows.

Run it from the repository, with the virtual environment: `python scripts/bench/dashboard.py [--store DIR]`. The store
is made if it does not exist, which takes some minutes. Times are wall seconds in real Chromium, the median of
some tries, from the click until everything is rendered.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fa_core.store import open_store
from tests.dashboard.browser import View, chromium, serving, viewing
from tests.dashboard.stores import large

FIRST, CLICK = 2.0, 1.0
"""Targets in seconds, for the first view and for every click."""


def main() -> int:
    """Measure, print and return 0 where every time is within its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="the store; made if it does not exist")
    parser.add_argument("--releases", type=int, default=510)
    parser.add_argument("--tries", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.store or Path(temporary) / "store"
        if not (folder / "store.db").exists():
            print(f"making {arguments.releases} releases in {folder}", flush=True)
            large(folder, arguments.releases).store.close()
        with open_store(folder, create=False) as store:
            entries = store.releases(limit=10**6)
            rows = sum(
                len(store.results(entries[at : at + 50], ["metric"])) for at in range(0, len(entries), 50)
            )
        print(f"{len(entries)} releases, {rows:,} result rows")
        return measure(folder, arguments.tries)


def measure(folder: Path, tries: int) -> int:
    """Start the dashboard, open it in a browser, and print the latencies."""
    print(f"load when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    late = 0
    with serving(folder) as base, chromium() as browser:
        first = []
        for _ in range(tries):
            with viewing(browser, base) as view:
                first.append(timed(partial(view.open, "/")))
        late += report("first view (Health, a new browser)", first, FIRST)
        with viewing(browser, base) as view:
            view.open("/")
            for name, act in clicks(view):
                late += report(name, [timed(partial(act, turn)) for turn in range(tries)], CLICK)
            if view.errors:
                print("console:", *view.errors[:5], sep="\n  ")
                late += 1
    return 1 if late else 0


def clicks(view: View) -> list[tuple[str, Callable[[int], None]]]:
    """Return the measured clicks, by name; each takes the number of the try."""
    page = view.page

    def to(title: str) -> Callable[[int], None]:
        def go(turn: int) -> None:
            page.locator(f'[data-testid="stTopNavLink"]:has-text("{title}")').first.click()
            page.wait_for_selector(f"h1.uh-title:text-is('{title}')")
            view.settle()

        return go

    def choose(label: str) -> Callable[[int], None]:
        def select(turn: int) -> None:
            view.choose(page.get_by_test_id("stSelectbox").filter(has_text=label).first, turn)

        return select

    found: list[tuple[str, Callable[[int], None]]] = []
    for title in ("Segments", "Trends", "Confusions", "Privacy", "Plans", "Health"):
        found.append((f"to {title}", to(title)))
    found.append(("to Segments again", to("Segments")))
    found += [
        (f"Segments: another {name.lower()}", choose(name))
        for name in ("Plan", "Release", "Metric", "Break down by")
    ]
    found.append(("to Trends again", to("Trends")))
    found += [(f"Trends: another {name.lower()}", choose(name)) for name in ("Plan", "Group")]
    found.append(("to Confusions again", to("Confusions")))
    found += [(f"Confusions: another {name.lower()}", choose(name)) for name in ("Release", "Group")]
    return found


def timed(act: Callable[[], None]) -> tuple[float, float]:
    """Return the wall seconds and the CPU seconds of an action, the dashboard and the browser together."""
    start, before = time.perf_counter(), cpu_seconds()
    act()
    return time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds() -> float:
    """Return the CPU seconds of all child processes so far."""
    parents, used = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        process = int(file.parent.name)
        parents[process], used[process] = int(fields[1]), int(fields[11]) + int(fields[12])
    mine = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(used[process] for process in mine - {os.getpid()}) / os.sysconf("SC_CLK_TCK")


def report(name: str, times: list[tuple[float, float]], target: float) -> int:
    """Print the times of one action and return 1 where their median is over the target."""
    seconds, cpu = zip(*times, strict=True)
    middle = median(seconds)
    verdict = "" if middle <= target else "  LATE"
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(
        f"{name:<40} {middle:6.2f} s   ({spread}, target: {target:g} s; CPU {median(cpu):.2f} s){verdict}",
        flush=True,
    )
    return int(middle > target)


if __name__ == "__main__":
    sys.exit(main())
