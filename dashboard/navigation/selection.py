"""The selection of what a page shows (plan, release, metric, grouping), kept in the URL so that it can be shared.

A page starts with the selection in its URL, then with the selection made on the previous page.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TypeVar

import streamlit as st

from dashboard.data import reading
from dashboard.data.numbers import grouping_text, short, span, words
from dashboard.settings import active
from dashboard.style import theme
from fa_core.errors import BadInput
from fa_core.store import Entry, shown_as

T = TypeVar("T")
MOST_OPTIONS = 2000
EXACT = {"plan": "plan", "release": "release", "before": "release", "launch": "run"}
"""Selections that nothing else may take the place of, and what each names."""


def choose(
    label: str,
    options: Mapping[str, T],
    name: str,
    show: Callable[[T], str] = str,
    first: str | None = None,
    help: str | None = None,
) -> T:
    """Show a select box and return the selected option.

    A link to a plan, a release or a run that is not there shows no other one in its place: the box stays empty,
    and the page ends with a sentence. Of anything else, a sentence says what is shown instead.

    Args:
        options: by their value in the URL; at least one.
        name: of the URL's parameter.
        first: the default where neither the URL nor another page has a selection.
    """
    state = _state(name)
    kept = f"kept-{name}"

    def text(key: str) -> str:
        return show(options[key])

    if st.session_state.get(state) not in options:
        asked = st.query_params.get(name, "")
        unknown = _is_foreign(name, asked) and asked not in options
        if unknown and name in EXACT:
            st.selectbox(
                label, list(options), None, key=state, format_func=text, help=help, placeholder="Choose one"
            )
            theme.empty(f"There is no {EXACT[name]} “{_truncated(asked)}” here.", "Choose one above.")
            st.stop()
        found = (asked, st.session_state.get(kept), first)
        st.session_state[state] = next((key for key in found if key in options), next(iter(options)))
        if unknown:
            shown = text(st.session_state[state])
            _add_notice(f"{label}: there is no “{_truncated(asked)}” here; {shown} is shown.")
    chosen = st.selectbox(label, list(options), key=state, format_func=text, help=help)
    st.session_state[kept] = chosen
    remember(name, chosen)
    return options[chosen]


def _is_foreign(name: str, value: str) -> bool:
    """Return whether a selection in the URL is from a link, and not from this session's own selections."""
    return bool(value) and st.session_state.get(f"written-{name}") != value


def _add_notice(text: str) -> None:
    st.session_state["notice"] = " ".join(filter(None, (st.session_state.get("notice"), text)))


def pager(pages: int) -> int:
    """Show the page numbers of a long list and return the selected one, from 1."""
    state = _state("page")
    if not 1 <= int(st.session_state.get(state, 0)) <= pages:
        in_url = st.query_params.get("page", "")
        good = in_url.isascii() and in_url.isdigit() and len(in_url) < 6 and 1 <= int(in_url) <= pages
        st.session_state[state] = int(in_url) if good else 1
    chosen = st.pagination(pages, key=state)
    remember("page", str(chosen))
    return int(chosen)


def select(**choices: str) -> None:
    """Make selections by program and run the page again with them."""
    for name, value in choices.items():
        st.session_state[f"requested-{name}"] = value
    st.rerun()


def _state(name: str) -> str:
    """Return the session key of a selection, after applying what `select` requested for it."""
    state, requested = f"select-{name}", f"requested-{name}"
    if requested in st.session_state:
        st.session_state[state] = st.session_state.pop(requested)
    return state


def tabs(options: Mapping[str, str], name: str) -> str:
    """Show the tabs of a page and return the key of the selected one."""
    state = _state(name)
    if st.session_state.get(state) not in options:
        in_url = st.query_params.get(name)
        st.session_state[state] = in_url if in_url in options else next(iter(options))
    st.segmented_control(
        "Part of the page", list(options), key=state, format_func=options.__getitem__, label_visibility="collapsed",
        required=True,
    )  # fmt: skip
    chosen = st.session_state[state] or next(iter(options))
    remember(name, chosen)
    return str(chosen)


def day(label: str, name: str, first: date, least: date, most: date, help: str | None = None) -> date:
    """Show an input of a day from `least` to `most` and return the selected one."""
    state = f"select-{name}"
    kept = st.session_state.get(state)
    if not isinstance(kept, date) or not least <= kept <= most:
        try:
            in_url = date.fromisoformat(st.query_params.get(name, ""))
        except ValueError:
            in_url = first
        st.session_state[state] = in_url if least <= in_url <= most else first
    chosen = st.date_input(label, min_value=least, max_value=most, key=state, format="YYYY-MM-DD", help=help)
    remember(name, chosen.isoformat())
    return chosen


def whole_number(label: str, name: str, first: int, least: int, most: int, help: str | None = None) -> int:
    """Show an input of a whole number and return its value."""
    state = f"select-{name}"
    if state not in st.session_state:
        in_url = st.query_params.get(name, "")
        good = in_url.isascii() and in_url.isdigit() and len(in_url) < 6 and least <= int(in_url) <= most
        st.session_state[state] = int(in_url) if good else first
    chosen = st.number_input(label, least, most, key=state, help=help)
    remember(name, str(chosen))
    return int(chosen)


def remember(name: str, value: str) -> None:
    """Put a selection into the URL."""
    st.session_state[f"written-{name}"] = value
    if st.query_params.get(name) != value:
        st.query_params[name] = value


def plan(plans: Mapping[str, Sequence[Entry]]) -> str:
    """Show a select box of the plans with releases and return the selected one; a release in the URL names its plan."""
    in_url = st.query_params.get("release", "")
    found = None
    if _is_foreign("release", in_url) and "select-plan" not in st.session_state:
        entry = next((e for each in plans.values() for e in each if e.id.startswith(in_url)), None)
        if entry is not None:
            found = entry.plan
            remember("release", short(entry.id))
    return choose("Plan", {name: name for name in plans}, "plan", _truncated, first=found)


def release_of(releases: Sequence[Entry], name: str = "release", label: str = "Release") -> Entry:
    """Show a select box of a plan's releases and return the selected one, by default the newest.

    A link may name one by its whole id.
    """
    options = {short(entry.id): entry for entry in releases[:MOST_OPTIONS]}
    in_url = st.query_params.get(name, "")
    if any(entry.id == in_url for entry in options.values()):
        remember(name, short(in_url))
    return choose(label, options, name, _release_text)


def _release_text(entry: Entry) -> str:
    return f"{span(entry.window_start, entry.window_end)} · {short(entry.id)}"


def _truncated(name: str) -> str:
    return name if len(name) <= 60 else name[:60] + "…"


def metric(names: Sequence[str], first: str | None = None) -> str:
    """Show a select box of metrics and return the selected one."""
    return choose("Metric", {name: name for name in names}, "metric", words, first)


def grouping(groupings: Sequence[tuple[str, ...]], first: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Show a select box of groupings and return the segments that a metric is broken down by."""
    options = {",".join(each) or "everyone": each for each in groupings}
    return choose(
        "Break down by",
        options,
        "by",
        grouping_text,
        None if first is None else ",".join(first) or "everyone",
    )


def body(entry: Entry) -> reading.Body:
    """Return everything of a release; ends the page with a message where its file is missing or damaged."""
    return _readable(reading.body, entry)


def glance(entry: Entry) -> reading.Body:
    """Return a release without the cells of its tables; ends the page with a message where it cannot be read."""
    return _readable(reading.glance, entry)


def _readable(read: Callable[[str, Entry], reading.Body], entry: Entry) -> reading.Body:
    try:
        return read(active().store, entry)
    except BadInput as error:
        verify = shlex.join(["fa", "log", "verify", "--store", shown_as(active().store)])
        theme.empty("This release cannot be read.", str(error), verify)
        st.stop()


def notice() -> None:
    """Show the sentences about selections that are not there, if there are any."""
    text = st.session_state.pop("notice", "")
    if text:
        theme.prose(text, "note")
