"""Where a device reads what is published: a directory on its machine, or a gateway. It believes neither."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from clients.device.remote import Line, Unreachable
from fa_core.publication import directory


class Source(Protocol):
    """Files of a publication directory by name."""

    def read(self, name: str, most: int) -> bytes | None:
        """Return a file of at most `most` bytes, None where there is none. Raises Unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A publication directory on this machine."""

    folder: Path

    def read(self, name: str, most: int) -> bytes | None:
        """See `Source.read`."""
        data = directory.read(self.folder, name)
        return data if data is None or len(data) <= most else None


@dataclass(slots=True)
class Gateway:
    """A gateway's. A rollout's file, asked for again and again, is sent only where it changed.

    Attributes:
        line: of its own: the one that waits for rounds is busy.
    """

    line: Line
    _kept: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def read(self, name: str, most: int) -> bytes | None:
        """See `Source.read`."""
        if not directory.is_name(name):
            return None
        tag, kept = self._kept.get(name, ("", b""))
        status, found, data = self.line.published(name, most, tag)
        if status == 304:
            if not tag:
                raise Unreachable
            return kept
        if status == 404:
            return None
        if found and name.startswith("rollouts/"):
            self._kept = {name: (found, data)}
        return data
