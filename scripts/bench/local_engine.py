"""What a device costs the local engine, here and at an earlier commit: CPU seconds of the same round.

    python -m scripts.bench.local_engine --before COMMIT [--devices 2000] [--events 32] [--runs 3] [--json]

A fleet is made up once. `fa run --engine local` then answers the weekly plan over it, by turns from a
checkout of the commit and from this one, so that a busy machine is busy for both. The CPU seconds are those
of the whole command and its worker processes, user's and system's, start-up included; the least of the runs
counts. The exit code is 1 where a device costs more than 60% of what it cost before.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Final

from scripts.bench.tables import cohort
from scripts.bench.tables_engine import PLAN, ROOT, write

TARGET: Final = 0.6
HOURS: Final = 16


def check_out(commit: str, folder: Path) -> None:
    """Write the files of a commit of this repository into a new directory."""
    made = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if made.returncode:
        raise SystemExit(f"--before {commit}: {made.stderr.decode().strip()}")
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=made.stdout, check=True)


def cpu_seconds(code: Path, fleet: Path, store: Path) -> float:
    """Run a round from the checkout `code`; return its CPU seconds. Ends where it fails."""
    command = [sys.executable, "-m", "fa_core.cli", "run", str(PLAN), "--engine", "local"]
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, "--fleet", str(fleet), "--store", str(store)],
        cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"fa run in {code} ended with {done.returncode}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Run the bench; return 1 where the target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", required=True, metavar="COMMIT")
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as place:
        fleet, earlier = Path(place) / "fleet", Path(place) / "earlier"
        write(cohort(asked.devices, asked.events, HOURS), fleet)
        check_out(asked.before, earlier)
        for run in range(asked.runs):
            for name, code in (("before", earlier), ("now", ROOT)):
                seconds[name].append(cpu_seconds(code, fleet, Path(place) / f"{name}{run}"))
    before, now = (min(seconds[name]) / asked.devices for name in ("before", "now"))
    figures = {
        "devices": asked.devices, "before": asked.before, "seconds": seconds,
        "before_a_device": before, "now_a_device": now, "ratio": now / before,
    }  # fmt: skip
    if asked.json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"{asked.devices:,} devices x {asked.events} events, {asked.runs} runs by turns")
        print(f"{asked.before}  {1000 * before:8.2f} ms of CPU a device")
        print(f"this checkout  {1000 * now:8.2f} ms of CPU a device: {now / before:.3f} of that")
    return 1 if now > TARGET * before else 0


if __name__ == "__main__":
    raise SystemExit(main())
