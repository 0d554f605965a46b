"""What an unquoted scalar means: text, an exact number, a truth value, a date, or nothing.

The reading is YAML 1.2's, with two departures. `1e-8` is a number (YAML 1.1 readers take it for text).
And whatever YAML 1.1 and 1.2 readers take differently (`no`, `010`, `1_000`, `1:30`) is refused, with
what to write: a plan must mean the same to every reader, a person included. Numbers never pass
through a float: `0.1` is one tenth.
"""

import re
from datetime import date
from fractions import Fraction

from fa_core.plan.problems import Problems, show
from fa_core.plan.tree import Mapping, Scalar, Sequence
from fa_core.plan.words import what

Value = str | int | Fraction | bool | date | None

MAX_DIGITS = 18
"""Digits before, and after, the decimal point. Every count fits; no exponent can fill the memory."""

_NUMBER = re.compile(r"([-+]?)(\d+\.?\d*|\.\d+)(?:[eE]([-+]?\d+))?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_ALMOST_TRUE = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_NOTHING = {"", "~", "null", "Null", "NULL"}
_NOT_FINITE = re.compile(r"[-+]?\.?(inf|infinity|nan)", re.IGNORECASE)
_SEPARATED = re.compile(r"[-+]?\d[\d,_]*[,_][\d,_]*(\.\d*)?", re.ASCII)
_ALMOST_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})([Tt ].*)?", re.ASCII)
_READ_DIFFERENTLY = (
    (
        re.compile(r"[-+]?0x[0-9a-fA-F_]+|[-+]?0o?[0-7_]+|[-+]?0b[01_]+"),
        "a hexadecimal, octal or binary number",
    ),
    (_SEPARATED, "a number with separators"),
    (re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?", re.ASCII), "a number to base 60 for some YAML readers"),
    (_ALMOST_DATE, "a date that does not exist, or a date with a time"),
)


def value_of(scalar: Scalar, problems: Problems) -> Value:
    """Return the value of a scalar: quoted, its text; unreadable, its text too, with a problem added."""
    if not scalar.plain:
        return scalar.text
    text = scalar.text
    if text in _NOTHING:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if text.lower() in _ALMOST_TRUE:
        right = f'write "{text}" in quotes for the text, or {_ALMOST_TRUE[text.lower()]} for the truth value'
        problems.add_unreadable(
            scalar.position, f"{show(text)} without quotes is a truth value for some YAML readers", right
        )
        return text
    if _NOT_FINITE.fullmatch(text):
        problems.add_unreadable(
            scalar.position, f"{show(text)} is not a finite number", "write a number in digits"
        )
        return text
    if _DATE.fullmatch(text) and (day := _date(text)) is not None:
        return day
    match = _NUMBER.fullmatch(text)
    if match and not re.match(r"[-+]?0\d", text):
        return _number(scalar, match, problems)
    for pattern, kind in _READ_DIFFERENTLY:
        if pattern.fullmatch(text):
            problems.add_unreadable(scalar.position, f"{show(text)} without quotes is {kind}", _right(text))
            break
    return text


def _right(text: str) -> str:
    """Return what to write in place of a scalar that YAML readers take differently."""
    if (almost := _ALMOST_DATE.fullmatch(text)) is not None:
        year, month, day, _ = almost.groups()
        exists = _date(f"{year}-{month:0>2}-{day:0>2}")
        return "write a date that exists, such as 2027-03-31" if exists is None else f"write {exists}"
    if re.fullmatch(r"[-+]?\d+,\d{1,2}", text, re.ASCII):
        return f"write {text.replace(',', '.')}: a point separates the decimals"
    if _SEPARATED.fullmatch(text):
        return f"write {re.sub('[,_]', '', text)}, without separators"
    return f'write a number in plain decimal digits, or "{text[:40]}" in quotes for the text'


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _number(scalar: Scalar, match: re.Match[str], problems: Problems) -> Value:
    sign, digits, exponent = match.group(1), match.group(2), match.group(3)
    whole, _, part = digits.partition(".")
    power = int(exponent) if exponent and len(exponent) <= 4 else 0
    too_long = (exponent is not None and len(exponent) > 4) or (
        len(whole.lstrip("0")) + power > MAX_DIGITS or len(part) - power > MAX_DIGITS
    )
    if too_long:
        right = f"write at most {MAX_DIGITS} digits before and {MAX_DIGITS} after the point"
        problems.add_unreadable(scalar.position, f"{show(scalar.text)} is out of range", right)
        return 0
    if exponent is None and "." not in digits:
        return int(sign + digits)
    return Fraction(f"{sign}{whole or '0'}.{part or '0'}e{power}")


def tree_of(
    node: Scalar | Sequence | Mapping, problems: Problems
) -> "Value | list[object] | dict[str, object]":
    """Return a node as dict, list, str, int, Fraction, bool, date or None, without its bad keys."""
    if isinstance(node, Scalar):
        return value_of(node, problems)
    if isinstance(node, Sequence):
        return [tree_of(item, problems) for item in node.items]
    return {key.text: tree_of(value, problems) for key, value in node.entries if _is_name(key, problems)}


def _is_name(key: Scalar, problems: Problems) -> bool:
    if isinstance(value := value_of(key, problems), str):
        return key.position not in problems.unreadable
    right = "a key is a name: a letter, then letters, digits, `_` or `-`"
    problems.add_unreadable(key.position, f"as a key, {what(value, key.text)}", right)
    return False
