"""Filters and exact numbers, as a person writes them in a plan.

A filter is a mapping from field to condition, AND-ed: a value, a list (any of), or a mapping of
`lt`, `le`, `gt`, `ge`, `not`. There is no expression language, so a plan cannot carry code.
Numbers that change the meaning of a plan are kept exact (`fractions.Fraction`), never as floats, so
that every party derives the same bytes from the same plan.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

MAX_DIGITS: Final = 18
"""Longest exact number that a plan may write, in digits and in the size of its exponent."""


def exact(value: object) -> Fraction:
    """Return a number written as an int, a Decimal, a Fraction or text as an exact Fraction.

    A float is taken by its shortest text, as a person wrote it. Raises ValueError for anything
    that is not finite, is a boolean, or is longer than `MAX_DIGITS`.

    >>> exact("0.125"), exact(2)
    (Fraction(1, 8), Fraction(2, 1))
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal | Fraction):
        raise ValueError("expected a number")
    if isinstance(value, Fraction):
        return value
    text = str(value)
    if "_" in text or not text.isascii():
        raise ValueError("expected a number in plain decimal digits")
    try:
        decimal = Decimal(text.strip())
    except InvalidOperation as error:
        raise ValueError(f"expected a number, found {text[:40]!r}") from error
    if not decimal.is_finite():
        raise ValueError("expected a finite number")
    _, digits, exponent = decimal.as_tuple()
    if len(digits) > MAX_DIGITS or not isinstance(exponent, int) or abs(exponent) > 2 * MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits")
    return Fraction(decimal)


def exact_text(value: Fraction) -> str:
    """Return the one text of an exact number: a plain decimal where there is one, else `a/b`.

    >>> exact_text(Fraction(1, 8)), exact_text(Fraction(1, 3))
    ('0.125', '1/3')
    """
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    if denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = str(abs(value.numerator * 10**places // value.denominator)).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}")


def _parse_exact(value: object) -> Fraction:
    if isinstance(value, str) and "/" in value:
        top, _, bottom = value.partition("/")
        if not (top.lstrip("-").isdigit() and bottom.isdigit() and int(bottom) > 0):
            raise ValueError("expected a number")
        if max(len(top), len(bottom)) > MAX_DIGITS:
            raise ValueError(f"expected a number of at most {MAX_DIGITS} digits")
        return Fraction(int(top), int(bottom))
    return exact(value)


Exact = Annotated[
    Fraction,
    BeforeValidator(_parse_exact),
    PlainSerializer(exact_text, return_type=str),
    WithJsonSchema({"type": "number"}),
]
"""A pydantic field type: an exact rational, read from a number or its text, written as text."""

Scalar = StrictStr | StrictBool | StrictInt
"""One value in a filter. Equality with a number that is not whole means nothing: use a comparison."""


def _scalar(value: object) -> object:
    if isinstance(value, str | bool | int):
        return value
    number = exact(value)
    if number.denominator != 1:
        raise ValueError(f"{value} is not a whole number; compare with lt, le, gt or ge")
    return int(number)


class Condition(BaseModel):
    """What one field must satisfy; everything given is AND-ed.

    `any_of` is the short form (a value or a list). `not_any_of` is `not:`. The comparisons are for
    numbers only. A missing (null) value satisfies no condition, not even `not`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    any_of: tuple[Scalar, ...] | None = None
    not_any_of: tuple[Scalar, ...] | None = None
    lt: Exact | None = None
    le: Exact | None = None
    gt: Exact | None = None
    ge: Exact | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, Condition):
            return value
        if not isinstance(value, Mapping):
            return {"any_of": _scalars(value)}
        unknown = set(value) - {"lt", "le", "gt", "ge", "not", "any_of", "not_any_of"}
        if unknown:
            raise ValueError(
                f"unknown comparison {sorted(map(str, unknown))[0]!r}; use lt, le, gt, ge or not"
            )
        if not value:
            raise ValueError("an empty condition; give a value, a list, or one of lt, le, gt, ge, not")
        out: dict[str, Any] = {key: value[key] for key in ("lt", "le", "gt", "ge") if key in value}
        for key, name in (("not", "not_any_of"), ("any_of", "any_of"), ("not_any_of", "not_any_of")):
            if value.get(key) is not None:
                out[name] = _scalars(value[key])
        return out

    def values(self) -> tuple[Scalar, ...]:
        """Return every value that the condition names, for checks against a closed domain."""
        return (self.any_of or ()) + (self.not_any_of or ())


def _scalars(value: object) -> tuple[object, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not items:
        raise ValueError("an empty list matches nothing; name at least one value")
    if any(item is None or isinstance(item, Mapping | list | tuple) for item in items):
        raise ValueError("expected a value or a list of values")
    scalars = tuple(_scalar(item) for item in items)
    if len(set(scalars)) != len(scalars):
        raise ValueError("a value is named twice")
    return scalars


Filter = Mapping[str, Condition]
"""Field name to condition, AND-ed; the empty mapping matches every row."""
