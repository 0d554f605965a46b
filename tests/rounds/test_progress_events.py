"""What a ServerApp says on its way, and what whoever follows its log makes of it."""

import io
import math

import pytest

from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.rounds.progress_events import EVERY, Ended, hear, tell_end, teller
from fa_core.rounds.round import Progress
from fa_core.secagg.task import Stage


def test_what_is_told_is_heard() -> None:
    out = io.StringIO()
    tell = teller(out)
    said = [Progress(Stage.JOIN, 3, 1, 0, 9.5), Progress(Stage.MASKED, 60, 58, 2, math.inf)]
    for each in said:
        tell(each)
    assert [hear(line) for line in out.getvalue().splitlines()] == said


def test_nothing_new_is_told_seldom() -> None:
    out = io.StringIO()
    tell = teller(out)
    for left in (60.0, 59.0, 60.0 - EVERY, 54.0, 0.0):
        tell(Progress(Stage.JOIN, 3, 1, 0, left))
    assert len(out.getvalue().splitlines()) == 3


@pytest.mark.parametrize("kind", [BadInput, Refused, RoundFailed])
def test_an_end_keeps_its_kind_and_its_sentence(kind: type[BadInput | Refused | RoundFailed]) -> None:
    out = io.StringIO()
    tell_end(kind("too few devices"), out)
    ended = hear(out.getvalue())
    assert isinstance(ended, Ended)
    assert type(ended.error()) is kind
    assert str(ended.error()) == "too few devices"


def test_of_a_defect_only_its_kind_is_told() -> None:
    out = io.StringIO()
    tell_end(ValueError("a device's value"), out)
    assert "device's value" not in out.getvalue()
    assert hear(out.getvalue()) == Ended(1, "the run broke off (ValueError)")


def test_a_release_is_no_error() -> None:
    out = io.StringIO()
    tell_end(None, out)
    assert hear(out.getvalue()) == Ended(0, "released")


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
def test_what_is_not_ours_is_nothing(line: str) -> None:
    assert hear(line) is None
