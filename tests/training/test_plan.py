"""The language of training plans: what follows from one, what none may ask, and where it says so."""

import json
from pathlib import Path

import pytest

from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.metrics.features import BINS, CELLS, CLIPPED, COUNTED
from fa_core.plan import BadPlan, SignedPlan, TrainPlan, canonical, from_canonical, load, parse
from fa_core.trust.enrolment import Authority
from tests.training.toy import norms_plan, plan_of, text_of

PLANS = Path(__file__).parents[2] / "eval_plans"


def problems(**changes: object) -> list[str]:
    with pytest.raises(BadPlan) as caught:
        parse(text_of(**changes).encode(), "toy.yaml", policy=None)
    return str(caught.value).split("\n")


def test_a_plan_is_the_same_after_its_canonical_bytes() -> None:
    plan = plan_of()
    assert from_canonical(canonical(plan)) == plan
    assert isinstance(from_canonical(canonical(plan)), TrainPlan)
    assert SignedPlan.of(plan, Authority.generate().key).signs(plan)


@pytest.mark.parametrize("name", ["hear-every-accent", "moment-norms"])
def test_the_shipped_plans_are_good(name: str) -> None:
    plan = load(PLANS / f"{name}.yaml")
    assert isinstance(plan, TrainPlan)
    assert from_canonical(canonical(plan)) == plan


@pytest.mark.parametrize(
    ("key", "value"),
    [("where", {}), ("metrics", {}), ("group_by", [[]]), ("source", "wake_events"), ("clip", "2")],
)
def test_what_follows_from_a_plan_cannot_be_said_otherwise(key: str, value: object) -> None:
    body = json.loads(canonical(plan_of()))
    changed = json.dumps({**body, key: value}, sort_keys=True, separators=(",", ":")).encode()
    if key == "clip":  # the one key here that is its author's
        assert from_canonical(changed) == plan_of(clip="clip: 2")
        return
    with pytest.raises(BadInput, match="canonical form"):
        from_canonical(changed)


def test_its_blocks_are_one_group_of_cells_for_each_label() -> None:
    layout = compile_plan(plan_of())
    (block,) = layout.blocks
    assert (block.cells, block.linf) == (3 * CELLS, CLIPPED)
    assert block.l2_squared == CLIPPED**2 + COUNTED**2
    assert block.cost == plan_of().privacy.rho
    assert layout.noise == "distributed"
    (bins,) = compile_plan(norms_plan()).blocks
    assert (bins.cells, bins.l1, bins.l2_squared) == (BINS, 1, 1)


@pytest.mark.parametrize(
    ("changes", "line", "said"),
    [
        ({"consent": "quality_metrics"}, 12, "consent to quality_metrics is not for training"),
        ({"privacy": ", noise: central"}, 13, "with central noise the server would see the exact sum"),
        ({"privacy": ", noise: central, secure_aggregation: false"}, 13, "a vector that names its speaker"),
        ({"privacy": ", sum: two_aggregators"}, 13, "leader and helper together would read a vector"),
        ({"least": "99"}, 13, "min_cohort 99 is too few for a training plan"),
        ({"clip": ""}, 8, "`clip` is missing"),
        ({"clip": "clip: 0"}, 10, "out of range"),
        ({"clip": "metrics: [false_reject_rate]"}, 10, "a training plan has no `metrics` of its own"),
        ({"method": "norm_histogram"}, 10, "norm_histogram clips nothing"),
        ({"segments": "segments: {a: {event: snr_db, edges: [8], labels: [x, y]}}"}, 11, "`a` is of events"),
        (
            {"segments": "segments: {a: {device: accent, values: [x]}, b: {device: accent, values: [y]}}"},
            11,
            "`b` is one segment too many",
        ),
        ({"center": "0, 1"}, 9, "2 entries stand here"),
        ({"sha256": "abc"}, 6, "is no name"),
    ],
)
def test_what_no_training_plan_may_ask(changes: dict[str, object], line: int, said: str) -> None:
    found = problems(**changes)
    assert any(each.startswith(f"toy.yaml:{line}:") and said in each for each in found), found


def test_an_unknown_method_is_all_that_is_said_of_it() -> None:
    segments = "segments: {a: {device: accent, values: [x]}}"
    found = problems(method="fed_avg", segments=segments)
    assert len(found) == 1, found
    assert "`fed_avg` is not known here" in found[0]


def test_no_evaluation_plan_can_ask_for_features() -> None:
    text = (PLANS / "wake-word-weekly.yaml").read_text()
    for kind in ("one_shot_means", "norm_histogram"):
        asked = text.replace("    kind: rate\n", f"    kind: {kind}\n", 1)
        with pytest.raises(BadPlan, match=f"unknown kind `{kind}`"):
            parse(asked.encode(), "plan.yaml", policy=None)
    with pytest.raises(BadPlan, match="`moments` is not known here"):
        parse(text.replace("source: wake_events", "source: moments").encode(), "plan.yaml", policy=None)
