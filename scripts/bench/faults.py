"""Break a real federation in every way and at every stage, and print how each run ended.

    python -m scripts.bench.faults [FAULT ...] [--stages join,masked]

A lab of three hubs is started on this machine; each fault strikes a run at one stage. Every run must end as
released once, or as failed with nothing released; ledger and log must agree; and the next round must work.
Faults of the network are struck only in a network of their own:

    UNHEARD_TEST_OWN_NETWORK=1 unshare --net \\
        sh -c "ip link set lo up mtu 1500; python scripts/bench/faults.py"
"""

import argparse
import tempfile
from pathlib import Path

from tests.deployment.faults import APART, KILLED, STAGES, Result, alone, strike, table
from tests.deployment.lab import lab

NODES, DEVICES, DEADLINE = 3, 30, 90.0


def main() -> None:
    """Strike, print each line as it is known, and the whole table at the end."""
    faults = KILLED | (APART if alone() else {})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", choices=faults, default=list(faults))
    parser.add_argument("--stages", default=",".join(STAGES))
    chosen = parser.parse_args()
    rows: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder), NODES, DEVICES, DEADLINE) as up:
        up.ample_budget()
        for name in chosen.faults:
            for stage in chosen.stages.split(","):
                rows.append(strike(up, name, faults[name], stage))
                print(table(rows[-1:]).splitlines()[1], flush=True)
            up.run(up.plan(f"after-{name}"))
    print(table(rows))


if __name__ == "__main__":
    main()
