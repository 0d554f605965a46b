"""Links from page to page within the running session; each names what to show, so the URL can be sent on."""

from collections.abc import Mapping

import streamlit as st

_KEY = "pages"


def know(pages: Mapping[str, object]) -> None:
    """Keep the pages of this run by their path, so that pages can link to each other."""
    st.session_state[_KEY] = pages


def link(path: str, label: str, icon: str, **query: str) -> None:
    """Write a link to a page, with what it should show."""
    page = st.session_state.get(_KEY, {}).get(path)
    if page is not None:
        st.page_link(page, label=label, icon=f":material/{icon}:", query_params=query)
