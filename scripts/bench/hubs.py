"""Hubs of many devices on one machine: a whole round with secure aggregation and distributed noise, measured.

    python -m scripts.bench.hubs [--nodes 20] [--devices 500] [--folder DIR]

Prints seconds to make and start the lab, seconds of the round, and what the processes hold after it. Stores
wait for the disk at every step, so a folder in memory measures the processors (20 hubs of 500 need 1 GB).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from scripts.bench.soak import settled
from tests.deployment.lab import lab

DEADLINE = 3600.0


def main() -> int:
    """Make, run, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--folder", default="/dev/shm")
    chosen = parser.parse_args()
    devices = chosen.nodes * chosen.devices
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=chosen.folder) as folder,
        lab(Path(folder), chosen.nodes, chosen.devices, DEADLINE) as up,
    ):
        started = time.monotonic()
        plan = up.plan("hubs", cohort=max(50, devices // 2), dropout="0.1", corrupt="0.1")
        released = json.loads(up.run(plan).stdout)
        ended = time.monotonic()
        now = settled(up, up.supervisor())
    print(f"{chosen.nodes} nodes of {chosen.devices} devices: {released['devices']}")
    print(f"made and started in {started - began:.0f} s, the round took {ended - started:.0f} s")
    print(f"{now.processes} processes hold {now.memory:,.0f} MiB and {now.files:,} files")
    return int(released["devices"]["counted"] != devices)


if __name__ == "__main__":
    sys.exit(main())
