"""Joint counters by the letter of docs/privacy.md, slowly and in exact numbers; nothing of ours is imported.

`python -m tests.metrics.joint_reference` writes tests/vectors/joint-counters.json anew from the tables in it:
vectors for whoever counts on a device in another language.
"""

import json
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[1] / "vectors" / "joint-counters.json"
POWERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))


def matrix(table: Sequence[Sequence[int]], largest_n: int, largest_r: int) -> list[list[int]]:
    """The integers of a plan: those of the table, scaled, rounded to the nearest, halves up."""
    s = min(30, max(10, 2 * math.ceil(math.log2(max(largest_n, largest_r))) + 4))
    return [
        [
            math.floor(Fraction(c * 2**s, 2**16 * largest_n**a * largest_r**b) + Fraction(1, 2))
            for c, (a, b) in zip(row, POWERS, strict=True)
        ]
        for row in table
    ]


def mapped(a: Sequence[Sequence[int]], n: int, r: int) -> list[int]:
    """What a device adds to a group where it has n and r."""
    if n == 0:
        return [0] * len(a)
    u = [n**i * r**k for i, k in POWERS]
    return [sum(x * y for x, y in zip(row, u, strict=True)) for row in a]


def pairs(units: int, size: int, count: int, signed: bool) -> Iterator[tuple[int, int]]:
    """Every (n, r) that a device can have in one group with at most so many units there."""
    for n in range(1, size * units + 1):
        most = count * min(units, n)
        for r in range(-most if signed else 0, most + 1):
            yield n, r


def bound(
    a: Sequence[Sequence[int]], units: int, size: int, count: int, signed: bool, groups: int
) -> dict[str, int]:
    """The largest Σ|y|, Σy² and |y| over every way to split the units over the groups, and every pair."""
    found = {"l1": 0, "l2_squared": 0, "linf": 0}
    options = {
        m: [mapped(a, n, r) for n, r in pairs(m, size, count, signed)] if m else [[0] * len(a)]
        for m in range(units + 1)
    }
    norms = {
        m: {
            "l1": max(sum(map(abs, y)) for y in each),
            "l2_squared": max(sum(v * v for v in y) for y in each),
            "linf": max(max(map(abs, y)) for y in each),
        }
        for m, each in options.items()
    }
    for split in splits(units, groups):
        for name in ("l1", "l2_squared"):
            found[name] = max(found[name], sum(norms[m][name] for m in split))
        found["linf"] = max(found["linf"], *(norms[m]["linf"] for m in split))
    return found


def splits(units: int, groups: int) -> Iterator[tuple[int, ...]]:
    """Every way to put at most so many units into so many groups."""
    if groups == 0:
        yield ()
        return
    for first in range(units + 1):
        for rest in splits(units - first, groups - 1):
            yield (first, *rest)


CASES: tuple[tuple[str, int, int, int, bool, tuple[int, ...]], ...] = (
    ("rate", 1, 1, 1, False, (1,)),
    ("rate", 24, 1, 1, False, (1,)),
    ("rate", 64, 1, 1, False, (1,)),
    ("rate_event", 7, 1, 1, False, (1, 2, 4)),
    ("paired", 24, 1, 1, True, (1,)),
    ("paired_event", 6, 1, 1, True, (2, 3)),
    ("rate_per_hour", 5, 60, 2, False, (1,)),
    ("rate_per_hour_event", 4, 60, 3, False, (2, 4)),
)
"""(table, units, size, count, signed, numbers of groups that one device may touch)."""


def main() -> None:
    """Write the file."""
    vectors: dict[str, Any] = json.loads(VECTORS.read_text())
    vectors["cases"] = [_case(vectors["tables"], *case) for case in CASES]
    text = json.dumps(vectors, separators=(",", ":"))
    VECTORS.write_text(text.replace('{"table"', '\n{"table"') + "\n")


def _case(
    tables: Any, table: str, units: int, size: int, count: int, signed: bool, groups: Sequence[int]
) -> dict[str, Any]:
    a = matrix(tables[table], size * units, count * units)
    every = list(pairs(units, size, count, signed))
    some = every[:: max(1, len(every) // 7)]
    return {
        "table": table,
        "units": units,
        "size": size,
        "count": count,
        "signed": signed,
        "matrix": a,
        "pairs": [{"n": n, "r": r, "y": mapped(a, n, r)} for n, r in some],
        "bounds": [{"groups": k} | bound(a, units, size, count, signed, k) for k in groups],
    }


if __name__ == "__main__":
    main()
