"""The relay's client of a gateway: sends a stage's requests over a Unix socket and returns the replies."""

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fa_core.wire import bundle
from fa_core.wire.bundle import Bundle

SECONDS = 60.0
"""How long devices have for a stage, unless the node's configuration says otherwise (`seconds`)."""

SHARE = 0.75
"""The share of a message's lifetime that devices may use; the rest is for its transport through Flower."""

RETRY_SECONDS = 1.0

GRACE = 90.0
"""Seconds beyond the devices' own within which the gateway must have replied."""


def collect(node_config: Mapping[str, Any], asked: Bundle) -> dict[int, bytes]:
    """Return what the devices of the gateway at `gateway` (a socket's path) replied, by slot.

    A gateway that goes away is retried with the time that is left, and resumes the stage where it was. Raises
    OSError where it is not back in time, Unreadable where it refuses the request.
    """
    deadline = time.monotonic() + asked.seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return _ask(Path(str(node_config["gateway"])), replace(asked, seconds=max(left, 0.0)))
        except TimeoutError:
            raise
        except OSError:
            if left < RETRY_SECONDS:
                raise
            time.sleep(RETRY_SECONDS)


def _ask(path: Path, asked: Bundle) -> dict[int, bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(asked.seconds + GRACE)
        connection.connect(str(path))
        bundle.send(connection, bundle.encode(asked))
        parts, _ = bundle.decode_parts(bundle.receive(connection))
    return parts


def seconds(node_config: Mapping[str, Any], lifetime: float) -> float:
    """Return how long devices have for a stage whose message lives for `lifetime` seconds."""
    return min(float(node_config.get("seconds", SECONDS)), SHARE * lifetime)
