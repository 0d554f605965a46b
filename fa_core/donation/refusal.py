"""Why a vault refuses, as a code from a closed list. A refusal repeats nothing of what was sent."""

from enum import StrEnum


class Refusal(StrEnum):
    """A code, which is all that a refusal's body holds."""

    MALFORMED = "malformed"
    UNKNOWN_REQUEST = "unknown_request"
    CLOSED = "closed"
    CONFLICT = "conflict"
    GONE = "gone"
    FULL = "full"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    TOO_OFTEN = "too_often"
    NO_SAMPLE = "no_sample"
    NOT_SIGNED = "not_signed"
    CLOCK = "clock"
    REPLAYED = "replayed"
    NOT_THIS_READ = "not_this_read"
    NOT_LOGGED = "not_logged"
    UNAVAILABLE = "unavailable"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return _SAYS[self][0]

    @property
    def words(self) -> str:
        """What it means, for whoever asked."""
        return _SAYS[self][1]


_SAYS: dict[Refusal, tuple[int, str]] = {
    Refusal.MALFORMED: (400, "it is not of the form that a vault takes"),
    Refusal.UNKNOWN_REQUEST: (403, "this vault does not serve this donation request"),
    Refusal.CLOSED: (403, "the donation request's window has not begun or is over"),
    Refusal.CONFLICT: (409, "the vault has other bytes under this sample's id"),
    Refusal.GONE: (410, "the sample was withdrawn, or its time is over"),
    Refusal.FULL: (507, "the vault is full"),
    Refusal.TOO_LARGE: (413, "it is larger than a sample may be"),
    Refusal.TOO_SLOW: (408, "it did not arrive in time"),
    Refusal.TOO_OFTEN: (429, "too many requests came from this address; wait a little"),
    Refusal.NO_SAMPLE: (404, "the vault has no such sample for this reviewer"),
    Refusal.NOT_SIGNED: (403, "the reviewer's signature does not hold for this vault"),
    Refusal.CLOCK: (403, "the reviewer's clock is more than five minutes from the vault's"),
    Refusal.REPLAYED: (409, "this very statement was answered before"),
    Refusal.NOT_THIS_READ: (409, "the read is not there, not released or over, or not this reviewer's turn"),
    Refusal.NOT_LOGGED: (425, "no cosigned checkpoint of the log covers this read yet; try later"),
    Refusal.UNAVAILABLE: (503, "the vault cannot write its log or its store now, so it hands out nothing"),
}  # fmt: skip


class RefusedByVault(Exception):
    """A vault refuses; `refusal` is the code."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
