"""The numbers of a release that are not shown, by the reason."""

from dashboard.data import reading
from dashboard.data.numbers import group_text, grouping_text, words
from dashboard.data.reading import Body
from dashboard.style import theme
from dashboard.style.theme import Column, esc
from fa_core.estimate.sentences import listed


def show(body: Body) -> None:
    """Put a table of them on the page."""
    found: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for result in body.estimates.results:
        if result.suppressed:
            key = (result.metric, reading.grouping_of(result), result.reason)
            found.setdefault(key, []).append(group_text(result.group))
    theme.heading("Not shown", f"{body.entry.suppressed} of {body.entry.results} numbers")
    if not found:
        theme.prose("Every number of this release is shown.", "note")
        return
    columns = (Column("Metric"), Column("Groups"), Column("Reason"))
    rows = [
        [
            f"{esc(words(metric))} <small>by {esc(grouping_text(by))}</small>",
            esc(listed(groups, 12)),
            theme.rich(reason),
        ]
        for (metric, by, reason), groups in found.items()
    ]
    theme.show(theme.table(columns, rows, "Numbers that are not shown"))
