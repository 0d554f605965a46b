"""A Unix socket's place in the file system, and who is at its other end."""

import socket
import stat
import struct
from pathlib import Path

from fa_core.errors import Refused

_CREDENTIALS = struct.Struct("iII")


def clear(path: Path) -> None:
    """Remove a socket that nobody answers at any more; raise Refused for anything else that stands there."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise Refused(f"{path} is not a socket; it was left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise Refused(f"another process already serves {path}")


def peer(connection: socket.socket) -> int:
    """Return the user id at the other end of a Unix socket, as the kernel says (SO_PEERCRED)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    return int(user)
