"""What a reviewer does: ask for a sample, release one that the other asked for, read one that was released.

A share is unwrapped only after the vault has proved that the step before stands in the transparency log.
"""

import json
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from fa_core.canonical_json import canonical
from fa_core.donation.access import NONCE_SIZE, Access, Action, LoggedAccess
from fa_core.donation.exchange import post, trust_of
from fa_core.donation.keys import ReviewerKeys
from fa_core.donation.recording import Recording
from fa_core.donation.request import DonationRequest, Reviewer, read
from fa_core.donation.sealing import (
    ID_SIZE,
    READ_SIZE,
    hand_over,
    handed_over,
    open_sample,
    own_share,
)
from fa_core.errors import BadInput, Refused
from fa_core.federation.certificates import write_private
from fa_core.trust.enrolment import read_hex

KEY, PUBLIC, AUTHORITY, LOG, WITNESS, CA = (
    "reviewer.key", "reviewer.json", "authority.pub", "log.pub", "witness.pub", "ca.crt",
)  # fmt: skip

Post = Callable[[str, bytes], bytes]
"""Posts a body to a target of the vault and returns the answer."""


@dataclass(frozen=True, slots=True)
class Read:
    """A read by its sample (16 bytes) and number (8 bytes), as reviewers tell it each other."""

    sample: bytes
    number: bytes

    def __str__(self) -> str:
        return f"{self.sample.hex()}-{self.number.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `str` wrote. Raises BadInput for anything else."""
        sample, _, number = text.partition("-")
        try:
            found = cls(bytes.fromhex(sample), bytes.fromhex(number))
        except ValueError:
            found = cls(b"", b"")
        if (len(found.sample), len(found.number)) != (ID_SIZE, READ_SIZE):
            raise BadInput(f"{text}: a read is expected, as `fa vault ask` prints it")
        return found


def parse_sample(text: str) -> bytes:
    """Return a sample's id, 16 bytes. Raises BadInput for anything but 32 hexadecimal digits."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != ID_SIZE:
        raise BadInput(
            f"{text}: a sample's id is {2 * ID_SIZE} hexadecimal digits, as `fa vault list` has it"
        )
    return found


def make(folder: Path, name: str, pinned: dict[str, Path]) -> Reviewer:
    """Make a reviewer's folder: keys, the public halves, and copies of what is pinned.

    Args:
        pinned: files by their names in the folder: AUTHORITY, LOG and WITNESS, which hold public keys, and
            CA, where given.
    Raises BadInput where there is one, or what was given is wrong.
    """
    texts = {each: read_hex(path).hex() + "\n" for each, path in pinned.items() if each != CA}
    if CA in pinned:
        trust_of(pinned[CA])
        texts[CA] = pinned[CA].read_text("ascii")
    keys = ReviewerKeys.generate()
    public = Reviewer(name, keys.opening_public, keys.signing_public)
    public_from(canonical(public.body()))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys.write(folder / KEY)
    write_private(folder / PUBLIC, canonical(public.body()) + b"\n")
    for each, text in texts.items():
        (folder / each).write_text(text, encoding="ascii")
    return public


def public_from(data: bytes) -> Reviewer:
    """Return the reviewer whose public halves `make` wrote. Raises BadInput for anything else."""
    try:
        return Reviewer.read(json.loads(data))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(
            "a reviewer's name and public keys are expected, as `fa vault reviewer` makes them"
        ) from None


@dataclass(frozen=True, slots=True)
class Review:
    """A reviewer at one donation request."""

    keys: ReviewerKeys
    request: DonationRequest
    log: bytes
    witness: bytes
    post: Post
    clock: Callable[[], datetime]

    @property
    def place(self) -> int:
        """The reviewer's place in the request, 0 or 1. Raises Refused where it names two others."""
        for place, reviewer in enumerate(self.request.reviewers):
            if reviewer.signing == self.keys.signing_public:
                return place
        raise Refused("this donation request names two other reviewers")

    @property
    def other(self) -> Reviewer:
        """The other reviewer."""
        return self.request.reviewers[1 - self.place]

    def ask(self, sample: bytes) -> tuple[Read, int]:
        """Ask for a sample; return the read, and the place of its entry in the log."""
        read = Read(sample, secrets.token_bytes(READ_SIZE))
        return read, int(self._say("ask", read)["entry"])

    def asked(self, read: Read) -> tuple[Access, bytes]:
        """Return the other's ask, which stands in the log, and this reviewer's own share, encrypted for it.

        Raises Refused where the log does not hold the ask, or it is another's.
        """
        reply = self._say("open", read)
        return self._before(reply, "ask", read), _hex(reply, "wrap")

    def release(self, read: Read, wrap: bytes) -> None:
        """Hand over this reviewer's share to the other, for this read."""
        share = own_share(wrap, self.request, read.sample, self.place, self.keys)
        handed = hand_over(share, self.request, read.sample, read.number, 1 - self.place)
        self._say("release", read, handed)

    def read(self, read: Read) -> Recording:
        """Return a sample that the other released. Raises Refused where the log does not hold the release."""
        reply, place = self._say("read", read), self.place
        self._before(reply, "release", read)
        own = own_share(_hex(reply, "wrap"), self.request, read.sample, place, self.keys)
        theirs = handed_over(_hex(reply, "share"), self.request, read.sample, read.number, place, self.keys)
        shares = (own, theirs) if place == 0 else (theirs, own)
        return open_sample(_hex(reply, "sealed"), self.request, read.sample, shares)

    def _say(self, action: Action, read: Read, share: bytes = b"") -> dict[str, Any]:
        if self.request.reviewers[self.place].opening != self.keys.opening_public:
            raise Refused("this donation request has another key of this reviewer")
        at = self.clock().replace(microsecond=0)
        vault, nonce = self.request.vault_key, secrets.token_bytes(NONCE_SIZE)
        access = Access(action, read.sample, read.number, self.keys.signing_public, vault, at, nonce)
        said = {"entry": access.sign(self.keys.signing).decode()}
        if share:
            said["share"] = share.hex()
        try:
            reply: Any = json.loads(self.post("/v1/access", json.dumps(said).encode()))
            if not isinstance(reply, dict) or type(reply["entry"]) is not int:
                raise ValueError("not an answer")
        except (ValueError, KeyError, RecursionError):
            raise BadInput("the vault's answer is of another form") from None
        return reply

    def _before(self, reply: dict[str, Any], action: Action, read: Read) -> Access:
        """Return the statement that a reply proves, which must be the other's step before."""
        found = LoggedAccess.from_body(reply.get("proof")).verified(self.log, self.witness)
        expected = (action, read.sample, read.number, self.other.signing, self.request.vault_key)
        if (found.action, found.sample, found.read, found.reviewer, found.vault) != expected:
            raise Refused("nothing is opened: what the vault proves is another statement")
        return found


def open_review(folder: Path, request: Path) -> Review:
    """Open a reviewer's folder and a donation request. Raises BadInput or Refused for what is wrong."""
    try:
        found = read(request.read_bytes(), read_hex(folder / AUTHORITY))
    except OSError as error:
        raise BadInput(f"{request} cannot be read: {error.strerror}") from None
    ca = folder / CA
    trust: ssl.SSLContext = trust_of(ca if ca.exists() else None)
    return Review(
        ReviewerKeys.read(folder / KEY),
        found,
        read_hex(folder / LOG),
        read_hex(folder / WITNESS),
        lambda target, body: post(found.vault, trust, target, body),
        lambda: datetime.now(UTC),
    )


def _hex(reply: dict[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(reply[name])
    except (KeyError, TypeError, ValueError):
        raise BadInput("the vault's answer is of another form") from None
