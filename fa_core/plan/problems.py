"""What is wrong with a plan, and where: every check adds to one list, and the author sees it all at once."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from fa_core.errors import BadInput
from fa_core.metrics.presets import ALIASES

SHOWN = 50
"""Of more problems than this, the first ones by position are shown, and the number of the others."""


@dataclass(frozen=True, order=True)
class Position:
    """A place in a file, both counted from 1; `column` counts characters, not bytes."""

    line: int
    column: int


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong: what was found at a position, and what would be right."""

    position: Position
    found: str
    right: str

    def text(self, name: str) -> str:
        """Return the line an editor can jump to: `file:line:column: what was found; what would be right`.

        What a terminal would obey or hide is escaped.
        """
        line = f"{name}:{self.position.line}:{self.position.column}: {self.found}; {self.right}"
        return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)


class BadPlan(BadInput):
    """A plan that cannot be used. `problems` holds every problem found, in the order of the file."""

    located: ClassVar[bool] = True

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(sorted(set(problems)))
        lines = [problem.text(name) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"{name}: and {len(self.problems) - SHOWN} more; mend these first")
        super().__init__("\n".join(lines))


@dataclass
class Problems:
    """Collects problems. A position that could not be read at all is blamed once, not by every check."""

    found: list[Problem] = field(default_factory=list)
    unreadable: set[Position] = field(default_factory=set)

    def add(self, position: Position, found: str, right: str) -> None:
        """Add a problem, unless the value there could not even be read."""
        if position not in self.unreadable:
            self.found.append(Problem(position, found, right))

    def add_unreadable(self, position: Position, found: str, right: str) -> None:
        """Add a problem with the reading of a value: later problems at its position would only repeat it."""
        self.add(position, found, right)
        self.unreadable.add(position)

    def raise_if_any(self, name: str) -> None:
        """Raise BadPlan with everything found so far, if anything was."""
        if self.found:
            raise BadPlan(name, self.found)


def show(text: str, length: int = 48) -> str:
    """Return text between back-quotes, cut to a length."""
    return f"`{text if len(text) <= length else text[: length - 1] + '…'}`"


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Return names as `a`, `b`, `c` and, past the limit, how many more there are."""
    all_names = list(names)
    text = ", ".join(show(name) for name in all_names[:limit])
    return text if len(all_names) <= limit else f"{text} and {len(all_names) - limit} more"


def one_of(names: Iterable[str]) -> str:
    """Return "write one of …", or the only name there is."""
    all_names = list(names)
    return f"write {show(all_names[0])}" if len(all_names) == 1 else f"write one of {listed(all_names)}"


def usual_name(word: str) -> str | None:
    """Return the preset that a usual name such as `FRR` or `FA/h` stands for, None for anything else."""
    return ALIASES.get(re.sub(r"[^a-z]+", "_", word[:64].lower()).strip("_"))


def suggestion(word: str, names: Iterable[str]) -> str:
    """Return "did you mean `x`?" for the nearest name, or else which names there are.

    A usual name of a metric, such as FRR, is nearest to the preset that it stands for.
    """
    all_names = list(names)
    usual = usual_name(word)
    if usual in all_names and word not in all_names:
        return f"did you mean {show(usual)}?"
    lowered = {name.lower(): name for name in reversed(all_names)}
    near = difflib.get_close_matches(word[:64].lower(), lowered, n=1, cutoff=0.6)
    return f"did you mean {show(lowered[near[0]])}?" if near else one_of(all_names)
