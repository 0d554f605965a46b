"""Formatting of counts, costs, days and names; numbers of metrics are written by `fa_core.estimate.measure`."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction

from fa_core.estimate.measure import DASH, NOTHING, Measure, measure
from fa_core.values import Estimate


def measure_of(results: Sequence[Estimate]) -> Measure:
    """Return how the numbers of one metric's results are written."""
    return measure(results[0].kind, results[0].unit)


def count(value: float | None, sd: float | None = None) -> str:
    """Return a noisy count as `about 2,990`, to the digits that its noise supports; negative ones as 0."""
    if value is None:
        return NOTHING
    step = 10 ** max(0, math.floor(math.log10(sd))) if sd and sd >= 1 else 1
    whole = max(0, round(value / step) * step)
    return f"{whole:,}" if not sd else f"about {whole:,}"


def cost(value: Fraction | float) -> str:
    """Return a privacy cost to three significant digits."""
    return f"{float(value):.3g}"


def words(name: str) -> str:
    """Return a name with underscores as words: `false_reject_rate` is `false reject rate`."""
    return name.replace("_", " ")


def group_text(group: Sequence[tuple[str, str]]) -> str:
    """Return a group as text: its labels, or `everyone`."""
    return " · ".join(label for _, label in group) or "everyone"


def grouping_text(grouping: Sequence[str]) -> str:
    """Return a grouping as text: `accent and device class`, or `everyone together`."""
    return " and ".join(words(name) for name in grouping) or "everyone together"


def day(moment: datetime) -> str:
    """Return the day of a moment as `5 Oct 2026`, in UTC as on the command line."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%b %Y}"


def minute(moment: datetime) -> str:
    """Return a moment as `2026-10-05 07:30 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def span(start: datetime, stop: datetime) -> str:
    """Return a window as `28 Sep – 5 Oct 2026`."""
    start, stop = start.astimezone(UTC), stop.astimezone(UTC)
    first = f"{start.day} {start:%b}" if start.year == stop.year else day(start)
    return f"{first} {DASH} {day(stop)}"


def points(number: str) -> str:
    """Return a number of percentage points: `1 point`, `0.5 points`."""
    return f"{number} point" if number == "1" else f"{number} points"


def short(release: str) -> str:
    """Return the first 8 digits of a release's id, which name it on every page."""
    return release[:8]
