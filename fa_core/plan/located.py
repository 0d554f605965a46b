"""From a path in the values of a plan, as ("metrics", "det", "group_by", 0), to the place in its file."""

from dataclasses import dataclass

from fa_core.plan.problems import Position
from fa_core.plan.tree import Mapping, Scalar, Sequence

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One thing wrong at a path: what was found, what would be right. `at_key` points at the key itself."""

    loc: Loc
    found: str
    right: str
    at_key: bool = False


@dataclass(frozen=True)
class Located:
    """A tree of nodes that is asked for places by path; a path that ends early leads to its deepest part."""

    root: Scalar | Sequence | Mapping

    def place(self, finding: Finding) -> Position:
        """Return where a finding is: its value, or its key where `at_key` or where there is no value."""
        key, node = self._find(finding.loc)
        return key.position if key is not None and finding.at_key else node.position

    def text(self, loc: Loc) -> str | None:
        """Return a scalar as it was written (`2.10` stays `2.10`), None for anything else."""
        _, node = self._find(loc)
        return node.text if isinstance(node, Scalar) else None

    def _find(self, loc: Loc) -> tuple[Scalar | None, Scalar | Sequence | Mapping]:
        key: Scalar | None = None
        node = self.root
        for step in loc:
            if isinstance(node, Mapping):
                key, node = next(((k, v) for k, v in node.entries if k.text == step), (key, node))
            elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
                key, node = None, node.items[step]
        return key, node
