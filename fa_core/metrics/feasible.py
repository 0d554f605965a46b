"""What one device can count in its groups, as constraints: the parts that several kinds share.

A device draws at most so many units (events, hours, pairs), each in one group. A kind counts in it sizes,
counts and where they fell; its constraints admit exactly the tallies that some draw gives, and no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fa_core.arrays import Int64Array, np
from fa_core.constraints import Constraints, Forms, constants
from fa_core.metrics.kind import PRESENT

MOMENTS: Final = ("n", "r", "nn", "nr", "rr")
"""Names of what is proved of a pair besides the bit of whether n is above 0, which is `PRESENT` or
`SIZED`."""

SIZED: Final = "sized"
"""The name of that bit where a device may add a count without a size."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a device can have in its groups: of at most `units` units, m lie in one, and there 0 ≤ n ≤
    size·m and 0 ≤ r ≤ count·m. Where n is 0 so is r, and r ≤ count·n; unless they are `apart`. `signed`:
    |r| ≤ n, with size and count 1."""

    units: int
    size: int
    count: int
    signed: bool = False
    apart: bool = False

    @property
    def in_units(self) -> bool:
        """Whether n is itself the number of units, so that nothing else says how many there are."""
        return self.size == 1 and not self.apart


def sized(constraints: Constraints, n: Forms, present: Forms, most: int) -> None:
    """Require of sizes n ≤ most that they are above 0 exactly where the bit `present` is 1.

    n − present must be a number of 0 to most − 1, and 0 where the bit is 0.
    """
    beyond = n - present
    constraints.require_range(beyond, most - 1)
    constraints.require(beyond, present, beyond)


def prove_pairs(constraints: Constraints, groups: int, pairs: Pairs) -> dict[str, Forms]:
    """Constrain the tallies `n` and `r`, and where needed `units`, each (groups,), and return u by name."""
    n_counted, r_counted = (constraints.input(name, (groups,)) for name in ("n", "r"))
    largest = pairs.size * pairs.units
    present = constraints.present(n_counted)
    beyond = constraints.number(n_counted - present, largest - 1)
    constraints.require(beyond, present, beyond)
    n = beyond + present
    if pairs.signed:
        r = constraints.number(r_counted + n_counted, 2 * largest) - n
        constraints.require_range(n - r, 2 * largest)
    else:
        r = constraints.number(r_counted, pairs.count * pairs.units)
        if not pairs.apart:
            constraints.require_range(n * pairs.count - r, pairs.count * largest)
    if groups > 1:
        units = n
        if not pairs.in_units:
            units = constraints.number(constraints.input("units", (groups,)), pairs.units)
            constraints.require_range(units * pairs.size - n, largest)
            constraints.require_range(units * pairs.count - r, pairs.count * pairs.units)
        constraints.require_range(constants(pairs.units) - units.sum(), pairs.units)
    products = constraints.product(n, n), constraints.product(n, r), constraints.product(r, r)
    found = {SIZED if pairs.apart else PRESENT: present}
    return found | dict(zip(MOMENTS, (n, r, *products), strict=True))


def counters(proved: Mapping[str, Forms]) -> list[Forms]:
    """Return u = (1, n, r, n², n·r, r²), or all 0 where n is 0, from what `prove_pairs` returned."""
    present = proved[PRESENT] if PRESENT in proved else proved[SIZED]
    return [present, *(proved[name] for name in MOMENTS)]


def least_units(pairs: Pairs, n: Int64Array, r: Int64Array) -> Int64Array:
    """Return the fewest units that have these sizes and counts, of their shape."""
    return np.asarray(np.maximum(-(-n // pairs.size), -(-np.abs(r) // pairs.count)))
