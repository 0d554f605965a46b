"""A SuperNode that gives its SuperLink up is no process that lives on."""

import subprocess
import sys

import pytest

from tests.deployment.lab import ENVIRONMENT, GUARD

GIVING_UP = """
import threading
import flwr.supernode.cli
from fa_core.supernode import mortal_supernode

def giving_up():
    threading.Thread(target=threading.Event().wait).start()
    {end}

flwr.supernode.cli.flower_supernode = giving_up
mortal_supernode()
"""
"""Flower's SuperNode as it is: its thread for apps outlives it."""


@pytest.mark.parametrize(("end", "said"), [("return", ""), ("raise ValueError('no')", "ValueError: no")])
def test_its_process_ends_with_it(end: str, said: str) -> None:
    command = [sys.executable, "-c", GIVING_UP.format(end=end)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=GUARD, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
