"""Collections as the server asks a gateway for them, and what devices upload to them."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_bytes

from fa_core.collection.report import WITHDRAWAL_SIZE
from fa_core.collection.task import Offer, Task
from fa_core.trust import checkpoint
from fa_core.wire import invitation
from fa_core.wire.bundle import Bundle
from fa_core.wire.invitation import Invitation
from tests.collection.setup import LOG, TASK, signed_task

NODE = 2**63 + 5
CLOSES = int(time.time()) + 86_400


def task_of(release: int, closes: int = CLOSES) -> Task:
    """Return the task of a release, which is numbered."""
    end = datetime.fromtimestamp(closes, UTC)
    return replace(TASK, release=release.to_bytes(16, "big"), opens=end - timedelta(days=1), closes=end)


def invited(task: Task, size: int = 7) -> bytes:
    """Return an invitation to a collection, under a checkpoint of so many entries."""
    return invitation.encode(
        Invitation(
            plan=b"{}",
            key=bytes(32),
            signature=bytes(64),
            release=task.release,
            attempt=0,
            until=task.until,
            index=0,
            inclusion=(),
            checkpoint=checkpoint.sign(size, bytes(32), LOG),
            charge=b"",
            charge_index=0,
            charge_inclusion=(),
            budgets=b"",
            consistency={},
            request=Offer(signed_task(task), 1, ()).encode(),
        )
    )


def asked(task: Task, ack: int = 0, size: int = 7, parts: Mapping[int, bytes] | None = None) -> Bundle:
    """Return the message by which a relay opens a collection and fetches what came after `ack`."""
    acknowledged = {0: ack.to_bytes(8, "big")} if parts is None else parts
    return Bundle(task.release.hex(), NODE, "report", 60.0, acknowledged, invited(task, size))


def report_of(device: bytes, length: int = 400) -> bytes:
    """Return bytes that look like a report of a device (public key, 32 bytes)."""
    return token_bytes(16) + device + token_bytes(length - 48)


def withdrawal_of(device: bytes, task: Task) -> bytes:
    """Return bytes that look like a withdrawal."""
    return task.id + token_bytes(16) + device + token_bytes(WITHDRAWAL_SIZE - 80)
