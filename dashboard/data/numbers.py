"""Formatting of numbers: the unit, as many digits as the interval supports, and the interval beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final

from fa_core.values import Cell, Estimate

MINUS: Final = "\u2212"
DASH: Final = "\u2013"
NOTHING: Final = "\u2014"

_LESS: Final = " less "
"""Between candidate and baseline in the unit of a paired difference, as releases hold it."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How the numbers of a metric are written.

    Attributes:
        factor: what a value is multiplied by before it is shown.
        suffix: the unit, written after it.
        axis: the title of its axis.
        signed: whether a positive number carries its sign.
    """

    factor: float
    suffix: str
    axis: str
    signed: bool = False

    def text(self, value: float | None, half_width: float | None = None) -> str:
        """Return a value with its unit, to the digits that its half-width supports."""
        if value is None:
            return NOTHING
        return self.bare(value, half_width) + self.suffix

    def bare(self, value: float, half_width: float | None = None) -> str:
        """Return a value without its unit."""
        shown = value * self.factor
        text = f"{shown:,.{decimals((half_width if half_width else abs(value)) * self.factor)}f}"
        text = text.replace("-", MINUS) if float(text.replace(",", "")) != 0 else text.lstrip("-")
        return f"+{text}" if self.signed and shown > 0 and text.strip("0.,") else text

    def interval(self, low: float | None, high: float | None) -> str:
        """Return bounds as `15.7–17.4%`."""
        if low is None or high is None:
            return NOTHING
        half = (high - low) / 2
        between = " to " if self.signed or low < 0 else DASH
        return f"{self.bare(low, half)}{between}{self.bare(high, half)}{self.suffix}"

    def with_interval(self, number: Estimate | Cell) -> str:
        """Return `16.5% (15.7–17.4%)`, or a dash where nothing is shown."""
        if number.estimate is None:
            return NOTHING
        return f"{self.text(number.estimate, half_width(number))} ({self.interval(number.low, number.high)})"


def compared_models(unit: str) -> tuple[str, str]:
    """Return the candidate and the baseline that the unit of a paired difference names."""
    candidate, _, baseline = unit.partition(_LESS)
    return candidate, baseline


def measure(kind: str, unit: str) -> Measure:
    """Return how numbers of a kind and unit are written: shares in per cent, their differences in percentage points."""
    if kind == "paired_difference":
        return Measure(
            100.0, " points", f"{unit.replace(_LESS, f' {MINUS} ')}, percentage points", signed=True
        )
    if kind == "ratio":
        return Measure(1.0, "", unit.replace("_", " "))
    if unit == "":
        return Measure(100.0, "%", "share of events, %")
    return Measure(1.0, f" {unit}", unit)


def difference(kind: str, unit: str) -> Measure:
    """Return how differences between two numbers of a kind and unit are written."""
    of = measure(kind, unit)
    if of.suffix == "%":
        return Measure(100.0, " points", "difference, percentage points", signed=True)
    return Measure(of.factor, of.suffix, f"difference, {of.axis}", signed=True)


def measure_of(results: Sequence[Estimate]) -> Measure:
    """Return how the numbers of one metric's results are written."""
    return measure(results[0].kind, results[0].unit)


def half_width(number: Estimate | Cell) -> float | None:
    """Return half the width of a number's interval, None where it has none."""
    if number.low is None or number.high is None:
        return None
    return (number.high - number.low) / 2


def decimals(half_width: float) -> int:
    """Return how many decimals a number with this half-width is written with: about one digit of it is significant."""
    if half_width <= 0 or not math.isfinite(half_width):
        return 0
    return max(0, min(6, -math.floor(math.log10(half_width / 2))))


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
    """Return a day as `5 Oct 2026`."""
    return f"{moment.day} {moment:%b %Y}"


def span(start: datetime, stop: datetime) -> str:
    """Return a window as `28 Sep – 5 Oct 2026`."""
    first = f"{start.day} {start:%b}" if start.year == stop.year else day(start)
    return f"{first} {DASH} {day(stop)}"


def points(number: str) -> str:
    """Return a number of percentage points: `1 point`, `0.5 points`."""
    return f"{number} point" if number == "1" else f"{number} points"


def short(release: str) -> str:
    """Return the first 8 digits of a release's id, which name it on every page."""
    return release[:8]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as `a, b and c`, or `a, b and 7 more`."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
