"""A SuperNode that gives up its SuperLink ends, and one whose run ended early keeps replies in step."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal as flower

from fa_core.flower.supernode import keep_in_step
from tests.deployment.lab import ENVIRONMENT, GUARD

GIVING_UP = """
import threading
import flwr.supernode.cli
from fa_core.flower.supernode import run_supernode

def giving_up():
    threading.Thread(target=threading.Event().wait).start()
    {end}

flwr.supernode.cli.flower_supernode = giving_up
run_supernode()
"""
"""Flower's SuperNode: its thread for apps outlives it."""


@pytest.mark.parametrize(("end", "said"), [("return", ""), ("raise ValueError('no')", "ValueError: no")])
def test_the_process_ends_with_the_supernode(end: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVING_UP.format(end=end)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr


def message(number: str, answers: str = "") -> Any:
    metadata = SimpleNamespace(
        message_id=number, reply_to_message_id=answers, run_id=7, group_id="", message_type="query.join"
    )
    return SimpleNamespace(metadata=metadata)


class State:
    """A SuperNode's state: it knows no run, and has replies ready as its apps finish them."""

    def __init__(self, ready: list[list[Any]]) -> None:
        self.ready = ready

    def get_run(self, number: int) -> None:
        return None

    def get_messages_legacy(self, is_reply: bool) -> list[Any]:
        return self.ready.pop(0)

    def get_message_processing_duration(self, message_id: str) -> float:
        return 0.0

    def delete_messages(self, message_ids: list[str]) -> None:
        """Do nothing."""


def sent(state: State, taken: list[str]) -> list[str]:
    """Take messages whose run is over, then send what Flower would after the last of them."""
    replies: list[str] = []

    def over(number: int) -> None:
        raise RunNotRunningException

    for number in taken:
        flower._pull_and_store_message(
            state=state, object_store=None, node_config={}, get_run=over, get_fab=None, pull_object=None,
            receive=lambda number=number: (message(number), None),
            confirm_message_received=None, trusted_entities=None,
        )  # fmt: skip
    flower._push_messages(
        state=state,
        object_store=SimpleNamespace(get_object_tree=lambda _: None, delete=lambda _: None),
        send=lambda reply, *_: (replies.append(reply.metadata.message_id), (set(), ""))[1],
        push_object=None,
    )
    return replies


@pytest.mark.parametrize("fixed", [True, False])
def test_an_unexpected_reply_does_not_leave_a_node_one_reply_behind(
    fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control, Flower's own code, sends the reply to `new` only when the next message comes."""
    for name in ("_pull_and_store_message", "_push_messages"):
        monkeypatch.setattr(flower, name, getattr(flower, name))
    if fixed:
        keep_in_step()
    state = State([[message("late", "old")], [message("due", "new")]])
    assert sent(state, ["old", "new"]) == (["late", "due"] if fixed else ["late"])
