"""Runs a bench's main in the tests' process; its figures mean nothing in a tiny form, but all of it runs."""

import contextlib
import io
import sys
from types import ModuleType
from unittest.mock import patch


def run(bench: ModuleType, *arguments: str) -> tuple[int, str]:
    """Run a bench with arguments and return its exit code and what it printed.

    Most benches end with 1 where a figure is missed. That depends on the machine, so only those that count
    devices are held to 0.
    """
    printed = io.StringIO()
    with patch.object(sys, "argv", [bench.__name__, *arguments]), contextlib.redirect_stdout(printed):
        code: int | None = bench.main()
    return code or 0, printed.getvalue()
