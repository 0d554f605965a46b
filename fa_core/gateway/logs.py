"""Structured logs of a service: one JSON object a line, with fixed texts, no device's value and no secret.

A line has the time, the level, the service and `event`: the record's template as it stands in the source.
Only fields in FIELDS are added, and only if they are numbers or short identifiers. Records of other packages
and exceptions are reduced to where they came from.
"""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Final, TextIO

FIELDS: Final = (
    "release", "node", "stage", "asked", "answered", "slots", "seconds", "rounds", "collections", "code",
)  # fmt: skip
"""Fields that may stand beside the event: public facts of rounds and collections."""

OURS: Final = ("fa_core", "clients")

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        ours = record.name.split(".")[0] in OURS
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.msg if ours and isinstance(record.msg, str) else "message of another component",
        }
        if not ours:
            line["component"] = record.name
        for name in FIELDS:
            value = getattr(record, name, None)
            if isinstance(value, int | float) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            frames = traceback.extract_tb(trace)
            line["error"] = f"{kind.__module__}.{kind.__qualname__}"
            line["place"] = f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
        return json.dumps(line)


def structured(service: str, stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(service))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
