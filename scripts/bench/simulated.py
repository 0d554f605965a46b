"""Fleets with known truth, as the counts that their devices make: what benches and tests measure against.

Devices differ: each has rates of its own around those of its group, with the spread of a beta (gamma,
Dirichlet) distribution of concentration `kappa`, or, for scores, a shift of its own. Events come a device's
way in a heavy-tailed number, one in twenty devices beyond the plan's cap. Nothing here is used by a release.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

from fa_core.layout import bounds_of, compile_plan, groupings, shape_of
from fa_core.metrics import MetricSpec, PartSum, Reading, Result, Rows, Shape
from fa_core.metrics.kind import Units
from fa_core.plan import Plan, parse
from fa_core.privacy.distributed import noise_share, shares_of, variance_in_sum
from fa_core.privacy.mechanisms import central_noise
from fa_core.values import Layout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Literal["everyone", "device", "event"]

CHUNK = 50_000
"""Devices whose counts are held at once."""

MEAN_EVENTS, SHAPE = 30.0, 1.2
"""Events of a device: 1 + negative binomial, before the cap."""

MINUTES = np.array([20, 40, 60])
MINUTES_SHARE = np.array([0.1, 0.1, 0.8])
"""How long listening hours last."""


@dataclass(frozen=True)
class World:
    """A population: how many devices and groups, how often it happens, and how unlike devices are.

    The last group is `other` and holds 3% of the devices; rates rise from 0.6·p to 1.4·p over the groups.
    """

    devices: int
    groups: int = 13
    p: float = 0.1
    kappa: float = 20.0
    level: Level = "device"
    cap: int = 64

    def weights(self) -> Floats:
        """Share of devices (or of events) in each group."""
        if self.groups == 1:
            return np.ones(1)
        weights: Floats = np.r_[np.full(self.groups - 1, 0.97 / (self.groups - 1)), 0.03]
        return weights

    def rates(self) -> Floats:
        """True rate of each group, (K,)."""
        if self.groups == 1:
            return np.array([self.p])
        return self.p * (0.6 + 0.8 * np.arange(self.groups) / max(self.groups - 1, 1))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which groups each device has events in: device (M,), group (M,), and how many events there (M,)."""

    device: Ints
    group: Ints
    events: Ints


def pairs(rng: np.random.Generator, world: World, devices: int, cap: int) -> Pairs:
    """Draw how many events each device has in each group."""
    n = np.minimum(1 + rng.negative_binomial(SHAPE, SHAPE / (SHAPE + MEAN_EVENTS), devices), cap)
    if world.level != "event":
        group = rng.choice(world.groups, size=devices, p=world.weights())
        return Pairs(np.arange(devices), group, n)
    cut = rng.multinomial(n, world.weights())
    device, group = np.nonzero(cut)
    return Pairs(device, group, cut[device, group])


def expected_events(cap: int) -> float:
    """Return the mean of a device's capped number of events."""
    k = np.arange(cap)
    pmf = stats.nbinom.pmf(k, SHAPE, SHAPE / (SHAPE + MEAN_EVENTS))
    return float(((1 + k) * pmf).sum() + cap * (1.0 - pmf.sum()))


@dataclass(frozen=True)
class Case:
    """A metric, how its devices' units are drawn, and what is true of each group (K,) or (K, C)."""

    name: str
    source: str
    metric: Callable[[World], dict[str, Any]]
    draw: Callable[[np.random.Generator, World, int, MetricSpec], dict[str, Units]]
    truth: Callable[[World, MetricSpec], Floats]


def plan_of(case: Case, world: World, **privacy: Any) -> Plan:
    """Return a plan with the case's metric in one grouping. `privacy` overrides that section."""
    names = [f"g{index:02d}" for index in range(world.groups - 1)]
    segment = (
        {"event": "hour", "values": list(range(world.groups - 1))}
        if world.level == "event"
        else {"device": "accent", "values": names}
    )
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "simulated",
            "revision": 1,
            "owner": "bench",
            "question": "How near is it to the truth?",
            "expires": "2027-03-31",
        },
        "source": case.source,
        "window": "7d",
        "segments": {} if world.groups == 1 else {"group": segment},
        "group_by": [[]] if world.groups == 1 else [["group"]],
        "metrics": {"metric": case.metric(world)},
        "privacy": {
            "epsilon": 1,
            "delta": 1e-8,
            "noise": "central",
            "max_events": world.cap,
            "min_cohort": 100,
            **privacy,
        },
    }
    return parse(json.dumps(body).encode(), case.name, today=date(2026, 11, 22), policy=None)


def exact_sums(case: Case, world: World, plan: Plan, layout: Layout, rng: np.random.Generator) -> Ints:
    """Draw a fleet and return the sum of its devices' bounded counts, int64 (layout.length,)."""
    metric = plan.metrics["metric"]
    (grouping,) = groupings(metric, plan)
    shape, bounds = shape_of(plan, grouping), bounds_of(plan)
    total = np.zeros(layout.length, np.int64)
    for devices in _chunks(world.devices):
        units = case.draw(rng, world, devices, metric)
        if world.level == "event":
            counts = metric.count(units, lambda unit: unit.values["group"], shape, bounds, devices)
            _add(total, layout, counts, 0, 1)
            continue
        for group in range(world.groups):  # a device is in one group: count each by itself, and save room
            own = {name: _only(unit, group) for name, unit in units.items()}
            counts = metric.count(own, lambda unit: 0 * unit.device, Shape(1, 1), bounds, devices)
            _add(total, layout, counts, group, world.groups)
    return total


def _add(total: Ints, layout: Layout, counts: Mapping[str, Ints], group: int, groups: int) -> None:
    """Add the counts of one group of `groups` (or of all at once) to the vector."""
    for block in layout.blocks:
        found = counts[block.part]
        if np.abs(found).sum(axis=1).max() > block.l1:
            raise AssertionError(f"a device breaks the bound of {block.part}")
        width = block.cells // groups
        total[block.start + group * width : block.start + (group + 1) * width] += found.sum(axis=0)


def _only(units: Units, group: int) -> Units:
    """Return the units of one group."""
    mine = np.flatnonzero(units.values["group"] == group)
    values = {name: each[mine] for name, each in units.values.items()}
    return Units(units.rows, mine, units.device[mine], values)


def _chunks(devices: int) -> Iterator[int]:
    for start in range(0, devices, CHUNK):
        yield min(CHUNK, devices - start)


def noised_parts(plan: Plan, layout: Layout, sums: Ints, devices: int) -> dict[str, PartSum]:
    """Return the parts of a one-metric plan with a release's noise: the server's, or all devices' shares.

    Shares are drawn for a hundredth of the devices and stand for the rest: a sum of many is normal.
    """
    if layout.noise == "central":
        noised = central_noise(layout, sums).astype(np.float64)
        variance = np.array([float(block.variance) for block in layout.blocks])
    else:
        shares = shares_of(layout, devices, plan.privacy.dropout, plan.privacy.corrupt)
        variance = variance_in_sum(shares, devices)
        noised = sums.astype(np.float64)
        nothing = np.zeros(layout.length, np.int64)
        drawn = [noise_share(layout, nothing, shares) for _ in range(100)]
        for block, share in zip(layout.blocks, shares, strict=True):
            one = np.sum([vector[block.slice] for vector in drawn], axis=0)
            noised[block.slice] += one / share.scale * np.sqrt(devices / 100)
    return {
        block.part: PartSum(noised[block.slice], float(each), layout.mechanism == "geometric")
        for block, each in zip(layout.blocks, variance, strict=True)
    }


def estimate(plan: Plan, parts: dict[str, PartSum], devices: int, level: float = 0.95) -> Result:
    """Read the only metric of a plan from its noised parts."""
    metric = plan.metrics["metric"]
    (grouping,) = groupings(metric, plan)
    reading = Reading(level, plan.privacy.min_cohort, devices)
    with np.errstate(invalid="ignore", divide="ignore"):
        return metric.estimate(parts, shape_of(plan, grouping), bounds_of(plan), reading)


def _units(found: Pairs, **values: Ints) -> Units:
    rows: Rows = None  # type: ignore[assignment]  # counting never looks at the rows themselves
    return Units(rows, found.device, found.device, {"group": found.group, **values})


def _draw_rate(rng: np.random.Generator, world: World, devices: int, metric: MetricSpec) -> dict[str, Units]:
    found = pairs(rng, world, devices, world.cap)
    p = world.rates()[found.group]
    hits = rng.binomial(found.events, rng.beta(world.kappa * p, world.kappa * (1 - p)))
    return {"units": _units(found, count=hits, size=found.events)}


@dataclass(frozen=True, eq=False)
class Hours:
    """What fell into each device's hours in each group: pairs whose events are fires, and minutes."""

    pairs: Pairs
    minutes: Ints


def _draw_hours(rng: np.random.Generator, world: World, devices: int, max_hours: int, cap: int) -> Hours:
    """Draw hours with their fires, gamma-Poisson with the mean rate of the group, at most `cap` an hour."""
    found = pairs(rng, world, devices, max_hours)
    p = world.rates()[found.group]
    rate = rng.gamma(world.kappa * p) / world.kappa
    owner = np.repeat(np.arange(len(found.device)), found.events)
    minutes = rng.choice(MINUTES, size=len(owner), p=MINUTES_SHARE)
    fires = np.minimum(rng.poisson(rate[owner] * minutes / 60), cap)

    def by_pair(values: Ints) -> Ints:
        return np.bincount(owner, weights=values, minlength=len(found.device)).astype(np.int64)

    return Hours(Pairs(found.device, found.group, by_pair(fires)), by_pair(minutes))


def _capped_rate(world: World, cap: int) -> Floats:
    """Return the true number of capped fires an hour, (K,)."""
    p = world.rates()[:, None, None]
    e = np.arange(200)
    minutes = MINUTES[None, :, None] / 60
    pmf = stats.nbinom.pmf(e, world.kappa * p, world.kappa / (world.kappa + minutes))
    fires = (np.minimum(e, cap) * pmf).sum(axis=2) @ MINUTES_SHARE
    return np.asarray(fires / (MINUTES_SHARE @ MINUTES / 60))


def _draw_rate_per_hour(
    rng: np.random.Generator, world: World, devices: int, metric: MetricSpec
) -> dict[str, Units]:
    found = _draw_hours(rng, world, devices, metric.max_hours, metric.max_per_hour)  # type: ignore[attr-defined]
    return {"units": _units(found.pairs, count=found.pairs.events, size=found.minutes)}


def _draw_ratio(rng: np.random.Generator, world: World, devices: int, metric: MetricSpec) -> dict[str, Units]:
    found = pairs(rng, world, devices, world.cap)
    p = world.rates()[found.group]
    words = found.events + rng.poisson(7 * found.events)
    errors = rng.poisson(words * rng.gamma(world.kappa * p) / world.kappa)
    return {"units": _units(found, count=errors, size=words)}


def _draw_mean(rng: np.random.Generator, world: World, devices: int, metric: MetricSpec) -> dict[str, Units]:
    found = pairs(rng, world, devices, world.cap)
    p = world.rates()[found.group]
    own = np.clip(rng.beta(world.kappa * p, world.kappa * (1 - p)), 1e-12, 1 - 1e-12)
    each = np.repeat(own, found.events)
    steps = np.rint(1000 * rng.beta(5 * each, 5 * (1 - each)))
    owner = np.repeat(np.arange(len(own)), found.events)
    total = np.bincount(owner, weights=steps, minlength=len(own)).astype(np.int64)
    return {"units": _units(found, count=total, size=found.events)}


def _draw_paired(
    rng: np.random.Generator, world: World, devices: int, metric: MetricSpec
) -> dict[str, Units]:
    found = pairs(rng, world, devices, world.cap)
    p = world.rates()[found.group]
    shares = np.stack([p, p / 2, 1 - 1.5 * p], axis=1)
    own = rng.gamma(world.kappa * shares)
    up, down, _ = rng.multinomial(found.events, own / own.sum(axis=1, keepdims=True)).T
    return {"units": _units(found, count=up - down, size=found.events)}


def _draw_count(rng: np.random.Generator, world: World, devices: int, metric: MetricSpec) -> dict[str, Units]:
    found = pairs(rng, world, devices, world.cap)
    return {"units": _units(found, one=found.events)}


def _cells_truth(world: World, rows: int, columns: int) -> Floats:
    """Return what share of a group's events falls into each cell, (K, rows·columns)."""
    right = 1.0 - world.rates()
    row_share = np.arange(rows, 0, -1.0) / np.arange(1, rows + 1).sum()
    cells = np.empty((world.groups, rows, columns))
    for row in range(rows):
        wrong = np.roll(np.arange(columns, 0, -1.0), row)
        wrong[row % columns] = 0.0
        cells[:, row] = (1.0 - right)[:, None] * wrong / wrong.sum()
        cells[:, row, row % columns] = right
    shares: Floats = (cells * row_share[:, None]).reshape(world.groups, -1)
    return shares


def _spread_over(rng: np.random.Generator, found: Pairs, own: Floats) -> tuple[Pairs, Ints, Ints]:
    """Throw each pair's events into cells with its own shares; return the pairs, cells and counts seen."""
    counts = rng.multinomial(found.events, own)
    place, cell = np.nonzero(counts)
    ones = counts[place, cell]
    return Pairs(found.device[place], found.group[place], ones), cell.astype(np.int64), ones


def _draw_table(rng: np.random.Generator, world: World, devices: int, metric: MetricSpec) -> dict[str, Units]:
    rows, columns = len(metric.row_labels()), len(metric.column_labels())  # type: ignore[attr-defined]
    found = pairs(rng, world, devices, world.cap)
    own = rng.gamma(np.maximum(world.kappa * _cells_truth(world, rows, columns)[found.group], 1e-3)) + 1e-300
    seen, cell, one = _spread_over(rng, found, own / own.sum(axis=1, keepdims=True))
    return {"units": _units(seen, cell=cell, one=one)}


def _table_truth(world: World, metric: MetricSpec) -> Floats:
    rows, columns = len(metric.row_labels()), len(metric.column_labels())  # type: ignore[attr-defined]
    cells = _cells_truth(world, rows, columns).reshape(world.groups, rows, columns)
    truth: Floats = (cells / cells.sum(axis=2, keepdims=True)).reshape(world.groups, -1)
    return truth


def _score_shift(kappa: float) -> float:
    """Return the sd of a device's shift at which two of its events agree about the middle threshold as
    often as under a beta distribution of that concentration."""
    alike = np.sin(np.pi / (2 * (kappa + 1)))
    return float(np.sqrt(np.pi**2 / 3 * alike / (1 - alike)))


def _bins_of(metric: MetricSpec) -> Floats:
    return logit(np.array(metric.edges.inner()))  # type: ignore[attr-defined,no-any-return]


def _score_shares(edges: Floats, middle: Floats) -> Floats:
    """Return the share of logistic scores in each bin, (…, bins), for middles (…)."""
    below = expit(edges - middle[..., None])
    return np.diff(below, axis=-1, prepend=0.0, append=1.0)


def _score_truth(edges: Floats, middle: Floats, kappa: float) -> Floats:
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    shares = _score_shares(edges, middle[:, None] + _score_shift(kappa) * nodes)
    truth: Floats = np.einsum("knc,n->kc", shares, weights / weights.sum())
    return truth


def _draw_scores(
    rng: np.random.Generator, world: World, devices: int, metric: MetricSpec
) -> dict[str, Units]:
    found = pairs(rng, world, devices, world.cap)
    middle = -logit(world.rates())[found.group] + _score_shift(world.kappa) * rng.normal(
        size=len(found.group)
    )
    seen, cell, one = _spread_over(rng, found, _score_shares(_bins_of(metric), middle))
    return {"units": _units(seen, cell=cell, one=one)}


def _draw_det(rng: np.random.Generator, world: World, devices: int, metric: MetricSpec) -> dict[str, Units]:
    edges, shift = _bins_of(metric), _score_shift(world.kappa)
    hours = _draw_hours(rng, world, devices, metric.max_hours, metric.max_per_hour)  # type: ignore[attr-defined]
    noise = shift * rng.normal(size=len(hours.pairs.group))
    fires, cell, one = _spread_over(rng, hours.pairs, _score_shares(edges, -2.0 + noise))
    minutes = _units(hours.pairs, minutes=hours.minutes)
    return {
        "positives": _draw_scores(rng, world, devices, metric)["units"],
        "negatives": _units(fires, cell=cell, one=one),
        "hours": minutes,
    }


def _det_truth(world: World, metric: MetricSpec) -> Floats:
    edges = _bins_of(metric)
    missed = np.cumsum(_score_truth(edges, -logit(world.rates()), world.kappa), axis=1)[:, :-1]
    marks = _score_truth(edges, np.full(world.groups, -2.0), world.kappa)
    above = 1.0 - np.cumsum(marks, axis=1)[:, :-1]
    fires = _capped_rate(world, metric.max_per_hour)[:, None] * above  # type: ignore[attr-defined]
    return np.concatenate((missed, fires), axis=1)


def _exact(value: float) -> str:
    return str(Fraction(value).limit_denominator(100))


CASES = {
    case.name: case
    for case in (
        Case(
            "rate",
            "wake_events",
            lambda world: {"kind": "rate", "of": {"accepted": False}, "over": {}, "expect": _exact(world.p)},
            _draw_rate,
            lambda world, _: world.rates(),
        ),
        Case(
            "rate_per_hour",
            "wake_events",
            lambda world: {"kind": "rate_per_hour", "of": {"accepted": True}, "expect": _exact(world.p)},
            _draw_rate_per_hour,
            lambda world, metric: _capped_rate(world, metric.max_per_hour),  # type: ignore[attr-defined]
        ),
        Case(
            "ratio",
            "dictation_events",
            lambda world: {"kind": "ratio", "of": "word_errors", "over": "words", "expect": _exact(world.p)},
            _draw_ratio,
            lambda world, _: world.rates(),
        ),
        Case(
            "mean",
            "command_events",
            lambda world: {
                "kind": "mean",
                "field": "latency_ms",
                "clip": {"from": 0, "to": 1},
                "expect": _exact(world.p),
            },
            _draw_mean,
            lambda world, _: world.rates(),
        ),
        Case(
            "paired_difference",
            "wake_events",
            lambda world: {
                "kind": "paired_difference",
                "of": {"accepted": False},
                "compare": {"baseline": "a", "candidate": "b"},
            },
            _draw_paired,
            lambda world, _: world.rates() / 2,
        ),
        Case(
            "count",
            "command_events",
            lambda world: {"kind": "count"},
            _draw_count,
            lambda world, _: world.devices * world.weights() * expected_events(world.cap),
        ),
        Case(
            "histogram",
            "wake_events",
            lambda world: {"kind": "histogram", "field": "score", "edges": {"from": 0, "to": 1, "bins": 10}},
            _draw_scores,
            lambda world, metric: _score_truth(_bins_of(metric), -logit(world.rates()), world.kappa),
        ),
        Case(
            "confusion",
            "command_events",
            lambda world: {"kind": "confusion", "labels": ["on", "off", "up", "down"]},
            _draw_table,
            _table_truth,
        ),
        Case(
            "det",
            "wake_events",
            lambda world: {"kind": "det", "edges": {"from": 0, "to": 1, "bins": 10}},
            _draw_det,
            _det_truth,
        ),
    )
}
"""Every kind by name."""


def layout_of(plan: Plan) -> Layout:
    """Return the plan's layout."""
    return compile_plan(plan)
