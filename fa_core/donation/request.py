"""A donation request: what a voice team asks owners of an opt-in cohort to donate, and who may open it.

The enrolment authority, whose key devices pin, signs the whole request: the scope, the vault's key and both
reviewers' keys. Whoever is not in the cohort has no copy, so the request's hash also admits an upload to the
vault (`ticket` makes it unguessable): a donation names the request and no device.

    {"request": <canonical JSON of the request>, "signature": <128 hexadecimal digits>}
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.labels import wrong
from fa_core.trust import hpke
from fa_core.trust.strict import moment, text, whole

PURPOSE: Final = "debug"
"""The consent without which nothing is donated."""

LARGEST: Final = 64 * 1024
MOST_SAMPLES: Final = 1000
LONGEST_RETENTION: Final = 366
LONGEST_WINDOW: Final = timedelta(days=366)
TICKET_SIZE: Final = 16
_SIGNED: Final = b"unheard-donation-request-1\n"


@dataclass(frozen=True, slots=True)
class Reviewer:
    """One of the two who open a sample together.

    Attributes:
        opening: HPKE public key, 1,216 bytes (`fa_core.donation.keys`). signing: Ed25519, 32 bytes.
    """

    name: str
    opening: bytes
    signing: bytes

    def body(self) -> dict[str, str]:
        """Return the fields as JSON has them."""
        return {"name": self.name, "opening": self.opening.hex(), "signing": self.signing.hex()}

    @classmethod
    def read(cls, body: Any) -> Self:
        """Return the reviewer in a JSON object. Raises ValueError, KeyError or TypeError otherwise."""
        found = cls(text(body["name"]), bytes.fromhex(body["opening"]), bytes.fromhex(body["signing"]))
        if wrong(found.name) or (len(found.opening), len(found.signing)) != (hpke.PUBLIC_SIZE, 32):
            raise ValueError("not a reviewer")
        hpke.public_key(found.opening)
        return found


@dataclass(frozen=True, slots=True)
class DonationRequest:
    """The scope of donations, and where they go.

    Attributes:
        area: the product area, a label. first, end: samples are offered in [first, end), UTC, whole seconds.
        samples: of one device at most. retention_days: how long the vault keeps one at most.
        vault: HOST:PORT. vault_key: Ed25519 public key that signs the vault's statements, 32 bytes.
        ticket: 16 random bytes.
    """

    area: str
    first: datetime
    end: datetime
    samples: int
    retention_days: int
    vault: str
    vault_key: bytes
    reviewers: tuple[Reviewer, Reviewer]
    ticket: bytes

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return canonical(
            {
                "area": self.area,
                "first": int(self.first.timestamp()),
                "end": int(self.end.timestamp()),
                "purpose": PURPOSE,
                "samples": self.samples,
                "retention_days": self.retention_days,
                "vault": self.vault,
                "vault_key": self.vault_key.hex(),
                "reviewers": [each.body() for each in self.reviewers],
                "ticket": self.ticket.hex(),
            }
        )

    @property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes: the request's name."""
        return sha256(self.encode()).digest()

    @property
    def problem(self) -> str:
        """What is wrong with the scope or the keys, "" where nothing is."""
        one, other = self.reviewers
        if what := wrong(self.area):
            return f"the product area {what}"
        if not self.first < self.end <= self.first + LONGEST_WINDOW:
            return f"the window ends after it begins, and at most {LONGEST_WINDOW.days} days later"
        if not (0 < self.samples <= MOST_SAMPLES and 0 < self.retention_days <= LONGEST_RETENTION):
            return f"1 to {MOST_SAMPLES} samples are asked for, and kept for 1 to {LONGEST_RETENTION} days"
        host, _, port = self.vault.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or len(self.vault) > 300:
            return "the vault is HOST:PORT"
        if one.name == other.name or one.opening == other.opening or one.signing == other.signing:
            return "the two reviewers are two persons, with keys of their own"
        if (len(self.vault_key), len(self.ticket)) != (32, TICKET_SIZE):
            return "the vault's key has 32 bytes and the ticket 16"
        return ""

    def open_at(self, now: datetime) -> bool:
        """Return whether samples are offered at a moment."""
        return self.first <= now < self.end


def sign(request: DonationRequest, authority: Ed25519PrivateKey) -> bytes:
    """Return the file of a request, signed by the authority. Raises BadInput for one that is wrong."""
    if request.problem:
        raise BadInput(request.problem)
    document = request.encode()
    signature = authority.sign(_SIGNED + document).hex()
    return canonical({"request": document.decode(), "signature": signature}) + b"\n"


def read(data: bytes, authority: bytes) -> DonationRequest:
    """Return the request in a file. Raises BadInput where it is none, Refused where `authority` (Ed25519
    public key, 32 bytes) did not sign it."""
    try:
        if len(data) > LARGEST:
            raise ValueError("too long")
        body: Any = json.loads(data)
        document, signature = body["request"].encode(), bytes.fromhex(body["signature"])
        found = _decoded(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput("this is no donation request, as `fa vault request` writes it") from None
    try:
        Ed25519PublicKey.from_public_bytes(authority).verify(signature, _SIGNED + document)
    except (InvalidSignature, ValueError):
        raise Refused("the donation request is not signed by the enrolment authority") from None
    if found.problem:
        raise BadInput(f"the donation request is wrong: {found.problem}")
    return found


def _decoded(document: bytes) -> DonationRequest:
    body: Any = json.loads(document)
    one, other = (Reviewer.read(each) for each in body["reviewers"])
    found = DonationRequest(
        text(body["area"]),
        moment(body["first"]),
        moment(body["end"]),
        whole(body["samples"]),
        whole(body["retention_days"]),
        text(body["vault"]),
        bytes.fromhex(body["vault_key"]),
        (one, other),
        bytes.fromhex(body["ticket"]),
    )
    if found.encode() != document:
        raise ValueError("not canonical")
    return found
