"""What to type where a page has nothing to show: a command that can be run as it is printed."""

import shlex
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dashboard.launch import launch_page, run_folder
from dashboard.launch.run_folder import Fleet
from dashboard.settings import active
from fa_core.errors import BadInput
from fa_core.plan import load
from fa_core.store import shown_as

FIRST: Final = "wake-word-weekly"
"""The plan that is suggested where any would do, if it is at hand."""

NEW_PLAN: Final = "my-plan.yaml"
NEW_DEVICES: Final = 2000


def run_command(name: str = "") -> str:
    """Return the lines that run a plan of this name, or any; "" where none is at hand that can be run.

    They name this dashboard's store and first fleet. Without a fleet, or any plan, the first lines make one.
    """
    fleet = _fleet()
    chosen = fleet or _new_fleet()
    files = active().plan_files()
    wanted = [name] if name else [FIRST, *files]
    plan = next((files[each] for each in wanted if each in files and _can_run(files[each], chosen)), None)
    if plan is None and (name or files):
        return ""
    lines = [] if plan is not None else [["fa", "plan", "new", NEW_PLAN]]
    if fleet is None:
        lines.append(["fa", "fleet", "make", "--devices", str(chosen.devices), "--out", str(chosen.path)])
    store = shown_as(active().store)
    lines.append(["fa", "run", str(plan or NEW_PLAN), "--fleet", str(chosen.path), "--store", store])
    return "\n".join(map(shlex.join, lines))


def _fleet() -> Fleet | None:
    for path in active().fleets:
        with suppress(BadInput):
            return run_folder.fleet(path)
    return None


def _new_fleet() -> Fleet:
    """Return what `fa fleet make` would make."""
    return Fleet(Path("fleet"), "synthetic", NEW_DEVICES, True, datetime.now(UTC))


def _can_run(path: Path, fleet: Fleet) -> bool:
    """Return whether a plan is valid today, for this many devices, and within the population's budgets."""
    try:
        plan = load(path, today=datetime.now(UTC).date(), fleet=fleet.devices)
    except BadInput:
        return False
    return not launch_page.exceeded_budgets(plan, fleet)
