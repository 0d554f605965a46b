"""JSON lines in fixed words: templates and plain facts pass, arguments and exceptions' texts do not."""

import io
import json
import logging

import pytest

from fa_core.gateway.logs import JsonLines

CANARY = "CANARY-77"


@pytest.fixture
def spoken() -> io.StringIO:
    return io.StringIO()


def say(spoken: io.StringIO, name: str) -> logging.Logger:
    handler = logging.StreamHandler(spoken)
    handler.setFormatter(JsonLines("tests"))
    logger = logging.Logger(name)
    logger.addHandler(handler)
    return logger


def lines(spoken: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in spoken.getvalue().splitlines()]


def test_a_line_has_the_event_and_public_facts(spoken: io.StringIO) -> None:
    say(spoken, "fa_core.gateway").info("a stage ended", extra={"stage": "join", "asked": 5, "answered": 4})
    (line,) = lines(spoken)
    assert line.pop("at")
    assert line == {
        "level": "info",
        "service": "tests",
        "event": "a stage ended",
        "stage": "join",
        "asked": 5,
        "answered": 4,
    }


def test_nothing_else_gets_out(spoken: io.StringIO) -> None:
    ours, theirs = say(spoken, "fa_core.x"), say(spoken, "sqlalchemy.engine")
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
    assert CANARY not in spoken.getvalue()
    *_, last = lines(spoken)
    assert (last["error"], last["event"]) == ("builtins.ValueError", "a defect")
