"""Rendering one page without a browser, and parsing its HTML."""

from html.parser import HTMLParser
from typing import Any

from streamlit.testing.v1 import AppTest


def render(name: str, **query: str) -> AppTest:
    """Run one page with a query; fails where it raises."""
    page = AppTest.from_function(_page, args=(name,), default_timeout=600)
    for key, value in query.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception, page.exception
    return page


def _page(name: str) -> None:
    from importlib import import_module

    import_module(f"dashboard.views.{name}").page()


def markup(page: AppTest) -> str:
    """Return all HTML of a page."""
    return "\n".join(element.body for element in page.html)


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        data = {name.removeprefix("data-"): value or "" for name, value in attrs if name.startswith("data-")}
        if tag == "tr" and data:
            self.rows.append(data | {"text": ""})

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.rows:
            self.rows[-1]["text"] += data


def rows(text: str) -> list[dict[str, str]]:
    """Return the data attributes of all table rows that have them, with the row's text under `text`."""
    parser = _Rows()
    parser.feed(text)
    return parser.rows


def tags(text: str) -> set[str]:
    """Return the names of all elements in some HTML."""
    parser = _Rows()
    parser.feed(text)
    return parser.tags


def words(text: str) -> str:
    """Return the text of some HTML."""
    parser = _Rows()
    parser.feed(text)
    return " ".join(" ".join(parser.text).split())


def exact(value: Any) -> str:
    """Return a number as a row's data attribute holds it."""
    return str(value)
