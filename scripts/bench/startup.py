#!/usr/bin/env python
"""What it costs to start `fa`: CPU seconds of a command, and how many times those of importing its libraries.

Run it from the repository, with the virtual environment: `python scripts/bench/startup.py [--runs 9]`. A run
starts every command once, so that a busy machine is busy for all of them; the median of the runs is printed,
and the exit code is 1 where a command costs more than 3 times `import typer, rich, pydantic` (not by fewer
than 3 runs: one says nothing).
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3.0
"""Most that a command may cost, in times of the libraries' import."""

FA = str(Path(sys.executable).with_name("fa"))
LIBRARIES = ("-c", "import typer, rich, pydantic")
COMMANDS = {
    "--version": 0,
    "--help": 0,
    "plan check nowhere.yaml": 2,
    "plan check eval_plans/wake-word-weekly.yaml": 0,
    "plan check eval_plans/false-wake-incident.yaml": 0,
}
"""What is measured, with the exit code that it has to end with."""


def cpu_seconds(arguments: Sequence[str], exit_code: int) -> float:
    """Run Python with these arguments, and return its CPU seconds, user's and system's."""
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
    after = getrusage(RUSAGE_CHILDREN)
    if done.returncode != exit_code:
        raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure, print and return 0 where every command is within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    libraries: list[float] = []
    seconds: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(runs):
        libraries.append(cpu_seconds(LIBRARIES, 0))
        for command, exit_code in COMMANDS.items():
            seconds[command].append(cpu_seconds((FA, *command.split()), exit_code))
    base = median(libraries)
    print(f"{base:6.3f} s        python -c '{LIBRARIES[1]}'")
    ratios = {command: median(found) / base for command, found in seconds.items()}
    for command, ratio in ratios.items():
        print(f"{ratio * base:6.3f} s  {ratio:4.2f}x  fa {command}")
    return 1 if runs >= 3 and max(ratios.values()) > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
