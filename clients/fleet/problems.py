"""What is wrong with device tables, by file, column and row.

The lines of an error never repeat a value: a device's value stays out of every error, log and trace. What the
values were is kept apart, for the terminal of the person who imports their own tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fa_core.errors import BadInput
from fa_core.plan.problems import suggestion

ROWS_NAMED = 3
VALUE_SHOWN = 40

Rows = Sequence[int] | NDArray[np.int64]


class BadTables(BadInput):
    """Tables that cannot be used. `shown` is the same text with the values: for a terminal alone."""

    def __init__(self, text: str, shown: str) -> None:
        super().__init__(text)
        self.shown = shown


@dataclass
class Problems:
    """What was found, in the order found: once for each file, column and kind of problem."""

    rows: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    values: dict[tuple[str, str, str], dict[str, None]] = field(default_factory=dict, repr=False)
    notes: dict[str, int] = field(default_factory=dict)
    """What was changed on the way in, a sentence each, and how often."""

    def add(
        self,
        file: str,
        column: str,
        what: str,
        rows: Rows = (),
        values: Sequence[object] = (),
        domain: Sequence[str] = (),
    ) -> None:
        """Note a problem of a column at these rows (0 is the first row), or of the column as a whole.

        `values` are those of the first rows, as many as a person needs to see; `domain` are the right ones.
        """
        key = (file, column, what)
        named = self.rows.setdefault(key, [])
        room = max(0, ROWS_NAMED - len(named))
        named.extend(int(row) + 1 for row in rows[:room])
        self.counts[key] = self.counts.get(key, 0) + len(rows)
        self.values.setdefault(key, {}).update(
            dict.fromkeys(_shown(value, domain) for value in values[:room])
        )

    def note(self, sentence: str, count: int) -> None:
        """Count something that is no problem, but that a person should know."""
        if count:
            self.notes[sentence] = self.notes.get(sentence, 0) + count

    def raise_any(self) -> None:
        """Raise BadTables with everything found, one line each; return where nothing was found."""
        if self.rows:
            raise BadTables("\n".join(self.lines()), "\n".join(map(self._with_values, self.rows)))

    def lines(self) -> list[str]:
        """Return everything found, a line each, without values."""
        return [self._line(key) for key in self.rows]

    def _line(self, key: tuple[str, str, str]) -> str:
        file, column, what = key
        named, count = self.rows[key], self.counts[key]
        place = f"{file}: {column}" if column else file
        if named:
            more = f" and {count - len(named):,} more" if count > len(named) else ""
            place += f": {'rows' if count > 1 else 'row'} {', '.join(map(str, named))}{more}"
        return f"{place}: {what}"

    def _with_values(self, key: tuple[str, str, str]) -> str:
        values = self.values.get(key)
        return f"{self._line(key)} (here: {'; '.join(values)})" if values else self._line(key)


def _shown(value: object, domain: Sequence[str]) -> str:
    """Return a value between back-quotes, short, with what a terminal would obey or hide written out."""
    text = str(value)
    short = text if len(text) <= VALUE_SHOWN else text[: VALUE_SHOWN - 1] + "…"
    shown = "`" + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in short) + "`"
    nearest = suggestion(text, domain) if domain else ""
    return f"{shown}, {nearest}" if nearest.startswith("did you mean") else shown
