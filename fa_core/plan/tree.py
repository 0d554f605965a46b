"""What YAML text is read into: scalars, sequences and mappings that remember where they stood."""

from dataclasses import dataclass

from fa_core.plan.problems import Position

MAX_BYTES = 1_000_000
"""Most that a plan's file may have."""


@dataclass(frozen=True)
class Scalar:
    """A single value as it was written. `plain` says that it stood without quotes, so it may be a number."""

    position: Position
    text: str
    plain: bool


@dataclass(frozen=True)
class Sequence:
    """A list, in block or flow style."""

    position: Position
    items: "tuple[Scalar | Sequence | Mapping, ...]"


@dataclass(frozen=True)
class Mapping:
    """Keys and values in the order of the file. Keys are distinct: a repeated one is a problem already."""

    position: Position
    entries: "tuple[tuple[Scalar, Scalar | Sequence | Mapping], ...]"
