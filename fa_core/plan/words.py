"""Pydantic's errors in words for the author of a plan: what was found, and what would be right."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from fractions import Fraction
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fa_core.metrics.filters import exact_text
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import show, suggestion, usual_name

TextAt = Callable[[Loc], str | None]


def findings_of(error: ValidationError, loc: Loc, annotation: Any, text_at: TextAt) -> Iterator[Finding]:
    """Yield one finding for each thing wrong, at most one for a value.

    Args:
        error: raised by validating a value at `loc` as `annotation` (a model, or a type of them).
        text_at: gives a scalar as it was written.
    """
    blamed: set[Loc] = set()
    for details in error.errors(include_url=False):
        inner = details["loc"]
        full = loc + inner
        if details["type"] in {"missing", "extra_forbidden"}:
            yield _about_key(details, full, _model_at(annotation, inner[:-1]))
        elif full not in blamed:
            blamed.add(full)
            yield Finding(full, *(_about_grouping(full, details) or _about_value(details, text_at(full))))


def keys_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the keys that a model takes, as they are written, each with its sentence."""
    return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}


def _about_key(details: ErrorDetails, loc: Loc, model: type[BaseModel] | None) -> Finding:
    key = str(loc[-1])
    keys = keys_of(model) if model else {}
    if details["type"] == "missing":
        return Finding(loc[:-1], f"{show(key)} is missing", add_key(key, keys.get(key, "")), at_key=True)
    return Finding(loc, f"unknown key {show(key)}", suggestion(key, keys), at_key=True)


def add_key(key: str, sentence: str) -> str:
    """Return the advice to add a missing key, with what it says."""
    return f"add `{key}:`" + (f" ({sentence.rstrip('.')})" if sentence else "")


def _model_at(annotation: Any, loc: Loc) -> type[BaseModel] | None:
    """Return the model that stands at a path below an annotation, None where there is no single one."""
    for step in (None, *loc):
        if step is not None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = {
                field.alias or name: field.annotation for name, field in annotation.model_fields.items()
            }
            annotation = fields.get(str(step))
        while not isinstance(annotation, type) and get_args(annotation):
            inner = get_args(annotation)
            annotation = next(
                (a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)), inner[-1]
            )
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def what(value: object, text: str | None = None) -> str:
    """Return a value as a person sees it: "`2.1` is a number", "a list", "nothing is written here"."""
    if value is None:
        return "nothing is written here"
    if isinstance(value, Mapping):
        return "a mapping stands here"
    if isinstance(value, list | tuple):
        return "a list stands here"
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "a truth value"),
        (int, "a whole number"),
        (Fraction, "a number"),
        (date, "a date"),
        (str, "text"),
    )
    kind = next(name for type_, name in kinds if isinstance(value, type_))
    return f"{written(value, text)} is {kind}"


def written(value: object, text: str | None = None) -> str:
    """Return a scalar between back-quotes, as it was written where that is known."""
    if text is not None:
        return show(text)
    if isinstance(value, Fraction):
        return show(exact_text(value))
    return show(str(value).lower() if isinstance(value, bool) else str(value))


def _about_grouping(loc: Loc, details: ErrorDetails) -> tuple[str, str] | None:
    """Return what is wrong with a list of groupings that is no list of lists, None for any other value."""
    value = details["input"]
    if loc[-1:] == ("group_by",) and details["type"] == "too_short":
        right = "write `[[]]` for everyone together, or `[[accent]]` for a segment"
        return "no grouping is written here", right
    if loc[-1:] == ("group_by",) and isinstance(value, str):
        return what(value), f"write {show(f'[[{value}]]')}: a list of groupings, each a list of segments"
    if loc[-2:-1] == ("group_by",) and isinstance(value, str):
        return what(value), f"write {show(f'[[{value}]]')}: each grouping is itself a list of segments"
    return None


def _about_value(details: ErrorDetails, text: str | None) -> tuple[str, str]:
    value, context, kind = details["input"], details.get("ctx", {}), details["type"]
    shown = what(value, text)
    if kind == "string_type":
        scalar = isinstance(value, bool | int | Fraction | date)
        return shown, f'write "{text or value}" in quotes' if scalar else "write a text"
    if kind == "string_pattern_mismatch":
        right = "write a small letter, then small letters, digits, `_` or `-`, 48 at most"
        usual = usual_name(str(value))
        return f"{written(value, text)} is no name", f"did you mean {show(usual)}?" if usual else right
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{written(value, text)} is not known here", suggestion(str(value), names)
    if kind == "value_error":
        return _about_own_error(str(context.get("error", "")), value, text)
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"{written(value, text)} is out of range", f"write {words} {_plain(context[key])}"
    if kind in _LENGTHS:
        return _about_length(_LENGTHS[kind], context, value, text)
    return shown, _WANTED.get(kind, "write what the plans in eval_plans/ write here")


_WANTED = {
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "bool_type": "write true or false",
    "list_type": "write a list, as [a, b]",
    "tuple_type": "write a list, as [a, b]",
    "dict_type": "write a mapping of `key: value` lines",
    "mapping_type": "write a mapping of `key: value` lines",
    "model_type": "write a mapping of `key: value` lines",
    "model_attributes_type": "write a mapping of `key: value` lines",
}
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_LENGTHS = {
    "string_too_short": ("at least", "min_length"),
    "string_too_long": ("at most", "max_length"),
    "too_short": ("at least", "min_length"),
    "too_long": ("at most", "max_length"),
}


def _about_length(
    limit: tuple[str, str], context: Mapping[str, Any], value: object, text: str | None
) -> tuple[str, str]:
    words, key = limit
    noun = "characters" if isinstance(value, str) else "entries"
    size = len(value) if isinstance(value, str | list | tuple | Mapping) else 0
    found = (
        f"{written(value, text)} has {size} {noun}" if isinstance(value, str) else f"{size} {noun} stand here"
    )
    right = "write something" if context[key] == 1 else f"write {words} {context[key]} {noun}"
    return (found if size else "this is empty"), right


def _number_meant(value: object) -> str | None:
    """Return what to write for a percentage, or for a number with a decimal comma; None for anything else."""
    if not isinstance(value, str):
        return None
    match = re.fullmatch(r"([-+]?\d{1,9})(?:[.,](\d{1,9}))?\s*(%?)", value, re.ASCII)
    if match is None:
        return None
    number = Fraction(f"{match[1]}.{match[2] or 0}")
    if match[3]:
        return f"write {exact_text(number / 100)}: a share, not a percentage"
    return f"write {exact_text(number)}: a point separates the decimals"


def _plain(value: object) -> str:
    return exact_text(value) if isinstance(value, Fraction) else str(value)


def _about_own_error(message: str, value: object, text: str | None) -> tuple[str, str]:
    """Our own validators say "expected …", or what is wrong and after a semicolon what would be right."""
    if message.startswith("expected "):
        return what(value, text), _number_meant(value) or (
            f"write {message.removeprefix('expected ').partition(', found')[0]}"
        )
    found, _, right = message.partition("; ")
    return found, right or "write what the plans in eval_plans/ write here"
