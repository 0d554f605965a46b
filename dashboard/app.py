"""The dashboard's frame: the signed-in user, the pages, and errors shown as sentences."""

import streamlit as st

from dashboard.auth import session
from dashboard.data import reading
from dashboard.navigation import links
from dashboard.settings import active
from dashboard.style import theme
from dashboard.views import (
    confusions,
    health,
    plans,
    privacy,
    release,
    rollouts,
    segments,
    thresholds,
    trends,
)
from fa_core.errors import UnheardError

PAGES = (
    (health.page, "Health", ""),
    (segments.page, "Segments", "segments"),
    (thresholds.page, "Thresholds", "thresholds"),
    (confusions.page, "Confusions", "confusions"),
    (trends.page, "Trends", "trends"),
    (release.page, "Release", "release"),
    (rollouts.page, "Rollouts", "rollouts"),
    (plans.page, "Plans", "plans"),
    (privacy.page, "Privacy", "privacy"),
)


def main() -> None:
    """Show the requested page."""
    st.set_page_config("Unheard", str(theme.ICON), layout="wide", initial_sidebar_state="collapsed")
    theme.style()
    user = session.user()
    pages = {
        path: st.Page(page, title=title, url_path=path or None, default=not path)
        for page, title, path in PAGES
    }
    chosen = st.navigation(list(pages.values()), position="top")
    links.register(pages)
    st.logo(str(theme.LOGO), size="large")
    # A phone has no room for the bar of pages, and Streamlit would hide them behind a button.
    with st.container(horizontal=True, gap="small", key="pages"):
        for page in pages.values():
            st.page_link(page)
    try:
        reading.entries(active().store)
        chosen.run()
    except UnheardError as error:
        theme.empty("This cannot be shown.", str(error))
    _footer(user.name, ", ".join(sorted(user.roles)) or "viewer")


def _footer(name: str, roles: str) -> None:
    sign_out = (
        f'<form method="post" action="{active().base}/logout"><button type="submit">Sign out</button></form>'
    )
    theme.show(
        f'<hr><div class="uh-facts"><span>{theme.esc(name)} · {theme.esc(roles)}</span>'
        f"<span>Store {theme.esc(reading.open_catalogue(active().store).name)}</span>"
        f"{sign_out if session.signed_in() else ''}</div>"
    )


main()
