"""How far a sum by two aggregators is: public counts only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """A collection that has not ended.

    Attributes:
        open: whether it takes reports; else it is being closed.
        arrived: reports that the leader has taken. counted: of those, verified and in the sum.
        refused: how many by the code of the refusal: of those that arrived, and of what this drain was sent.
        closes: from then on no report is taken, UTC.
        enough: how many counted end it before; 0 for none.
        problem: why it could not go on now, "" where it could.
    """

    open: bool
    arrived: int
    counted: int
    closes: datetime
    enough: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def refusals(self) -> str:
        """The refusals in words, "" for none."""
        return ", ".join(f"{count} {code}" for code, count in sorted(self.refused.items()))

    @property
    def until(self) -> str:
        """When it ends, in words."""
        if not self.open:
            return "no more are taken"
        end = f"until {self.closes:%Y-%m-%d %H:%M:%S} UTC"
        return f"{end}, or until {self.enough:,} are counted" if self.enough else end
