"""What a default device would do with a plan, as the preview says it before anybody is asked."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.device.forecast import Forecast, forecast
from clients.device.policy import Policy
from fa_core.cli import build
from fa_core.layout import compile_plan
from fa_core.plan import parse

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PLAN = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: previewed, revision: 1, owner: tests, question: How often?, expires: EXPIRES}
source: wake_events
window: WINDOW
metrics: [false_reject_rate]
privacy: {epsilon: EPSILON, delta: 1e-8, min_cohort: 50, MORE}
"""


def text(epsilon: str, window: str = "7d", more: str = "max_events: 8", expires: str = "2099-01-01") -> str:
    written = PLAN.replace("EPSILON", epsilon).replace("WINDOW", window).replace("MORE", more)
    return written.replace("EXPIRES", expires)


def found(
    epsilon: str, window: str = "7d", more: str = "max_events: 8", expires: str = "2099-01-01"
) -> Forecast:
    plan = parse(
        text(epsilon, window, more, expires).encode(), "plan.yaml", today=date(2026, 1, 1), policy=None
    )
    return forecast(plan, compile_plan(plan), NOW)


@pytest.mark.parametrize(
    ("epsilon", "window", "expires", "releases", "zeros"),
    [
        ("1", "7d", "2099-01-01", 5, 0),
        ("2", "7d", "2099-01-01", 5, 2),  # three of rho 0.064 fit in 28 days
        ("2", "28d", "2099-01-01", 2, 0),
        ("1", "24h", "2099-01-01", 29, 15),  # fourteen of rho 0.0172 do
        ("2", "24h", "2026-03-03", 2, 0),
        ("2", "24h", "2026-03-06", 5, 2),
        ("2", "24h", "2026-03-01", 1, 0),  # it has expired; one release is looked at all the same
    ],
)
def test_the_budget_over_releases_back_to_back(
    epsilon: str, window: str, expires: str, releases: int, zeros: int
) -> None:
    assert found(epsilon, window, expires=expires) == Forecast((), releases, zeros)


@pytest.mark.parametrize(
    ("epsilon", "more", "why"),
    [
        ("3", "max_events: 8", "epsilon 3 is over 2"),
        ("1", "corrupt: 0.01", "corrupt 0.01 is under 0.05"),
        ("1", "noise: central, secure_aggregation: false", "without secure aggregation the server sees"),
        ("1", "sum: two_aggregators, kappa: 0.2", "kappa 0.2 is under 0.25"),
    ],
)
def test_what_a_default_policy_declines(epsilon: str, more: str, why: str) -> None:
    assert any(each.startswith(why) for each in found(epsilon, more=more).declined)


def test_bad_devices_and_dropouts_mean_nothing_where_two_aggregators_add_the_noise() -> None:
    assert found("1", more="sum: two_aggregators, corrupt: 0, dropout: 0.49").declined == ()


def test_central_noise_is_declined_where_the_default_policy_grants_none() -> None:
    said = found("1", more="noise: central").declined
    assert bool(said) is not Policy().central_noise


@pytest.mark.parametrize(
    ("epsilon", "more", "sentence"),
    [
        (
            "1",
            "",
            "Run once a window (7d), a device with the default policy and budget answers every release with",
        ),
        ("2", "", "of 5 releases in a row it would add zeros to 2."),
        ("3", "", "A device with the default policy declines it: epsilon 3 is over 2."),
        ("1", "sum: two_aggregators", "Only devices whose settings pin the helper's key answer it."),
    ],
)
def test_the_preview_says_it_in_a_sentence_and_in_json(
    tmp_path: Path, epsilon: str, more: str, sentence: str
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text(epsilon, more=more or "max_events: 8"))
    command = ["plan", "preview", str(plan), "--devices", "500", "--store", str(tmp_path / "none")]
    printed = CliRunner().invoke(build(), command, env={"COLUMNS": "200"})
    assert printed.exit_code == 0, printed.output
    assert sentence in " ".join(printed.output.split())
    one = json.loads(CliRunner().invoke(build(), [*command, "--json"]).output)["default_device"]
    declined, zeros = (["epsilon 3 is over 2"] if epsilon == "3" else []), {"1": 0, "2": 2, "3": 4}[epsilon]
    assert one == {"declined": declined, "releases": 5, "zeros": zeros}
