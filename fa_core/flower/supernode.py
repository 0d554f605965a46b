"""Flower's SuperNode, mended in two places where one that had trouble would be lost until somebody looks.

`python -m fa_core.flower.supernode` is Flower's own, with Flower's own arguments.

- Its process ends when it gives up. Flower's gives its SuperLink up when a TLS handshake takes too long (it
  hangs, or the way to it is slow), and goes on without: a thread that waits for apps keeps it alive.
- It stays in step. Flower's takes a message, waits for *a* reply and sends it. A run that ends just when its
  message is taken leaves a reply that nobody waits for; from then on each reply would be the one before it,
  and that node would miss every round.
"""

import os
import sys
import traceback
from typing import Any

import fa_core.flower.transport  # noqa: F401 - it settles Flower's environment before Flower is imported


def mended_supernode() -> None:
    """Run Flower's SuperNode. The process ends with 1 where it gives up, and at a signal as Flower has it."""
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
        def noted() -> Any:
            nonlocal taken
            found = receive()
            taken = found[0].metadata.message_id if found else taken
            return found

        return pull(receive=noted, **rest)

    def push_until_answered(*, state: Any, **rest: Any) -> None:
        noting = _Noting(state)
        while taken not in noting.answered:
            push(state=noting, **rest)

    flower._pull_and_store_message, flower._push_messages = pull_one, push_until_answered


class _Noting:
    """A SuperNode's state that notes which messages the replies it gives out answer."""

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
    mended_supernode()
