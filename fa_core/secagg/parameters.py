"""How many neighbours a device has and how many shares open a secret: exact tails, by integers.

A device at a position of the ring shares its secrets with the `neighbours` nearest positions, half on each
side (with everybody where the cohort is small), and any `threshold` of them open one. Two things must hold,
for at most ⌊f·n⌋ dropped and ⌊γ·n⌋ corrupt devices, the ring being shuffled after the roster is fixed:

- enough shares come back: P[dropped neighbours > k − t] ≤ 2^-20 / n;
- nobody can be cut off: t > k/2 + c, where P[corrupt among the k/2 neighbours of one side > c] ≤ 2^-40 / n.

The second is what makes the protocol stand against a server that picks who "dropped". A part of the cohort
can be summed apart only if some honest device on its edge has all honest share holders on one side; then at
most k/2 + c < t shares of its self mask can be had, so that the part stays masked. The same bound means
that a device's two secrets are never both opened: 2t > k + 2c. docs/protocol.md has the proof.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb

_COMPLETE_BELOW = 64
_SMALLEST = 3
_MOST_NEIGHBOURS = 1024
_AVAILABILITY_BITS = 20
_SECRECY_BITS = 40


@dataclass(frozen=True)
class Parameters:
    """For a roster of `devices`: k = `neighbours`, t = `threshold`, and how many must survive, ⌈(1 − f)n⌉."""

    devices: int
    neighbours: int
    threshold: int
    survivors: int


@lru_cache(maxsize=64)
def choose(devices: int, dropout: Fraction, corrupt: Fraction) -> Parameters | None:
    """The smallest (k, t) that hold for `devices`, or None where not even a complete graph does.

    Below 64 devices the graph is complete: it costs little and gives the largest margin. Above 1,024
    neighbours a device would do seconds of work, so the answer is None there too; f + γ/2 must stay well
    below 1/2 for a large cohort.
    """
    if devices < _SMALLEST:
        return None
    lost = int(dropout * devices)
    bad = int(corrupt * devices)
    sizes = [devices - 1]
    if devices >= _COMPLETE_BELOW:
        sizes = [k for k in (*range(2, devices - 1, 2), devices - 1) if k <= _MOST_NEIGHBOURS]
    c = 0
    for k in sizes:
        side = (k + 1) // 2
        while _exceeds(devices - 1, bad, side, c, _SECRECY_BITS, devices):
            c += 1
        t = k // 2 + c + 1
        if t <= k and not _exceeds(devices - 1, lost, k, k - t, _AVAILABILITY_BITS, devices):
            return Parameters(devices, k, t, devices - lost)
    return None


def smallest_cohort(dropout: Fraction, corrupt: Fraction, above: int = _SMALLEST) -> int | None:
    """The least workable number of devices that is at least `above`; None if the next hundred do not do."""
    return next((n for n in range(above, above + 100) if choose(n, dropout, corrupt)), None)


def _exceeds(population: int, marked: int, drawn: int, limit: int, bits: int, devices: int) -> bool:
    """Whether P[more than `limit` of `drawn` are marked] > 2^-bits / devices, hypergeometric and exact."""
    if limit >= min(marked, drawn):
        return False
    j = max(limit + 1, drawn - (population - marked))
    ways = tail = comb(marked, j) * comb(population - marked, drawn - j)
    while ways := ways * (marked - j) * (drawn - j) // ((j + 1) * (population - marked - drawn + j + 1)):
        tail += ways
        j += 1
    return (tail * devices) << bits > comb(population, drawn)
