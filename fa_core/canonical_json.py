"""One text for a value, so that everybody who hashes or signs it hashes and signs the same bytes."""

import json
from datetime import UTC, datetime


def canonical(value: object) -> bytes:
    """Return the one JSON text of a value made of dict, list, str, int, bool and None: keys sorted, ASCII.

    >>> canonical({"b": 1, "a": ["é", None]})
    b'{"a":["\\\\u00e9",null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def utc_text(moment: datetime) -> str:
    """Return the one text of a moment. Raises ValueError where it has no zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
