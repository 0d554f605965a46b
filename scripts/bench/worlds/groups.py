"""Worlds whose truth is known exactly, made without the estimators' assumptions: the second simulator.

A world is some groups of devices. Each group is a population of some thousand devices with events of
their own, drawn once; a fleet of any size is drawn from the populations with replacement, so what is
expected of a device is the mean over its population: the truth is plain arithmetic, without error. That is a
fair test, since the intervals promise their coverage whatever the population is that devices come from, a
finite one too. A device's vector comes from its tables through `device_vectors`, once for every device of the
populations, and a fleet's sum is the sum over whom it drew (fleets.py): how often each device is drawn, times
the vectors, in exact whole numbers. So nothing here knows how a kind counts, and a fleet of 200,000 devices
takes a millisecond.

Devices differ as in a beta, a two-point or a lognormal distribution; busier devices fare worse; some are
broken. Scores shift and switch modes, an utterance fails as a whole, false wakes come in bursts. No device
has more events than the plan counts: which ones are drawn of more is no matter of the estimates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri

from clients.evaluate import Cohort, cohort_of_fleet
from fa_core.tables import SOURCES, arrow_type

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Spread = Literal["beta", "two_point", "lognormal"]
Columns = dict[str, NDArray[Any]]

UNTIL: Final = datetime(2026, 11, 22, tzinfo=UTC)
START_US: Final = (int(UNTIL.timestamp()) - 7 * 86_400) * 1_000_000
MINUTE_US: Final = 60_000_000

BROKEN_RATE: Final = 0.97
"""How often a broken device misses."""


@dataclass(frozen=True)
class Group:
    """How the devices of one group are.

    Attributes:
        share: of the fleet's devices; 0 where `devices` says how many there are.
        p: mean of the devices' own rates, before busier ones weigh more.
        kappa: two events of a device are as alike as in a beta distribution of a + b = kappa, by their
            correlation 1/(kappa + 1), whatever the distribution is.
        spread: the distribution of the devices' own rates.
        broken: share of the devices whose rate is `BROKEN_RATE`.
        busy: correlation of a device's own rate with its number of events, on the normal scale.
        devices: expected number in a fleet of any size, for a group that is small everywhere.
        events: how many times the usual number of events a device of the group has, in the middle.
    """

    share: float
    p: float
    kappa: float = 20.0
    spread: Spread = "beta"
    broken: float = 0.0
    busy: float = 0.5
    devices: int = 0
    events: float = 1.0


@dataclass(frozen=True)
class World:
    """Groups by name, and the epsilon of a release there. The last group is the segment's `other`."""

    name: str
    groups: Mapping[str, Group]
    sizes: tuple[int, ...] = (5_000, 50_000, 200_000)
    epsilon: int = 2

    def shares(self, devices: int) -> Floats:
        """Return the share of each group in a fleet of `devices`; the last takes up what is left."""
        found = [group.devices / devices or group.share for group in self.groups.values()]
        return np.array([*found[:-1], 1.0 - sum(found[:-1])])


CALM: Final = {name: Group(0.18, 0.05, 40.0) for name in ("calm-1", "calm-2", "calm-3", "calm-4", "calm-5")}
MIXED: Final = {
    "beta": Group(0.25, 0.04, 20.0),
    "lognormal": Group(0.25, 0.07, 10.0, "lognormal"),
    "two-point": Group(0.20, 0.05, 40.0, "two_point"),
    "small": Group(0.0, 0.12, 8.0, devices=150),
    "wild": Group(0.15, 0.34, 5.0),
    "other": Group(0.0, 0.02, 5.0, "lognormal"),
}
MICROPHONES: Final = {
    "calm-1": Group(0.35, 0.02, 40.0),
    "calm-2": Group(0.30, 0.02, 40.0, "two_point"),
    "broken": Group(0.20, 0.02, 40.0, broken=0.03, busy=0.0, events=1.5),
    "other": Group(0.0, 0.02, 40.0),
}
RARE: Final = {
    "beta": Group(0.45, 0.005, 10.0),
    "lognormal": Group(0.25, 0.005, 20.0, "lognormal"),
    "two-point": Group(0.20, 0.008, 40.0, "two_point"),
    "wild": Group(0.01, 0.10, 3.0),
    "other": Group(0.0, 0.02, 40.0),
}
COMMON: Final = {
    "beta": Group(0.40, 0.45, 3.0),
    "lognormal": Group(0.25, 0.30, 10.0, "lognormal"),
    "two-point": Group(0.15, 0.45, 1.0, "two_point"),
    "small": Group(0.0, 0.45, 3.0, devices=150),
    "other": Group(0.0, 0.20, 40.0),
}
WORLDS: Final = {
    world.name: world
    for world in (
        World("mixed", MIXED),
        World("microphones", MICROPHONES),
        World("rare", RARE),
        World("common", COMMON),
        World("wild-5", {**CALM, "wild": Group(0.04, 0.25, 5.0), "other": Group(0.0, 0.05)}, (10_000,), 4),
        World("wild-1", {**CALM, "wild": Group(0.02, 0.30, 1.0), "other": Group(0.0, 0.05)}, (10_000,), 8),
    )
}
"""Every world by name."""


WEEKLY_WORLD: Final = World(
    "weekly",
    {
        "en-US": Group(0.20, 0.30, 18.0),
        "en-GB": Group(0.17, 0.25, 18.0),
        "en-GB-scotland": Group(0.15, 0.30, 18.0, "lognormal"),
        "en-029": Group(0.13, 0.35, 18.0),
        "de-en": Group(0.12, 0.30, 18.0, "two_point"),
        "es-en": Group(0.07, 0.30, 18.0),
        "it-en": Group(0.06, 0.35, 18.0, "lognormal"),
        "nl-en": Group(0.05, 0.25, 18.0),
        "hi-en": Group(0.03, 0.40, 18.0),
        "other": Group(0.02, 0.30, 18.0),
    },
    (2_000, 20_000),
)
"""Accents of the weekly plan, such that with no privacy noise at all the intervals are as wide as those of
the audit's fleet: 2.04 points for the largest five of 2,000 devices, .93 by accent at 20,000."""


@dataclass(frozen=True, eq=False)
class Population:
    """Devices of one group: their rows, and what each is expected to add to the numbers that are shown.

    Attributes:
        devices: how many there are, D.
        tables: source name to its columns; `device` is the owner of each row, nondecreasing.
        top, bottom: numerators and denominators, float64 (D, E, C): E labels of a second segment, C numbers
            in each; E is 1 where there is no such segment.
        classes: the device_class of each, where that is the second segment.
    """

    devices: int
    tables: Mapping[str, Columns]
    top: Floats
    bottom: Floats
    classes: Sequence[str] = ()

    def facts(self, accent: str) -> dict[str, list[str]]:
        """Return the facts of the devices, all of one accent."""
        return {
            "accent": [accent] * self.devices,
            **({"device_class": list(self.classes)} if self.classes else {}),
        }


def cohort_of(tables: Mapping[str, Columns], facts: Mapping[str, Sequence[str]]) -> Cohort:
    """Return devices as the device code sees them: tables as in `Population`, and each one's facts."""
    ids = pa.array([f"device-{index}" for index in range(len(facts["accent"]))])
    known = pa.table({"device_id": ids, **{name: pa.array(values) for name, values in facts.items()}})
    arrow = {}
    for source, columns in tables.items():
        types = {name: arrow_type(column.type) for name, column in SOURCES[source].columns.items()}
        owner = pa.DictionaryArray.from_arrays(pa.array(columns["device"], pa.int32()), ids)
        rows = {name: pa.array(values) for name, values in columns.items() if name != "device"}
        arrow[source] = pa.table(
            {"device_id": owner, **{name: values.cast(types[name]) for name, values in rows.items()}}
        )
    return cohort_of_fleet(known, arrow)


def own_rates(group: Group, score: Floats) -> Floats:
    """Return the devices' own rates at standard normal scores, (D,)."""
    p, variance = group.p, group.p * (1.0 - group.p) / (group.kappa + 1.0)
    if group.spread == "beta":
        a, b = group.kappa * p, group.kappa * (1.0 - p)
        return np.asarray(betaincinv(a, b, ndtr(score)), np.float64)
    if group.spread == "two_point":
        low = p / 5.0
        high = p + variance / (p - low)
        return np.where(ndtr(score) > 1.0 - (p - low) / (high - low), high, low)
    sigma = np.sqrt(np.log1p(variance / p**2))
    return np.asarray(np.minimum(p * np.exp(sigma * score - sigma**2 / 2.0), 0.98), np.float64)


@dataclass(frozen=True, eq=False)
class Traits:
    """What each device is like: its own rate and its number of units, and whose each unit is."""

    rate: Floats
    units: Ints
    owner: Ints = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner", np.repeat(np.arange(len(self.units)), self.units))

    def summed(self, values: NDArray[Any]) -> Floats:
        """Return Σ of a unit's values (M,) or (M, C) by device, (D, 1) or (D, C)."""
        columns = values.reshape(len(self.owner), -1).astype(np.float64)
        sums = [np.bincount(self.owner, column, len(self.units)) for column in columns.T]
        return np.stack(sums, axis=1)


def traits(rng: np.random.Generator, group: Group, devices: int, most: int, median: float) -> Traits:
    """Draw devices with at most `most` units each, log-normal in number."""
    broken = round(group.broken * devices)
    busy = np.concatenate((_scores_of(rng, broken), _scores_of(rng, devices - broken)))
    score = group.busy * busy + np.sqrt(1.0 - group.busy**2) * _scores_of(rng, devices)
    rate = own_rates(group, score)
    rate[:broken] = BROKEN_RATE
    units = np.clip(group.events * median * np.exp(busy), 1, most).astype(np.int64)
    return Traits(rate, units)


def _scores_of(rng: np.random.Generator, devices: int) -> Floats:
    """Return standard normal scores in random order, one from each of `devices` equal parts."""
    return np.asarray(ndtri((rng.permutation(devices) + 0.5) / max(devices, 1)))


def population(found: Traits, table: tuple[str, Columns], top: Floats, bottom: Floats) -> Population:
    """Return a population of one table with no event-level groups."""
    shape = (len(found.units), 1, -1)
    source, columns = table
    return Population(
        len(found.units),
        {source: {**clock(found), **columns}},
        top.reshape(shape),
        np.broadcast_to(bottom, top.shape).reshape(shape),
    )


def clock(found: Traits) -> Columns:
    """Return whose each row is and when it was: a device's rows are a minute apart."""
    first = np.cumsum(found.units) - found.units
    ordinal = np.arange(len(found.owner)) - first[found.owner]
    return {"device": found.owner, "time": START_US + ordinal * MINUTE_US}
