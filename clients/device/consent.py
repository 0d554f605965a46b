"""The owner's consent: by purpose, for a time, revocable. Without it an event is never written.

The default is nothing. A consent that has run out is the same as one that was revoked: what its purpose
had stored is deleted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from fa_core.errors import BadInput

Purpose = Literal["quality_metrics", "personalisation", "debug"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

LONGEST = timedelta(days=2 * 366)
"""Consent is asked for again after two years at the latest."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Consent to one purpose, from `granted` until just before `until` (UTC)."""

    purpose: Purpose
    granted: datetime
    until: datetime

    def __post_init__(self) -> None:
        if not self.granted < self.until <= self.granted + LONGEST:
            raise BadInput(f"consent runs for more than nothing and at most {LONGEST.days} days")


def purpose(name: str) -> Purpose:
    """Return the purpose called `name`. Raises BadInput with the names there are."""
    for known in PURPOSES:
        if known == name:
            return known
    raise BadInput(f"{name!r} is not a purpose; there are {', '.join(PURPOSES)}")


def allows(grants: Iterable[Grant], wanted: Purpose, now: datetime) -> bool:
    """Return whether some grant covers `wanted` at `now`."""
    return any(grant.purpose == wanted and grant.granted <= now < grant.until for grant in grants)


def lapsed(grants: Iterable[Grant], now: datetime) -> frozenset[Purpose]:
    """Return the purposes whose grants have all run out at `now`."""
    held = tuple(grants)
    live = {grant.purpose for grant in held if now < grant.until}
    return frozenset(grant.purpose for grant in held) - live
