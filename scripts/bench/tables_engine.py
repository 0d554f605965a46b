"""How quickly `fa run --engine tables` answers a plan over a large fleet, beside reading its files once.

    python -m scripts.bench.tables_engine [--devices 1000000] [--events 32] [--hours 16] [--json]

The fleet's tables are made up and written as `fa fleet import` writes them; then a command of its own runs
the weekly plan over them. The peer reads the same Parquet files into memory with pyarrow, no more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.evaluate import Cohort
from scripts.bench.tables import UNTIL, cohort

ROOT: Final = Path(__file__).resolve().parents[2]
PLAN: Final = ROOT / "eval_plans" / "wake-word-weekly.yaml"

READ: Final = """
import sys, pyarrow.parquet as pq
tables = [pq.read_table(file) for file in sys.argv[1:]]
"""


def write(fleet: Cohort, folder: Path) -> list[Path]:
    """Write a cohort as a fleet directory; return its Parquet files."""
    names = pa.array([f"{number:08d}" for number in range(len(fleet))])
    facts = {name: pa.array(labels).take(pa.array(codes)) for name, (codes, labels) in fleet.facts.items()}
    devices = {"device_id": names, **facts, "app_version": pa.array(["1.0"] * len(fleet))}
    folder.mkdir(parents=True)
    pq.write_table(pa.table(devices), folder / "devices.parquet")
    for name, table in fleet.tables.items():
        each = table.num_rows // len(fleet)
        place = pa.array(np.repeat(np.arange(len(fleet), dtype=np.int32), each))
        owner = pa.DictionaryArray.from_arrays(place, names)
        pq.write_table(table.add_column(0, "device_id", owner), folder / f"{name}.parquet")
    described = {
        "population": "bench", "until": UNTIL.isoformat(), "synthetic": True, "devices": len(fleet)
    }  # fmt: skip
    (folder / "fleet.json").write_text(json.dumps(described))
    return sorted(folder.glob("*.parquet"))


def timed(arguments: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the most memory that it held, in GB. Ends where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments[:6])} … ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


def main() -> int:
    """Run the bench; return 1 where a million devices would take over five minutes or six gigabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=32)
    parser.add_argument("--hours", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        fleet = Path(place) / "fleet"
        files = write(cohort(asked.devices, asked.events, asked.hours), fleet)
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        command = [sys.executable, "-m", "fa_core.cli", "run", str(PLAN), "--engine", "tables"]
        seconds, gigabytes = timed(
            [*command, "--fleet", str(fleet), "--store", f"{place}/store", "--until", UNTIL.isoformat()]
        )
        peer, _ = timed([sys.executable, "-c", READ, *map(str, files)])
    figures = {
        "devices": asked.devices, "events": asked.events, "files_mb": megabytes, "seconds": seconds,
        "gigabytes": gigabytes, "peer_seconds": peer, "ratio": seconds / peer,
    }  # fmt: skip
    if asked.json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"{asked.devices:,} devices x {asked.events} events, {megabytes:,.0f} MB of Parquet")
        print(f"fa run --engine tables   {seconds:8.1f} s   {gigabytes:5.2f} GB")
        print(f"pyarrow reads the files  {peer:8.1f} s   {seconds / peer:5.1f} times less")
    return 1 if seconds > 300 or gigabytes > 6 else 0


if __name__ == "__main__":
    raise SystemExit(main())
