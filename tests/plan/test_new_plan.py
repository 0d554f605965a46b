"""`fa plan new`: a commented plan that checks, from options, or from answers on a terminal."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.device.forecast import forecast
from fa_core.cli import build
from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.metrics import PRESETS
from fa_core.plan import load
from fa_core.plan.new import QUESTIONS

OPTIONS = ("--owner", "wake-word-quality", "--by", "accent", "--values", "en-US, en-GB")


def new(file: Path, *options: str, answers: str = "") -> object:
    return CliRunner().invoke(build(), ["plan", "new", str(file), *options], input=answers)


@pytest.mark.parametrize("limit", [None, "0.3"])
@pytest.mark.parametrize("by", [(), ("--by", "device_class", "--values", "phone,speaker")])
@pytest.mark.parametrize("metric", PRESETS)
def test_every_usual_metric_makes_a_plan_that_checks(
    metric: str, by: tuple[str, ...], limit: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    tables = ("intent_confusion", "detection_scores")
    limits = () if limit is None or metric in tables else ("--limit", limit)
    result = new(file, "--metric", metric, "--owner", "us", *by, *limits)
    assert result.exit_code == 0, result.exception  # type: ignore[attr-defined]
    plan = load(file)
    assert list(plan.metrics) == [metric]
    assert plan.metadata.question.startswith(QUESTIONS[metric])
    assert len(plan.guardrails) == bool(limits)
    assert file.read_text().startswith("# ")


def test_options_are_what_the_plan_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    more = ("--metric", "false_reject_rate", "--metric", "word_error_rate", "--schedule", "weekly")
    new(
        file, *OPTIONS, *more, "--epsilon", "1.5", "--window", "3d", "--question", 'Is "it"\ngood: enough? #1'
    )
    plan = load(file)
    assert plan.metadata.question == 'Is "it" good: enough? #1'
    assert (plan.metadata.schedule, plan.source) == ("weekly", None)
    assert plan.segments["accent"].labels == ("en-US", "en-GB", "other")
    assert float(plan.privacy.epsilon) == 1.5


def test_left_to_itself_a_weekly_plan_is_within_a_devices_budget(tmp_path: Path) -> None:
    """Epsilon 1, as in `eval_plans/schedule.toml`."""
    file = tmp_path / "mine.yaml"
    new(file, *OPTIONS, "--metric", "false_reject_rate", "--schedule", "weekly")
    assert float(load(file).privacy.epsilon) == 1
    found = forecast(load(file), compile_plan(load(file)), datetime(2026, 11, 22, tzinfo=UTC))
    assert (found.declined, found.zeros) == ((), 0)


def test_what_no_option_says_is_asked_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "asked.yaml"
    monkeypatch.setattr("fa_core.cli.new_plan._on_a_terminal", lambda: True)
    result = new(file, answers="det\naccent\nen-US, en-GB\nus\n\n")
    assert result.exit_code == 0, result.exception  # type: ignore[attr-defined]
    assert list(load(file).segments) == ["accent"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--metric is missing"),
        (("--metric", "FRR"), "did you mean `false_reject_rate`?"),
        (("--metric", "det"), "--owner is missing"),
        (("--metric", "det", "--by", "acent"), "--by acent: did you mean `accent`?"),
        (("--metric", "det", "--by", "accent"), "--values is missing"),
        (("--metric", "det", *OPTIONS, "--expires", "2027-1-31"), "write a day, such as"),
        (("--metric", "det", *OPTIONS, "--epsilon", "4,0"), "--epsilon 4,0: write a number"),
        (("--metric", "det", *OPTIONS, "--epsilon", "0"), "is out of range"),
        (("--metric", "det", *OPTIONS, "--schedule", "hourly"), "`hourly` is not known here"),
        (("--metric", "intent_confusion", *OPTIONS, "--limit", "0.1"), "has no single number to judge"),
    ],
)
def test_wrong_answers_are_named_and_write_nothing(
    options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = new(tmp_path / "mine.yaml", *options)
    assert isinstance(result.exception, BadInput)  # type: ignore[attr-defined]
    assert message in str(result.exception)  # type: ignore[attr-defined]
    assert not any(tmp_path.iterdir())


def test_a_plan_is_never_written_over_another_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    assert "exists already" in str(new(file, "--metric", "det", *OPTIONS).exception)  # type: ignore[attr-defined]
    assert file.read_text() == "mine"
