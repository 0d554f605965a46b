"""What an empty page suggests can be typed as it stands: this store, this fleet, a plan that is at hand and allowed."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dashboard import settings
from dashboard.auth import session
from dashboard.data import reading
from dashboard.launch import launch_page
from dashboard.launch.suggestion import run_command
from fa_core.cli.demo import copy_plans
from fa_core.store import open_store
from tests.cli.printed import problem
from tests.dashboard.conftest import ALL_ROLES
from tests.dashboard.rendering import markup, render

EMPTY = {
    "health": {},
    "segments": {},
    "thresholds": {},
    "confusions": {},
    "trends": {},
    "privacy": {},
    "privacy-log": {"view": "log"},
}
AT_HAND = {"thresholds": "det-by-accent", "confusions": "command-confusions"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an empty store, the shipped plans as of today, and the public facts of a fleet."""
    monkeypatch.setattr(session, "current_user", lambda: ALL_ROLES)
    open_store(tmp_path / "my store").close()
    copy_plans(Path("eval_plans"), tmp_path / "plans")
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    facts = {"population": "homes", "until": "2026-11-22T00:00:00+00:00", "synthetic": True}
    (fleet / "fleet.json").write_text(json.dumps(facts))
    pq.write_table(
        pa.table({"device_id": [f"{number}" for number in range(2000)]}), fleet / "devices.parquet"
    )
    yield tmp_path
    reading.forget()


def use(folder: Path, *, plans: bool = True, fleet: bool = True) -> None:
    settings.use(
        settings.Settings(
            str(folder / "my store"),
            folder / "dashboard",
            plans=folder / "plans" if plans else None,
            fleets=(folder / "fleet",) if fleet else (),
        )
    )


def commands(page: str) -> list[str]:
    """Return the lines of every command on a page."""
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    return [line for block in blocks for line in unescape(block).splitlines()]


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_page_names_store_fleet_and_plan(name: str, folder: Path) -> None:
    use(folder)
    printed = commands(markup(render(name.split("-")[0], **EMPTY[name])))
    plan = folder / "plans" / f"{AT_HAND.get(name, 'wake-word-weekly')}.yaml"
    expected = f"fa run {plan} --fleet {folder / 'fleet'} --store '{folder / 'my store'}'"
    assert printed[0] == expected
    assert [problem(line, whole=True) for line in printed] == [""] * len(printed)


def test_without_fleet_or_plan_the_first_lines_make_one(folder: Path) -> None:
    use(folder, plans=False, fleet=False)
    lines = run_command().splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["fa", "plan", "new"],
        ["fa", "fleet", "make"],
        ["fa", "run", "my-plan.yaml"],
    ]
    assert [problem(line, whole=True) for line in lines] == ["", "", ""]
    assert run_command("det-by-accent") == ""


def test_a_plan_that_lapsed_is_not_suggested(folder: Path) -> None:
    use(folder)
    assert "det-by-accent" in run_command("det-by-accent")
    file = folder / "plans" / "det-by-accent.yaml"
    file.write_text(re.sub(r"expires: .*", "expires: 2026-01-31", file.read_text()))
    assert run_command("det-by-accent") == ""
    assert "command-confusions" in run_command("command-confusions")


def test_a_plan_over_the_budgets_is_not_suggested(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(folder)
    monkeypatch.setattr(
        launch_page,
        "exceeded_budgets",
        lambda plan, fleet: "week" if plan.metadata.name == "first-look" else "",
    )
    assert run_command("first-look") == ""
    assert "wake-word-weekly" in run_command()
