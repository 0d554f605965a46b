"""The publication directory: static files that devices fetch, which any server may hold.

    models/<sha256>.json      the Publication of one "model" entry: the manifest of the artefact of that hash
    artefacts/<sha256>        the artefact's bytes
    rollouts/<sha256>.json    the Publication of a rollout's document and its newest manifest

A name outside this grammar names nothing, so no name leads out of the directory. A file is replaced in one
step: who reads it gets the whole old or the whole new one.
"""

import os
import re
import stat
import tempfile
from pathlib import Path

from fa_core.errors import BadInput
from fa_core.publication.artefact import MAX_SIZE
from fa_core.publication.proofs import MAX_BYTES

_NAME = re.compile(r"(models/[0-9a-f]{64}\.json|artefacts/[0-9a-f]{64}|rollouts/[0-9a-f]{64}\.json)")


def model_name(sha256: str) -> str:
    """Return the name of the publication of an artefact's manifest."""
    return f"models/{sha256}.json"


def artefact_name(sha256: str) -> str:
    """Return the name of an artefact's bytes."""
    return f"artefacts/{sha256}"


def is_name(name: str) -> bool:
    """Return whether a name is of the directory's grammar."""
    return _NAME.fullmatch(name) is not None


def most_bytes(name: str) -> int:
    """Return how many bytes the file of a name may have."""
    return MAX_SIZE if name.startswith("artefacts/") else MAX_BYTES


def write(folder: Path, name: str, data: bytes) -> None:
    """Write a file durably and whole. Raises BadInput where it cannot be written, or nobody would read it."""
    assert is_name(name), name
    path = folder / name
    if len(data) > most_bytes(name):
        raise BadInput(
            f"{path} cannot be written: it would have {len(data):,} bytes, and devices read at most "
            f"{most_bytes(name):,}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(part, 0o644)
            os.replace(part, path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}") from None


def read(folder: Path, name: str) -> bytes | None:
    """Return the bytes of a file; None for a name outside the grammar, for what is no plain file or is
    larger than `most_bytes`, and where there is nothing."""
    if not is_name(name):
        return None
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_size > most_bytes(name):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        data = file.read(most_bytes(name) + 1)
    return data if len(data) <= most_bytes(name) else None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
