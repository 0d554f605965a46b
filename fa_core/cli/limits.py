"""The limits of a population's budgets as options: of `fa enrol population` and `fa ledger declare`."""

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Annotated

import typer

from fa_core.errors import BadInput
from fa_core.privacy.ledger import BUDGETS, UNITS, show
from fa_core.privacy.ledger_rows import Declaration

Limit = Annotated[str | None, typer.Option(help="Its limit, an exact number such as 0.5 or 1/2.")]


class Accounting(StrEnum):
    """The two kinds of ledger."""

    zcdp = "zcdp"
    pure = "pure"


def limits(given: Mapping[str, str | None]) -> dict[str, Fraction]:
    """Return the limits that were given, by budget. Raises BadInput for what is no exact number."""
    return {name: _limit(name, text) for name, text in given.items() if text is not None}


def budgets_text(declared: Declaration) -> str:
    """Return a population's budgets in one line."""
    each = ", ".join(f"{name} {show(declared.policy.limit(name))}" for name in BUDGETS)
    return f"{declared.population}: {UNITS[declared.currency]} {each}"


def _limit(name: str, text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"--{name} {text}: an exact number is expected, such as 0.5 or 1/2") from None
