"""The selection of what a page shows (plan, release, metric, grouping), kept in the URL so that it can be shared.

A page starts with the selection in its URL, then with the selection made on the previous page.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
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


def choose(
    label: str,
    options: Mapping[str, T],
    name: str,
    show: Callable[[T], str] = str,
    first: str | None = None,
    help: str | None = None,
) -> T:
    """Show a select box and return the selected option.

    Args:
        options: by their value in the URL; at least one.
        name: of the URL's parameter.
        first: the default where neither the URL nor another page has a selection.
    """
    state = _state(name)
    kept = f"kept-{name}"
    if st.session_state.get(state) not in options:
        in_url = (st.query_params.get(name), st.session_state.get(kept), first)
        st.session_state[state] = next((text for text in in_url if text in options), next(iter(options)))
    chosen = st.selectbox(
        label, list(options), key=state, format_func=lambda key: show(options[key]), help=help
    )
    st.session_state[kept] = chosen
    remember(name, chosen)
    return options[chosen]


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
    if st.query_params.get(name) != value:
        st.query_params[name] = value


def plan(plans: Mapping[str, Sequence[Entry]]) -> str:
    """Show a select box of the plans with releases and return the selected one; a release in the URL names its plan."""
    in_url = st.query_params.get("release", "")
    found = next(
        (e.plan for each in plans.values() for e in each if in_url and e.id.startswith(in_url)), None
    )
    if in_url and found is None and "select-plan" not in st.session_state:
        st.session_state["notice"] = f"No release starts with {in_url[:32]}; the newest one is shown."
    return choose("Plan", {name: name for name in plans}, "plan", _truncated, first=found)


def release_of(releases: Sequence[Entry], name: str = "release", label: str = "Release") -> Entry:
    """Show a select box of a plan's releases and return the selected one, by default the newest."""
    options = {short(entry.id): entry for entry in releases[:MOST_OPTIONS]}
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
    """Show the message about the last selection, if there is one."""
    text = st.session_state.pop("notice", "")
    if text:
        theme.prose(text, "note")
