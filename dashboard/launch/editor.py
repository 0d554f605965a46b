"""A small editor for plans: line numbers, and each problem beside the line that it is about, as it is typed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import streamlit as st

from fa_core.plan import Problem

HERE: Final = Path(__file__).parent
HTML: Final = """
<div class="editor">
  <pre class="lines" aria-hidden="true"></pre>
  <div class="page">
    <div class="told" aria-hidden="true"></div>
    <textarea spellcheck="false" autocapitalize="off" autocomplete="off" wrap="off"></textarea>
  </div>
</div>
"""

_mount = st.components.v2.component(
    "unheard_plan_editor",
    html=HTML,
    css=(HERE / "editor.css").read_text(encoding="utf-8"),
    js=(HERE / "editor.js").read_text(encoding="utf-8"),
)


def text_of(key: str, text: str) -> str:
    """Return what the editor of this key holds now: what was typed, or the text that it begins with."""
    state: Any = st.session_state.get(key)
    typed = None if state is None else state.get("text")
    return text if typed is None else str(typed)


def edit(key: str, text: str, problems: Sequence[Problem], *, locked: bool) -> None:
    """Put the editor on the page.

    Args:
        text: what it begins with; a new key begins anew.
        problems: shown beside their lines.
        locked: whether it may only be read.
    """
    told = [
        {"line": each.position.line, "column": each.position.column, "text": f"{each.found}; {each.right}"}
        for each in problems
    ]
    _mount(
        key=key,
        data={"text": text, "problems": told, "locked": locked, "label": "Evaluation plan, in YAML"},
        on_text_change=_heard,
    )


def _heard() -> None:
    """The page runs again by itself when the text has changed."""
