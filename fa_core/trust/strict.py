"""Values of JSON that somebody else wrote, taken only as the type and size that they must have.

Each raises ValueError for anything else, so that hostile bytes end in one refusal and not in a long
computation or another kind of error.
"""

import re
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

LARGEST: Final = (1 << 53) - 1
"""The largest whole number that every reader of JSON takes exactly."""

_LAST: Final = int(datetime(9000, 1, 1, tzinfo=UTC).timestamp())
"""Moments are before it, so that a plan's weeks can be added to any."""

_FRACTION = re.compile(r"[0-9]{1,40}(/[0-9]{1,40})?")


def text(value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def whole(value: Any) -> int:
    """Return a whole number in [0, LARGEST]; True is none."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError("not a whole number")
    return value


def fraction(value: Any) -> Fraction:
    """Return the fraction in a text such as "1/10", of at most 40 digits above and below."""
    if _FRACTION.fullmatch(text(value)) is None or value.endswith("/0"):
        raise ValueError("not a fraction")
    return Fraction(value)


def moment(value: Any) -> datetime:
    """Return the time of whole seconds since 1970, UTC, before the year 9000."""
    if whole(value) >= _LAST:
        raise ValueError("not a moment")
    return datetime.fromtimestamp(value, UTC)


def release_id(value: Any) -> str | None:
    """Return the id of a release, at most 64 characters, or None for none."""
    if value is None:
        return None
    if not 0 < len(text(value)) <= 64:
        raise ValueError("not the id of a release")
    return str(value)
