"""What an organisation lets a plan ask for. A device has limits of its own beside these, and decides."""

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """The limits that a plan is checked against.

    Attributes:
        max_epsilon: most that one release may cost a device.
        max_delta: largest chance that the loss is more.
        min_cohort: fewest devices that a shown group may have.
        max_events: most events of one device that may count.
        max_window: furthest back that a plan may look.
        max_cells: longest vector that a device may be asked for, in cells.
    """

    max_epsilon: Fraction = Fraction(4)
    max_delta: Fraction = Fraction(1, 10**5)
    min_cohort: int = 50
    max_events: int = 1000
    max_window: timedelta = timedelta(days=92)
    max_cells: int = 20_000
