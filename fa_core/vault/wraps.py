"""The key store: the encrypted shares of samples' keys, in small files of their own that are in no backup.

A sample opens with both of its shares. Destroying its files here is therefore the end of it, also in every
copy of the vault's database. A file is overwritten, synced and removed; a flash disk or a file system that
copies on write may keep the old blocks, so a disk for this folder alone, encrypted, is better still. MARKER
distinguishes a folder that is this vault's from an empty one, such as a disk that is not mounted.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fa_core.errors import BadInput

MARKER: Final = "do-not-back-up"


class Wraps:
    """Files `SAMPLE.NAME` in a folder, SAMPLE in hex. Writers hold the lock of the vault's database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def make(cls, folder: Path, vault: bytes) -> None:
        """Make a vault's folder. `vault` is its public key, 32 bytes."""
        folder.mkdir(mode=0o700)
        _write(folder / MARKER, vault.hex().encode() + b"\n")
        _sync(folder)

    def check(self, vault: bytes) -> None:
        """Raise BadInput where the folder is not this vault's."""
        try:
            there = (self._folder / MARKER).read_text("ascii").strip() == vault.hex()
        except (OSError, ValueError):
            there = False
        if not there:
            raise BadInput(
                f"{self._folder} is not this vault's key store: its file {MARKER} is missing or another's. "
                "Is the disk mounted? Without it no sample can be opened"
            )

    def keep(self, sample: bytes, name: str, data: bytes) -> None:
        """Write one file, whole, over one of the same name."""
        draft, final = (self._folder / f"{start}{sample.hex()}.{name}" for start in (".", ""))
        for path in (draft, final):
            _remove(path)
        _write(draft, data)
        draft.rename(final)
        _sync(self._folder)

    def read(self, sample: bytes, name: str) -> bytes | None:
        """Return a file, None where there is none."""
        try:
            return (self._folder / f"{sample.hex()}.{name}").read_bytes()
        except FileNotFoundError:
            return None

    def destroy(self, sample: bytes) -> None:
        """Overwrite and remove every file of a sample; on disk when this returns."""
        names = {*self._folder.glob(f"{sample.hex()}.*"), *self._folder.glob(f".{sample.hex()}.*")}
        for path in sorted(names):
            _remove(path)
        if names:
            _sync(self._folder)

    def samples(self) -> Iterator[bytes]:
        """Yield the samples that have files, drafts included."""
        found = {each.name.lstrip(".").partition(".")[0] for each in self._folder.iterdir()} - {MARKER}
        for name in sorted(found):
            try:
                yield bytes.fromhex(name)
            except ValueError:
                raise BadInput(f"{self._folder} holds {name}, which is no file of a vault") from None


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Overwrite a file and unlink it, where it is there."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return
    with file:
        file.write(bytes(os.fstat(file.fileno()).st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
