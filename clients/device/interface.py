"""The interface between a relay and a device: seven stages, bytes in, bytes out, and one way to decline.

The Flower ClientApp runs code that it is sent, so it holds nothing: for each `query.<stage>` message it
hands the request to a `Device` and sends back what it gets. In the local engine the device is an object
of the same process, in a deployment it is `clients.device.serve.SocketDevice`, at the other end of a
Unix socket.

Why a device declines is for its owner. In a deployment no part of the reason crosses the interface: to the
relay, and so to the server, declining looks like silence.
"""

from enum import StrEnum
from typing import Literal, Protocol, get_args

Stage = Literal["join", "shares", "confirm", "masked", "unmask", "dispute", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Reason(StrEnum):
    """Why a device declined, in fixed words. For the owner's journal, never for the server."""

    MALFORMED = "the request is not one that this version understands"
    SIGNATURE = "the plan is not signed by a key that this device trusts"
    REVOKED = "the plan is signed by a key that was revoked"
    NOT_LOGGED = "the plan is not shown to be in the transparency log"
    NOT_CHARGED = "the release is not shown to be charged to this device's population"
    LOG_FORKED = "the transparency log does not agree with what this device saw before"
    COLLECTION = "the collection is not one that this device's helper and witness have opened for it now"
    SUM = "the plan's sum is not formed in the way in which it was asked for"
    CLOCK = "the device's clock and the witness's disagree"
    EXPIRED = "the plan has expired"
    REVISION = "a newer revision of the plan was seen before"
    WINDOW = "this window was already answered, or is not one that can be asked about now"
    CONSENT = "the owner has not consented to this purpose"
    COST = "the plan's rho does not imply the epsilon and delta that it states"
    LIMITS = "the plan asks for more than this device's policy allows"
    CONDITIONS = "network, power or idleness are not as required, or not known"
    QUIET_HOURS = "these are quiet hours"
    SPEAKING = "somebody is speaking to the device, or that is not known"
    DAILY_LIMIT = "the day's plans or minutes are used up"
    TRAINING_LIMIT = "the device took part in as many training plans this week as its policy allows"
    SETTLING = "the store is too new to take part"
    ORDER = "the request does not belong to a round that this device is in"
    PROTOCOL = "the aggregation protocol was not kept"
    STORE = "the device's store could not be read or written"


class Declined(Exception):
    """The device does not answer this request. Carries a fixed reason and never a value."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Device(Protocol):
    """One device, as a relay sees it."""

    def handle(self, stage: Stage, request: bytes) -> bytes:
        """Return the reply to `request` at `stage`.

        A request repeated byte for byte gets the same reply byte for byte; at `report`, so does every request
        about the same task, until the owner takes the report back: from then on the reply is the statement
        that does (`fa_core.collection.report.withdraw`). A deployed device waits with its
        reply until a fixed delay has passed. Raises `Declined`; the relay then sends nothing but the fact,
        the same for every reason.
        """
        ...
