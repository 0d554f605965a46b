"""Flower's SuperNode, whose process ends when it gives up.

`python -m fa_core.supernode` is Flower's own, with Flower's own arguments. That one gives its SuperLink up
when a TLS handshake takes too long (the SuperLink hangs, or the way to it is slow), and its process goes on
without: a thread that waits for apps keeps it alive, so nobody starts it again.
"""

import os
import sys
import traceback

import fa_core.transport  # noqa: F401 - it settles Flower's environment before Flower is imported


def mortal_supernode() -> None:
    """Run Flower's SuperNode. The process ends with 1 where it gives up, and at a signal as Flower has it."""
    from flwr.supernode.cli import flower_supernode

    try:
        flower_supernode()
    except Exception:  # noqa: BLE001 - whatever it was, the process has to end
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    mortal_supernode()
