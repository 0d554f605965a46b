"""The progress events that a ServerApp writes, and how a reader of its log parses them."""

import io
import math

import pytest

from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.rounds.progress_events import EVERY, Ended, parse, progress_reporter, report_end
from fa_core.rounds.round import Progress
from fa_core.secagg.task import Stage


def test_what_is_reported_is_parsed() -> None:
    out = io.StringIO()
    report = progress_reporter(out)
    events = [Progress(Stage.JOIN, 3, 1, 0, 9.5), Progress(Stage.MASKED, 60, 58, 2, math.inf)]
    for each in events:
        report(each)
    assert [parse(line) for line in out.getvalue().splitlines()] == events


def test_unchanged_counts_are_reported_seldom() -> None:
    out = io.StringIO()
    report = progress_reporter(out)
    for left in (60.0, 59.0, 60.0 - EVERY, 54.0, 0.0):
        report(Progress(Stage.JOIN, 3, 1, 0, left))
    assert len(out.getvalue().splitlines()) == 3


@pytest.mark.parametrize("kind", [BadInput, Refused, RoundFailed])
def test_an_end_keeps_its_error_type_and_text(kind: type[BadInput | Refused | RoundFailed]) -> None:
    out = io.StringIO()
    report_end(kind("too few devices"), out)
    ended = parse(out.getvalue())
    assert isinstance(ended, Ended)
    assert type(ended.error()) is kind
    assert str(ended.error()) == "too few devices"


def test_of_a_defect_only_the_error_type_is_reported() -> None:
    out = io.StringIO()
    report_end(ValueError("a device's value"), out)
    assert "device's value" not in out.getvalue()
    assert parse(out.getvalue()) == Ended(1, "the run broke off (ValueError)")


def test_a_release_is_no_error() -> None:
    out = io.StringIO()
    report_end(None, out)
    assert parse(out.getvalue()) == Ended(0, "released")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "INFO: something",
        "unheard: {",
        "unheard: 3",
        'unheard: {"stage": "lunch"}',
        "x unheard: {}",
        'unheard: {"ended": 1}',
        'unheard: {"ended": 1e999, "text": ""}',
        "unheard: " + "[" * 100_000,
    ],
)
def test_a_line_that_is_not_ours_is_ignored(line: str) -> None:
    assert parse(line) is None
