"""The witness's journal: what it signed, one file an entry."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Journal:
    """What was signed, one file an entry, in a directory that only the witness writes.

    An entry is written whole and synced under another name, then linked to its own. The link fails if there
    is one already, so the first wins, between processes as well, and a crash leaves all of an entry or none.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory

    def keep(self, name: str, entry: bytes) -> bytes:
        """The entry of this name: `entry` if there was none, else the one that was there."""
        final = self._directory / name
        with tempfile.NamedTemporaryFile(dir=self._directory, prefix=".") as draft:
            _write(draft.fileno(), entry)
            try:
                os.link(draft.name, final)
            except FileExistsError:
                return final.read_bytes()
        self._sync()
        return entry

    def read(self, name: str) -> bytes | None:
        """The entry of this name, if there is one."""
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, name: str, entry: bytes) -> None:
        """Put `entry` in the place of the one of this name; the caller must hold the lock."""
        draft = os.open(self._directory / f".{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _write(draft, entry)
        os.close(draft)
        os.rename(self._directory / f".{name}", self._directory / name)
        self._sync()

    def entries(self, ending: str) -> list[bytes]:
        """Every entry whose name ends so."""
        return [file.read_bytes() for file in sorted(self._directory.glob(f"*{ending}"))]

    def begin_with(self, start: str) -> list[bytes]:
        """Every entry whose name begins so."""
        return [file.read_bytes() for file in sorted(self._directory.glob(f"{start}*"))]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process and thread out."""
        with open(self._directory / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def _write(handle: int, data: bytes) -> None:
    with os.fdopen(handle, "wb", closefd=False) as file:
        file.write(data)
    os.fsync(handle)
