"""Choosing what to look at, kept in the URL: page, release, metric and grouping make a link that can be sent.

What was chosen on one page is what the next page starts with; the URL goes before that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import streamlit as st

from dashboard.data import reading
from dashboard.data.numbers import grouping_text, short, span, words
from dashboard.settings import active
from dashboard.style import theme
from fa_core.errors import BadInput
from fa_core.store import Entry

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
    """Let a person choose one of some options and return it.

    Args:
        options: by the short text that stands for each in the URL; at least one.
        name: of the URL's parameter.
        first: what to begin with where neither the URL nor another page says.
    """
    state = _state(name)
    kept = f"kept-{name}"
    if st.session_state.get(state) not in options:
        asked = (st.query_params.get(name), st.session_state.get(kept), first)
        st.session_state[state] = next((text for text in asked if text in options), next(iter(options)))
    chosen = st.selectbox(
        label, list(options), key=state, format_func=lambda key: show(options[key]), help=help
    )
    st.session_state[kept] = chosen
    remember(name, chosen)
    return options[chosen]


def pager(pages: int) -> int:
    """Let a person turn pages and return the page's number, from 1."""
    state = _state("page")
    if not 1 <= int(st.session_state.get(state, 0)) <= pages:
        asked = st.query_params.get("page", "")
        good = asked.isascii() and asked.isdigit() and len(asked) < 6 and 1 <= int(asked) <= pages
        st.session_state[state] = int(asked) if good else 1
    chosen = st.pagination(pages, key=state)
    remember("page", str(chosen))
    return int(chosen)


def go(**choices: str) -> None:
    """Make choices for a person and show the page anew with them."""
    for name, value in choices.items():
        st.session_state[f"go-{name}"] = value
    st.rerun()


def _state(name: str) -> str:
    """Return where a choice is kept, after making it where `go` was called for it."""
    state, going = f"pick-{name}", f"go-{name}"
    if going in st.session_state:
        st.session_state[state] = st.session_state.pop(going)
    return state


def tabs(options: Mapping[str, str], name: str) -> str:
    """Let a person choose between the parts of a page and return the chosen key."""
    state = _state(name)
    if st.session_state.get(state) not in options:
        asked = st.query_params.get(name)
        st.session_state[state] = asked if asked in options else next(iter(options))
    st.segmented_control(
        "Part of the page", list(options), key=state, format_func=options.__getitem__, label_visibility="collapsed",
        required=True,
    )  # fmt: skip
    chosen = st.session_state[state] or next(iter(options))
    remember(name, chosen)
    return str(chosen)


def whole(label: str, name: str, first: int, least: int, most: int, help: str | None = None) -> int:
    """Let a person choose a whole number and return it."""
    state = f"pick-{name}"
    if state not in st.session_state:
        asked = st.query_params.get(name, "")
        good = asked.isascii() and asked.isdigit() and len(asked) < 6 and least <= int(asked) <= most
        st.session_state[state] = int(asked) if good else first
    chosen = st.number_input(label, least, most, key=state, help=help)
    remember(name, str(chosen))
    return int(chosen)


def remember(name: str, value: str) -> None:
    """Put a choice into the URL."""
    if st.query_params.get(name) != value:
        st.query_params[name] = value


def plan(plans: Mapping[str, Sequence[Entry]]) -> str:
    """Let a person choose one of the plans that have releases; a release in the URL names its plan."""
    asked = st.query_params.get("release", "")
    found = next((e.plan for each in plans.values() for e in each if asked and e.id.startswith(asked)), None)
    if asked and found is None and "pick-plan" not in st.session_state:
        st.session_state["notice"] = f"No release here starts with {asked[:32]}; this is the newest one."
    return choose("Plan", {name: name for name in plans}, "plan", _cut, first=found)


def release_of(releases: Sequence[Entry], name: str = "release", label: str = "Release") -> Entry:
    """Let a person choose one of a plan's releases; begins with the newest."""
    options = {short(entry.id): entry for entry in releases[:MOST_OPTIONS]}
    return choose(label, options, name, _release_text)


def _release_text(entry: Entry) -> str:
    return f"{span(entry.window_start, entry.window_end)} · {short(entry.id)}"


def _cut(name: str) -> str:
    return name if len(name) <= 60 else name[:60] + "…"


def metric(names: Sequence[str], first: str | None = None) -> str:
    """Let a person choose a metric."""
    return choose("Metric", {name: name for name in names}, "metric", words, first)


def grouping(groupings: Sequence[tuple[str, ...]], first: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Let a person choose how a metric is cut."""
    options = {",".join(each) or "everyone": each for each in groupings}
    return choose(
        "Cut by", options, "by", grouping_text, None if first is None else ",".join(first) or "everyone"
    )


def body(entry: Entry) -> reading.Body:
    """Return everything of a release; says so and ends the page where its file is gone or damaged."""
    return _readable(reading.body, entry)


def glance(entry: Entry) -> reading.Body:
    """Return a release without the cells of its tables; says so and ends the page where it cannot."""
    return _readable(reading.glance, entry)


def _readable(read: Callable[[str, Entry], reading.Body], entry: Entry) -> reading.Body:
    try:
        return read(active().store, entry)
    except BadInput as error:
        theme.empty("This release cannot be read.", str(error), f"fa log verify --store {active().store}")
        st.stop()


def notice() -> None:
    """Show what there was to say about the last choice."""
    text = st.session_state.pop("notice", "")
    if text:
        theme.prose(text, "note")
