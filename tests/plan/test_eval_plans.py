"""The plans that people start from: good on their day, and each opening with the question it answers."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from fa_core.plan import Plan, TrainPlan, canonical, from_canonical, load
from fa_core.plan.prose import describe
from tests.plan.samples import TODAY

PLANS = sorted((Path(__file__).parents[2] / "eval_plans").glob("*.yaml"))
SMALL_LAB = 2_000


@pytest.fixture(params=PLANS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture
def plan(path: Path) -> Plan:
    return load(path, today=TODAY, fleet=SMALL_LAB)


def test_it_is_good_on_the_day_it_was_written(plan: Plan) -> None:
    assert from_canonical(canonical(plan)) == plan


def test_it_opens_with_the_question_that_it_answers(path: Path) -> None:
    opening = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line.startswith("# "):
            break
        opening.append(line)
    first_paragraph = " ".join(opening).partition(". ")[0]
    assert "?" in first_paragraph, "the first comment asks nothing"


def test_an_editor_finds_the_schema(path: Path, plan: Plan) -> None:
    schema = "train-plan" if isinstance(plan, TrainPlan) else "eval-plan"
    line = f"# yaml-language-server: $schema=../docs/{schema}.schema.json\n"
    assert line in path.read_text(encoding="utf-8")


def test_it_has_the_name_of_its_file(path: Path, plan: Plan) -> None:
    assert plan.metadata.name == path.stem


def test_it_can_be_described_in_plain_sentences(plan: Plan) -> None:
    text = describe(plan)
    assert plan.metadata.question in text
    assert plan.hash in text
    assert all(name in text for name in plan.metrics)


def test_an_incident_plan_lapses_within_a_week() -> None:
    (incident,) = [path for path in PLANS if path.stem == "false-wake-incident"]
    assert load(incident, today=TODAY).metadata.expires - TODAY <= timedelta(days=7)


def test_the_questions_of_a_voice_team_are_covered() -> None:
    plans = {path.stem: load(path, today=TODAY) for path in PLANS}
    kinds = {metric.kind for plan in plans.values() for metric in plan.metrics.values()}
    assert kinds >= {"rate", "rate_per_hour", "ratio", "mean", "det", "confusion", "paired_difference"}
    incident = plans["false-wake-incident"]
    assert {incident.segments[name].column for grouping in incident.group_by for name in grouping} == {
        "hour",
        "device_class",
        "playback",
    }
    assert date(2026, 11, 22) == TODAY
