"""The Flower ClientApp: a relay of opaque bytes between the server and the devices behind this node.

A SuperNode runs app code that it is sent, so nothing private lives here: no store, no key, no consent.
Each part of a message goes to its device and the device's reply goes back; a device that declines, breaks
or is off leaves an empty part, and nothing else about it leaves the node. Where the devices are far away,
the whole message goes to a gateway on this machine, which forwards it.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from clients.device.interface import STAGES, Device, Stage
from clients.device.serve import SocketDevice
from clients.gateway import SHARE, collect, seconds
from fa_core.flower.transport import ClientApp, Message, client_app, read, reply
from fa_core.wire.bundle import Bundle

Devices = Mapping[int, Device]
"""The devices behind one node, by slot."""


def relay(devices: Callable[[Mapping[str, Any]], Devices]) -> ClientApp:
    """Return the ClientApp of nodes whose devices `devices(node configuration)` finds."""
    return client_app(
        lambda message, node_config: answer(devices(node_config), message, _end(message)), STAGES
    )


def answer(here: Devices, message: Message, end: float) -> Message:
    """Return the reply of the devices that are here.

    No device is asked beyond `end`, by the monotonic clock: where some hang, the replies of the others still
    come in time, and the node is free for the next round.
    """
    request = read(message)
    parts = dict.fromkeys(here, request.everyone) if request.everyone else request.parts
    stage = cast(Stage, request.stage)
    return reply(
        message,
        {
            slot: _ask(here, slot, stage, part) if time.monotonic() < end else b""
            for slot, part in parts.items()
        },
    )


def _end(message: Message) -> float:
    """Return until when devices may answer: the rest of the message's lifetime brings their replies back."""
    return time.monotonic() + SHARE * float(message.metadata.ttl)


def _ask(devices: Devices, slot: int, stage: Stage, request: bytes) -> bytes:
    try:
        return devices[slot].handle(stage, request)
    except Exception:  # noqa: BLE001 - why a device does not answer is for its owner alone
        return b""


def behind_socket(node_config: Mapping[str, Any], end: float = math.inf) -> Devices:
    """Return the devices that a device process serves: `socket` is its path, `devices` how many (1).

    None is waited for beyond `end`, by the monotonic clock.
    """
    socket = Path(str(node_config["socket"]))
    return {slot: SocketDevice(socket, slot, end) for slot in range(int(node_config.get("devices", 1)))}


def through_gateway(message: Message, node_config: Mapping[str, Any]) -> Message:
    """Return the reply of the devices of the gateway whose socket the node's configuration names."""
    request = read(message)
    within = seconds(node_config, float(message.metadata.ttl))
    asked = Bundle(request.release, request.node, request.stage, within, request.parts, request.everyone)
    return reply(message, collect(node_config, asked))


def _answer(message: Message, node_config: Mapping[str, Any]) -> Message:
    if "gateway" in node_config:
        return through_gateway(message, node_config)
    end = _end(message)
    return answer(behind_socket(node_config, end), message, end)


app = client_app(_answer, STAGES)
