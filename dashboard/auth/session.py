"""The signed-in user of the running page: name, roles, and the actions written to the audit trail."""

import streamlit as st

from dashboard.auth import audit
from dashboard.auth.middleware import COOKIE, HEADER
from dashboard.auth.users import SESSIONS, Role, User
from dashboard.settings import active
from dashboard.style import theme


def current_user() -> User | None:
    """Return the user of the session key that the middleware put on the connection; None where it expired."""
    return SESSIONS.find(st.context.headers.get(HEADER, ""))


def user() -> User:
    """Return the signed-in user. Ends the page where there is none."""
    found = current_user()
    if found is None:
        theme.empty("Your session has ended.", "Load the page again to sign in.")
        st.stop()
    return found


def signed_in() -> bool:
    """Return whether the user signed in by password, and so can sign out."""
    return COOKIE in st.context.cookies


def may(role: Role) -> bool:
    """Return whether the signed-in user has a role."""
    return user().may(role)


def record(action: str, **details: str) -> None:
    """Write an action of the signed-in user to the audit trail."""
    audit.record(active().folder, user().name, action, details)
