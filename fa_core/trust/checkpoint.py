"""What the transparency log says and how it is signed: entries, checkpoints, the witness's cosignature.

Pure bytes, shared by who writes the log (`fa_core.store`), who cosigns it (the witness) and who believes it
(a device, a reviewer). The tree is RFC 6962's, in `fa_core.merkle`.

A checkpoint is a *signed note* as public logs use it (C2SP tlog-checkpoint and signed-note), and a witness's
line is a `cosignature/v1` (C2SP tlog-cosignature), so that the tools which exist for those can read it:

    unheard
    7
    <base64 of the root>

    — unheard <base64 of key id, signature>
    — unheard-witness <base64 of key id, seconds since 1970, signature>

The log's own signature says "this is my history"; the witness's says "and at that time it was an extension of
every history that I have signed before", so that no device can be shown a history of its own.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.merkle import HASH_SIZE, Proof, verify_consistency

Kind = Literal[
    "plan", "key", "ledger", "release", "failure", "model", "rollout", "decision", "manifest", "access",
    "task",
]  # fmt: skip

ORIGIN = "unheard"
WITNESS = "unheard-witness"
MAX_NOTE = 4096
# 9999-01-01 in seconds since 1970. A time off the wire that is later is no time: `datetime` ends a year on.
NO_CALENDAR = 253_370_764_800
_ENTRY = b"unheard-log-1\n"
_LOG_TYPE, _COSIGNATURE_TYPE = b"\x01", b"\x04"


def entry(kind: Kind, body: bytes) -> bytes:
    """Return the bytes of a log entry, whose leaf hash stands in the tree."""
    return _ENTRY + kind.encode() + b"\n" + body


def plan_entry(plan: bytes, key: bytes, signature: bytes) -> bytes:
    """Return the entry of a signed plan, which a device rebuilds from its invitation.

    Args:
        plan: canonical bytes of the plan (UTF-8 JSON).
        key: raw Ed25519 public key that signed them, 32 bytes.
        signature: its signature, 64 bytes.
    """
    body = {"key": key.hex(), "plan": plan.decode(), "signature": signature.hex()}
    return entry("plan", canonical(body))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log at one size. `text` is what is signed; `lines` are the signatures below it, by name."""

    size: int
    root: bytes
    text: bytes
    lines: tuple[tuple[str, bytes], ...]


def sign(size: int, root: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the note that says the first `size` entries have this root, signed by the log."""
    text = _text(size, root)
    identity = _key_id(ORIGIN, _LOG_TYPE, key.public_key())
    return text + b"\n" + _line(ORIGIN, identity + key.sign(text))


def cosign(
    note: bytes,
    previous: Checkpoint | None,
    proof: Proof,
    log_key: Ed25519PublicKey,
    witness_key: Ed25519PrivateKey,
    at: datetime,
) -> bytes:
    """Return the witness's signature line for `note`, to be put at its end.

    `previous` is the last checkpoint that this witness signed, None for its first; `proof` shows that
    the new one extends it. Raises Refused where it does not, or where the log did not sign it.
    """
    checkpoint = parse(note)
    if not signed_by_log(checkpoint, log_key):
        raise Refused("the witness does not cosign: the log's own signature does not hold")
    if previous is not None and not verify_consistency(
        previous.size, checkpoint.size, previous.root, checkpoint.root, proof
    ):
        raise Refused(
            f"the witness does not cosign: a log of {checkpoint.size} entries is no extension of the "
            f"{previous.size} that it signed before"
        )
    seconds = int(at.timestamp())
    identity = _key_id(WITNESS, _COSIGNATURE_TYPE, witness_key.public_key())
    signature = witness_key.sign(_cosigned(checkpoint.text, seconds))
    return _line(WITNESS, identity + struct.pack(">Q", seconds) + signature)


def parse(note: bytes) -> Checkpoint:
    """Return the checkpoint in a note. Raises BadInput for anything else; signatures are not checked here."""
    text, separator, rest = note.partition(b"\n\n")
    try:
        _, size, root = text.decode("ascii").split("\n")
        checkpoint = Checkpoint(
            int(size), base64.b64decode(root, validate=True), text + b"\n", _read_lines(rest.decode())
        )
    except (ValueError, binascii.Error):
        raise BadInput("not a checkpoint: an origin, a size, a root and signatures are expected") from None
    if (
        len(note) > MAX_NOTE
        or not separator
        or checkpoint.size < 0
        or len(checkpoint.root) != HASH_SIZE
        or _note(checkpoint) != note
    ):
        raise BadInput("not a checkpoint of this log: its origin, size or root has another form")
    return checkpoint


def signed_by_log(checkpoint: Checkpoint, key: Ed25519PublicKey) -> bool:
    """Whether the log signed this checkpoint with `key`."""
    identity = _key_id(ORIGIN, _LOG_TYPE, key)
    return any(
        name == ORIGIN and blob[:4] == identity and _verifies(key, blob[4:], checkpoint.text)
        for name, blob in checkpoint.lines
    )


def cosigned(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint has a line of a witness, whoever's; `cosigned_at` checks it."""
    return any(name == WITNESS for name, _ in checkpoint.lines)


def cosigned_at(checkpoint: Checkpoint, key: Ed25519PublicKey) -> datetime | None:
    """Return when the witness with `key` cosigned this checkpoint, UTC, or None where it did not."""
    identity = _key_id(WITNESS, _COSIGNATURE_TYPE, key)
    for name, blob in checkpoint.lines:
        if name != WITNESS or blob[:4] != identity or len(blob) != 4 + 8 + 64:
            continue
        (seconds,) = struct.unpack(">Q", blob[4:12])
        if seconds < NO_CALENDAR and _verifies(key, blob[12:], _cosigned(checkpoint.text, seconds)):
            return datetime.fromtimestamp(seconds, UTC)
    return None


def _note(checkpoint: Checkpoint) -> bytes:
    """Return the one note of a checkpoint."""
    lines = (_line(name, blob) for name, blob in checkpoint.lines)
    return _text(checkpoint.size, checkpoint.root) + b"\n" + b"".join(lines)


def _text(size: int, root: bytes) -> bytes:
    return f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def _cosigned(text: bytes, seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % seconds + text


def _key_id(name: str, kind: bytes, key: Ed25519PublicKey) -> bytes:
    return sha256(name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:4]


def _line(name: str, blob: bytes) -> bytes:
    return f"— {name} {base64.b64encode(blob).decode()}\n".encode()


def _read_lines(text: str) -> tuple[tuple[str, bytes], ...]:
    lines = []
    for line in text.splitlines():
        dash, name, blob = line.split(" ")
        if dash != "—":
            raise ValueError("not a signature line")
        lines.append((name, base64.b64decode(blob, validate=True)))
    return tuple(lines)


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
