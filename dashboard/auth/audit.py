"""The audit trail: an append-only log of actions (sign-in, launch, export, verification), one JSON line each.

Each line holds the SHA-256 of the previous line, so a changed or removed line is detected. The file is beside the
store and not in it, because the dashboard only reads the store.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

FILE: Final = "audit.jsonl"
_START: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Action:
    """One line of the trail: who did what, when, and with which details."""

    at: datetime
    user: str
    name: str
    details: Mapping[str, str]


def record(folder: Path, user: str, name: str, details: Mapping[str, str]) -> None:
    """Append an action and flush it to disk; concurrent writers take turns by a file lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = file.read().splitlines()
        body = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": user,
            "action": name,
            "details": dict(details),
            "before": _hash(last[-1]) if last else _START,
        }
        file.write(json.dumps(body, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> tuple[tuple[Action, ...], list[str]]:
    """Return every action, oldest first, and the problems of the trail, one sentence each."""
    file = folder / FILE
    if not file.exists():
        return (), []
    actions: list[Action] = []
    problems: list[str] = []
    before = _START
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            body = json.loads(line)
            actions.append(
                Action(datetime.fromisoformat(body["at"]), body["who"], body["action"], dict(body["details"]))
            )
            if body["before"] != before:
                problems.append(
                    f"line {number} does not match the hash of the previous line: a line was changed or removed"
                )
        except (ValueError, KeyError, TypeError, RecursionError):
            problems.append(f"line {number} is not a line of an audit trail")
        before = _hash(line)
    return tuple(actions), problems


def _hash(line: bytes) -> str:
    return sha256(line).hexdigest()
