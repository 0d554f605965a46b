"""What one device can count, straight from the definition: units are drawn, and each adds to one group.

Whole numbers, sets and enumeration; nothing of fa_core is imported. A tally is feasible where some draw of
at most so many units gives it, and a device's tallies in several groups where the units that they take
together are no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

Tally = tuple[int, ...]


@dataclass(frozen=True)
class Draw:
    """At most `most` units, each of which adds one of `units` to the tally of its group."""

    most: int
    units: frozenset[Tally]


@cache
def fewest_units(draw: Draw, capped: int) -> dict[Tally, int]:
    """Every tally that one group can have, and the fewest units that give it."""
    zero = (0,) * len(next(iter(draw.units)))
    reached, last = {zero: 0}, {zero}
    for used in range(1, draw.most + 1):
        sums = {tuple(a + b for a, b in zip(*pair, strict=True)) for pair in product(last, draw.units)}
        last = sums - set(reached)
        reached |= dict.fromkeys(last, used)
    found: dict[Tally, int] = {}
    for tally, used in reached.items():
        counted = (tally[0], min(tally[1], capped * tally[0])) if capped else tally
        found[counted] = min(used, found.get(counted, used))
    return found


@dataclass(frozen=True)
class Definition:
    """What a device counts: the tallies of each of `draws`, one after the other.

    Attributes:
        capped: r is counted up to so much for each of n, where a tally is (n, r); 0 where it is not.
    """

    draws: tuple[Draw, ...]
    capped: int = 0

    def fewest(self, draw: Draw) -> dict[Tally, int]:
        return fewest_units(draw, self.capped)

    def feasible(self, groups: Sequence[Sequence[Tally]]) -> bool:
        """May a device have these tallies, one for each draw in each of its groups?"""
        for place, draw in enumerate(self.draws):
            fewest = self.fewest(draw)
            if any(group[place] not in fewest for group in groups):
                return False
            if sum(fewest[group[place]] for group in groups) > draw.most:
                return False
        return True

    def all(self, groups: int) -> Iterator[tuple[Tally, ...]]:
        """Everything that a device can have in so many groups: of each, its tallies joined."""
        by_draw = []
        for draw in self.draws:
            fewest = self.fewest(draw)
            by_draw.append(
                [
                    tallies
                    for tallies in product(fewest, repeat=groups)
                    if sum(fewest[tally] for tally in tallies) <= draw.most
                ]
            )
        for chosen in product(*by_draw):
            yield tuple(sum((tallies[group] for tallies in chosen), ()) for group in range(groups))


def unit(length: int, place: int) -> Tally:
    return tuple(int(each == place) for each in range(length))


def rate(most: int) -> Definition:
    """An event adds 1 to n, and 1 or nothing to r."""
    return Definition((Draw(most, frozenset({(1, 0), (1, 1)})),))


def paired(most: int) -> Definition:
    return Definition((Draw(most, frozenset({(1, -1), (1, 0), (1, 1)})),))


def mean(most: int, steps: int) -> Definition:
    return Definition((Draw(most, frozenset((1, value) for value in range(steps + 1))),))


def ratio(most: int, size: int, count: int) -> Definition:
    return Definition((Draw(most, frozenset(product(range(size + 1), range(count + 1)))),))


def rate_per_hour(hours: int, minutes: int, count: int) -> Definition:
    """An hour adds its minutes to n and its events to r, which is counted up to `count` a minute."""
    units = frozenset(product(range(minutes + 1), range(count + 1)))
    return Definition((Draw(hours, units),), capped=count)


def count(most: int) -> Definition:
    return Definition((Draw(most, frozenset({(1,)})),))


def table(most: int, cells: int) -> Definition:
    return Definition((Draw(most, frozenset(unit(cells, place) for place in range(cells))),))


def det(most: int, bins: int, hours: int, minutes: int, fires: int) -> Definition:
    """Events by bin; and hours, each with its false fires by bin, and its minutes."""
    fired = [each for each in product(range(fires + 1), repeat=bins) if sum(each) <= fires]
    return Definition(
        (
            Draw(most, frozenset(unit(bins, place) for place in range(bins))),
            Draw(hours, frozenset((*each, m) for each in fired for m in range(minutes + 1))),
        )
    )


def pair_products(n: int, r: int) -> Mapping[str, Tally]:
    present = (int(n > 0),)
    return {"present": present, "sized": present, "nn": (n * n,), "nr": (n * r,), "rr": (r * r,)}


def table_products(x: Tally, columns: int) -> Mapping[str, Tally]:
    rows = [x[start : start + columns] for start in range(0, len(x), columns)]
    return {
        "present": (int(sum(x) > 0),),
        "xn": tuple(value * sum(row) for row in rows for value in row),
        "xx": tuple(value * value for value in x),
    }


def det_products(tally: Tally, bins: int) -> Mapping[str, Tally]:
    positives, negatives, minutes = tally[:bins], tally[bins : 2 * bins], tally[-1]
    size, edges = sum(positives), range(1, bins)
    return {
        "sized": (int(size > 0),),
        "miss_squares": tuple(sum(positives[:edge]) ** 2 for edge in edges),
        "miss_sizes": tuple(value * size for value in positives),
        "fire_squares": tuple(sum(negatives[edge:]) ** 2 for edge in edges),
        "fire_minutes": tuple(value * minutes for value in negatives),
        "minute_squares": (minutes * minutes,),
    }
