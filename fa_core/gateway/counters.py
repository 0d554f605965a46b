"""Counts of the service for Prometheus: of requests, rounds and bytes, never of a device.

Labels are of fixed sets written in the source. What is counted is public anyway (who was invited, joined and
dropped, and when); sizes are those of the protocol, equal for all. Each worker writes its counts into a file
of its own and the exposition adds the files up, so the counts of workers that ended stay in the sum.
"""

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

FRESH_SECONDS = 15.0
"""Gauges in files not written for so long belong to a worker that ended."""

REQUESTS = "unheard_gateway_requests_total"
WORK = "unheard_gateway_request_seconds_total"
RECEIVED = "unheard_gateway_received_bytes_total"
SENT = "unheard_gateway_sent_bytes_total"
MESSAGES = "unheard_gateway_letters_total"
UPLOADS = "unheard_gateway_uploads_total"
STAGES_ENDED = "unheard_gateway_stages_total"
ERRORS = "unheard_gateway_database_errors_total"
WAITING = "unheard_gateway_waiting"

HELP = {
    REQUESTS: ("counter", "Requests answered, by method and status."),
    WORK: ("counter", "Seconds of work on requests, without waiting."),
    RECEIVED: ("counter", "Bytes of replies and uploads taken from devices."),
    SENT: ("counter", "Bytes of requests and published files handed to devices."),
    MESSAGES: ("counter", "Messages to devices, by stage and by whether they were answered in time."),
    UPLOADS: ("counter", "Reports and withdrawals, by kind and by whether they were taken or handed over."),
    STAGES_ENDED: ("counter", "Stages that ended."),
    ERRORS: ("counter", "Times that the database could not be used."),
    WAITING: ("gauge", "Requests that wait for a message now."),
}

Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Counts of one process; its threads may add at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Key] = Counter()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += amount  # type: ignore[assignment]

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._counts[name, ()] = value  # type: ignore[assignment]

    def write(self, folder: Path) -> None:
        """Write the counts as this process's file."""
        with self._lock:
            rows = [[name, labels, value] for (name, labels), value in self._counts.items()]
        file = folder / f"counts-{os.getpid()}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(rows), encoding="utf-8")
        part.replace(file)


def exposition(folder: Path) -> str:
    """Return the counts of all processes in Prometheus's text format (version 0.0.4)."""
    totals: Counter[Key] = Counter()
    for file in sorted(folder.glob("counts-*.json")):
        fresh = time.time() - file.stat().st_mtime < FRESH_SECONDS
        for name, labels, value in json.loads(file.read_text(encoding="utf-8")):
            if fresh or HELP[name][0] == "counter":
                totals[name, tuple((key, text) for key, text in labels)] += value
    lines = []
    for name, (kind, description) in HELP.items():
        lines += [f"# HELP {name} {description}", f"# TYPE {name} {kind}"]
        for (found, labels), value in sorted(totals.items()):
            if found == name:
                inside = ",".join(f'{key}="{text}"' for key, text in labels)
                lines.append(f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def forget(folder: Path) -> None:
    """Remove what processes of an earlier start left."""
    for file in folder.glob("counts-*"):
        file.unlink(missing_ok=True)
