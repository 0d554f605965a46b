"""Why a report, a withdrawal or a request of the other aggregator is refused: a code from a closed list.

A code repeats nothing of what was sent, and is all that a device is answered.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """A code. Its place in this list is its number on the wire, so new ones come last."""

    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    UNKNOWN_TASK = "unknown_task"
    EARLY = "early"
    LATE = "late"
    FOREIGN = "foreign"
    FORGED = "forged"
    REPLAYED = "replayed"
    WITHDRAWN = "withdrawn"
    SEALED_OTHERWISE = "sealed_otherwise"
    INVALID = "invalid"
    SECOND_REPORT = "second_report"

    @property
    def words(self) -> str:
        """What it means, for an operator or an owner."""
        return _SAYS[self]

    @property
    def number(self) -> int:
        """Its number on the wire, from 1."""
        return 1 + list(Refusal).index(self)

    @classmethod
    def of_number(cls, number: int) -> "Refusal":
        """Return the code of a number. Raises ValueError for a number of none."""
        if not 1 <= number <= len(cls):
            raise ValueError("no code has this number")
        return list(cls)[number - 1]


_SAYS: dict[Refusal, str] = {
    Refusal.MALFORMED: "it is not of the form of a report for this task",
    Refusal.OVERSIZED: "it is larger than a report for this task",
    Refusal.UNKNOWN_TASK: "there is no such task here",
    Refusal.EARLY: "the task does not take reports yet",
    Refusal.LATE: "the task takes no reports any more",
    Refusal.FOREIGN: "the device is not certified for the task's population",
    Refusal.FORGED: "the device's signature does not hold",
    Refusal.REPLAYED: "another report has this id",
    Refusal.WITHDRAWN: "the device took this report back",
    Refusal.SEALED_OTHERWISE: "the helper's share does not open as one for this task, report and device",
    Refusal.INVALID: "the proof that the device keeps its bounds does not hold",
    Refusal.SECOND_REPORT: "this device has a report in this sum already",
}


class RefusedReport(Exception):
    """Something of a device is refused. It carries the code and nothing of what was sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
