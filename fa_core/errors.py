"""The three ways a command may end that are not our defect, each with its exit code.

Anything else that reaches the top of a command is a defect of ours (exit code 1).
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class UnheardError(Exception):
    """Base of every error that is written for the person who reads it. `exit_code` is the command's."""

    exit_code: ClassVar[int] = 1


class BadInput(UnheardError):
    """The input is wrong; nothing was written. The text names the place and what would be right."""

    exit_code: ClassVar[int] = 2


class Refused(UnheardError):
    """A policy or a privacy budget says no; nothing was released. The text names which, and what is left."""

    exit_code: ClassVar[int] = 3


class RoundFailed(UnheardError):
    """A round ended without a release. The ledger keeps its charge."""

    exit_code: ClassVar[int] = 4


def problems(error: "ValidationError") -> list[str]:
    """Return what is wrong with settings, a line each: the key, and what is wrong with it."""
    lines = []
    for each in error.errors():
        key, what = ".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {what}" if key else what)
    return lines
