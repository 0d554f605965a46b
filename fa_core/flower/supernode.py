"""Flower's SuperNode with two faults fixed, after which a node would be lost until an operator restarts it.

`python -m fa_core.flower.supernode` is Flower's own, with Flower's own arguments.

- Its process ends when it gives up. Flower's gives up its SuperLink when a TLS handshake takes too long (the
  SuperLink hangs, or the network is slow), and stays alive without it: a thread that waits for apps remains.
- It stays in step. Flower's takes a message, waits for *a* reply and sends it. A run that ends just when its
  message is taken leaves a reply that no loop waits for; from then on each reply would be the previous one,
  and that node would miss every round.
"""

import os
import sys
import traceback
from typing import Any

import fa_core.flower.transport  # noqa: F401 - it settles Flower's environment before Flower is imported


def run_supernode() -> None:
    """Run Flower's SuperNode. The process ends with 1 where it gives up, and at a signal as Flower's does."""
    from flwr.supernode.cli import flower_supernode

    keep_in_step()
    try:
        flower_supernode()
    except Exception:  # noqa: BLE001 - whatever it was, the process has to end
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def keep_in_step() -> None:
    """Have Flower's SuperNode send replies until that to the message it took last is among them."""
    from flwr.supernode import start_client_internal as flower

    pull, push, taken = flower._pull_and_store_message, flower._push_messages, ""

    def pull_one(*, receive: Any, **rest: Any) -> Any:
        def recorded() -> Any:
            nonlocal taken
            found = receive()
            taken = found[0].metadata.message_id if found else taken
            return found

        return pull(receive=recorded, **rest)

    def push_until_answered(*, state: Any, **rest: Any) -> None:
        recorder = _ReplyRecorder(state)
        while taken not in recorder.answered:
            push(state=recorder, **rest)

    flower._pull_and_store_message, flower._push_messages = pull_one, push_until_answered


class _ReplyRecorder:
    """A SuperNode's state that records which messages its outgoing replies answer."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.answered: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages_legacy(self, **wanted: Any) -> Any:
        """As the state's own."""
        found = self._state.get_messages_legacy(**wanted)
        self.answered.update(message.metadata.reply_to_message_id for message in found)
        return found


if __name__ == "__main__":
    run_supernode()
