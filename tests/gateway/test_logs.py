"""JSON lines with fixed texts: templates and plain facts pass, arguments and texts of exceptions do not."""

import io
import json
import logging

import pytest

from fa_core.gateway.logs import JsonLines

CANARY = "CANARY-77"


@pytest.fixture
def logged() -> io.StringIO:
    return io.StringIO()


def say(logged: io.StringIO, name: str) -> logging.Logger:
    handler = logging.StreamHandler(logged)
    handler.setFormatter(JsonLines("tests"))
    logger = logging.Logger(name)
    logger.addHandler(handler)
    return logger


def lines(logged: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in logged.getvalue().splitlines()]


def test_a_line_has_the_event_and_public_facts(logged: io.StringIO) -> None:
    say(logged, "fa_core.gateway").info("a stage ended", extra={"stage": "join", "asked": 5, "answered": 4})
    (line,) = lines(logged)
    assert line.pop("at")
    assert line == {
        "level": "info",
        "service": "tests",
        "event": "a stage ended",
        "stage": "join",
        "asked": 5,
        "answered": 4,
    }


def test_arguments_values_and_exception_texts_are_left_out(logged: io.StringIO) -> None:
    ours, theirs = say(logged, "fa_core.x"), say(logged, "sqlalchemy.engine")
    ours.info("value %s", CANARY)
    ours.info(
        "facts", extra={"release": f"{CANARY} with spaces", "vector": CANARY, "stage": ["join", CANARY]}
    )
    theirs.error("parameters %s", CANARY)
    theirs.error(CANARY)
    try:
        raise ValueError(CANARY)
    except ValueError:
        ours.exception("a defect")
    assert CANARY not in logged.getvalue()
    *_, last = lines(logged)
    assert (last["error"], last["event"]) == ("builtins.ValueError", "a defect")
