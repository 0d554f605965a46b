"""Whoever looks at the page: who they are, what they may do, and what they did, for the audit trail."""

import streamlit as st

from dashboard.auth import audit
from dashboard.auth.middleware import COOKIE, HEADER
from dashboard.auth.users import SESSIONS, Role, User
from dashboard.settings import active
from dashboard.style import theme


def somebody() -> User | None:
    """Return who looks, by the key that the gate put on their connection; None where it ran out or there is none."""
    return SESSIONS.find(st.context.headers.get(HEADER, ""))


def user() -> User:
    """Return who looks. Ends the page where nobody does."""
    found = somebody()
    if found is None:
        theme.empty("Your session has ended.", "Load the page again to sign in.")
        st.stop()
    return found


def signed_in() -> bool:
    """Return whether who looks came in by a password, and so may leave."""
    return COOKIE in st.context.cookies


def may(role: Role) -> bool:
    """Return whether who looks has a role."""
    return user().may(role)


def record(action: str, **details: str) -> None:
    """Write a deed of who looks into the audit trail."""
    audit.record(active().folder, user().name, action, details)
