"""Progress events in a ServerApp's log: public counts, and how it ended.

Flower streams a ServerApp's output to every reader of a run's log. A line of ours is the mark, then JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from fa_core.errors import BadInput, Refused, RoundFailed, UnheardError
from fa_core.rounds.round import Progress
from fa_core.rounds.standing import Standing
from fa_core.secagg.task import Stage

MARK = "unheard:"
EVERY = 5.0
"""Seconds between two lines about a stage in which nothing changes but the time left."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a ServerApp ended: with a release (code 0), or with an error's exit code and its sentence."""

    code: int
    text: str

    def error(self) -> UnheardError | None:
        """Return the error that it ended with, None for a release."""
        if self.code == 0:
            return None
        kinds = {kind.exit_code: kind for kind in (BadInput, Refused, RoundFailed)}
        return kinds.get(self.code, RoundFailed)(self.text)


def progress_reporter(out: TextIO | None = None) -> Callable[[Progress], None]:
    """Return a function that writes each `Progress` with new content to `out` (standard output)."""
    last: Progress | None = None

    def report(progress: Progress) -> None:
        nonlocal last
        same = last is not None and _counts(last) == _counts(progress)
        if same and last is not None and progress.left > 0 and last.left - progress.left < EVERY:
            return
        last = progress
        left = None if progress.left == float("inf") else round(progress.left, 1)
        _write(
            {
                "stage": progress.stage.value,
                "asked": progress.asked,
                "answered": progress.answered,
                "dropped": progress.dropped,
                "left": left,
            },
            out,
        )

    return report


def standing_reporter(out: TextIO | None = None) -> Callable[[Standing], None]:
    """Return a function that writes each `Standing` with new content to `out` (standard output)."""
    last: Standing | None = None

    def report(standing: Standing) -> None:
        nonlocal last
        if standing == last:
            return
        last = standing
        _write(
            {
                "collection": "open" if standing.open else "closing",
                "arrived": standing.arrived,
                "counted": standing.counted,
                "refused": dict(standing.refused),
                "closes": int(standing.closes.timestamp()),
                "enough": standing.enough,
                "problem": standing.problem,
            },
            out,
        )

    return report


def report_end(error: BaseException | None, out: TextIO | None = None, *, text: str = "released") -> None:
    """Write how the run ended; `text` says how where there is no error. Of a defect only the error's type is
    written."""
    if error is None:
        _write({"ended": 0, "text": text}, out)
    elif isinstance(error, UnheardError):
        _write({"ended": error.exit_code, "text": str(error)}, out)
    else:
        _write({"ended": 1, "text": f"the run broke off ({type(error).__name__})"}, out)


def parse(line: str) -> Progress | Standing | Ended | None:
    """Return the event in a line, None for a line that is not one of ours."""
    mark, found, said = line.partition(MARK)
    if not found or mark.strip():
        return None
    try:
        event = json.loads(said)
        if "ended" in event:
            return Ended(int(event["ended"]), str(event["text"]))
        if "collection" in event:
            return _standing(event)
        left = float("inf") if event["left"] is None else float(event["left"])
        counts = int(event["asked"]), int(event["answered"]), int(event["dropped"])
        return Progress(Stage(event["stage"]), *counts, left)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError):
        return None


def _standing(event: dict[str, Any]) -> Standing:
    return Standing(
        open=event["collection"] == "open",
        arrived=int(event["arrived"]),
        counted=int(event["counted"]),
        closes=datetime.fromtimestamp(int(event["closes"]), UTC),
        enough=int(event["enough"]),
        refused={str(code): int(count) for code, count in event["refused"].items()},
        problem=str(event["problem"]),
    )


def _counts(progress: Progress) -> tuple[Stage, int, int, int]:
    return progress.stage, progress.asked, progress.answered, progress.dropped


def _write(event: dict[str, object], out: TextIO | None) -> None:
    print(MARK, json.dumps(event), file=out or sys.stdout, flush=True)
