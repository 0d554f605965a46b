"""The relay's end of a gateway: a letter goes in whole over a Unix socket, and its replies come out."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fa_core import bundle
from fa_core.bundle import Bundle

SECONDS = 60.0
"""How long devices have for a stage, unless the node's configuration says otherwise (`seconds`)."""

SHARE = 0.75
"""The part of a message's life that devices may use; the rest is for its ways through Flower."""

GRACE = 90.0
"""Seconds beyond the devices' own in which the gateway must have spoken."""


def collect(node_config: Mapping[str, Any], bundle_of: Bundle) -> dict[int, bytes]:
    """Return what the devices of the gateway at `gateway` (a socket's path) replied, by slot.

    Raises OSError or Unreadable where the gateway is not there or does not take the letter.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(bundle_of.seconds + GRACE)
        connection.connect(str(Path(str(node_config["gateway"]))))
        bundle.send(connection, bundle.encode(bundle_of))
        parts, _ = bundle.decode_parts(bundle.receive(connection))
    return parts


def seconds(node_config: Mapping[str, Any], lifetime: float) -> float:
    """Return how long devices have for a stage whose message lives for `lifetime` seconds."""
    return min(float(node_config.get("seconds", SECONDS)), SHARE * lifetime)
