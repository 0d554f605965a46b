"""YAML text to a tree that remembers where everything stood.

Only the part of YAML 1.2 that a person needs to write a plan: one document of mappings, sequences and
scalars. Anchors, aliases, tags, merge keys and directives are refused: they hide what is signed, and
an alias can grow a small file without end. Sizes are checked before work is done. Texts are read in Unicode's
composed form (NFC), so that a label is the same however it was typed.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn
from unicodedata import normalize

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from fa_core.labels import hidden
from fa_core.plan.problems import Position, Problems, show
from fa_core.plan.tree import MAX_BYTES, Mapping, Scalar, Sequence

MAX_DEPTH = 12
MAX_NODES = 20_000
MAX_SCALAR = 2_000


class _Stop(Exception):
    """Reading cannot go on; the reason is already among the problems."""


def read(data: bytes, problems: Problems) -> Scalar | Sequence | Mapping | None:
    """Return the tree of a YAML document, or None where there is none to return.

    Never raises for any bytes. Everything wrong is added to `problems`; a tree may come back beside
    problems, so that later checks can add theirs. Bounds: MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_SCALAR.
    """
    try:
        text = _decode(data, problems)
        root = _Reader(_events(text, problems), problems).document()
    except _Stop:
        return None
    if root is None:
        problems.add(Position(1, 1), "this file is empty", "a plan begins with `apiVersion: fa/v1`")
    return root


def _decode(data: bytes, problems: Problems) -> str:
    if len(data) > MAX_BYTES:
        problems.add(
            Position(1, 1), f"this file has {len(data):,} bytes", f"a plan has at most {MAX_BYTES:,}"
        )
        raise _Stop
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        found = f"byte 0x{data[error.start]:02x} is not UTF-8 text"
        problems.add(Position(line, column), found, "a plan is YAML text, saved as UTF-8")
        raise _Stop from None
    for number, line_text in enumerate(text.split("\n"), start=1):
        place = hidden(line_text.removesuffix("\r").replace("\t", " "))
        if place is not None:
            found = f"character U+{ord(line_text[place]):04X} is a control or an invisible mark"
            problems.add(Position(number, place + 1), found, "a plan is plain printable text: take it out")
            raise _Stop
    return text


def _events(text: str, problems: Problems) -> Iterator[Event]:
    """Yield ruamel's events, and turn its ways of saying "not YAML" into a problem and `_Stop`."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context_mark is not None and _is_noticed_late(error, text):
            mark = error.context_mark
        position = Position(1, 1) if mark is None else _position(mark)
        problems.add(position, *_in_words(error, text, position))
        raise _Stop from None
    except (YAMLError, ValueError, OverflowError) as error:
        problems.add(
            Position(1, 1), f"this is not YAML ({type(error).__name__})", "see the plans in eval_plans/"
        )
        raise _Stop from None


def _is_noticed_late(error: MarkedYAMLError, text: str) -> bool:
    """Say whether the parser went past the mistake, as far as the end, so that where it began says more."""
    at_end = error.problem_mark is None or error.problem_mark.index >= len(text.rstrip())
    return at_end or "could not find expected ':'" in str(error.problem)


def _in_words(error: MarkedYAMLError, text: str, position: Position) -> tuple[str, str]:
    lines = text.split("\n")
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    if "\t" in line[: position.column]:
        return "a tab stands where only spaces may", "indent with spaces"
    problem = " ".join(str(error.problem or error.context or "cannot be read").split())
    rights = {
        "mapping values are not allowed": "put a text that contains `: ` in quotes, or mend the indentation",
        "could not find expected ':'": "write `key: value`, one on each line, all keys equally indented",
        "expected <block end>": "indent all keys of one mapping equally",
        "expected ',' or": "close the bracket, or separate its values with commas",
        "found unexpected end of stream": "close the quotes",
        "cannot start any token": "put this value in quotes",
    }
    right = next(
        (words for start, words in rights.items() if start in problem), "see the plans in eval_plans/"
    )
    return f"this is not YAML: {problem}", right


def _position(mark: StreamMark) -> Position:
    return Position(mark.line + 1, mark.column + 1)


class _Reader:
    """Builds the tree from events, counting nodes and depth as it goes."""

    def __init__(self, events: Iterator[Event], problems: Problems) -> None:
        self._events = events
        self._problems = problems
        self._nodes = 0

    def document(self) -> Scalar | Sequence | Mapping | None:
        """Return the tree of the first document; a second one is a problem."""
        root: Scalar | Sequence | Mapping | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self._stop(event, "a second document starts here", "keep one plan in one file")
                if event.version is not None or event.tags:
                    self._stop(event, "a `%` directive", "take it out: a plan is YAML 1.2 as it is")
            elif isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent | AliasEvent):
                root = self._node(event, 1)
        return root

    def _node(self, event: Any, depth: int) -> Scalar | Sequence | Mapping:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES:,} values", "a plan is far smaller: split it")
        if depth > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} deep", "no place of a plan is so deep")
        if isinstance(event, AliasEvent):
            self._stop(
                event, f"an alias {show('*' + str(event.anchor))}", "write the value out where it is used"
            )
        if event.anchor is not None:
            self._stop(
                event, f"an anchor {show('&' + str(event.anchor))}", "write the value out where it is used"
            )
        if event.tag is not None:
            self._stop(event, f"a tag {show(str(event.tag))}", "take it out: a plan needs no tags")
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, depth)
        return self._mapping(event, depth)

    def _scalar(self, event: ScalarEvent) -> Scalar:
        position = _position(event.start_mark)
        text = normalize("NFC", str(event.value))
        if len(text) > MAX_SCALAR:
            found = f"a text of {len(text):,} characters"
            self._problems.add_unreadable(position, found, f"write at most {MAX_SCALAR:,}")
            text = text[:MAX_SCALAR]
        if (place := hidden(text.replace("\n", " "))) is not None:
            found = f"{show(text)} contains the control or invisible character U+{ord(text[place]):04X}"
            self._problems.add_unreadable(position, found, "take it out")
        return Scalar(position, text, plain=event.style is None)

    def _sequence(self, event: Event, depth: int) -> Sequence:
        position = _position(event.start_mark)
        items = []
        for inner in self._events:
            if isinstance(inner, SequenceEndEvent):
                break
            items.append(self._node(inner, depth + 1))
        return Sequence(position, tuple(items))

    def _mapping(self, event: Event, depth: int) -> Mapping:
        position = _position(event.start_mark)
        entries: list[tuple[Scalar, Scalar | Sequence | Mapping]] = []
        seen: dict[str, Position] = {}
        for inner in self._events:
            if isinstance(inner, MappingEndEvent):
                break
            key = self._node(inner, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                self._problems.add(
                    key.position, "a key that is itself a list or a mapping", "a key is a name"
                )
            elif key.plain and key.text == "<<":
                self._problems.add(key.position, "a merge key `<<`", "write the keys out where they are used")
            elif key.text in seen:
                found = f"{show(key.text)} is written twice (first at line {seen[key.text].line})"
                self._problems.add(key.position, found, "keep one of them")
            else:
                seen[key.text] = key.position
                if isinstance(value, Scalar) and value.plain and not value.text:
                    value = replace(value, position=key.position)
                entries.append((key, value))
        return Mapping(position, tuple(entries))

    def _stop(self, event: Event, found: str, right: str) -> NoReturn:
        self._problems.add(_position(event.start_mark), found, right)
        raise _Stop
