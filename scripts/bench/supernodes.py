"""What scripts/bench/gateway.py shows, on plain SuperNodes: for each a process, and one for each message.

    python -m scripts.bench.supernodes [--nodes 20] [--devices 3] [--idle 60]

A lab of real processes runs one round with secure aggregation and distributed noise. A SuperNode costs the
same whether one device is behind it or more; by default there are three, since no device answers a plan for
under 50. The protocol's own time is the hub processes' and is left out: scripts/bench/secagg.py gives it. A
node's messages are counted as a gateway's requests are: each stage's request, and the reply.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.bench.gateway import cpu, memory
from tests.deployment.lab import Lab, lab

STAGES = 5


@dataclass(frozen=True)
class Report:
    """The figures. CPU in milliseconds, memory in megabytes."""

    nodes: int
    devices: int
    counted: int
    round_seconds: float
    messages: int
    messages_a_second: float
    node_ms_a_round: float
    node_ms_a_message: float
    node_ms_an_idle_minute: float
    node_mb: float
    superlink_ms_a_message: float
    superlink_ms_an_idle_minute: float
    superlink_mb: float


@dataclass(frozen=True)
class Spent:
    """CPU seconds so far, of all SuperNodes and of the SuperLink."""

    nodes: float
    superlink: float


def spent(up: Lab) -> Spent:
    """Return what the lab's processes have spent, their ended children included."""
    return Spent(sum(map(cpu, supernodes(up))), cpu(up.pid("superlink")))


def supernodes(up: Lab) -> list[int]:
    return [up.pid(f"node-{number:02}") for number in range(up.nodes)]


def measure(up: Lab, idle_seconds: float) -> Report:
    """Wait, run a round, and return what each cost."""
    before = spent(up)
    time.sleep(idle_seconds)
    idle = spent(up)
    began = time.monotonic()
    released = json.loads(up.run(up.plan("supernodes", dropout="0.34")).stdout)
    took = time.monotonic() - began
    after = spent(up)
    messages = 2 * STAGES * up.nodes
    minute = 60.0 / idle_seconds
    return Report(
        nodes=up.nodes,
        devices=up.devices,
        counted=released["devices"]["counted"],
        round_seconds=took,
        messages=messages,
        messages_a_second=messages / took,
        node_ms_a_round=1000 * (after.nodes - idle.nodes) / up.nodes,
        node_ms_a_message=1000 * (after.nodes - idle.nodes) / messages,
        node_ms_an_idle_minute=1000 * (idle.nodes - before.nodes) / up.nodes * minute,
        node_mb=sum(map(memory, supernodes(up))) / up.nodes,
        superlink_ms_a_message=1000 * (after.superlink - idle.superlink) / messages,
        superlink_ms_an_idle_minute=1000 * (idle.superlink - before.superlink) * minute,
        superlink_mb=memory(up.pid("superlink")),
    )


def main() -> int:
    """Make the lab, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--devices", type=int, default=3, help="behind each node")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to look at an idle lab")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.nodes * asked.devices < 50:
        parser.error("no device answers a plan for fewer than 50, and there are nodes times devices")
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder), asked.nodes, asked.devices, 900.0) as up:
        report = measure(up, asked.idle)
    print(json.dumps(asdict(report), indent=2) if asked.json else text(report))
    return int(report.counted != asked.nodes * asked.devices)


def text(report: Report) -> str:
    """Return the figures as lines."""
    return "\n".join(
        (
            f"{report.nodes} SuperNodes of {report.devices} devices; {report.counted} counted",
            f"  the round     {report.round_seconds:8.1f} s",
            f"  messages      {report.messages:8,}, {report.messages_a_second:,.1f} a second",
            f"  a SuperNode   {report.node_ms_a_round:8,.0f} ms CPU a round with its ClientApps, "
            f"{report.node_ms_an_idle_minute:,.0f} ms an idle minute; {report.node_mb:,.0f} MB",
            f"  the SuperLink {report.superlink_ms_a_message:8.1f} ms CPU a message, "
            f"{report.superlink_ms_an_idle_minute:,.0f} ms an idle minute; {report.superlink_mb:,.0f} MB",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
