"""Asks a device step by step, and keeps a row for each answer."""

from collections.abc import Callable

from fa_core.conformance.adapter import Device, Json, NoAnswer, Row
from fa_core.conformance.cohort import Step, Stopped
from fa_core.conformance.vectors import difference
from fa_core.errors import RoundFailed


class Table:
    """Asks the device, and keeps a row for each answer. Of a refusal any reason will do here."""

    def __init__(self, part: str, device: Device) -> None:
        self.part, self.rows = part, list[Row]()
        self._device = device

    def ask(self, step: Step) -> Json:
        """Ask; see `cohort.Ask`."""
        try:
            answer = self._device.ask(step.question)
        except NoAnswer as error:
            self.add(step.name, str(error))
            raise Stopped(str(error)) from None
        right = step.right
        if right is None:
            self.add(step.name, "" if "reply" in answer else f"it refused: {answer.get('refused', answer)}")
        elif "refused" in right:
            self.add(step.name, "" if "refused" in answer else "it answered")
        else:
            self.add(step.name, difference(right, answer))
        return answer

    def add(self, name: str, wrong: str) -> None:
        """Keep a row: `wrong` is "" where nothing is."""
        self.rows.append(Row(self.part, name, "failed" if wrong else "passed", wrong))

    def over(self, work: Callable[[], None]) -> None:
        """Do some work; keep a row for why it stopped."""
        try:
            work()
        except (Stopped, RoundFailed) as error:
            self.add("the round goes on to its end", str(error))
