"""Joint counters: one public integer map of what a device did in a group, in place of six blocks.

In a group where a device has n > 0 of size and r of count (events and misses, minutes and false wakes,
pairs and the difference they add), it sends y = A·u with u = (1, n, r, n², n·r, r²), and y = 0 where n is 0.
The six sums are functions of one pair (r, n), so the most that a device adds, D = max |A·u|², is found by
trying every pair that there can be; noise of one variance for all six then costs less than noise for each.

The integers c below were found once, by minimising the variance of what is read from the sums for D = 1.
They are the same for every plan. The rule makes the matrix of a plan from them:

    A[i][j] = ⌊(2·c[i][j]·2^s + q[j]) / (2·q[j])⌋,  q[j] = 2¹⁶·(largest n)^a·(largest r)^b for u[j] = n^a·r^b,
    s = min(30, max(10, 2·⌈log₂(the larger of both)⌉ + 4)),

rounded down to −∞. A device of any make computes the same integers, and the same D from them: a bad matrix
costs width, and never privacy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from fa_core.arrays import Int64Array, np

Table = tuple[tuple[int, ...], ...]
Name = Literal["rate", "rate_event", "paired", "paired_event", "rate_per_hour", "rate_per_hour_event"]

COUNTERS: Final = 6
"""Length of u and of y."""

POWERS: Final = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
"""The powers of (n, r) in each entry of u."""

MOST_PAIRS: Final = 4_000_000
"""Pairs (r, n) that a plan may make a device try: above it the bound would take seconds and more."""

ROOM: Final = 100_000
"""Pairs that are tried at once, to bound memory."""

FRACTION_BITS: Final = 16
"""The integers of `TABLES` are in units of 2^-16."""

TABLES: Final[dict[Name, Table]] = {
    "rate": (
        (66284, -78040, -29902, 12008, 25945, 3815),
        (0, 203621, -269730, -183270, 295569, -51615),
        (0, 0, 207274, 686, -91937, -97804),
        (0, 0, 0, 62261, -103237, 25471),
        (0, 0, 0, 0, 179881, -171525),
        (0, 0, 0, 0, 0, 60159),
    ),
    "rate_event": (
        (6716, -18292, -1678, 12856, -17753, 18831),
        (0, 139583, -139699, -109854, 181047, -78944),
        (0, 0, 147603, -7973, -10091, -101571),
        (0, 0, 0, 57808, -102463, 34145),
        (0, 0, 0, 0, 159617, -156667),
        (0, 0, 0, 0, 0, 57680),
    ),
    "paired": (
        (66730, -63973, 0, 3403, 0, -5784),
        (0, 91873, 0, -45109, 0, -44455),
        (0, 0, 171820, 0, -150627, 0),
        (0, 0, 0, 45499, 0, -43149),
        (0, 0, 0, 0, 56529, 0),
        (0, 0, 0, 0, 0, 25202),
    ),
    "paired_event": (
        (9704, -36670, 0, 24977, 0, 3978),
        (0, 123474, 0, -88933, 0, -32414),
        (0, 0, 83210, 0, -39466, 0),
        (0, 0, 0, 55659, 0, -53082),
        (0, 0, 0, 0, 41619, 0),
        (0, 0, 0, 0, 0, 25111),
    ),
    "rate_per_hour": (
        (65544, -41571, -102425, -7472, 48906, 36827),
        (0, 90610, -42899, -50715, -25728, 34679),
        (0, 0, 212662, -10961, 11631, -194751),
        (0, 0, 0, 48066, -35735, -2155),
        (0, 0, 0, 0, 31997, -17941),
        (0, 0, 0, 0, 0, 60077),
    ),
    "rate_per_hour_event": (
        (12994, -12064, -33420, 3350, 8215, 20937),
        (0, 89287, -45904, -60811, -13878, 34833),
        (0, 0, 148073, 424, -1651, -130773),
        (0, 0, 0, 58689, -50541, -1722),
        (0, 0, 0, 0, 40402, -21966),
        (0, 0, 0, 0, 0, 60347),
    ),
}
"""The public integers, row by row: for groupings by facts of the device, and (`_event`) by columns of its
events, where one device is in several groups."""


SHARES: Final[Table] = ((147712, -41645, -78157), (0, 102927, -91774), (0, 0, 58201))
"""The same for one cell of a table of shares, with u = (x, x·n, x²) of its x events in a row of n."""


@dataclass(frozen=True, slots=True)
class Domain:
    """What one device can have in a group: of at most `units` sampled units, m lie there, and then
    1 ≤ n ≤ size·m and 0 ≤ r ≤ count·min(m, n), or |r| ≤ that where `signed`.

    An event adds 1 to n and at most 1 to r; an hour of listening up to 60 minutes and `max_per_hour` events.
    """

    units: int
    size: int
    count: int
    signed: bool

    @property
    def pairs(self) -> int:
        """How many pairs (r, n) there are."""
        short = min(self.units, self.size * self.units)
        reach = self.count * (short * (short + 1) // 2 + (self.size * self.units - short) * self.units)
        return self.size * self.units + reach * (2 if self.signed else 1)


@dataclass(frozen=True, slots=True)
class Norms:
    """The most that one device adds: Σ|y| and Σy² over all its groups, and |y| in one cell."""

    l1: int
    l2_squared: int
    linf: int


def scaled(
    table: Table, powers: Sequence[tuple[int, int]], largest_n: int, largest_r: int
) -> tuple[tuple[int, ...], ...]:
    """Return the integer matrix that the rule makes of a table, row by row.

    Args:
        powers: (a, b) for each entry n^a·r^b of u.
        largest_n, largest_r: in the plan, at least 1.
    """
    s = min(30, max(10, 2 * (max(largest_n, largest_r) - 1).bit_length() + 4))
    divisors = [2**FRACTION_BITS * largest_n**a * largest_r**b for a, b in powers]
    return tuple(
        tuple((2 * c * 2**s + q) // (2 * q) for c, q in zip(row, divisors, strict=True)) for row in table
    )


@lru_cache(maxsize=256)
def matrix(name: Name, domain: Domain) -> tuple[tuple[int, ...], ...]:
    """Return the integer matrix A of a plan, row by row.

    >>> matrix("rate", Domain(units=24, size=1, count=1, signed=False))[0]
    (16571, -813, -311, 5, 11, 2)
    """
    return scaled(TABLES[name], POWERS, domain.size * domain.units, domain.count * domain.units)


def mapped(name: Name, domain: Domain, n: Int64Array, r: Int64Array) -> Int64Array:
    """Return y = A·u of pairs, int64 (…, 6), 0 where n is 0.

    Args:
        n, r: int64 of one shape, each pair within the domain.
    """
    result = np.zeros((*n.shape, COUNTERS), np.int64)
    there = n > 0
    result[there] = np.stack(list(_rows(name, domain, n[there], r[there])), axis=-1)
    return result


@lru_cache(maxsize=256)
def norms(name: Name, domain: Domain, touch: int) -> Norms:
    """Return the bound on what one device adds, by trying every pair in exact integers.

    A device that reaches several groups splits its units over at most `touch` of them. The best split is
    found by dynamic programming over how many units lie in each: best of m units in 2k groups is
    max over j of best_k(j) + best_k(m − j).

    Raises ValueError for a domain of more than `MOST_PAIRS` pairs, which a caller refuses before.

    >>> norms("rate", Domain(units=24, size=1, count=1, signed=False), touch=1)
    Norms(l1=33274, l2_squared=269294041, linf=15763)
    """
    if domain.pairs > MOST_PAIRS:
        raise ValueError(f"{domain.pairs} pairs are too many to try")
    squares, absolute, largest = _most(name, domain)
    groups = min(touch, domain.units)
    return Norms(_best_split(absolute, groups), _best_split(squares, groups), int(largest[-1]))


def _rows(name: Name, domain: Domain, n: Int64Array, r: Int64Array) -> Iterator[Int64Array]:
    """Yield each row of A·u, in an order of operations that broadcasts n against r."""
    for one, n1, r1, n2, nr, r2 in matrix(name, domain):
        yield (one + n * (n1 + n2 * n)) + r * ((r1 + nr * n) + r2 * r)


def _most(name: Name, domain: Domain) -> Int64Array:
    """Return the largest Σy², Σ|y| and |y| of one group with at most m units there, int64 (3, units + 1)."""
    best = np.zeros((3, domain.units + 1), np.int64)
    units = np.arange(domain.units + 1)
    r = np.arange(domain.count * domain.units + 1)
    step = max(1, ROOM // len(r))
    for start in range(1, domain.size * domain.units + 1, step):
        n = np.arange(start, min(start + step, domain.size * domain.units + 1))[:, None]
        found = _norms_of(_rows(name, domain, n, r))
        if domain.signed:
            found = np.maximum(found, _norms_of(_rows(name, domain, n, -r)))
        found *= r <= domain.count * n
        with_units = np.maximum.accumulate(found, axis=2)[:, :, domain.count * units]
        best = np.maximum(best, (with_units * (domain.size * units >= n)).max(axis=1))
    return best


def _norms_of(rows: Iterator[Int64Array]) -> Int64Array:
    """Return (Σy², Σ|y|, max |y|) of y given row by row, int64 (3, …)."""
    first = np.abs(next(rows))
    squares, absolute, largest = first * first, first.copy(), first
    for row in rows:
        size = np.abs(row)
        squares += size * size
        absolute += size
        np.maximum(largest, size, out=largest)
    return np.stack((squares, absolute, largest))


def _best_split(best: Int64Array, groups: int) -> int:
    """Return the largest sum of best[mₖ] over `groups` groups with Σ mₖ ≤ len(best) − 1.

    `best` does not fall. The binary digits of `groups` say which doublings are put together.
    """
    if int(best[-1]) * groups >= 2**63:
        best = best.astype(object)  # whole numbers of any length
    result = np.zeros_like(best)
    while groups:
        if groups & 1:
            result = _put_together(result, best)
        groups >>= 1
        if groups:
            best = _put_together(best, best)
    return int(result[-1])


def _put_together(left: Int64Array, right: Int64Array) -> Int64Array:
    """Return the best of m units over the groups of both sides, for every m."""
    return np.array([(left[: m + 1] + right[m::-1]).max() for m in range(len(left))], left.dtype)
