"""How numbers are written for a person: one unit for each metric, wherever it is shown.

As many digits as the interval supports, and the interval beside them. JSON holds the numbers as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from fa_core.metrics import KINDS, exact_text
from fa_core.values import Cell, Estimate

MINUS: Final = "\u2212"
DASH: Final = "\u2013"
NOTHING: Final = "\u2014"

PER_HOUR: Final = "per hour"

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

    factor: int
    suffix: str
    axis: str
    signed: bool = False

    def text(self, value: float | None, half_width: float | None = None) -> str:
        """Return a value with its unit, to the digits that its half-width supports."""
        if value is None:
            return NOTHING
        return self.bare(value, half_width) + self.suffix

    def exact(self, value: Fraction) -> str:
        """Return a number that a person has written, such as a limit, with its unit and all its digits."""
        return f"{exact_text(value * self.factor).replace('-', MINUS)}{self.suffix}"

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

    def estimate(self, number: Estimate | Cell) -> str:
        """Return an estimate, as `point` does."""
        return self.point(number.estimate, number.low, number.high)

    def point(self, value: float | None, low: float | None, high: float | None) -> str:
        """Return a value; `at most …` or `at least …` where it is at an end of what is possible, as where
        noise took a count below 0: then the other end of its interval is all that is known."""
        if value is None or low is None or high is None:
            return self.text(value)
        half = (high - low) / 2
        if value <= low < high:
            return f"at most {self.text(high, half)}"
        if value >= high > low:
            return f"at least {self.text(low, half)}"
        return self.text(value, half)

    def with_interval(self, number: Estimate | Cell) -> str:
        """Return `16.5% (15.7–17.4%)`, or a dash where nothing is shown."""
        if number.estimate is None:
            return NOTHING
        return f"{self.estimate(number)} ({self.interval(number.low, number.high)})"

    def width(self, half_width: float) -> str:
        """Return a half-width to three digits, as `± 1.32 points` or `± 0.0202 per hour`."""
        suffix = " points" if self.suffix == "%" else self.suffix
        shown = half_width * self.factor
        places = 2 - math.floor(math.log10(shown)) if shown > 0 and math.isfinite(shown) else 0
        return f"± {shown:,.{min(max(places, 0), 6)}f}{suffix}"


SHARE: Final = Measure(100, "%", "share of events, %")


def compared_models(unit: str) -> tuple[str, str]:
    """Return the candidate and the baseline that the unit of a paired difference names."""
    candidate, _, baseline = unit.partition(_LESS)
    return candidate, baseline


def measure(kind: str, unit: str, labels: Sequence[tuple[str, str]] = ()) -> Measure:
    """Return how numbers of a kind and unit are written.

    `labels` are a cell's: a DET curve has shares on one axis and false accepts per hour on the other.
    """
    written = KINDS[kind].written if kind in KINDS else "number"
    if labels and labels[0][1].endswith("_per_hour"):
        return Measure(1, f" {PER_HOUR}", labels[0][1].replace("_", " "))
    if written == "points":
        return Measure(100, " points", f"{unit.replace(_LESS, f' {MINUS} ')}, percentage points", signed=True)
    if written == "ratio":
        return Measure(1, "", unit.replace("_", " "))
    if unit == "":
        return SHARE if written == "share" else Measure(1, "", "value")
    return Measure(1, f" {unit}", unit)


def difference(kind: str, unit: str, labels: Sequence[tuple[str, str]] = ()) -> Measure:
    """Return how differences between two numbers of a kind and unit are written."""
    of = measure(kind, unit, labels)
    if of.suffix == "%":
        return Measure(100, " points", "difference, percentage points", signed=True)
    return Measure(of.factor, of.suffix, f"difference, {of.axis}", signed=True)


def half_width(number: Estimate | Cell) -> float | None:
    """Return half the width of a number's interval, None where it has none."""
    if number.low is None or number.high is None:
        return None
    return (number.high - number.low) / 2


def decimals(half_width: float) -> int:
    """Return how many decimals a number with this half-width is written with: about one of its digits."""
    if half_width <= 0 or not math.isfinite(half_width):
        return 0
    return max(0, min(6, -math.floor(math.log10(half_width / 2))))
