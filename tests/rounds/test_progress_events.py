"""The progress events that a ServerApp writes, and how a reader of its log parses them."""

import io
import math
from datetime import UTC, datetime

import pytest
from rich.console import Console

from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.rounds.progress import progress_display
from fa_core.rounds.progress_events import (
    EVERY,
    Ended,
    parse,
    progress_reporter,
    report_end,
    standing_reporter,
)
from fa_core.rounds.round import Progress
from fa_core.rounds.standing import Standing
from fa_core.secagg.task import Stage


def test_what_is_reported_is_parsed() -> None:
    out = io.StringIO()
    report = progress_reporter(out)
    events = [Progress(Stage.JOIN, 3, 1, 0, 9.5), Progress(Stage.MASKED, 60, 58, 2, math.inf)]
    for each in events:
        report(each)
    assert [parse(line) for line in out.getvalue().splitlines()] == events


CLOSES = datetime(2026, 11, 23, 4, tzinfo=UTC)
STANDINGS = [
    Standing(True, 0, 0, CLOSES),
    Standing(True, 9, 7, CLOSES, 8, {"late": 1, "forged": 2}, "the helper does not answer"),
    Standing(False, 9, 8, CLOSES, 8),
]


def test_how_far_a_collection_is_is_reported_once_and_parsed() -> None:
    out = io.StringIO()
    report = standing_reporter(out)
    for each in STANDINGS:
        report(each)
        report(each)
    assert [parse(line) for line in out.getvalue().splitlines()] == STANDINGS


def test_a_collection_is_shown_as_lines_or_as_one_bar() -> None:
    lines, bars = io.StringIO(), io.StringIO()
    with progress_display(Console(file=lines, width=200)) as report:
        for each in STANDINGS:
            report(each)
            report(each)
    assert lines.getvalue().splitlines() == [
        "reports are counted: 0 of 0 that arrived; until 2026-11-23 04:00:00 UTC",
        "reports are counted: 7 of 9 that arrived; until 2026-11-23 04:00:00 UTC, or until 8 are counted; "
        "refused: 2 forged, 1 late; the helper does not answer",
        "reports are counted: 8 of 9 that arrived; no more are taken",
    ]
    with progress_display(Console(file=bars, width=200, force_terminal=True)) as report:
        for each in STANDINGS:
            report(each)
    assert "8/8" in bars.getvalue()
    assert bars.getvalue().count("reports are counted") >= 1


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
        'unheard: {"collection": "open"}',
        'unheard: {"collection": "open", "arrived": 1, "counted": 1, "closes": 0, "enough": 0, '
        '"refused": [], "problem": ""}',
        'unheard: {"collection": "open", "arrived": 1, "counted": 1, "refused": {}, "closes": 1e300, '
        '"enough": 0, "problem": ""}',
    ],
)
def test_a_line_that_is_not_ours_is_ignored(line: str) -> None:
    assert parse(line) is None
