"""Links between pages within the running session; each link's query names what to show."""

from collections.abc import Mapping

import streamlit as st

_KEY = "pages"


def register(pages: Mapping[str, object]) -> None:
    """Register the pages of this run by their path, so that pages can link to each other."""
    st.session_state[_KEY] = pages


def link(path: str, label: str, icon: str, **query: str) -> None:
    """Put a link to a page on the page, with what it should show as its query."""
    page = st.session_state.get(_KEY, {}).get(path)
    if page is not None:
        st.page_link(page, label=label, icon=f":material/{icon}:", query_params=query)
