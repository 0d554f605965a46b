"""The gate over releases as the document says it: verdicts, numbers that two machines compute alike."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput
from fa_core.estimate.expect import Source, Sums, guessed
from fa_core.layout import bounds_of, shape_of
from fa_core.metrics.joint import matrix
from fa_core.metrics.paired_difference import PairedDifference
from fa_core.plan import Plan
from fa_core.rollout.judging import Gate, design_of
from fa_core.rollout.looks import DIFFERENCE
from fa_core.rollout.reach import expected_release
from fa_core.values import Layout
from tests.rollout.rolling import plan_of, rollout

GATE = plan_of("gate")
ACCENTS = GATE.segments["accent"].labels
DEVICES, MOMENTS = 100_000, 20.0


def worse(by: Mapping[str, float]) -> Source:
    """Devices as guessed, whose candidate misses more by these shares of an accent's moments."""

    def sums(plan: Plan, layout: Layout, devices: int) -> Sums:
        found = dict(guessed(MOMENTS)(plan, layout, devices))
        metric, bounds = plan.metrics[DIFFERENCE], bounds_of(plan)
        assert isinstance(metric, PairedDifference)
        each = min(MOMENTS, float(bounds.max_events))
        for grouping in ((), ("accent",)):
            shape, key = shape_of(plan, grouping), next(k for k in found if k[:2] == (DIFFERENCE, grouping))
            table = np.array(matrix(metric.table(shape), metric.domain(bounds)), float)
            here = devices / shape.cells
            rates = [by.get(name, 0.0) for name in ACCENTS] if grouping else [sum(by.values()) / len(ACCENTS)]
            moments = [[0, 0, here * each * p, 0, here * each**2 * p, here * (each * p) ** 2] for p in rates]
            found[key] = found[key] + np.concatenate([table @ np.array(row) for row in moments])
        return found

    return sums


def test_an_equal_candidate_expands_and_a_worse_one_is_rolled_back() -> None:
    equal, bad = (expected_release(GATE, DEVICES, worse(by)) for by in ({}, {"es-en": 0.04}))
    found = Gate().looks(rollout(), [equal] * 4)
    assert found.verdict == "expand"
    assert [each["group"] for each in found.gate["groups"]] == list(ACCENTS[:-1])
    taken_back = Gate().looks(rollout(), [bad] * 4)
    assert taken_back.verdict == "roll_back"
    assert taken_back.why.startswith("es-en is significantly more than 1.0 points worse")
    by_group = {each["group"]: each for each in taken_back.gate["groups"]}
    assert by_group["es-en"]["estimate_high"] == pytest.approx(0.04, rel=1e-3)
    assert by_group["en-GB"]["estimate_high"] == pytest.approx(0.0, abs=2e-3)


def test_a_skipped_look_holds_back_nothing_else() -> None:
    equal = expected_release(GATE, DEVICES, worse({}))
    assert Gate().looks(rollout(), [None, equal]).verdict in ("expand", "hold")
    few = expected_release(GATE, 2_000, worse({}))
    assert Gate().looks(rollout(), [few]).verdict == "hold"


def test_numbers_are_json_of_nine_digits() -> None:
    found = Gate().looks(rollout(), [expected_release(GATE, 20_000, worse({"de-en": 0.01}))])
    data = canonical(dict(found.gate))
    assert json.loads(data) == found.gate
    values = [v for each in found.gate["groups"] for v in each.values() if isinstance(v, float)]
    assert all(float(f"{value:.9g}") == value for value in values)


def test_the_design_is_the_documents() -> None:
    design = design_of(rollout(), GATE)
    assert (design.looks, design.alpha, design.groups) == (4, 0.05, ACCENTS[:-1])
    assert (design.rollback_above, design.ship_below, design.overall_below) == (0.01, 0.02, 0.01)
    with pytest.raises(BadInput):
        Gate().looks(rollout(), [expected_release(plan_of("live"), DEVICES, guessed(MOMENTS))])


def test_a_live_stage_compares_the_devices_of_the_two_models() -> None:
    release = expected_release(plan_of("live"), DEVICES, guessed(MOMENTS))
    found = Gate().stage(rollout(), 1, release, None)
    assert (found.verdict, found.gate["evidence"]) == ("expand", True), found.why
    assert {each["measure"] for each in found.gate["measures"]} == set(rollout().live.measures)
    last = Gate().stage(rollout(), 3, release, release)
    assert last.verdict == "expand"
    alone = Gate().stage(rollout(), 3, release, None)  # no stage came before in which the baseline acted
    assert (alone.verdict, alone.gate["evidence"]) == ("expand", False)
    few = expected_release(plan_of("live"), 1_000, guessed(MOMENTS))
    assert Gate().stage(rollout(), 1, few, None).verdict == "hold"
