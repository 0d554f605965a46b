"""Who was counted beside who is registered: right within the noise, and no claim without a registry."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from fa_core.errors import BadInput
from fa_core.estimate.coverage import coverage, read_registry
from fa_core.layout import compile_plan
from fa_core.plan import canonical, parse
from fa_core.values import Participation, Release

NOW = datetime(2026, 11, 2, tzinfo=UTC)
REGISTERED = {"en-US": 0.6, "en-IN": 0.3}
PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: weekly, revision: 1, owner: tests, question: Who is there?, expires: 2099-01-01}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [en-US, en-IN]}
  device_class: {device: device_class, values: [phone]}
  noise: {event: snr_db, edges: [8], labels: [noisy, quiet]}
group_by: [[accent, device_class], [noise]]
metrics:
  missed: {kind: rate, of: {outcome: false_reject}}
privacy: {epsilon: 4, delta: 1e-8, noise: central, secure_aggregation: false, max_events: 16, min_cohort: 50}
"""


def release_of(by_accent, seed=None):
    """A release whose devices are, by accent, half phones; noised where there is a seed."""
    plan = parse(PLAN.encode(), "weekly.yaml", today=date(2026, 1, 1))
    layout = compile_plan(plan)
    sums, random = np.zeros(layout.length, np.int64), np.random.default_rng(seed)
    for block in layout.blocks:
        if block.part == "devices" and block.grouping == ("accent", "device_class"):
            sums[block.slice] = np.repeat(np.array(by_accent) // 2, 2)
        if seed is not None:
            noise = random.normal(0, float(block.variance) ** 0.5, block.cells)
            sums[block.slice] += np.rint(noise).astype(np.int64)
    ones = np.ones(len(layout.blocks), np.int64)
    return Release(
        "0" * 32, canonical(plan), layout, "homes", "local", True, NOW, NOW - timedelta(days=7), NOW,
        Participation(10_000, 9_000, 10, 8_990), sums, ones,
        np.array([float(block.variance) for block in layout.blocks]), True,
    )  # fmt: skip


def labels(found, segment="accent"):
    return {each.label: each for each in found if each.segment == segment}


def test_counters_are_summed_over_the_other_facts_and_never_over_events():
    found = coverage(release_of([4000, 2000, 1000]))
    assert {each.segment for each in found} == {"accent", "device_class"}
    assert [each.devices for each in labels(found).values()] == [4000, 2000, 1000]
    assert [each.devices for each in labels(found, "device_class").values()] == [3500, 3500]
    (accent_sd,) = {each.devices_sd for each in labels(found).values()}
    (class_sd,) = {each.devices_sd for each in labels(found, "device_class").values()}
    assert class_sd**2 / accent_sd**2 == pytest.approx(3 / 2)


def test_an_accent_that_is_missing_is_warned_of_and_no_other():
    found = labels(coverage(release_of([4800, 1000, 1200]), {"accent": REGISTERED}))
    assert [label for label, each in found.items() if each.under] == ["en-IN"]
    assert found["en-IN"].sentence == (
        "accent en-IN is under-represented: about 14.3% of the devices counted (at most "
        f"{found['en-IN'].high:.1%}), 30.0% of those registered"
    )
    assert found["other"].reference == pytest.approx(0.1)


def test_without_a_registry_there_is_no_claim():
    found = coverage(release_of([7000, 10, 10]))
    assert all(each.reference is None and not each.under and each.sentence == "" for each in found)


def test_a_fair_fleet_is_hardly_ever_warned_of():
    """One side of simultaneous 95 % bounds: at most 2.5 % are warned of, and of 120 more than 20 with a
    chance below 1e-9 (binomial)."""
    registry = {"accent": {"en-US": 0.6, "en-IN": 0.3, "other": 0.1}}
    warned = 0
    random = np.random.default_rng(3)
    for seed in range(120):
        people = random.multinomial(1000, [0.6, 0.3, 0.1])
        warned += any(each.under for each in coverage(release_of(2 * (people // 2), seed), registry))
    assert warned <= 20


def test_a_group_smaller_than_the_noise_has_no_share():
    found = coverage(release_of([10, 4, 4]), {"accent": REGISTERED})
    assert all(each.share is None and not each.under for each in found)


@pytest.mark.parametrize(
    "registry, says",
    [
        ({"town": {"a": 1.0}}, "names town"),
        ({"noise": {"quiet": 1.0}}, "names noise"),
        ({"accent": {"xx": 0.5}}, "accent xx, which the plan counts as other"),
    ],
)
def test_a_registry_of_other_facts_is_refused(registry, says):
    with pytest.raises(BadInput, match=says):
        coverage(release_of([400, 200, 100]), registry)


def test_a_registry_is_read_from_json_and_csv():
    told = b'{"accent": {"en-US": 0.6, "en-IN": 0.3}}'
    table = b"segment,label,share\naccent,en-US,0.6\naccent,en-IN,0.3\n"
    assert read_registry(told, "r") == read_registry(table, "r") == {"accent": REGISTERED}


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"b": 2}}', b"a,b\n1,2\n", b"\xff", b'{"a": {"b": NaN}}']
)
def test_anything_else_is_refused(data):
    with pytest.raises(BadInput, match=r"r\.json"):
        read_registry(data, "r.json")


def test_a_broken_test_that_forgets_the_noise_would_warn_too_often(monkeypatch):
    """The control of the fair fleet: told that there is no noise, it warns of many."""
    registry = {"accent": {"en-US": 0.6, "en-IN": 0.3, "other": 0.1}}
    warned = 0
    for seed in range(60):
        release = release_of([60, 30, 10], seed)
        blind = replace(release, noise_variance=np.zeros_like(release.noise_variance))
        warned += any(each.under for each in coverage(blind, registry))
    assert warned > 20
