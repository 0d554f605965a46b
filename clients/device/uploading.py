"""A device's part in collections of two aggregators, through a gateway: it uploads once and is gone.

It runs beside `clients.device.remote.attend`, over a connection of its own: it waits for no other device.
"""

import logging
import threading
from secrets import SystemRandom
from typing import Protocol

from clients.device.interface import Declined, Device
from clients.device.remote import Line, NotAdmitted, Unreachable

EVERY_SECONDS = 15 * 60.0
"""How often a device looks for collections; half as often or half as often again, at random."""

logger = logging.getLogger(__name__)


class Uploader(Device, Protocol):
    """A device that takes part in collections."""

    def withdrawals(self) -> list[tuple[bytes, bytes]]:
        """Return (task, statement) for each report that the owner took back and whose window is not over."""
        ...


def upload(device: Uploader, gateway: Line, stopped: threading.Event) -> None:
    """Take part in collections until stopped: first at a random moment, so that devices do not come at once.

    What the gateway took is not sent again, unless this process restarts, and then it changes nothing. A
    device that declines is asked again at each turn: it may be idle by then, or its owner have consented.
    """
    chance, sent = SystemRandom(), set[bytes]()
    away = EVERY_SECONDS * chance.random()
    while not stopped.wait(away):
        try:
            _turn(device, gateway, sent, stopped)
        except NotAdmitted:
            logger.warning("the gateway does not admit this device")
        except Unreachable:
            logger.info("the gateway cannot be reached")
        except Exception:
            logger.exception("a defect while uploading")
        gateway.hang_up()
        away = EVERY_SECONDS * (0.5 + chance.random())


def _turn(device: Uploader, gateway: Line, sent: set[bytes], stopped: threading.Event) -> None:
    """Send what the owner took back, then a report for each open collection. `sent` has what needs no more.

    It holds tasks, for their reports, and statements.
    """
    for task, statement in device.withdrawals():
        if statement not in sent and gateway.upload(task, statement):
            sent.add(statement)
    for task in gateway.collections():
        if task in sent or stopped.is_set():
            continue
        body = _report(device, gateway.collection(task))
        if body is not None and gateway.upload(task, body):
            sent.add(task)


def _report(device: Device, invitation: bytes | None) -> bytes | None:
    """Return what the device sends for an invitation, None where that is nothing."""
    if invitation is None:
        return None
    try:
        return device.handle("report", invitation)
    except Declined as declined:
        logger.info("declined at %s: %s", "report", declined.reason)
    except Exception:
        logger.exception("a defect at %s", "report")
    return None
