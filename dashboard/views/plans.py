"""Plans: read them, write one and see at once what is wrong and what it could tell, launch it, watch it run."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dashboard.data import reading
from dashboard.data.numbers import day, short
from dashboard.launch import draft_page, launch_page
from dashboard.navigation import links, selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from fa_core.errors import BadInput
from fa_core.plan import Plan, load
from fa_core.plan.prose import describe

VIEWS: Final = {"read": "Read", "write": "Write and launch", "runs": "Runs"}


def page() -> None:
    """Show the page."""
    theme.title("Plans", "What is asked of devices, what would an answer cost, and what would it tell?")
    view = selection.tabs(VIEWS, "view")
    if view == "read":
        _read()
    elif view == "write":
        draft_page.page(files())
    else:
        launch_page.page()


def files() -> dict[str, Path]:
    """Return the plans of the folder that people start from, by name."""
    folder = active().plans
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _read() -> None:
    sent = reading.plans(active().store)
    found = files()
    if not sent and not found:
        theme.empty("There are no plans here yet.", "Write one, or start the dashboard with --plans FOLDER.")
        return
    columns = (
        Column("Plan"),
        Column("Question"),
        Column("Asked by", minor=True),
        Column("Releases", True),
        Column("Last run", minor=True),
    )
    rows = []
    for name, entries in sent.items():
        body = selection.glance(entries[0])
        rows.append([esc(name, 80), esc(body.told("question"), 200), esc(body.told("owner"), 60), f"{len(entries):,}",
                     day(entries[0].created)])  # fmt: skip
    for name in found.keys() - sent.keys():
        plan, _ = _loaded(found[name])
        told = ("", "") if plan is None else (plan.metadata.question, plan.metadata.owner)
        rows.append([esc(name, 80), esc(told[0], 200), esc(told[1], 60), "0", "never"])
    theme.show(theme.table(columns, rows, "Plans", scroll=len(rows) > 15))
    names = [*sent, *sorted(found.keys() - sent.keys())]
    chosen = selection.choose("Read", {name: name for name in names}, "plan")
    _show(chosen, found.get(chosen))


def _show(name: str, file: Path | None) -> None:
    entries = reading.plans(active().store).get(name)
    if entries:
        body = selection.glance(entries[0])
        theme.prose(
            f"As it was sent for release {short(entries[0].id)}, presets and defaults written out.", "note"
        )
        if body.plan is not None:
            _document(describe(body.plan))
        else:
            theme.prose("This version cannot read the plan; these are the bytes that were signed.", "note")
            _document(json.dumps(body.document, indent=2, ensure_ascii=False), body.entry.plan_hash)
    elif file is not None:
        plan, trouble = _loaded(file)
        _document(trouble if plan is None else describe(plan))
    if file is not None:
        links.link("plans", "Write on from this plan", "edit", view="write", start=name)


def _document(text: str, digest: str = "") -> None:
    told = f'<div class="uh-facts"><span>hash <code>{esc(digest)}</code></span></div>' if digest else ""
    theme.show(f'<div class="uh-doc" tabindex="0"><pre>{esc(text, 20_000)}</pre></div>{told}')


def _loaded(path: Path) -> tuple[Plan | None, str]:
    try:
        return load(path, today=datetime.now(UTC).date()), ""
    except BadInput as error:
        return None, str(error)
