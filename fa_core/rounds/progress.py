"""Progress of a run for a person: one bar a stage on a terminal, one line a stage elsewhere."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from fa_core.rounds.round import Progress
from fa_core.rounds.standing import Standing
from fa_core.secagg.task import Stage

Event = Progress | Standing
"""What a run reports: of a round, or of a sum by two aggregators."""

COLLECTED = "reports are counted"
WHAT = {
    Stage.JOIN: "devices join",
    Stage.SHARES: "keys are shared",
    Stage.CONFIRM: "shares are checked",
    Stage.DISPUTE: "complaints are proven",
    Stage.MASKED: "devices count and mask",
    Stage.UNMASK: "the sum is unmasked",
}


@contextmanager
def progress_display(console: Console) -> Iterator[Callable[[Event], None]]:
    """Yield a function that shows each event on `console`."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[aside]}"),
    )
    with Bars(*columns, console=console) as bars:
        yield _Bars(bars)


class _Bars:
    """One bar a stage: devices that answered, out of those asked."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Event) -> None:
        if isinstance(progress, Standing):
            self._collect(progress)
            return
        stage = progress.stage
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(WHAT[stage], total=progress.asked, aside="")
        self._bars.update(
            self._tasks[stage], completed=progress.answered, total=progress.asked, aside=_aside(progress)
        )

    def _collect(self, standing: Standing) -> None:
        """Show what is counted, out of those that are enough or else of those that arrived."""
        if COLLECTED not in self._tasks:
            self._tasks[COLLECTED] = self._bars.add_task(COLLECTED, total=None, aside="")
        total = standing.enough or max(standing.arrived, 1)
        shown = self._tasks[COLLECTED]
        self._bars.update(shown, completed=standing.counted, total=total, aside=_beside(standing))


class _Lines:
    """One line a stage, once every device has answered or dropped or the time is up; of a collection one
    whenever its counts have changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __call__(self, progress: Event) -> None:
        if isinstance(progress, Standing):
            counts = f"{progress.counted:,} of {progress.arrived:,} that arrived"
            text = f"{COLLECTED}: {counts}; {_beside(progress)}"
            if text != self._last:
                self._last = text
                self._console.print(text, highlight=False, soft_wrap=True)
            return
        if progress.answered + progress.dropped < progress.asked and progress.left > 0:
            return
        stage = progress.stage
        counts = f"{progress.answered} of {progress.asked}"
        parts = [f"{WHAT[stage]}: {counts}", _aside(progress)]
        self._console.print(", ".join(filter(None, parts)), highlight=False, soft_wrap=True)


def _beside(standing: Standing) -> str:
    refused = f"refused: {standing.refusals}" if standing.refused else ""
    return "; ".join(filter(None, (standing.until, refused, standing.problem)))


def _aside(progress: Progress) -> str:
    parts = []
    if progress.dropped:
        parts.append(f"{progress.dropped} dropped out")
    if 0 < progress.left < math.inf and progress.answered + progress.dropped < progress.asked:
        parts.append(f"{progress.left:.0f} s left")
    return ", ".join(parts)
