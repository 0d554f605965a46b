"""A table for a person. It needs no estimator, for which `fa plan check` should not wait."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: ruled on a terminal, aligned text with two spaces between elsewhere."""
    console = Console()
    if console.is_terminal:
        shown = Table(*headers, title=title, title_justify="left", header_style="bold")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        return
    if title:
        sys.stdout.write(f"\n{title}\n")
    widths = [max(len(line[column]) for line in (headers, *rows)) for column in range(len(headers))]
    for line in (headers, *rows):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
