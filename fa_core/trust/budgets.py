"""A population's privacy budgets, signed by the enrolment authority.

The authority decides who belongs to a population (its certificates name it) and what may be asked of it (this
signature). An aggregator that declared budgets by itself could double them with a second name.
"""

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.privacy.ledger_rows import Declaration, decode, encode
from fa_core.secagg.identity import signed
from fa_core.secagg.task import label


def sign(declared: Declaration, authority: Ed25519PrivateKey) -> Declaration:
    """Return the declaration with the authority's signature on everything else in it."""
    return replace(declared, signature=authority.sign(_message(declared)))


def is_signed(declared: Declaration, authority: bytes) -> bool:
    """Return whether the authority with this public key (raw Ed25519, 32 bytes) signed the declaration."""
    return signed(declared.signature, _message(declared), authority)


def read(body: bytes, authority: bytes) -> Declaration:
    """Return the declaration in a row's bytes. Raises BadInput unless the authority signed it."""
    declared = decode(body)
    if not isinstance(declared, Declaration) or not is_signed(declared, authority):
        raise BadInput("these are no budgets that the enrolment authority signed")
    return declared


def write_file(path: Path, declared: Declaration) -> None:
    """Write a signed declaration to a file, for the aggregator."""
    path.write_bytes(encode(declared) + b"\n")


def read_file(path: Path, authority: bytes) -> Declaration:
    """Return what `write_file` wrote. Raises BadInput with the file's name for anything else."""
    try:
        return read(path.read_bytes().strip(), authority)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}; `fa enrol population` makes such a file") from None


def _message(declared: Declaration) -> bytes:
    return label("population budgets") + encode(replace(declared, signature=b""))
