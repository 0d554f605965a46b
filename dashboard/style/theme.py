"""The dashboard's theme: an accent colour, an alert colour, and the HTML components of the pages.

Every text that comes from a plan, a store or a person goes through `esc`; HTML is written nowhere else than in
the functions of this module and in the pages that call them. Colours adapt to the theme in the browser.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import streamlit as st

from fa_core.values import Verdict

LOGO: Final = Path(__file__).parent / "logo.svg"
ICON: Final = Path(__file__).parent / "icon.svg"
CODE: Final = re.compile(r"`([^`\n]+)`")
STYLE: Final = Path(__file__).parent / "style.css"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a theme. `accent` and `alert` can be distinguished with every common colour vision deficiency."""

    paper: str
    sunken: str
    ink: str
    muted: str
    line: str
    accent: str
    alert: str
    ramp: tuple[str, str]
    """From the least to the most of something, in the accent's hue."""


LIGHT: Final = Palette(
    "#ffffff", "#f4f6f9", "#1a2230", "#566072", "#dde2e9", "#1f5fae", "#b43c0a", ("#e8f0fa", "#134a8e")
)
DARK: Final = Palette(
    "#0f141b", "#18202b", "#e7ebf1", "#9aa6b6", "#2b3644", "#7ab5ff", "#ffa36b", ("#1a2736", "#8fc1ff")
)

VERDICTS: Final[Mapping[Verdict, tuple[str, str, str]]] = {
    "broken": ("broken", "✕", "broken"),
    "not_enough_evidence": ("open", "◌", "not enough evidence"),
    "met": ("met", "✓", "met"),
}
"""For each verdict its CSS class, its sign, and its words; the sign and the words carry the meaning."""


def palette() -> Palette:
    """Return the colours of the theme that the browser shows, for charts."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def esc(text: object, most: int = 600) -> str:
    """Return text as HTML shows it literally, truncated to `most` characters."""
    whole = str(text)
    return html.escape(whole if len(whole) <= most else whole[:most] + "…", quote=True)


def rich(text: object, most: int = 600) -> str:
    """Return text as HTML, with what stands between backticks as code."""
    return CODE.sub(r"<code>\1</code>", esc(text, most))


def style() -> None:
    """Send the style sheet."""
    st.html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")


def show(markup: str) -> None:
    """Put HTML on the page."""
    st.html(f'<div class="uh">{markup}</div>')


def title(text: str, question: str = "") -> None:
    """Write the page's heading and, under it, the question that the page answers."""
    show(
        f'<h1 class="uh-title">{esc(text)}</h1>'
        + (f'<p class="uh-lead">{esc(question)}</p>' if question else "")
    )


def heading(text: str, aside: str = "") -> None:
    """Write a section's heading with a remark beside it."""
    show(f'<h2 class="uh-h2">{esc(text)}' + (f" <small>{esc(aside)}</small>" if aside else "") + "</h2>")


def prose(text: str, kind: Literal["plain", "note", "answer"] = "plain") -> None:
    """Write a sentence, if any: plain, as a note, or as the answer to the page's question."""
    if not text:
        return
    role = ' role="status"' if kind == "answer" else ""
    show(f'<p class="uh-{kind}"{role}>{rich(text, 4000)}</p>')


def chip(text: str, kind: str = "plain", sign: str = "", hint: str = "") -> str:
    """Return a small label."""
    mark = f'<span aria-hidden="true">{sign}</span> ' if sign else ""
    title = f' title="{esc(hint)}"' if hint else ""
    return f'<span class="uh-chip uh-{kind}"{title}>{mark}{esc(text, 80)}</span>'


def verdict(value: Verdict, count: int | None = None) -> str:
    """Return the label of a verdict, with its count where that is given."""
    kind, sign, words = VERDICTS[value]
    return chip(words if count is None else f"{count} {words}", kind, sign)


def provenance(simulated: bool, synthetic: bool) -> str:
    """Return the labels that a release of a simulation or of synthetic voices carries wherever it is shown."""
    labels = ""
    if simulated:
        labels += chip(
            "simulation",
            "sim",
            "◈",
            "Made with seeded noise, an in-process fleet or a synthetic fleet. The mark cannot be removed.",
        )
    if synthetic:
        labels += chip(
            "synthetic voices",
            "sim",
            "◈",
            "The voices come from a few speech synthesisers; they do not represent a population.",
        )
    return labels


def empty(what: str, then: str, command: str = "") -> None:
    """Show that there is nothing to display, and what to do next."""
    line = f"<pre><code>{esc(command)}</code></pre>" if command else ""
    show(f'<div class="uh-empty"><p><b>{rich(what)}</b></p><p>{rich(then)}</p>{line}</div>')


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, whether it holds numbers, and whether a narrow screen may leave it out."""

    name: str
    number: bool = False
    minor: bool = False


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    caption: str,
    attributes: Sequence[Mapping[str, object]] = (),
    scroll: bool = False,
) -> str:
    """Return a table. Cells are HTML already; `attributes` gives each row data that tests and scripts read."""

    def classes(column: Column) -> str:
        return f"{'num ' if column.number else ''}{'minor' if column.minor else ''}".strip()

    head = "".join(f'<th scope="col" class="{classes(c)}">{esc(c.name)}</th>' for c in columns)
    body = []
    for place, row in enumerate(rows):
        row_data = attributes[place] if place < len(attributes) else {}
        data = "".join(f' data-{name}="{esc(value)}"' for name, value in row_data.items())
        cells = "".join(
            f'<{"th scope=row" if not at else "td"} class="{classes(c)}" data-name="{esc(c.name)}">{cell}'
            f"</{'th' if not at else 'td'}>"
            for at, (c, cell) in enumerate(zip(columns, row, strict=True))
        )
        body.append(f"<tr{data}>{cells}</tr>")
    kind = "uh-scroll" if scroll else "uh-wide"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{esc(caption)}"><table class="uh-table">'
        f"<caption>{esc(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        + (f'<p class="uh-note">{len(body)} rows; scroll the table for the rest.</p>' if scroll else "")
    )


def bar(low: float, point: float, high: float, least: float, most: float, limit: float | None = None) -> str:
    """Return a small interval: a line from `low` to `high` with a point, on a scale from `least` to `most`."""
    reach = (most - least) or 1.0

    def at(value: float) -> float:
        return 100 * min(max((value - least) / reach, 0.0), 1.0)

    mark = f'<i class="limit" style="left:{at(limit):.1f}%"></i>' if limit is not None else ""
    over = " over" if limit is not None and low > limit else ""
    return (
        f'<span class="uh-bar{over}" aria-hidden="true">{mark}'
        f'<i class="line" style="left:{at(low):.1f}%;width:{max(at(high) - at(low), 0.6):.1f}%"></i>'
        f'<i class="dot" style="left:{at(point):.1f}%"></i></span>'
    )


def gauge(spent: float, limit: float, label: str, words: str, aside: str, shared: bool = True) -> str:
    """Return a budget as a bar with its text; a budget that releases share is highlighted from 90% on."""
    share = min(max(spent / limit, 0.0), 1.0) if limit else 1.0
    kind = "full" if shared and share >= 0.9 else ""
    return (
        f'<div class="uh-gauge {kind}" role="meter" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="{esc(label)}"><b>{esc(label)}</b><span>{esc(words)}</span>'
        f'<div class="track"><i style="width:{100 * share:.1f}%"></i></div><small>{esc(aside)}</small></div>'
    )
