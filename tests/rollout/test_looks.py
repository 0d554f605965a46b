"""What a release says to the gate, against what was counted by hand; nothing is noised but by statement."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pytest

from clients.evaluate import device_vectors, seeded_randomness
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan, canonical, parse
from fa_core.rollout.gate import Design, Verdict, decide
from fa_core.rollout.looks import live_cells, look_of, rates_of
from fa_core.values import Participation, Release
from scripts.bench.worlds.groups import cohort_of

UNTIL = datetime(2026, 11, 22, tzinfo=UTC)
START_US = int((UNTIL - timedelta(days=6)).timestamp()) * 1_000_000
ACCENTS = ("en-US", "es-en", "other")
VERSIONS = ("old", "new")


def plan_of(
    metrics: Mapping[str, Any], segments: Mapping[str, Any], group_by: Sequence[Sequence[str]]
) -> Plan:
    body = {
        "apiVersion": "fa/v1",
        "kind": "EvalPlan",
        "metadata": {
            "name": "gate",
            "revision": 1,
            "owner": "tests",
            "question": "Is the new model worse?",
            "expires": "2027-03-31",
        },
        "source": "wake_events",
        "window": "7d",
        "segments": dict(segments),
        "group_by": [list(grouping) for grouping in group_by],
        "metrics": dict(metrics),
        "privacy": {"epsilon": 2, "delta": 1e-8, "noise": "central", "max_events": 8, "min_cohort": 100},
    }
    return parse(json.dumps(body).encode(), "gate.yaml", today=date(2026, 11, 22), policy=None)


MISS = {
    "kind": "paired_difference",
    "of": {"outcome": "false_reject"},
    "over": {"outcome": ["true_accept", "false_reject"]},
    "compare": {"baseline": "old", "candidate": "new"},
}
COUNT = {"kind": "count", "source": "detections", "where": {"model_version": "new"}}
ACCENT = {"accent": {"device": "accent", "values": list(ACCENTS[:2])}}
GATE = plan_of({"miss_difference": MISS, "unlabelled": COUNT}, ACCENT, [[], ["accent"]])


@dataclass(frozen=True)
class Moments:
    """What each device heard: accent (D,), and by moment whose it is, and what each model did, (M,)."""

    accent: tuple[str, ...]
    owner: np.ndarray[Any, Any]
    missed: Mapping[str, np.ndarray[Any, Any]]
    alone: np.ndarray[Any, Any]
    """Unlabelled moments of each device that only the new model heard, (D,)."""


@cache
def heard(devices: int = 900) -> Moments:
    random = np.random.default_rng(15)
    owner = np.repeat(np.arange(devices), random.integers(1, 9, devices))
    accent = tuple(ACCENTS[index % 3] for index in range(devices))
    worse = 0.2 * (np.array(accent) == "es-en")[owner]
    missed = {"old": random.random(len(owner)) < 0.1, "new": random.random(len(owner)) < 0.1 + worse}
    return Moments(accent, owner, missed, random.integers(0, 3, devices))


def released(plan: Plan, tables: Mapping[str, Any], facts: Mapping[str, Sequence[str]]) -> Release:
    """Return a release of exact sums that says which noise there would have been."""
    layout = compile_plan(plan)
    vectors = device_vectors(plan, layout, cohort_of(tables, facts), UNTIL, seeded_randomness(1))
    counted = len(next(iter(facts.values())))
    return Release(
        id="1" * 32,
        plan=canonical(plan),
        layout=layout,
        population="tests",
        engine="local",
        simulated=True,
        created=UNTIL,
        window_start=UNTIL - plan.window,
        window_end=UNTIL,
        participation=Participation(counted, counted, 0, counted),
        sums=vectors.sum(axis=0),
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=np.array([float(block.variance) for block in layout.blocks]),
        secure_aggregation=False,
    )


def shadow(plan: Plan = GATE) -> Release:
    moments = heard()
    both = np.tile(moments.owner, 2)
    order = np.argsort(both, kind="stable")
    missed = np.concatenate([moments.missed[version] for version in VERSIONS])
    version = np.repeat(VERSIONS, len(moments.owner))
    time = np.tile(START_US + np.arange(len(moments.owner)) * 1_000_000, 2)
    events = {
        "device": both[order],
        "time": time[order],
        "wake_word": np.repeat("okay_nabu", len(both)),
        "model_version": version[order],
        "outcome": np.where(missed, "false_reject", "true_accept")[order],
    }
    owner = np.repeat(np.arange(len(moments.accent)), moments.alone)
    alone = {
        "device": owner,
        "time": START_US + np.arange(len(owner)) * 1_000_000,
        "wake_word": np.repeat("okay_nabu", len(owner)),
        "model_version": np.repeat("new", len(owner)),
    }
    return released(plan, {"wake_events": events, "detections": alone}, {"accent": moments.accent})


@pytest.mark.parametrize("group", ["everyone", *ACCENTS])
def test_sums_are_those_that_were_counted(group: str) -> None:
    moments, look = heard(), look_of(shadow(), GATE)
    mine = np.array([group in ("everyone", accent) for accent in moments.accent])
    n = np.bincount(moments.owner)[mine]
    difference = moments.missed["new"].astype(int) - moments.missed["old"]
    t = np.bincount(moments.owner, difference)[mine]
    alone = moments.alone[mine]
    cell = look.overall if group == "everyone" else look.groups[group]
    assert cell is not None
    assert (cell.difference, cell.moments, cell.unlabelled) == pytest.approx((t.sum(), n.sum(), alone.sum()))
    own = ((t - n * t.sum() / n.sum()) ** 2).sum()
    assert cell.variance == pytest.approx(own)
    assert cell.variance_unlabelled <= 8 * alone.sum()
    assert cell.variance_unlabelled >= (alone**2).sum() - alone.sum() ** 2 / len(moments.accent) - 1e-6


def test_noise_is_that_of_the_estimates() -> None:
    """Everyone and the accents are estimated together, which leaves less noise than the layout states."""
    look, layout = look_of(shadow(), GATE), compile_plan(GATE)
    cell = look.groups["en-US"]
    assert cell is not None
    assert look.overall is not None
    alone = next(b for b in layout.blocks if b.metric == "unlabelled" and b.grouping and b.part == "events")
    assert cell.noise_unlabelled == pytest.approx(float(alone.variance))
    joint = {block.grouping: float(block.variance) for block in layout.blocks if block.part == "joint"}
    ratio = joint[()] / joint["accent",]
    assert look.overall.noise_difference / cell.noise_difference == pytest.approx(
        (ratio * 3 / (ratio + 3)) / (1 - 1 / (3 + ratio)), rel=1e-6
    )


def test_a_small_group_is_not_measured() -> None:
    plan = plan_of(
        {"miss_difference": MISS},
        {"accent": {"device": "accent", "values": ["hi-en", *ACCENTS[:2]]}},
        [[], ["accent"]],
    )
    look = look_of(shadow(plan), plan)
    assert look.groups["hi-en"] is None
    assert look.groups["es-en"] is not None
    assert look.groups["es-en"].unlabelled == look.groups["es-en"].noise_unlabelled == 0.0


def test_a_look_decides() -> None:
    """The new model misses 20 points more in one accent; 900 devices show it, though noise is as stated."""
    design = Design(2, 0.05, 0.01, 0.05, 0.10, ("en-US", "es-en"))
    plan = plan_of({"miss_difference": MISS}, ACCENT, [[], ["accent"]])
    found = decide(design, [look_of(shadow(plan), plan)] * 2)
    assert found.verdict is Verdict.ROLL_BACK
    assert found.why.startswith("es-en is significantly more than 1.0 points worse")


@pytest.mark.parametrize(
    "metrics, group_by, problem",
    [
        ({"other_name": MISS}, [[], ["accent"]], "has a metric `miss_difference` of kind paired_difference"),
        ({"miss_difference": MISS}, [["accent"]], "reports everyone and one segment"),
        ({"miss_difference": MISS, "unlabelled": MISS}, [[], ["accent"]], "is of kind count"),
    ],
)
def test_plans_that_are_no_gates(
    metrics: Mapping[str, Any], group_by: Sequence[Sequence[str]], problem: str
) -> None:
    plan = plan_of(metrics, ACCENT, group_by)
    with pytest.raises(BadInput, match=problem):
        look_of(shadow(plan), plan)


def test_a_release_of_another_plan() -> None:
    plan = plan_of({"miss_difference": MISS}, ACCENT, [[], ["accent"]])
    with pytest.raises(BadInput, match="is of another plan"):
        look_of(shadow(), plan)


LIVE = plan_of(
    {
        "misses": {"kind": "rate", "of": {"outcome": "false_reject"}, "over": {}},
        "false_wakes": {"kind": "rate_per_hour", "of": {"outcome": "false_accept"}, "max_hours": 4},
    },
    {"model": {"event": "model_version", "values": list(VERSIONS)}},
    [["model"]],
)


def live(plan: Plan = LIVE, devices: int = 1_200) -> Release:
    """Half of the devices let the new model act, which wakes by itself once an hour."""
    owner = np.repeat(np.arange(devices), 8)
    new = owner % 2 == 0
    hour = np.tile(np.arange(8), devices)
    events = {
        "device": owner,
        "time": START_US + hour * 3_600_000_000,
        "wake_word": np.repeat("okay_nabu", len(owner)),
        "model_version": np.where(new, "new", "old"),
        "outcome": np.where(
            (hour < 4) & new, "false_accept", np.where(hour == 7, "false_reject", "true_accept")
        ),
        "playback": np.repeat(False, len(owner)),
    }
    hours = {**{name: events[name] for name in ("device", "time", "wake_word", "model_version", "playback")}}
    return released(
        plan,
        {"wake_events": events, "listening": {**hours, "minutes": np.repeat(60, len(owner))}},
        {"accent": ["en-US"] * devices},
    )


def test_measures_by_acting_model() -> None:
    new, old = (rates_of(live(), LIVE, version) for version in ("new", "old"))
    assert set(new) == {"misses", "false_wakes"}
    assert new["misses"] is not None
    assert old["misses"] is not None
    assert (new["misses"].rate, old["misses"].rate) == pytest.approx((1 / 8, 1 / 8), abs=1e-6)
    cells = live_cells(new, old)
    assert cells["misses"] is not None
    assert cells["misses"].variance == pytest.approx(new["misses"].variance + old["misses"].variance)
    wakes = cells["false_wakes"]
    assert wakes is not None
    assert 0.2 < wakes.difference < 0.8
    assert live_cells(new, {"misses": None})["misses"] is None


def test_a_live_plan_without_versions() -> None:
    with pytest.raises(BadInput, match="a rate by a segment with the label 'newest'"):
        rates_of(live(), LIVE, "newest")
