"""Redaction of the only text that could enter a store, and the filter on the only way out, the log.

No device table holds free text. A label passes if it is on its column's allow-list, as it is or once
numbers, addresses and the names in the device's own contact list are replaced by placeholders; else it
becomes `other`. No pattern finds every name, so nothing that was only redacted is ever stored or sent.

The log is stricter. Of a record of ours only the template goes out, which is written in the source; its
arguments pass if they are allowed labels or fixed reasons. Of anybody else's record, and of every
exception, only where it came from is said.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import TextIO

from fa_core.labels import normal

OTHER = "other"

LONGEST_TEXT = 256
"""Characters of the longest text that may become a label; what is longer is `other` at once."""

_EMAIL = re.compile(r"[^\s@<>,;:]+@[^\s@<>,;:]+\.\w+")
_ADDRESS = re.compile(
    r"\b\d+[a-z]?(?:\s*[-/]\s*\d+[a-z]?)?,?\s+(?:[\w.'-]+\s+){1,4}?"
    r"(?:street|st|road|rd|avenue|ave|lane|ln|drive|dr|way|court|ct|place|pl|square|sq|close|boulevard|blvd|terrace)\b\.?"
    r"|\b[\w'-]*(?:straße|strasse|gasse|platz|weg)\s+\d+[a-z]?\b"
    r"|\b(?:rue|via|calle|avenida|rua|piazza|plaza)\s+(?:[\w'-]+\s+){1,4}?\d+[a-z]?\b",
    re.IGNORECASE,
)
_NUMBER_WORD = (
    r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|"
    r"sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|"
    r"thousand|double|triple)"
)
_NUMBER = re.compile(
    rf"\+?\d(?:[\d\s().,/:-]*\d)?|\b{_NUMBER_WORD}(?:[\s-]+{_NUMBER_WORD})*\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replaces what may name a person by placeholders. `contacts` are names, of any number of words."""

    contacts: frozenset[str] = frozenset()

    def redact(self, text: str) -> str:
        """Return `text` with placeholders: EMAIL, CALL_CONTACT, ADDRESS and NUMBER, in that order."""
        text = _EMAIL.sub("EMAIL", text)
        for name in sorted(self._names(), key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "CALL_CONTACT", text, flags=re.IGNORECASE)
        return _NUMBER.sub("NUMBER", _ADDRESS.sub("ADDRESS", text))

    def _names(self) -> set[str]:
        """Return each contact's full name and each of its words of two characters or more."""
        whole = {" ".join(name.split()) for name in self.contacts}
        return {name for name in whole | {word for each in whole for word in each.split()} if len(name) > 1}


def label(value: str, allowed: Collection[str], redactor: Redactor) -> str:
    """Return `value` if it is on the allow-list, its redacted form if that is, and else `other`.

    Labels are compared in their normal form (`fa_core.labels`), which is what an allow-list holds.
    So a recogniser's "call Ada Lovelace" is stored as "call CALL_CONTACT" where that label is allowed.
    """
    value = normal(value)
    if value in allowed:
        return value
    if len(value) > LONGEST_TEXT:
        return OTHER
    redacted = redactor.redact(value)
    return redacted if redacted in allowed else OTHER


class LogFilter(logging.Filter):
    """Lets through the templates of our own loggers, allowed labels and fixed reasons; nothing else."""

    def __init__(self, ours: Iterable[str], allowed: Collection[str]) -> None:
        super().__init__()
        self._ours = tuple(ours)
        self._allowed = frozenset(allowed)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place and let it through."""
        if any(record.name == name or record.name.startswith(f"{name}.") for name in self._ours):
            args = record.args if isinstance(record.args, tuple) else ()
            shown = tuple(self._argument(each) for each in args)
            record.msg = str(record.msg).replace("%d", "%s") % shown if shown else str(record.msg)
        else:
            record.msg = "a message of another component was withheld"
        record.args = ()
        if record.exc_info and record.exc_info[0] is not None:
            record.msg += f" [{where(record.exc_info[0], record.exc_info[2])}]"
        record.exc_info = record.exc_text = record.stack_info = None
        return True

    def _argument(self, value: object) -> str:
        if isinstance(value, Enum):
            return str(value.value)
        return value if isinstance(value, str) and value in self._allowed else OTHER


def where(kind: type[BaseException], trace: TracebackType | None) -> str:
    """Return an exception's type and place in the code, without its text, which may hold anything."""
    frames = traceback.extract_tb(trace)
    place = f" at {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{kind.__module__}.{kind.__qualname__}{place}"


def guard_crashes(stream: TextIO) -> Callable[[], None]:
    """Make uncaught exceptions, in any thread, say only their type and place. Returns the way back."""
    before = sys.excepthook, threading.excepthook, sys.unraisablehook

    def say(kind: type[BaseException], trace: TracebackType | None) -> None:
        stream.write(f"stopped by {where(kind, trace)}\n")

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        say(args.exc_type, args.exc_traceback)

    def unraisable_hook(args: "sys.UnraisableHookArgs") -> None:
        say(args.exc_type, args.exc_traceback)

    sys.excepthook = lambda kind, value, trace: say(kind, trace)
    threading.excepthook = thread_hook
    sys.unraisablehook = unraisable_hook

    def restore() -> None:
        sys.excepthook, threading.excepthook, sys.unraisablehook = before

    return restore
