"""The process behind the socket: it opens the devices of a hub, shuts every leak it can, and serves."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.consent import PURPOSES
from clients.device.contribution import Clock, StoredDevice
from clients.device.interface import STAGES
from clients.device.owner import DeviceHome
from clients.device.policy import utc_now
from clients.device.records import Records
from clients.device.redaction import LogFilter, guard_crashes
from clients.device.remote import attend, line
from clients.device.serve import Server, harden
from clients.device.uploading import upload

TIDY_SECONDS = 15 * 60.0

logger = logging.getLogger(__name__)

LOGGERS = ("clients", "fa_core")
"""Our own loggers; of others only the fact that they logged something is shown."""


Work = Callable[[threading.Event], None]
Beside = Callable[[Sequence[tuple[DeviceHome, StoredDevice]]], Work | None]
"""Given the devices of a process, returns what runs beside them until it is stopped, None for nothing."""


def connect(folder: Path, url: str, authority: Path | None, *beside: Beside) -> None:
    """Have the device in `folder` take part through the gateway at `url`, until SIGTERM or SIGINT.

    Raises BadInput or Refused before anything is asked where it cannot be opened or was not enrolled.
    """
    harden()
    guard_crashes(sys.stderr)
    quiet_log()
    home = DeviceHome.open(folder, utc_now())
    device = home.device(Clock(utc_now, time.monotonic))
    identity, stopped = Records(home.store).identity(), threading.Event()
    rounds, collections = line(url, identity, authority), line(url, identity, authority)

    def stop(*_: object) -> None:
        stopped.set()
        rounds.close()
        collections.close()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    uploading = threading.Thread(target=upload, args=(device, collections, stopped), daemon=True)
    uploading.start()
    _start([(home, device)], beside, stopped)
    try:
        attend(device, rounds, stopped)
        uploading.join()  # it may be writing a report into the store
    finally:
        home.store.close()


def serve(folders: Sequence[Path], *beside: Beside) -> None:
    """Serve the devices in `folders` (slot 0, 1, …) at the first one's socket, until SIGTERM or SIGINT.

    Raises BadInput or Refused before anything is served where one of them cannot be opened, is not
    enrolled, or the socket cannot be made.
    """
    harden()
    guard_crashes(sys.stderr)
    quiet_log()
    clock = Clock(utc_now, time.monotonic)
    homes = [DeviceHome.open(folder, utc_now()) for folder in folders]
    devices = {slot: home.device(clock) for slot, home in enumerate(homes)}
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server = Server(devices, homes[0].config.endpoint(folders[0]))
    _start(list(zip(homes, devices.values(), strict=True)), beside, stopped)
    try:
        server.run(stopped.is_set)
    finally:
        for home in homes:
            home.store.close()


def _start(
    devices: Sequence[tuple[DeviceHome, StoredDevice]], beside: Sequence[Beside], stopped: threading.Event
) -> None:
    """Start what runs beside the devices until `stopped`: retention, and what was asked for."""
    retention = partial(enforce_retention, [device for _, device in devices])
    for work in (retention, *(each(devices) for each in beside)):
        if work is not None:
            threading.Thread(target=work, args=(stopped,), daemon=True).start()


def enforce_retention(devices: Sequence[StoredDevice], stopped: threading.Event) -> None:
    """Delete what is past its time in every device's store, every quarter of an hour, until `stopped`."""
    while not stopped.wait(TIDY_SECONDS):
        for device in devices:
            try:
                device.tidy()
            except sqlcipher.Error:
                logger.warning("a store could not be tidied; it will be tried again")


def quiet_log() -> None:
    """Send the log to standard error, through the filter that lets no value pass."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(LogFilter(LOGGERS, {*STAGES, *PURPOSES}))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
