"""Rounds back to back on one lab: what its processes hold after each, and what is left at the end.

    python -m scripts.bench.soak [--rounds 6] [--nodes 3] [--devices 20]

Prints, after each round, seconds, resident memory and open files of every long-lived process together, and
how many processes there are. Ends with 1 where memory or files grow from the third round on by more than
5 % (a first round fills caches), or where a process outlives the lab. Two hours are about 100 rounds.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.deployment.faults import below
from tests.deployment.lab import Lab, lab

ALLOWED = 1.05
WARM = 3


@dataclass(frozen=True)
class Held:
    """What a lab's long-lived processes hold: resident memory in MiB, open files; and how many there are."""

    memory: float
    files: int
    processes: int


def held(up: Lab, supervisor: int) -> Held:
    """Return what the supervisor's processes hold now, those of a round left out."""
    memory, files, count = 0, 0, 0
    for pid in [supervisor, *below(supervisor, "")]:
        place = Path(f"/proc/{pid}")
        try:
            pages = int((place / "statm").read_text().split()[1])
            files += len(os.listdir(place / "fd"))
        except OSError:
            continue
        if pages:  # a process that has ended and waits to be collected holds nothing
            memory, count = memory + pages * os.sysconf("SC_PAGE_SIZE"), count + 1
    return Held(memory / 2**20, files, count)


def settled(up: Lab, supervisor: int) -> Held:
    """Return what is held once the processes of the last round are gone."""
    end = time.monotonic() + 60
    while time.monotonic() < end and any(
        below(supervisor, what) for what in ("flwr-serverapp", "flwr-clientapp")
    ):
        time.sleep(0.2)
    return held(up, supervisor)


def main() -> int:
    """Run the rounds and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--devices", type=int, default=20)
    chosen = parser.parse_args()
    seen = []
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder), chosen.nodes, chosen.devices) as up:
        up.ample_budget()
        supervisor = up.supervisor()
        with up.store() as store:
            before = store.count()
        print(f"{'round':>6}{'seconds':>9}{'MiB':>9}{'files':>7}{'processes':>11}")
        for number in range(1, chosen.rounds + 1):
            began = time.monotonic()
            up.run(up.plan(f"soak-{number}"))
            seconds = time.monotonic() - began
            seen.append(now := settled(up, supervisor))
            print(
                f"{number:>6}{seconds:>9.1f}{now.memory:>9.0f}{now.files:>7}{now.processes:>11}", flush=True
            )
        with up.store() as store:
            assert store.count() == before + chosen.rounds
            assert store.verify_ledger() == store.verify_log() == []
    print("after `fa federation down`: no process is left")
    warm = seen[min(WARM, len(seen)) - 1]
    grown = max(seen[-1].memory / warm.memory, seen[-1].files / warm.files)
    print(f"from round {min(WARM, len(seen))} to {len(seen)}: {100 * (grown - 1):+.1f} %")
    return int(grown > ALLOWED or seen[-1].processes > warm.processes)


if __name__ == "__main__":
    sys.exit(main())
