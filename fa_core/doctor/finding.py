"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check ended: good, worth a look, or broken."""

    GOOD = "good"
    LOOK = "look"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it is, what was found, and what mends it ("" for nothing)."""

    check: str
    state: State
    found: str
    mend: str = ""


def good(check: str, found: str) -> Finding:
    """Return a finding of nothing wrong."""
    return Finding(check, State.GOOD, found)


def look(check: str, found: str, mend: str) -> Finding:
    """Return a finding that may be meant so."""
    return Finding(check, State.LOOK, found, mend)


def broken(check: str, found: str, mend: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(check, State.BROKEN, found, mend)
