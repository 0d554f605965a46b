"""One launched run, in a process of its own: `python -m dashboard.launch.runner FOLDER`.

The folder holds the plan and the order. Progress is written to `progress.jsonl`, public counts only, and the outcome
to `outcome.json`. The dashboard itself never writes to the store.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fa_core.engines.launch import Order, launch
from fa_core.errors import UnheardError
from fa_core.rounds.progress import Event
from fa_core.rounds.standing import Standing

ORDER, PLAN, PROGRESS, OUTCOME = "order.json", "plan.yaml", "progress.jsonl", "outcome.json"


def main(folder: Path) -> int:
    """Run the order in a folder and write the outcome. Returns the exit code of `fa run`."""
    request = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    order = Order(folder / PLAN, Path(request["fleet"]), request["engine"], None, request["store"])
    try:
        release, _ = launch(order, lambda: _progress_writer(folder / PROGRESS))
    except UnheardError as error:
        _end(folder, {"kind": type(error).__name__, "reason": str(error)})
        return error.exit_code
    except BaseException as error:
        _end(folder, {"kind": "defect", "reason": f"the run crashed ({type(error).__name__})"})
        raise
    _end(folder, {"release": release.id})
    return 0


@contextmanager
def _progress_writer(file: Path) -> Iterator[Callable[[Event], None]]:
    last: list[dict[str, Any]] = [{}]
    with file.open("a", encoding="utf-8", buffering=1) as lines:

        def report(progress: Event) -> None:
            if isinstance(progress, Standing):  # of a sum by two aggregators, which has no stages
                return
            event = {
                "stage": progress.stage.value,
                "asked": progress.asked,
                "answered": progress.answered,
                "dropped": progress.dropped,
                "left": None if math.isinf(progress.left) else round(progress.left),
            }
            if event != last[0]:
                last[0] = event
                lines.write(json.dumps(event) + "\n")

        yield report


def _end(folder: Path, outcome: dict[str, str]) -> None:
    draft = folder / (OUTCOME + ".new")
    draft.write_text(json.dumps(outcome), encoding="utf-8")
    draft.replace(folder / OUTCOME)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
