"""Flower sends no telemetry, and no other module of ours imports it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest

from clients.app import relay
from fa_core.errors import RoundFailed
from fa_core.flower import transport
from fa_core.flower.transport import LocalGrid, Message, NodeMessage, RecordDict, push

ROOT = Path(__file__).parents[2]


def test_few_modules_import_flower() -> None:
    files = [file for room in ("fa_core", "clients") for file in (ROOT / room).rglob("*.py")]
    touching = {file.name for file in files if re.search(r"^\s*(import|from) flwr", file.read_text(), re.M)}
    assert touching == {"transport.py", "superlink.py", "supernode.py"}


def test_flowers_telemetry_is_off_before_it_is_imported() -> None:
    script = (
        "import fa_core.flower.transport, os\n"
        "from flwr.supercore import telemetry\n"
        "print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ['FLWR_DISABLE_UPDATE_CHECK'],"
        " os.environ['FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION'])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLWR")}
    found = subprocess.run(
        [sys.executable, "-c", script], env=clean, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["0", "1", "1"]


def test_a_local_grid_answers_flowers_own_send_and_receive() -> None:
    grid = LocalGrid(relay(lambda config: {}), 3)
    messages = [Message(RecordDict(), node, "query.join", group_id="ab") for node in (1, 2, 9)]
    replies = grid.send_and_receive(messages, timeout=60.0)
    assert sorted(reply.metadata.src_node_id for reply in replies) == [1, 2, 9]
    assert all(reply.has_error() and reply.error.reason == "unanswered" for reply in replies)


class Failing(LocalGrid):
    """A SuperLink that answers with HTTP 500 so many times."""

    def __init__(self, times: int) -> None:
        super().__init__(relay(lambda config: {}), 1)
        self.left = times

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.left -= 1
        if self.left >= 0:
            request = httpx.Request("POST", "https://superlink/push")
            raise httpx.HTTPStatusError("no", request=request, response=httpx.Response(500))
        return super().push_messages(messages)


def test_a_failing_superlink_is_retried_and_finally_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "PAUSE", 0.0)
    outgoing = NodeMessage(1, "join", "ab", {}, b"hello")
    assert push(Failing(transport.FAILURES - 1), outgoing, 60.0)
    with pytest.raises(RoundFailed, match=r"failed 10 times in a row \(HTTP 500\)"):
        push(Failing(transport.FAILURES), outgoing, 60.0)
