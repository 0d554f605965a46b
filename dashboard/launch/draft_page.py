"""The page for writing a plan: checked as it is typed, with its expected cost and precision, and launched from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

import streamlit as st

from clients.device.forecast import forecast, sentences
from dashboard.data import reading
from dashboard.data.numbers import cost, grouping_text, points, words
from dashboard.launch import editor, launch_page, run_folder
from dashboard.navigation import selection
from dashboard.settings import active
from dashboard.style import theme
from dashboard.style.theme import Column, esc, rich
from fa_core.errors import BadInput, UnheardError
from fa_core.estimate import estimands
from fa_core.estimate.expect import Expectation
from fa_core.estimate.measure import measure
from fa_core.estimate.preview import TYPICAL_EVENTS, Preview, preview
from fa_core.plan import BadPlan, Plan, Problem, canonical, from_canonical, parse

NAME: Final = "plan.yaml"
DEVICES: Final = 5000
TARGETS: Final = ("0", "0.5", "1", "2", "5")
"""Target half-widths: percentage points of a share, hundredths of any other unit; 0 for none."""
OPEN: Final = timedelta(days=90)
EMPTY: Final = """\
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: my-question
  revision: 1
  owner: my-team
  question: How often is the wake word missed, and is any accent missed more?
  expires: {expires}
source: wake_events
window: 7d
metrics: [false_reject_rate]
privacy:
  epsilon: 1
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked text: a plan, or its problems. `other` is an error without a position in the text."""

    plan: Plan | None
    problems: tuple[Problem, ...] = ()
    other: str = ""


def check(text: str, devices: int | None) -> Checked:
    """Return the result of checking a text, as `fa plan check` does."""
    try:
        return Checked(
            parse(text.encode("utf-8", "surrogatepass"), NAME, today=datetime.now(UTC).date(), fleet=devices)
        )
    except BadPlan as error:
        return Checked(None, error.problems)
    except BadInput as error:
        return Checked(None, (), str(error))


def page(files: Mapping[str, Path]) -> None:
    """Show the editor, and beside it the plan's expected cost and precision."""
    fleets = launch_page.fleets()
    with st.container(key="selection"):
        one, two, three, four = st.columns([1.6, 1, 1, 1])
        with one:
            start, text = _start(files)
        with two:
            devices = selection.whole_number("Devices in the fleet", "devices", _default_devices(fleets), 1, 10_000_000,
                                  "A public number; the preview uses only it and the plan.")  # fmt: skip
        with three:
            events = selection.whole_number("Events per device", "events", int(TYPICAL_EVENTS), 1, 100_000)
        with four:
            target = selection.choose("Target half-width", {text: text for text in TARGETS}, "wished", _target, "1",
                                  "The half-width of a 95% interval that you need; the table shows how many devices it takes.")  # fmt: skip
    selection.notice()
    key = f"editor-{start}"
    typed = editor.text_of(key, text)
    checked = check(typed, devices)
    left, right = st.columns([1.1, 1], gap="medium")
    with left:
        editor.edit(key, text, checked.problems, locked=False)
        _verdict(checked)
    with right:
        if checked.plan is None:
            theme.empty("No preview: the plan has problems.", "Each problem is shown beside its line.")
            return
        _preview(checked.plan, devices, events, target)
    launch_page.offer(checked.plan, typed, fleets)


def _start(files: Mapping[str, Path]) -> tuple[str, str]:
    options = {**{name: name for name in files}, "new": "an empty plan"}
    start = selection.choose("Start from", {key: key for key in options}, "start", options.__getitem__)
    if start in files:
        return start, files[start].read_text(encoding="utf-8", errors="replace")
    return "new", empty(datetime.now(UTC).date())


def empty(today: date) -> str:
    """Return a first plan to edit, which expires some months from today."""
    return EMPTY.format(expires=today + OPEN)


def _target(text: str) -> str:
    return "none" if text == "0" else f"± {points(text)} (± {float(text) / 100:g} of other units)"


def _default_devices(fleets: Sequence[run_folder.Fleet]) -> int:
    if fleets:
        return fleets[0].devices
    newest = reading.entries(active().store)[:1]
    return newest[0].invited if newest else DEVICES


def _verdict(checked: Checked) -> None:
    if checked.plan is not None:
        plan = checked.plan
        theme.show(
            f'<p role="status">{theme.chip("valid", "met", "✓")} {esc(plan.name)} <code>{plan.hash[:12]}</code></p>'
        )
        return
    if checked.other:
        theme.show(
            f'<p role="status">{theme.chip("cannot be read", "broken", "✕")} {rich(checked.other)}</p>'
        )
        return
    many = len(checked.problems)
    items = "".join(
        f"<li>line {each.position.line}, column {each.position.column}: {rich(each.found)}; <b>{rich(each.right)}</b></li>"
        for each in checked.problems[:12]
    )
    label = theme.chip(f"{many} problem{'s' if many > 1 else ''}", "broken", "✕")
    theme.show(f'<div role="status">{label}<ul class="uh-list">{items}</ul></div>')


@lru_cache(maxsize=64)
def _previewed(plan_hash: str, devices: int, events: int, target: str, text: bytes) -> Preview | str:
    try:
        given = None if events == TYPICAL_EVENTS else float(events)  # the box starts with it
        return preview(from_canonical(text), devices, given, float(target) / 100 or None)
    except UnheardError as error:
        return str(error)


def _preview(plan: Plan, devices: int, events: int, target: str) -> None:
    found = _previewed(plan.hash, devices, events, target, canonical(plan))
    if isinstance(found, str):
        theme.empty("This plan cannot be run.", found)
        return
    unit = "ρ" if found.layout.accounting == "zcdp" else "ε"
    theme.show(
        f'<div class="uh-strip"><div><b>ε {found.epsilon:.2g}</b><span>privacy loss of every device '
        f"({unit} {cost(found.layout.cost)})</span></div><div><b>{found.bytes_per_device / 1000:,.1f} kB</b>"
        f"<span>sent by each device, {found.cells:,} cells</span></div></div>"
    )
    for line in sentences(plan, forecast(plan, found.layout, datetime.now(UTC))):
        theme.show(f'<p class="uh-note">{rich(line)}</p>')
    columns = (
        Column("Metric"),
        Column("±, 95%", True),
        Column("Groups shown", True, True),
        Column("Devices for the target", True, True),
    )
    rows = [_expected(each) for each in found.expectations]
    theme.show(theme.table(columns, rows, "Expected precision"))
    for text in (
        *(f"Numbers of {words(name)} are {of}." for name, of in estimands(plan).items()),
        *found.warnings,
    ):
        theme.prose(_sentence(text), "note")
    if found.suggestions:
        items = "".join(f"<li>{rich(each.change)}: {rich(each.gain)}</li>" for each in found.suggestions)
        theme.show(
            f'<p class="uh-note">Suggestions to narrow the intervals</p><ul class="uh-list">{items}</ul>'
        )


def _sentence(text: str) -> str:
    """Return a text with its first word capitalised, unless that is a name such as `false_accepts_per_hour`."""
    return text if "_" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def _expected(each: Expectation) -> list[str]:
    width = '<span class="why">nothing shown</span>'
    if each.half_width is not None:
        shown = measure(each.kind, each.unit).width(each.half_width)
        width = f'<span class="lead">{esc(shown)}</span>'
    need = "" if each.devices_for is None else f"{each.devices_for:,}"
    if each.windows_for is not None and each.windows_for > 1:
        need += f" <small>or {each.windows_for:,} windows</small>"
    return [f"{esc(words(each.metric))} <small>{esc(grouping_text(each.grouping))}</small>", width,
            f"{each.shown:.0%} of {each.groups}", need]  # fmt: skip
