"""The audit trail: every launch, export and check, who did it and when, one line each, never rewritten.

Each line holds the hash of the one before, so that a line that was changed or taken out shows. The file stands
beside the store and not in it: the dashboard reads the store only.
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
class Deed:
    """One line of the trail: what somebody did, with what."""

    at: datetime
    who: str
    action: str
    details: Mapping[str, str]


def record(folder: Path, who: str, action: str, details: Mapping[str, str]) -> None:
    """Append a deed, durably, after whatever others have appended."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = file.read().splitlines()
        body = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": who,
            "action": action,
            "details": dict(details),
            "before": _hash(last[-1]) if last else _START,
        }
        file.write(json.dumps(body, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> tuple[tuple[Deed, ...], list[str]]:
    """Return every deed, oldest first, and what is wrong with the trail, one sentence each."""
    file = folder / FILE
    if not file.exists():
        return (), []
    deeds: list[Deed] = []
    problems: list[str] = []
    before = _START
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            body = json.loads(line)
            deeds.append(
                Deed(datetime.fromisoformat(body["at"]), body["who"], body["action"], dict(body["details"]))
            )
            if body["before"] != before:
                problems.append(f"line {number} does not follow from the one before: something was changed")
        except (ValueError, KeyError, TypeError, RecursionError):
            problems.append(f"line {number} is not a line of an audit trail")
        before = _hash(line)
    return tuple(deeds), problems


def _hash(line: bytes) -> str:
    return sha256(line).hexdigest()
