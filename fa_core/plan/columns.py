"""The checks of a plan against the tables: do the columns exist, and can a row ever hold such a value?"""

from collections.abc import Iterator, Mapping
from fractions import Fraction

from fa_core.metrics.filters import Condition, Filter, exact_text
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import listed, one_of, show, suggestion
from fa_core.plan.schema import label_text
from fa_core.tables import FACTS as OF_DEVICES
from fa_core.tables import LARGEST, SOURCES, Column, event_columns

Value = str | bool | int


FACTS: dict[str, Column] = dict(OF_DEVICES)
"""Facts of the device as a filter sees them: columns that are the same in all its rows."""


def columns_anywhere() -> dict[str, Column]:
    """Return every column of every table by name. A name means the same type wherever it stands."""
    return {name: column for source in SOURCES for name, column in event_columns(source).items()}


def sources_with(column: str) -> tuple[str, ...]:
    """Return the tables that have a column."""
    return tuple(source for source in SOURCES if column in event_columns(source))


def missing_column(name: str, source: str, loc: Loc, *, at_key: bool = False) -> Finding:
    """Return the finding that a table lacks a column, with where it is or which name was meant."""
    columns = event_columns(source)
    found = f"{show(source)} has no column {show(name)}"
    if name == "time":
        return Finding(
            loc, found, "`window` says how far back events count, and `hour` is the hour of day", at_key
        )
    elsewhere = sources_with(name)
    right = f"it is a column of {listed(elsewhere)}" if elsewhere else suggestion(name, {**columns, **FACTS})
    return Finding(loc, found, right, at_key)


def check_filter(where: Filter, source: str, loc: Loc) -> Iterator[Finding]:
    """Yield what is wrong with a filter over a table: unknown columns, values or bounds that no row has."""
    columns = {**event_columns(source), **FACTS}
    for name, condition in where.items():
        at = (*loc, name)
        if name in columns:
            yield from _condition(condition, columns[name], name, at)
        else:
            yield missing_column(name, source, at, at_key=True)


def check_value(value: Value, column: Column, name: str, loc: Loc) -> Iterator[Finding]:
    """Yield what is wrong with a value that rows of a column are compared with."""
    shown = show(label_text(value))
    if column.type == "label":
        if not isinstance(value, str):
            right = f'write "{label_text(value)}" in quotes'
            yield Finding(loc, f"{show(name)} holds text, and {shown} without quotes is not", right)
        elif column.domain is not None and value not in column.domain:
            yield Finding(loc, f"{show(name)} is never {shown}", suggestion(value, column.domain))
    elif column.type == "boolean":
        if not isinstance(value, bool):
            yield Finding(
                loc, f"{show(name)} is true or false, never {shown}", "write true or false, without quotes"
            )
    elif isinstance(value, bool | str):
        yield Finding(loc, f"{show(name)} is a number, never {shown}", "write a number, without quotes")
    else:
        yield from _inside(Fraction(value), column, name, loc)


def limits(column: Column) -> tuple[Fraction | None, Fraction | None]:
    """Return the inclusive bounds of a column, exactly, None where there is none."""
    low = None if column.low is None else Fraction(str(column.low))
    high = None if column.high is None else Fraction(str(column.high))
    return low, high


def range_text(column: Column) -> str:
    """Return the bounds of a column for a person: "from 0 to 1"."""
    low, high = limits(column)
    ends = [f"from {exact_text(low)}"] if low is not None else []
    ends += [f"to {exact_text(high)}"] if high is not None else []
    return " ".join(ends) or "anywhere"


def _inside(value: Fraction, column: Column, name: str, loc: Loc) -> Iterator[Finding]:
    if abs(value) > LARGEST:
        yield Finding(loc, f"{show(name)} is never so far from 0", f"write at most {LARGEST:,}")
        return
    low, high = limits(column)
    if (low is not None and value < low) or (high is not None and value > high):
        found = f"{show(name)} is never {exact_text(value)}"
        yield Finding(loc, found, f"it lies {range_text(column)}")


def _condition(condition: Condition, column: Column, name: str, loc: Loc) -> Iterator[Finding]:
    for values, key in ((condition.any_of, None), (condition.not_any_of, "not")):
        at = loc if key is None else (*loc, key)
        for index, value in enumerate(values or ()):
            yield from check_value(value, column, name, (*at, index))
    bounds = {key: getattr(condition, key) for key in ("lt", "le", "gt", "ge")}
    given: Mapping[str, Fraction] = {key: bound for key, bound in bounds.items() if bound is not None}
    if given and column.type not in {"number", "integer"}:
        kinds = one_of(column.domain) if column.domain else "name the values that count"
        yield Finding((*loc, next(iter(given))), f"{show(name)} has no order to compare by", kinds)
        return
    for key, bound in given.items():
        yield from _inside(bound, column, name, (*loc, key))
    lower = max((given[key] for key in ("gt", "ge") if key in given), default=None)
    upper = min((given[key] for key in ("lt", "le") if key in given), default=None)
    if (
        lower is not None
        and upper is not None
        and lower >= upper
        and not (lower == upper and set(given) == {"ge", "le"})
    ):
        found = f"nothing is above {exact_text(lower)} and below {exact_text(upper)}"
        yield Finding(loc, found, "write the lower bound below the upper one")
