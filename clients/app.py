"""The Flower ClientApp: a relay of opaque bytes between the server and the devices behind this node.

A SuperNode runs app code that it is sent, so nothing private lives here: no store, no key, no consent.
Each part of a letter goes to its device and the device's reply goes back; a device that declines, breaks
or is off leaves an empty part, and nothing else about it leaves the node.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from clients.device.seam import STAGES, Device, Stage
from clients.device.serve import SocketDevice
from fa_core.transport import ClientApp, Message, client_app, read, reply

Devices = Mapping[int, Device]
"""The devices behind one node, by slot."""


def relay(devices: Callable[[Mapping[str, Any]], Devices]) -> ClientApp:
    """Return the ClientApp of nodes whose devices `devices(node configuration)` finds."""

    def answer(message: Message, node_config: Mapping[str, Any]) -> Message:
        letter = read(message)
        here = devices(node_config)
        parts = dict.fromkeys(here, letter.everyone) if letter.everyone else letter.parts
        stage = cast(Stage, letter.stage)
        return reply(message, {slot: _ask(here, slot, stage, part) for slot, part in parts.items()})

    return client_app(answer, STAGES)


def _ask(devices: Devices, slot: int, stage: Stage, request: bytes) -> bytes:
    try:
        return devices[slot].handle(stage, request)
    except Exception:  # noqa: BLE001 - why a device does not answer is for its owner alone
        return b""


def behind_socket(node_config: Mapping[str, Any]) -> Devices:
    """Return the devices that a device process serves: `socket` is its path, `devices` how many (1)."""
    socket = Path(str(node_config["socket"]))
    return {slot: SocketDevice(socket, slot) for slot in range(int(node_config.get("devices", 1)))}


app = relay(behind_socket)
