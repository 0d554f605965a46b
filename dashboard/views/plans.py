"""Plans: read them, write and check one, preview its precision, launch it, monitor its run."""

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
    theme.title("Plans", "What do plans ask of devices, what does an answer cost, and how precise is it?")
    view = selection.tabs(VIEWS, "view")
    if view == "read":
        _read()
    elif view == "write":
        draft_page.page(files())
    else:
        launch_page.page()


def files() -> dict[str, Path]:
    """Return the plan files of the folder of plans to start from, by name."""
    return active().plan_files()


def _read() -> None:
    released = reading.plans(active().store)
    found = files()
    if not released and not found:
        theme.empty("There are no plans here yet.", "Write one, or start the dashboard with --plans FOLDER.")
        return
    columns = (
        Column("Plan"),
        Column("Question"),
        Column("Owner", minor=True),
        Column("Releases", True),
        Column("Last run", minor=True),
    )
    rows = []
    for name, entries in released.items():
        body = selection.glance(entries[0])
        rows.append([esc(name, 80), esc(body.metadata("question"), 200), esc(body.metadata("owner"), 60), f"{len(entries):,}",
                     day(entries[0].created)])  # fmt: skip
    for name in found.keys() - released.keys():
        plan, _ = _loaded(found[name])
        question, owner = ("", "") if plan is None else (plan.metadata.question, plan.metadata.owner)
        rows.append([esc(name, 80), esc(question, 200), esc(owner, 60), "0", "never"])
    theme.show(theme.table(columns, rows, "Plans", scroll=len(rows) > 15))
    names = [*released, *sorted(found.keys() - released.keys())]
    chosen = selection.choose("Read", {name: name for name in names}, "plan")
    _show(chosen, found.get(chosen))


def _show(name: str, file: Path | None) -> None:
    entries = reading.plans(active().store).get(name)
    if entries:
        body = selection.glance(entries[0])
        theme.prose(
            f"As signed for release {short(entries[0].id)}, with presets and defaults expanded.", "note"
        )
        if body.plan is not None:
            _document(describe(body.plan))
        else:
            theme.prose("This version cannot read the plan; these are the bytes that were signed.", "note")
            _document(json.dumps(body.document, indent=2, ensure_ascii=False), body.entry.plan_hash)
    elif file is not None:
        plan, error = _loaded(file)
        _document(error if plan is None else describe(plan))
    if file is not None:
        links.link("plans", "Edit a copy of this plan", "edit", view="write", start=name)


def _document(text: str, digest: str = "") -> None:
    footer = f'<div class="uh-facts"><span>hash <code>{esc(digest)}</code></span></div>' if digest else ""
    theme.show(f'<div class="uh-doc" tabindex="0"><pre>{esc(text, 20_000)}</pre></div>{footer}')


def _loaded(path: Path) -> tuple[Plan | None, str]:
    try:
        return load(path, today=datetime.now(UTC).date()), ""
    except BadInput as error:
        return None, str(error)
