"""The ledger's rows as bytes: what a population's budgets are, and what a release was charged.

A row's body is canonical JSON; its hash is SHA-256("unheard-ledger-1\\n" ‖ hash of the row before ‖ body).
The bytes are shared by the store that keeps the rows, the witness that adds them up, and the devices that
are shown the row that pays for a round.
"""

import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from fractions import Fraction
from hashlib import sha256
from typing import Any, Literal

from fa_core.canonical_json import canonical, utc_text
from fa_core.errors import BadInput
from fa_core.privacy.ledger import Charge, Currency, Policy

START = bytes(32)
"""What stands for the hash before the first row."""

_DOMAIN = b"unheard-ledger-1\n"


@dataclass(frozen=True, slots=True)
class Declaration:
    """A population's kind of ledger and its budgets, from `at` (UTC) on. The kind never changes.

    `signature` is the enrolment authority's (Ed25519, 64 bytes): devices and witness accept no other budgets.
    It is empty in rows that were written before budgets were signed.
    """

    population: str
    currency: Currency
    policy: Policy
    at: datetime
    signature: bytes = b""


def encode(value: Declaration | Charge) -> bytes:
    """Return the canonical JSON of a row. A charge of before charges had an `alpha` keeps its bytes."""
    record: dict[str, Any] = {"kind": "declare" if isinstance(value, Declaration) else "charge"}
    plain = _plain(value)
    if isinstance(value, Declaration) and not value.signature:
        del plain["signature"]
    return canonical(record | plain)


def decode(body: bytes) -> Declaration | Charge:
    """Return the value of a row. Raises BadInput for a body that `encode` would not have written."""
    try:
        record = json.loads(body)
        kind: Literal["declare", "charge"] = record.pop("kind")
        times = {key: datetime.fromisoformat(record[key]) for key in _TIMES if key in record}
        exact = {key: _exact(record[key]) for key in _EXACT if key in record}
        value: Declaration | Charge
        if kind == "charge":
            value = Charge(**(record | times | exact))
        else:
            policy = Policy(**{each.name: _exact(record["policy"][each.name]) for each in fields(Policy)})
            signature = bytes.fromhex(record.get("signature", ""))
            value = Declaration(**(record | times | {"policy": policy, "signature": signature}))
        if encode(value) == body:
            return value
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ZeroDivisionError,
        RecursionError,
        OverflowError,
    ):
        pass
    raise BadInput("the row is not one that a ledger holds")


def digest(before: bytes, body: bytes) -> bytes:
    """Return the hash of a row, 32 bytes, from the hash of the row before it and its own body."""
    return sha256(_DOMAIN + before + body).digest()


_TIMES = ("at", "window_start", "window_end")
_EXACT = ("cost", "epsilon", "delta", "alpha")
_NUMBER = re.compile(r"[0-9]{1,1000}(/[0-9]{1,1000})?")


def _exact(text: str) -> Fraction:
    """Return the number of a row. The form is checked first: "1e999999999" would be computed without end."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("not an exact number")
    return Fraction(text)


def _plain(row: Declaration | Charge | Policy) -> dict[str, Any]:
    """Return the fields of a row as JSON has them, without those that are None."""
    plain: dict[str, Any] = {}
    for each in fields(row):
        key, value = each.name, getattr(row, each.name)
        if value is None:
            continue
        if isinstance(value, Policy):
            plain[key] = _plain(value)
        elif isinstance(value, Fraction):
            plain[key] = str(value)
        elif isinstance(value, bytes):
            plain[key] = value.hex()
        else:
            plain[key] = utc_text(value) if isinstance(value, datetime) else value
    return plain
