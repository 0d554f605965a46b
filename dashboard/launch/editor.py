"""A small editor for plans: line numbers, and each problem beside its line, while typing."""

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
    <div class="overlay" aria-hidden="true"></div>
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
    """Return the text in the editor of this key now, `text` where nothing was typed yet."""
    state: Any = st.session_state.get(key)
    typed = None if state is None else state.get("text")
    return text if typed is None else str(typed)


def edit(key: str, text: str, problems: Sequence[Problem], *, locked: bool) -> None:
    """Put the editor on the page.

    Args:
        text: the initial text; a new key is a new editor.
        problems: shown beside their lines.
        locked: whether it may only be read.
    """
    listed = [
        {
            "line": each.position.line,
            "column": each.position.column,
            "text": f"{each.found}; {each.right}".replace("`", ""),
        }
        for each in problems
    ]
    _mount(
        key=key,
        data={"text": text, "problems": listed, "locked": locked, "label": "Evaluation plan, in YAML"},
        on_text_change=_changed,
    )


def _changed() -> None:
    """Do nothing: Streamlit runs the page again when the text has changed."""
