"""What a preview promises is what a fleet like the one guessed really gives."""

from datetime import date

import numpy as np
import pytest
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.errors import BadInput, Refused
from fa_core.estimate.expect import noise_variance
from fa_core.estimate.preview import preview
from fa_core.estimate.read import estimates_of_sums
from fa_core.layout import bounds_of, compile_plan, groupings, shape_of
from fa_core.metrics import PartSum
from fa_core.metrics.kind import Units
from fa_core.plan import parse, with_rho

DEVICES, EVENTS, ALIKE = 6000, 16, 20.0

PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: previewed, revision: 1, owner: tests, question: How wide?, expires: 2099-01-01}
source: wake_events
window: 7d
segments:
  accent: {device: accent, values: [a, b, c]}
  device_class: {device: device_class, values: [phone, watch]}
group_by: [[], [accent], [accent, device_class]]
metrics:
  METRIC
privacy: {epsilon: 4, delta: 1e-8, max_events: 16, min_cohort: 50, NOISE}
"""
METRICS = {
    "rate": "m: {kind: rate, of: {outcome: false_reject}, over: {}, expect: 0.1}",
    "rate_per_hour": "m: {kind: rate_per_hour, of: {outcome: false_accept}, expect: 0.5, max_hours: 16}",
    "histogram": "m: {kind: histogram, field: score, edges: {from: 0, to: 1, bins: 5}}",
    "count": "m: {kind: count, of: {outcome: false_reject}}",
}


def plan_of(kind, noise="noise: central, secure_aggregation: false", text=PLAN):
    text = text.replace("METRIC", METRICS[kind]).replace("NOISE", noise)
    return parse(text.encode(), "previewed.yaml", today=date(2026, 1, 1))


def alike(rng, mean):
    """One probability a device, from a beta distribution of that mean with a + b = ALIKE."""
    return rng.beta(ALIKE * mean, ALIKE * (1 - mean), DEVICES)


def units_of(kind, metric, rng):
    """What a fleet samples in which every device has EVENTS events (or hours), as the preview guesses."""
    device = np.arange(DEVICES)
    if kind == "histogram":
        chosen = rng.dirichlet(np.full(5, ALIKE / 5), DEVICES)
        counts = np.array([rng.multinomial(EVENTS, shares) for shares in chosen])
        owner, cell = np.nonzero(counts)
        return Units(None, owner, owner, {"cell": cell, "one": counts[owner, cell]})
    if kind == "count":
        many = rng.poisson(rng.gamma(ALIKE, EVENTS / ALIKE, DEVICES))
        return Units(None, device, device, {"one": np.minimum(many, EVENTS)})
    if kind == "rate":
        events = rng.binomial(EVENTS, alike(rng, 0.1))
        return Units(None, device, device, {"count": events, "size": np.full(DEVICES, EVENTS)})
    events = rng.poisson(EVENTS * 0.5 * rng.gamma(ALIKE, 1 / ALIKE, DEVICES))
    minutes = np.full(DEVICES, EVENTS * 60)
    return Units(None, device, device, {"count": np.minimum(events, 96), "size": minutes})


def simulated_half_widths(kind, plan, rng):
    """Mean half-width by grouping of one simulated release."""
    layout = compile_plan(plan)
    metric = plan.metrics["m"]
    units = units_of(kind, metric, rng)
    variances = iter(noise_variance(plan, layout, DEVICES))
    sums = {}
    for grouping in groupings(metric, plan):
        shape, bounds = shape_of(plan, grouping), bounds_of(plan)
        cell = np.arange(DEVICES) % shape.cells
        counts = metric.count({"units": units}, lambda u, cell=cell: cell[u.device], shape, bounds, DEVICES)
        for part in metric.parts(shape, bounds):
            variance = float(next(variances))
            noisy = counts[part.name].sum(axis=0) + rng.normal(0, variance**0.5, part.cells)
            sums["m", grouping, part.name] = PartSum(noisy, variance, False)
    found = {}
    for result in estimates_of_sums(plan, sums, DEVICES):
        for number in result.cells or (result,):
            if number.low is not None:
                found.setdefault(tuple(s for s, _ in result.group), []).append((number.high - number.low) / 2)
    return {grouping: float(np.mean(widths)) for grouping, widths in found.items()}


@pytest.mark.parametrize("noise", ["noise: central, secure_aggregation: false", "noise: distributed"])
@pytest.mark.parametrize("kind", ["rate", "rate_per_hour", "histogram"])
def test_the_expected_width_is_that_of_a_simulated_release(kind, noise):
    plan = plan_of(kind, noise)
    rng = np.random.default_rng(5)
    runs = [simulated_half_widths(kind, plan, rng) for _ in range(6)]
    for item in preview(plan, DEVICES, EVENTS).expectations:
        measured = np.mean([run[item.grouping] for run in runs])
        assert item.half_width == pytest.approx(measured, rel=0.10), item.grouping


def test_a_wrong_guess_of_the_noise_would_be_seen():
    plan = plan_of("rate")
    runs = [simulated_half_widths("rate", plan, np.random.default_rng(5))]
    half_the_budget = PLAN.replace("epsilon: 4", "epsilon: 2")
    item = preview(plan_of("rate", text=half_the_budget), DEVICES, EVENTS).expectations[-1]
    assert item.half_width > 1.1 * runs[0][item.grouping]


def test_the_devices_for_a_wished_width_reach_it_and_hardly_fewer_do():
    plan = plan_of("rate")
    item = preview(plan, DEVICES, EVENTS, width=0.01).expectations[1]
    reached = preview(plan, item.devices_for, EVENTS).expectations[1]
    missed = preview(plan, int(item.devices_for * 0.95), EVENTS).expectations[1]
    assert reached.half_width <= 0.01 < missed.half_width


def test_suggestions_are_computed_and_come_true():
    plan = plan_of("rate")
    best = preview(plan, DEVICES, EVENTS).suggestions
    assert best, "this plan leaves room for a suggestion"
    assert [s.factor for s in best] == sorted(s.factor for s in best)
    spent = next(s for s in best if s.change == "run it on twice the privacy budget")
    doubled = {"epsilon": 2 * plan.privacy.epsilon, "rho": None, "alpha": None}
    twice = with_rho(plan.privacy.model_copy(update=doubled))
    then = preview(plan.model_copy(update={"privacy": twice}), DEVICES, EVENTS)
    before = preview(plan, DEVICES, EVENTS)
    ratios = [
        after.half_width / old.half_width
        for old, after in zip(before.expectations, then.expectations, strict=False)
    ]
    assert spent.factor == pytest.approx(np.mean(ratios), rel=0.03), "from fewer simulated releases"


def test_a_fleet_without_devices_or_too_small_for_the_noise_is_refused():
    with pytest.raises(BadInput):
        preview(plan_of("rate"), 0)
    with pytest.raises(Refused):
        preview(plan_of("rate", "noise: distributed, dropout: 0.2, corrupt: 0.25"), 1)


def test_a_first_preview_needs_no_store(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.replace("METRIC", METRICS["rate"]).replace("NOISE", "noise: distributed"))
    (tmp_path / "empty").mkdir()
    for store in ("nowhere", "empty"):
        result = CliRunner().invoke(build(), ["plan", "preview", str(plan), "--store", str(tmp_path / store)])
        assert result.exit_code == 0, result.output
        assert "epsilon 4" in result.output


@pytest.mark.parametrize(("noise", "said"), [("central", True), ("distributed", False)])
def test_a_preview_says_that_devices_decline_central_noise(tmp_path, noise, said):
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.replace("METRIC", METRICS["rate"]).replace("NOISE", f"noise: {noise}"))
    shown = CliRunner().invoke(build(), ["plan", "preview", str(plan), "--store", str(tmp_path / "nowhere")])
    assert shown.exit_code == 0, shown.output
    assert ("with central noise the server sees the exact sum" in " ".join(shown.output.split())) is said
