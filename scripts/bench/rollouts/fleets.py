"""Fleets of a rollout, many at once: their noised sums in every look, read as a release's are.

Noise is normal, of the covariance that the layout of a gate's plan gives at the look's rho, everyone and the
accents estimated together as `fa_core.metrics.nested` does it: here on the noise alone, since the exact sums
agree already. `tests/rollout/test_bench.py` holds the two to each other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from fa_core.layout import bounds_of, compile_plan, shape_of
from fa_core.metrics import PartSum
from fa_core.metrics.count import Count
from fa_core.metrics.joint import matrix
from fa_core.metrics.moments import DEVICES, Moments, N, R
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.plan import Plan, parse
from fa_core.rollout.sequential import Sums
from scripts.bench.rollouts.pools import COLUMNS, EVENTS, Floats, Pool

COHORT = 100
"""Fewest devices of a group that is measured."""


def plan_of(accents: Sequence[str], *, unlabelled: bool) -> Plan:
    """Return the evaluation plan of a gate."""
    metrics: dict[str, Any] = {
        "miss_difference": {
            "kind": "paired_difference",
            "of": {"outcome": "false_reject"},
            "over": {"outcome": ["true_accept", "false_reject"]},
            "compare": {"baseline": "old", "candidate": "new"},
        }
    }
    if unlabelled:
        metrics["unlabelled"] = {"kind": "count", "source": "detections", "where": {"model_version": "new"}}
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "gate",
            "revision": 1,
            "owner": "bench",
            "question": "Is the candidate worse?",
            "expires": "2027-03-31",
        },
        "source": "wake_events",
        "window": "7d",
        "segments": {"accent": {"device": "accent", "values": list(accents)}},
        "group_by": [[], ["accent"]],
        "metrics": metrics,
        "privacy": {
            "epsilon": 2,
            "delta": 1e-8,
            "noise": "central",
            "max_events": EVENTS,
            "min_cohort": COHORT,
        },
    }
    return parse(json.dumps(body).encode(), "gate", today=date(2026, 11, 22), policy=None)


@dataclass(frozen=True, eq=False)
class Noise:
    """What a look of some rho adds: the noise of one group of an accent's six sums (6, 6), of everyone's, how
    many groups there are, and the variances of the noise on unlabelled moments and on their squares, by
    grouping; 0 where there are none."""

    group: Floats
    everyone: Floats
    groups: int
    unlabelled: Mapping[tuple[str, ...], tuple[float, float]]


def noise_of(plan: Plan, rho: float) -> Noise:
    """Return the noise of a gate's plan at a rho of its own."""
    layout, metric = compile_plan(plan), plan.metrics["miss_difference"]
    assert isinstance(metric, PairedDifference)
    shape = shape_of(plan, ("accent",))
    inverse = np.linalg.inv(np.array(matrix(metric.table(shape), metric.domain(bounds_of(plan))), np.float64))
    variance = {
        (block.metric, block.grouping, block.part): float(block.variance * layout.cost) / rho
        for block in layout.blocks
    }
    joint = {
        grouping: variance["miss_difference", grouping, "joint"] * inverse @ inverse.T
        for grouping in ((), ("accent",))
    }
    counts: dict[tuple[str, ...], tuple[float, float]] = {
        grouping: (
            variance.get(("unlabelled", grouping, "events"), 0.0),
            variance.get(("unlabelled", grouping, "squares"), 0.0),
        )
        for grouping in joint
    }
    return Noise(joint["accent",], joint[()], shape.cells, counts)


@dataclass(frozen=True, eq=False)
class Fleet:
    """A population: its devices, the share of each accent, and each one's pool."""

    devices: int
    shares: Mapping[str, float]
    pools: Mapping[str, Pool]

    def exact(self, random: np.random.Generator, rollouts: int) -> Floats:
        """Return exact sums, float64 (looks, rollouts, accents, COLUMNS)."""
        found = []
        for name, share in self.shares.items():
            adds = self.pools[name]
            times = random.poisson(self.devices * share / len(adds.adds), (rollouts, len(adds.adds)))
            found.append((times.astype(np.float64) @ adds.flat).reshape(rollouts, -1, len(COLUMNS)))
        return np.moveaxis(np.stack(found, axis=1), 2, 0)


def looks(random: np.random.Generator, fleet: Fleet, plan: Plan, noise: Noise, rollouts: int) -> Sums:
    """Return what the gate reads of so many rollouts, (looks, rollouts, accents + 1)."""
    exact = fleet.exact(random, rollouts)
    kept = exact.shape[2]
    added, together = noised(random, noise, exact.shape[:2])
    groups, everyone = exact[..., :6] + added[:, :, :kept], exact[..., :6].sum(axis=2) + together
    share = np.trace(noise.everyone) / np.trace(noise.group)
    less = 1.0 - 1.0 / (noise.groups + share)
    parts = [
        _read(plan, groups, noise.group * less),
        _read(plan, everyone[:, :, None], noise.group * (noise.groups * share / (noise.groups + share))),
    ]
    heard = (exact[..., 6:], exact[..., 6:].sum(axis=2, keepdims=True))
    for part, sums, grouping in zip(parts, heard, (("accent",), ()), strict=True):
        part.update(_unlabelled(random, plan, sums, noise.unlabelled[grouping], fleet.devices))
    return Sums(**{name: np.concatenate([part[name] for part in parts], axis=2) for name in parts[0]})


def noised(random: np.random.Generator, noise: Noise, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return the noise of every group (…, groups, 6) and of everyone (…, 6), estimated together."""
    root = np.linalg.cholesky(noise.group)
    share = np.trace(noise.everyone) / np.trace(noise.group)
    groups = random.normal(size=(*shape, noise.groups, 6)) @ root.T
    everyone = random.normal(size=(*shape, 6)) @ root.T * np.sqrt(share)
    summed = groups.sum(axis=-2)
    together = (noise.groups * everyone + share * summed) / (noise.groups + share)
    return groups + ((together - summed) / noise.groups)[..., None, :], together


def _read(plan: Plan, values: Floats, covariance: Floats) -> dict[str, Floats]:
    """Return what the joint counters say, by field of `Sums`; NaN where a group is not measured."""
    metric = plan.metrics["miss_difference"]
    assert isinstance(metric, PairedDifference)
    ratio = metric.ratio(Moments(values.reshape(-1, 6), covariance), bounds_of(plan))
    with np.errstate(invalid="ignore", divide="ignore"):
        sampling, sampling_sd = ratio.sampling()
    shown = (values[..., DEVICES] >= COHORT) & (values[..., N] > 2.0 * covariance[N, N] ** 0.5)

    found = {
        "difference": values[..., R],
        "moments": values[..., N],
        "variance": sampling.reshape(shown.shape),
        "noise_difference": np.full(shown.shape, covariance[R, R]),
        "noise_moments": np.full(shown.shape, covariance[N, N]),
        "variance_sd": sampling_sd.reshape(shown.shape),
    }
    return {name: np.where(shown, each, np.nan) for name, each in found.items()}


def _unlabelled(
    random: np.random.Generator, plan: Plan, exact: Floats, noise: tuple[float, float], devices: int
) -> dict[str, Floats]:
    """Return what the count of unlabelled moments says, by field of `Sums`."""
    metric = plan.metrics.get("unlabelled")
    if metric is None:
        nothing = np.zeros(exact.shape[:-1])
        return dict.fromkeys(("unlabelled", "noise_unlabelled", "variance_unlabelled"), nothing)
    assert isinstance(metric, Count)
    u, uu = exact[..., 0], exact[..., 1]
    events = u + np.sqrt(noise[0]) * random.normal(size=u.shape)
    squares = uu + np.sqrt(noise[1]) * random.normal(size=u.shape)
    sampling = np.empty_like(events)
    for place in np.ndindex(u.shape[:2]):
        sums = {
            "events": PartSum(events[place], noise[0], laplace=False),
            "squares": PartSum(squares[place], noise[1], laplace=False),
        }
        sampling[place] = metric.sampling(sums, bounds_of(plan), devices).value
    return {
        "unlabelled": events,
        "noise_unlabelled": np.full(u.shape, noise[0]),
        "variance_unlabelled": np.minimum(sampling, EVENTS * np.maximum(events, 1.0)),
    }
