"""What the relay server does with a message of the stage `report`: the leader's end of a collection.

The message opens the collection at this gateway or brings it a newer invitation, says up to which serial the
leader has everything in its database, and takes away what came since. Nothing waits for devices.
"""

import logging
from dataclasses import dataclass

from fa_core.collection.task import Offer
from fa_core.errors import BadInput
from fa_core.gateway.counters import UPLOADS, Counters
from fa_core.gateway.uploads import KINDS, Invited, Uploads
from fa_core.trust import checkpoint
from fa_core.wire import invitation
from fa_core.wire.bundle import Bundle

ACK = 0
"""The part of a message that is the acknowledged serial, u64."""

_ACK_SIZE, _MOST_SIZE = 8, 1 << 62

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drain:
    """Takes such messages through the uploads. `most`: collections that may be kept at once."""

    uploads: Uploads
    most: int
    counters: Counters

    def hand_over(self, asked: Bundle) -> dict[int, bytes] | None:
        """Return what comes after the acknowledged serial, by serial; None for a message that is refused.

        Refused: an invitation that is none to a collection of the message's release, one collection too many,
        more acknowledged than was handed over.
        """
        try:
            invited = _invited(asked)
        except BadInput:
            return None
        ack = asked.parts.get(ACK, b"")
        if len(asked.parts) != 1 or len(ack) != _ACK_SIZE or not self.uploads.refresh(invited, self.most):
            return None
        handed = self.uploads.hand_over(invited.task, int.from_bytes(ack, "big"))
        if handed is None:
            return None
        if handed.items:
            counts = {"release": asked.release, "stage": asked.stage, "answered": len(handed.items)}
            logger.info("uploads were handed over", extra=counts)
        for kind, count in zip(KINDS, handed.kinds, strict=True):
            self.counters.add(UPLOADS, count, kind=kind, outcome="handed_over")
        return handed.items


def _invited(asked: Bundle) -> Invited:
    """Return the collection that a message asks for. Raises BadInput.

    Whether it is charged, logged and signed by a witness is for devices to check, which pin the keys.
    """
    found = invitation.decode(asked.everyone)
    task = Offer.parse(found.request).signed.task
    size = checkpoint.parse(found.checkpoint).size
    if not found.release == task.release == bytes.fromhex(asked.release) or size > _MOST_SIZE:
        raise BadInput("the message is of another release than its task")
    return Invited(task.id, int(task.closes.timestamp()), size, asked.everyone)
