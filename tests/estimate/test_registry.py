"""Who was counted, beside who is registered: shares, their intervals, and who is warned of."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from fa_core.errors import BadInput
from fa_core.estimate.coverage import Counted, coverage, read_registry
from fa_core.layout import compile_plan
from fa_core.plan import canonical, parse
from fa_core.values import Participation, Release

PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: weekly, revision: 1, owner: tests, question: Who is missed?, expires: 2099-01-01}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [a, b]}
  device_class: {device: device_class, values: [phone]}
  noise: {event: snr_db, edges: [8], labels: [noisy, quiet]}
group_by: GROUPS
metrics:
  wakes: {kind: count}
privacy: {epsilon: 4, delta: 1e-8, noise: central, secure_aggregation: false, min_cohort: 50}
"""
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def release(counters: dict[tuple[str, ...], list[float]], sd: float = 0.0) -> Release:
    """A release whose device counters are these, by grouping; everything else in it is zero."""
    groups = "[" + ", ".join(f"[{', '.join(grouping)}]" for grouping in counters) + "]"
    unused = {"accent", "device_class", "noise"} - {name for grouping in counters for name in grouping}
    text = "\n".join(line for line in PLAN.split("\n") if line.strip().partition(":")[0] not in unused)
    text = text.replace("segments:\n", "") if len(unused) == 3 else text
    plan = parse(text.replace("GROUPS", groups).encode(), "weekly.yaml", today=date(2026, 1, 1))
    layout = compile_plan(plan)
    sums = np.zeros(layout.length, np.int64)
    for block in layout.blocks:
        if block.part == "devices":
            sums[block.slice] = counters[block.grouping]
    return Release(
        id="0" * 32,
        plan=canonical(plan),
        layout=layout,
        population="homes",
        engine="local",
        simulated=True,
        created=NOW,
        window_start=NOW - timedelta(days=7),
        window_end=NOW,
        participation=Participation(1000, 1000, 0, 1000),
        sums=sums,
        scales=np.ones(len(layout.blocks), np.int64),
        noise_variance=np.full(len(layout.blocks), sd**2),
        secure_aggregation=False,
    )


def by_label(found: tuple[Counted, ...], segment: str = "accent") -> dict[str, Counted]:
    return {each.label: each for each in found if each.segment == segment}


def test_shares_are_of_the_devices_counted() -> None:
    found = by_label(coverage(release({("accent",): [600, 300, 100]})))
    assert [each.share for each in found.values()] == [0.6, 0.3, 0.1]
    assert all(each.reference is None and not each.under for each in found.values())
    assert all(each.low < each.share < each.high for each in found.values())


def test_noise_widens_the_interval_and_hides_a_total_that_it_drowns() -> None:
    exact, noisy = (by_label(coverage(release({("accent",): [600, 300, 100]}, sd)))["a"] for sd in (0, 40))
    assert noisy.low < exact.low < exact.high < noisy.high
    drowned = by_label(coverage(release({("accent",): [20, 5, 9]}, 40), {"accent": {"a": 0.9, "b": 0.1}}))
    assert all(each.share is None and not each.under for each in drowned.values())


def test_a_label_significantly_rarer_than_registered_is_warned_of() -> None:
    found = by_label(coverage(release({("accent",): [600, 300, 100]}, 5), {"accent": {"a": 0.4, "b": 0.5}}))
    assert [label for label, each in found.items() if each.under] == ["b"]
    assert "accent b is under-represented: about 30.0% of the devices counted" in found["b"].sentence
    assert "50.0% of those registered" in found["b"].sentence


def test_what_noise_could_explain_is_not_warned_of() -> None:
    shares = {"accent": {"a": 0.6, "b": 0.33}}
    assert by_label(coverage(release({("accent",): [600, 300, 100]}, 0), shares))["b"].under is False
    shares = {"accent": {"a": 0.55, "b": 0.40}}
    assert by_label(coverage(release({("accent",): [600, 300, 100]}, 0), shares))["b"].under is True
    assert by_label(coverage(release({("accent",): [600, 300, 100]}, 60), shares))["b"].under is False


def test_a_fleet_like_the_registry_is_seldom_warned_of() -> None:
    """Intervals hold at 95% for all labels together. Of 2,000 draws at most 5% + 6.5 binomial sd may warn:
    a sound rule fails this test with a chance under 1e-7."""
    random, shares, sd = np.random.default_rng(5), {"accent": {"a": 0.6, "b": 0.3}}, 15.0
    counted, warned = release({("accent",): [600, 300, 100]}, sd), 0
    (devices,) = (block.slice for block in counted.layout.blocks if block.part == "devices")
    for _ in range(2000):
        sums = counted.sums.copy()
        sums[devices] = random.multinomial(1000, [0.6, 0.3, 0.1]) + np.rint(random.normal(0, sd, 3))
        warned += any(each.under for each in coverage(replace(counted, sums=sums), shares))
    assert warned < 2000 * (0.05 + 6.5 * (0.05 * 0.95 / 2000) ** 0.5)


def test_other_is_held_against_the_rest_only_where_every_label_has_a_share() -> None:
    counted = release({("accent",): [600, 300, 100]})
    whole = by_label(coverage(counted, {"accent": {"a": 0.5, "b": 0.1}}))
    assert whole["other"].reference == pytest.approx(0.4)
    assert whole["other"].under
    partly = by_label(coverage(counted, {"accent": {"a": 0.5}}))
    assert (partly["b"].reference, partly["other"].reference) == (None, None)
    assert not partly["other"].under


def test_a_two_way_counter_is_summed_and_the_least_noisy_one_is_taken() -> None:
    two_way = release({("accent", "device_class"): [400, 200, 250, 50, 60, 40]}, 3)
    found = coverage(two_way)
    assert [each.devices for each in by_label(found).values()] == [600, 300, 100]
    assert [each.devices_sd for each in by_label(found).values()] == pytest.approx([3 * 2**0.5] * 3)
    assert [each.devices for each in by_label(found, "device_class").values()] == [710, 290]
    both = release({("accent", "device_class"): [400, 200, 250, 50, 60, 40], ("accent",): [599, 301, 100]}, 3)
    assert [each.devices for each in by_label(coverage(both)).values()] == [599, 301, 100]


def test_a_segment_of_events_counts_a_device_twice_and_shows_no_coverage() -> None:
    assert coverage(release({("noise",): [500, 700, 0]})) == ()
    assert coverage(release({("accent", "noise"): [9] * 9})) == ()


@pytest.mark.parametrize(
    ("registry", "error"),
    [
        ({"region": {"x": 0.5}}, "the registry names region; release of weekly counts devices by accent"),
        ({"accent": {"z": 0.5}}, "the registry names accent z, which the plan counts as other"),
    ],
)
def test_a_registry_of_something_else_is_refused(registry: dict[str, dict[str, float]], error: str) -> None:
    with pytest.raises(BadInput, match=error):
        coverage(release({("accent",): [6, 3, 1]}), registry)


def test_a_registry_is_json_or_csv() -> None:
    wanted = {"accent": {"a": 0.5, "b": 0.25}}
    assert read_registry(b'{"accent": {"a": 0.5, "b": 0.25}}', "r") == wanted
    assert read_registry(b"segment,label,share\naccent,a,0.5\naccent,b,0.25\n", "r") == wanted


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b"\xff\xfe", b'{"accent": 3}', b'{"accent": {"a": "much"}}', b"a,b\n1,2\n",
     b'{"accent": {"a": 1.5}}', b'{"accent": {"a": -0.1}}', b'{"accent": {"a": 0.6, "b": 0.6}}',
     b'{"accent": {"a": NaN}}', b'{"accent": {"a": 1' + b"0" * 400 + b"}}",
     b'{"a":' * 50_000, b"x" * 200_000],
)  # fmt: skip
def test_what_is_no_registry_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(BadInput, match=r"shares\.txt"):
        read_registry(data, "shares.txt")
