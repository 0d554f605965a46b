"""Text on its way into the store, and the log: what becomes a placeholder, and what never comes out."""

import io
import logging
import re
import sys
import threading
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.device.redaction import LogFilter, Redactor, guard_crashes, label

REDACTOR = Redactor(frozenset({"Ada Lovelace", "José", "O'Brien", "Li"}))


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("call ada lovelace", "call CALL_CONTACT"),
        ("call Ada, then LOVELACE", "call CALL_CONTACT, then CALL_CONTACT"),
        ("text josé and o'brien", "text CALL_CONTACT and CALL_CONTACT"),
        ("write to ada@example.org please", "write to EMAIL please"),
        ("dial +49 (30) 1234-567", "dial NUMBER"),
        ("dial five five five, oh one double two", "dial NUMBER, NUMBER"),
        ("take me to 221b Baker Street", "take me to ADDRESS"),
        ("take me to 10 Downing St.", "take me to ADDRESS"),
        ("nach Hauptstraße 7 bitte", "nach ADDRESS bitte"),
        ("turn the living room lights on", "turn the living room lights on"),
        ("alive and delight are not Li", "alive and delight are not CALL_CONTACT"),
    ],
)
def test_what_names_a_person_becomes_a_placeholder(said: str, left: str) -> None:
    assert REDACTOR.redact(said) == left


@given(
    st.text(), st.sampled_from(sorted(REDACTOR.contacts)), st.from_regex(r"\+?[0-9]{4,14}", fullmatch=True)
)
def test_no_digit_and_no_contact_comes_through(around: str, name: str, number: str) -> None:
    left = REDACTOR.redact(f"{around} {name} {number} {around}")
    assert not re.search("[0-9]", left)
    assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", left, re.IGNORECASE)


def test_a_label_passes_if_it_is_allowed_as_it_is_or_redacted() -> None:
    allowed = {"lights_on", "call CALL_CONTACT"}
    said = ["lights_on", "call ada", "call Ada Lovelace", "call the bank", "call 0123"]
    assert [label(each, allowed, REDACTOR) for each in said] == [
        "lights_on", "call CALL_CONTACT", "call CALL_CONTACT", "other", "other",
    ]  # fmt: skip


def test_a_label_passes_however_its_accents_are_encoded() -> None:
    assert label("cafe\u0301 ", {"café"}, REDACTOR) == "café"


class Why(StrEnum):
    """A fixed reason."""

    CONSENT = "no consent"


@pytest.fixture
def log() -> tuple[logging.Logger, logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(LogFilter(["tests.ours"], {"masked"}))
    loggers = [logging.getLogger(name) for name in ("tests.ours.deep", "tests.others")]
    for each in loggers:
        each.handlers = [handler]
        each.setLevel(logging.DEBUG)
        each.propagate = False
    return loggers[0], loggers[1], stream


def test_the_log_holds_templates_allowed_labels_and_reasons_only(
    log: tuple[logging.Logger, logging.Logger, io.StringIO],
) -> None:
    ours, others, stream = log
    ours.info("declined at %s: %s", "masked", Why.CONSENT)
    ours.info("heard %s with %d and %s", "CANARY", 4711, ["CANARY"])
    ours.warning("nothing to fill in, 100%")
    others.error("connected to CANARY with %s", "CANARY")
    assert stream.getvalue().splitlines() == [
        "declined at masked: no consent",
        "heard other with other and other",
        "nothing to fill in, 100%",
        "a message of another component was withheld",
    ]


def test_an_exception_is_logged_as_its_type_and_place(
    log: tuple[logging.Logger, logging.Logger, io.StringIO],
) -> None:
    ours, _, stream = log
    try:
        raise ValueError("CANARY")
    except ValueError:
        ours.exception("a defect at %s", "masked", stack_info=True)
    said = stream.getvalue()
    assert said.startswith("a defect at masked [builtins.ValueError at ")
    assert "CANARY" not in said
    assert said.count("\n") == 1


def test_a_crash_says_only_its_type_and_place() -> None:
    stream = io.StringIO()
    restore = guard_crashes(stream)
    try:
        error = ValueError("CANARY")
        sys.excepthook(ValueError, error, None)
        thread = threading.Thread(target=lambda: int("CANARY"))
        thread.start()
        thread.join()
    finally:
        restore()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "stopped by builtins.ValueError"
    assert lines[1].startswith("stopped by builtins.ValueError at <lambda>")
    assert "CANARY" not in stream.getvalue()


def test_no_template_of_ours_is_filled_in_before_it_is_logged() -> None:
    """An f-string would carry its values past the filter, so there is none in a call to a logger."""
    root = Path(__file__).parents[2] / "clients"
    for source in root.rglob("*.py"):
        assert not re.search(r"logger\.\w+\(\s*f[\"']", source.read_text("utf-8")), source
        assert not re.search(r"\bprint\(", source.read_text("utf-8")), source
